/** A lean HTTP load on loopback: keep-alive connections, one request outstanding on each. */

export interface HttpRequest {
  readonly method?: 'GET' | 'POST'
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  /** Sent as JSON. */
  readonly body?: unknown
}

export interface LoadOptions extends HttpRequest {
  readonly port: number
  readonly connections: number
  readonly requests: number
}

/** The same request again and again. Throws at the first answer that is not a success. */
export async function httpLoad({ port, connections, requests, ...rest }: LoadOptions) {
  const request = requestBytes(port, rest)
  return await httpStream({ port, connections, next: (n) => (n < requests ? request : undefined) })
}

export interface StreamOptions {
  readonly port: number
  readonly connections: number
  /** The nth request, from 0; undefined ends the load. */
  next(n: number): Uint8Array | undefined
}

export interface LoadResult {
  readonly requests: number
  /** Answers that say `x-cache: hit`. */
  readonly hits: number
}

/** Sends what `next` gives until it gives nothing; resolves when all of it is answered. */
export async function httpStream({ port, connections, next }: StreamOptions): Promise<LoadResult> {
  let sent = 0
  let answered = 0
  let hits = 0
  let isOver = false
  const done = Promise.withResolvers<void>()

  const send = (socket: Bun.Socket<Answers>): void => {
    const request = isOver ? undefined : next(sent)
    if (request === undefined) {
      isOver = true
      if (answered === sent) done.resolve()
      return
    }
    sent++
    socket.write(request)
  }
  const open = () =>
    Bun.connect<Answers>({
      hostname: '127.0.0.1',
      port,
      data: new Answers(),
      socket: {
        open: send,
        data(socket, chunk) {
          const answer = socket.data.read(chunk)
          if (answer === undefined) return
          if (!answer.isSuccess) return done.reject(new Error(answer.head))
          if (/\r\nx-cache: hit/i.test(answer.head)) hits++
          answered++
          send(socket)
        },
        close: () => done.reject(new Error(`the server on port ${port} closed a connection`)),
        error: (_, error) => done.reject(error),
      },
    })
  const sockets = await Promise.all(Array.from({ length: connections }, open))
  await done.promise
  for (const socket of sockets) socket.end()
  return { requests: answered, hits }
}

/** One connection, one request at a time. */
export interface HttpClient {
  /** Milliseconds from the request to the end of its answer. */
  ask(request: Uint8Array): Promise<number>
  close(): void
}

export async function httpClient(port: number): Promise<HttpClient> {
  let waiting = Promise.withResolvers<void>()
  const fail = (error: Error): void => waiting.reject(error)
  const socket = await Bun.connect<Answers>({
    hostname: '127.0.0.1',
    port,
    data: new Answers(),
    socket: {
      data({ data }, chunk) {
        const answer = data.read(chunk)
        if (answer?.isSuccess === false) fail(new Error(answer.head))
        else if (answer) waiting.resolve()
      },
      close: () => fail(new Error(`the server on port ${port} closed a connection`)),
      error: (_, error) => fail(error),
    },
  })
  return {
    async ask(request) {
      waiting = Promise.withResolvers()
      const at = performance.now()
      socket.write(request)
      await waiting.promise
      return performance.now() - at
    },
    close() {
      waiting.promise.catch(() => {})
      socket.end()
    },
  }
}

/** Connections that stay open between loads. */
export interface HttpPool {
  /** So many of the same request; resolves when all are answered. */
  run(requests: number): Promise<void>
  close(): void
}

export async function httpPool(
  options: HttpRequest & { readonly port: number; readonly connections: number },
): Promise<HttpPool> {
  const { port, connections, ...rest } = options
  const request = requestBytes(port, rest)
  let done = Promise.withResolvers<void>()
  let toSend = 0
  let toCome = 0
  let isOver = false
  const fail = (error: Error): void => (isOver ? undefined : done.reject(error))
  const send = (socket: Bun.Socket<Answers>): void => {
    if (toSend === 0) return
    toSend--
    socket.write(request)
  }
  const open = () =>
    Bun.connect<Answers>({
      hostname: '127.0.0.1',
      port,
      data: new Answers(),
      socket: {
        data(socket, chunk) {
          const answer = socket.data.read(chunk)
          if (answer === undefined) return
          if (!answer.isSuccess) return fail(new Error(answer.head))
          if (--toCome === 0) done.resolve()
          else send(socket)
        },
        close: () => fail(new Error(`the server on port ${port} closed a connection`)),
        error: (_, error) => fail(error),
      },
    })
  const sockets = await Promise.all(Array.from({ length: connections }, open))
  return {
    async run(requests) {
      done = Promise.withResolvers()
      toSend = toCome = requests
      for (const socket of sockets) send(socket)
      await done.promise
    },
    close() {
      isOver = true
      for (const socket of sockets) socket.end()
    },
  }
}

const headBytes = 1024
const none = Buffer.alloc(0)
const lastChunk = Buffer.from('\r\n0\r\n\r\n')

/** Tells where an answer ends: with a length, or chunked. */
class Answers {
  /** Bytes still to come; Infinity: until the last chunk. */
  #left = 0
  #head = ''
  /** Of a head that came in pieces, as before a large body. */
  #early = none

  /** What has been answered, once it is there whole. */
  read(bytes: Buffer): { readonly head: string; readonly isSuccess: boolean } | undefined {
    let chunk = bytes
    if (this.#left === 0) {
      if (this.#early.length > 0) chunk = Buffer.concat([this.#early, bytes])
      const isWhole = chunk.includes('\r\n\r\n')
      this.#early = isWhole ? none : Buffer.from(chunk)
      if (!isWhole) return undefined
      this.#head = chunk.toString('latin1', 0, headBytes)
      const length = /\r\ncontent-length: (\d+)/i.exec(this.#head)?.[1]
      const bodyAt = this.#head.indexOf('\r\n\r\n') + 4
      this.#left = length === undefined ? Infinity : bodyAt + Number(length)
    }
    // JSON has no line break of its own: this is the end of a chunked body, and of nothing else.
    if (this.#left !== Infinity) this.#left -= chunk.length
    else if (lastChunk.equals(chunk.subarray(-lastChunk.length))) this.#left = 0
    if (this.#left > 0) return undefined
    return { head: this.#head, isSuccess: /^HTTP\/1.1 20\d/.test(this.#head) }
  }
}

/** A request as it goes over the wire. */
export function requestBytes(port: number, request: HttpRequest): Uint8Array {
  const { method = 'GET', path, headers = {}, body } = request
  const text = body === undefined ? '' : JSON.stringify(body)
  const lines = Object.entries({
    host: `127.0.0.1:${port}`,
    ...headers,
    ...(body !== undefined && {
      'content-type': 'application/json',
      'content-length': String(Buffer.byteLength(text)),
    }),
  }).map(([name, value]) => `${name}: ${value}\r\n`)
  return Buffer.from(`${method} ${path} HTTP/1.1\r\n${lines.join('')}\r\n${text}`)
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

/** The value that `share` of them are below. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

/** For tables: two digits after the point below ten, one below a hundred, none above. */
export function rounded(value: number): number {
  const digits = Math.abs(value) < 10 ? 2 : Math.abs(value) < 100 ? 1 : 0
  return Number(value.toFixed(digits))
}

/** Servers are bound to core 0 where `taskset` exists, so that they and their load do not take each other's time. */
export const pinned = Bun.which('taskset') === null ? [] : ['taskset', '-c', '0']
