/** An upstream room of its own, and servers that say whatever bytes a test wants. */
import { createServer, type Socket } from 'node:net'
import { systemClock } from '../../src/lib/clock.ts'
import type { Budgets } from '../../src/upstream/budget-port.ts'
import { createUpstream, type Upstream, type UpstreamDeps } from '../../src/upstream/upstream.ts'
import { createTestLog } from '../harness.ts'

export interface TestUpstream extends Upstream, AsyncDisposable {
  readonly log: ReturnType<typeof createTestLog>
  /** To an address of this machine, as a feed does. */
  ask: Upstream['fetch']
}

/** Calls that name a budget have no business here. */
const noBudgets: Budgets = {
  take: (name) => Promise.reject(new Error(`no budget ${name}`)),
  stats: () => [],
  stop() {},
}

export function openUpstream(deps: Partial<UpstreamDeps> = {}): TestUpstream {
  const log = createTestLog()
  const upstream = createUpstream({ clock: systemClock, log, budgets: noBudgets, ...deps }, [])
  return {
    ...upstream,
    log,
    ask: (url, init) => upstream.fetch(url, { allowPrivate: true, ...init }),
    [Symbol.asyncDispose]: async () => await upstream.stop(),
  }
}

export interface RawServer extends AsyncDisposable {
  readonly url: string
  readonly port: number
  /** Heads of requests, in order. */
  readonly requests: readonly string[]
  /** That were opened. */
  readonly connections: number
  /** Ends them all. */
  cut(): void
}

/** `answer` writes to the socket what it likes; `nth` counts from 0. */
export async function rawServer(
  answer: (socket: Socket, head: string, nth: number) => void,
  host = '127.0.0.1',
): Promise<RawServer> {
  const requests: string[] = []
  const sockets = new Set<Socket>()
  let connections = 0
  const server = createServer((socket) => {
    connections++
    sockets.add(socket)
    let text = ''
    socket.on('error', () => {})
    socket.on('close', () => sockets.delete(socket))
    socket.on('data', (data: Buffer) => {
      text += data.toString('latin1')
      for (let end = text.indexOf('\r\n\r\n'); end !== -1; end = text.indexOf('\r\n\r\n')) {
        const head = text.slice(0, end)
        text = text.slice(end + 4)
        answer(socket, head, requests.push(head) - 1)
      }
    })
  })
  await new Promise<void>((resolve) => server.listen(0, host, resolve))
  const cut = (): void => {
    for (const socket of sockets) socket.destroy()
  }
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  return {
    url: `http://${host}:${port}`,
    port,
    requests,
    get connections() {
      return connections
    },
    cut,
    async [Symbol.asyncDispose]() {
      cut()
      await new Promise<void>((resolve) => void server.close(() => resolve()))
    },
  }
}

/** A whole answer as it goes over the wire. */
export function wire(status: string, headers: Readonly<Record<string, string>>, body = ''): string {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  return `HTTP/1.1 ${status}\r\n${lines.join('')}content-length: ${body.length}\r\n\r\n${body}`
}
