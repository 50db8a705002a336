/** A lean HTTP load on loopback: keep-alive connections, one request outstanding on each. */

export interface LoadOptions {
  readonly port: number
  readonly path: string
  readonly connections: number
  readonly requests: number
  readonly headers?: Readonly<Record<string, string>>
}

/** Resolves when all requests are answered; throws at the first answer that is not 200. */
export async function httpLoad({
  port,
  path,
  connections,
  requests,
  headers = {},
}: LoadOptions): Promise<void> {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  const request = Buffer.from(
    `GET ${path} HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\n${lines.join('')}\r\n`,
  )
  let toSend = requests
  let toCome = requests
  const done = Promise.withResolvers<void>()

  interface State {
    left: number
  }
  const open = () =>
    Bun.connect<State>({
      hostname: '127.0.0.1',
      port,
      socket: {
        open(socket) {
          socket.data = { left: 0 }
          toSend--
          socket.write(request)
        },
        data(socket, chunk) {
          const { data } = socket
          if (data.left > 0) data.left -= chunk.length
          else {
            const head = chunk.toString('latin1', 0, 1024)
            if (!head.startsWith('HTTP/1.1 200')) return done.reject(new Error(head.slice(0, 200)))
            const length = Number(/content-length: (\d+)/i.exec(head)?.[1])
            data.left = head.indexOf('\r\n\r\n') + 4 + length - chunk.length
          }
          if (data.left > 0) return
          if (--toCome === 0) return done.resolve()
          if (toSend > 0) {
            toSend--
            socket.write(request)
          }
        },
        error: (_, error) => done.reject(error),
      },
    })
  const sockets = await Promise.all(Array.from({ length: connections }, open))
  await done.promise
  for (const socket of sockets) socket.end()
}

/** User and system time of a process so far, in seconds. Linux. */
export async function cpuSeconds(pid: number): Promise<number> {
  const stat = await Bun.file(`/proc/${pid}/stat`).text()
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const ticksPerSecond = 100
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[sorted.length >> 1] ?? Number.NaN
}
