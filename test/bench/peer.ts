/** Servers to compare, each a child process of its own, and the lean subscribers that load them. */
import { cpuSeconds, pinned } from './load.ts'

/** Raw `Bun.serve` publish is the bound; the others are this room behind its own doors. */
export const peerNames = ['raw', 'belfry', 'belfry-sse'] as const
export type PeerName = (typeof peerNames)[number]

export interface Peer {
  readonly name: PeerName
  readonly port: number
  /** Publishes `count` in one tick; resolves when the child has done it. */
  publish(count: number): Promise<void>
  /** Watches the child's event loop from now on; tells its longest block since the last call, in ms. */
  watch(): Promise<number>
  /** After a garbage collection in the child. */
  rssBytes(): Promise<number>
  /** Sockets or streams that hear the topic. */
  subscribers(): Promise<number>
  cpuSeconds(): Promise<number>
  stop(): void
}

export type Order =
  | { readonly kind: 'publish'; readonly count: number }
  | { readonly kind: 'report' }
  | { readonly kind: 'watch' }

export interface Report {
  readonly port: number
  readonly rssBytes: number
  readonly subscribers: number
  readonly blockMs: number
}

export async function startPeer(name: PeerName): Promise<Peer> {
  const waiting: ((report: Report) => void)[] = []
  const first = Promise.withResolvers<Report>()
  waiting.push(first.resolve)
  const child = Bun.spawn(
    [...pinned, process.execPath, `${import.meta.dir}/peer.server.ts`, name],
    {
      stdio: ['ignore', 'inherit', 'inherit'],
      ipc: (report) => waiting.shift()?.(report as Report),
    },
  )
  const ask = (order: Order) =>
    new Promise<Report>((resolve) => {
      waiting.push(resolve)
      child.send(order)
    })
  const { port } = await first.promise
  return {
    name,
    port,
    publish: async (count) => void (await ask({ kind: 'publish', count })),
    watch: async () => (await ask({ kind: 'watch' })).blockMs,
    rssBytes: async () => (await ask({ kind: 'report' })).rssBytes,
    subscribers: async () => (await ask({ kind: 'report' })).subscribers,
    cpuSeconds: () => cpuSeconds(child.pid),
    stop: () => child.kill(),
  }
}

/** Received so far by all subscribers, without handshakes, replies and pings. */
export interface Audience {
  readonly bytes: () => number
  /** Resolves when `bytes()` has reached it; fails after `withinMs`. */
  reach(bytes: number, withinMs?: number): Promise<void>
  close(): void
}

export const handshake = (port: number) =>
  `GET /connection/websocket HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUpgrade: websocket\r\n` +
  'Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n'

const eventRequest = (port: number) =>
  `GET /api/stream?topics=${topicName} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n\r\n`

export const topicName = 'bench'

/** 128 bytes of JSON. */
export const sample = { at: 1_767_225_600_000, price: 87.31, text: 'x'.repeat(128 - 46) }

/** A masked text frame; the mask is zero, which is allowed and costs nothing. */
export function masked(text: string): Uint8Array {
  const payload = Buffer.from(text)
  return Buffer.concat([Buffer.from([0x81, 0x80 | payload.length, 0, 0, 0, 0]), payload])
}

const subscribe = masked(`{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"${topicName}"}}`)
export const pong = masked('{}')
export const ping = Buffer.from([0x81, 0x02, 0x7b, 0x7d])

/** Sockets opened at a time: below what a listen queue holds. */
export const openBatch = 200

export async function openAudience(peer: Peer, count: number): Promise<Audience> {
  let bytes = 0
  let goal = Infinity
  let reached = () => {}
  interface State {
    /** Handshake answered, then (belfry) replies: from then on bytes count. */
    step: 'handshake' | 'replies' | 'open'
  }
  let open = 0
  const hear = (socket: Bun.Socket<State>, chunk: Buffer) => {
    const { data } = socket
    if (data.step === 'open') {
      bytes += chunk.length
      if (chunk.includes(ping)) {
        bytes -= ping.length
        socket.write(pong)
      }
      if (bytes >= goal) reached()
    } else if (data.step === 'handshake' && peer.name === 'belfry') {
      socket.write(subscribe)
      data.step = 'replies'
    } else {
      data.step = 'open'
      open += 1
      // Its turn to be pinged may come right after the replies.
      if (chunk.includes(ping)) socket.write(pong)
    }
  }
  const sockets: Bun.Socket<State>[] = []
  let isClosing = false
  const closed = () => {
    if (!isClosing) console.error(`${peer.name} closed a subscriber`)
  }
  const request = Buffer.from(
    peer.name === 'belfry-sse' ? eventRequest(peer.port) : handshake(peer.port),
  )
  while (sockets.length < count) {
    const batch = Array.from({ length: Math.min(openBatch, count - sockets.length) }, () =>
      Bun.connect<State>({
        hostname: '127.0.0.1',
        port: peer.port,
        data: { step: 'handshake' },
        socket: {
          open: (socket) => void socket.write(request),
          data: hear,
          close: closed,
          error: () => {},
        },
      }),
    )
    sockets.push(...(await Promise.all(batch)))
  }
  while (open < count || (await peer.subscribers()) < count) await Bun.sleep(10)
  return {
    bytes: () => bytes,
    async reach(wanted, withinMs = 20_000) {
      if (bytes >= wanted) return
      const { promise, resolve, reject } = Promise.withResolvers<void>()
      const timer = setTimeout(
        () => reject(new Error(`${peer.name}: ${bytes} of ${wanted} bytes came`)),
        withinMs,
      )
      goal = wanted
      reached = resolve
      await promise
      goal = Infinity
      clearTimeout(timer)
    },
    close() {
      isClosing = true
      for (const socket of sockets) socket.terminate()
    },
  }
}
