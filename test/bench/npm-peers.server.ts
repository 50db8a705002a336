/**
 * The child of `peer.ts` that serves `ws` or Socket.IO, on Bun and on Node, as their manuals have it: under
 * Bun `ws` is what Bun gives whoever imports it.
 */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Order, Report } from './peer.ts'
import { pushText, sample, topicName } from './wire.ts'

/** As much of both as is used; they are fetched when a bench runs, so there are no types. */
interface WebSocketServer {
  readonly clients: ReadonlySet<{ send(data: string): void }>
  on(event: 'connection', heard: (socket: { send(data: string): void }) => void): void
}
interface SocketServer {
  readonly engine: { readonly clientsCount: number }
  on(event: 'connection', heard: (socket: { join(room: string): void }) => void): void
  to(room: string): { emit(event: string, data: unknown): void }
}
type Make<Server> = new (
  options: Readonly<Record<string, unknown>> | object,
  more?: object,
) => Server

interface Served {
  publish(): void
  subscribers(): number
}

const http = createServer()
const packageName = process.argv[2] ?? ''
const library: unknown = await import(packageName)
const served =
  packageName === 'ws'
    ? serveWs((library as { WebSocketServer: Make<WebSocketServer> }).WebSocketServer)
    : serveSocketIo((library as { Server: Make<SocketServer> }).Server)

function serveWs(Make: Make<WebSocketServer>): Served {
  const server = new Make({ server: http, perMessageDeflate: false })
  let offset = 0
  server.on('connection', (socket) => socket.send('{}'))
  return {
    publish() {
      offset += 1
      const text = pushText(offset)
      for (const client of server.clients) client.send(text)
    },
    subscribers: () => server.clients.size,
  }
}

function serveSocketIo(Make: Make<SocketServer>): Served {
  const server = new Make(http, { transports: ['websocket'], serveClient: false })
  server.on('connection', (socket) => socket.join(topicName))
  return {
    publish: () => server.to(topicName).emit('pub', sample),
    subscribers: () => server.engine.clientsCount,
  }
}

const collect = (globalThis as { gc?: () => void }).gc
const report = (): Report => ({
  port: (http.address() as AddressInfo).port,
  subscribers: served.subscribers(),
  blockMs: 0,
})

process.on('message', (order: Order) => {
  if (order.kind === 'publish') for (let n = 0; n < order.count; n += 1) served.publish()
  else if (order.kind === 'report') {
    if (typeof Bun === 'undefined') collect?.()
    else Bun.gc(true)
  }
  process.send?.(report())
})
process.on('disconnect', () => process.exit())
http.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, () => process.send?.(report()))
