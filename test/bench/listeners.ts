/**
 * Many live subscribers in a process of their own, so that who measures a write does not wait for their
 * own ten thousand sockets: `bun listeners.ts <belfry|pocketbase> <port>` is the child.
 */
import { openBatch } from './audience.ts'
import { handshake, masked, ping, pong } from './wire.ts'

export type Kind = 'belfry' | 'pocketbase'

export const liveTopic = 'notes'

type Order =
  | { readonly kind: 'open'; readonly count: number }
  | { readonly kind: 'reach'; readonly heard: number; readonly withinMs: number }

export interface Listeners {
  /** Until so many listen in all. */
  open(count: number): Promise<void>
  /** Resolves when so many deliveries have come in all, or none came for long; tells how many. */
  reach(heard: number, withinMs: number): Promise<number>
  stop(): void
}

export function startListeners(kind: Kind, port: number): Listeners {
  const waiting: ((heard: number) => void)[] = []
  const child = Bun.spawn([process.execPath, import.meta.path, kind, String(port)], {
    stdio: ['ignore', 'inherit', 'inherit'],
    ipc: (heard) => waiting.shift()?.(heard as number),
  })
  const ask = (order: Order) =>
    new Promise<number>((resolve) => {
      waiting.push(resolve)
      child.send(order)
    })
  return {
    open: async (count) => void (await ask({ kind: 'open', count })),
    reach: (heard, withinMs) => ask({ kind: 'reach', heard, withinMs }),
    stop: () => child.kill('SIGKILL'),
  }
}

/** What a subscriber does, from the outside. */
interface Protocol {
  readonly hello: Uint8Array
  /** Each publication has it once. */
  readonly delivery: Buffer
  /** The first answer came: asks for the topic, and says whether it listens then. */
  subscribe(socket: Bun.Socket<State>, chunk: Buffer): Promise<void>
}

interface State {
  step: 'hello' | 'subscribing' | 'open'
  opened(): void
}

function protocolOf(kind: Kind, port: number): Protocol {
  if (kind === 'belfry') {
    const command = masked(`{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"${liveTopic}"}}`)
    return {
      hello: Buffer.from(handshake(port)),
      delivery: Buffer.from('{"push":'),
      subscribe: async (socket) => void socket.write(command),
    }
  }
  const url = `http://127.0.0.1:${port}/api/realtime`
  return {
    hello: Buffer.from(`GET /api/realtime HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n\r\n`),
    delivery: Buffer.from(`event:${liveTopic}`),
    async subscribe({ data }, chunk) {
      const clientId = /"clientId":"(\w+)"/.exec(chunk.toString('latin1'))?.[1]
      const body = JSON.stringify({ clientId, subscriptions: [liveTopic] })
      const headers = { 'content-type': 'application/json' }
      const response = await fetch(url, { method: 'POST', headers, body })
      if (!response.ok) throw new Error(`${response.status} ${await response.text()}`)
      data.step = 'open'
      data.opened()
    },
  }
}

function listen(kind: Kind, port: number): void {
  const { hello, delivery, subscribe } = protocolOf(kind, port)
  let heard = 0
  let goal = Infinity
  let reached = (): void => {}
  let count = 0

  const hear = (socket: Bun.Socket<State>, chunk: Buffer): void => {
    const { data } = socket
    if (data.step === 'open') {
      for (let at = chunk.indexOf(delivery); at >= 0; at = chunk.indexOf(delivery, at + 1)) heard++
      if (kind === 'belfry' && chunk.includes(ping)) socket.write(pong)
      if (heard >= goal) reached()
    } else if (data.step === 'hello') {
      data.step = 'subscribing'
      void subscribe(socket, chunk)
    } else if (kind === 'belfry') {
      data.step = 'open'
      data.opened()
    }
  }
  const openOne = async (): Promise<void> => {
    const { promise, resolve } = Promise.withResolvers<void>()
    await Bun.connect<State>({
      hostname: '127.0.0.1',
      port,
      data: { step: 'hello', opened: resolve },
      socket: { open: (socket) => void socket.write(hello), data: hear, error: () => {} },
    })
    await promise
  }
  const obey = async (order: Order): Promise<void> => {
    if (order.kind === 'open') {
      while (count < order.count) {
        const batch = Math.min(openBatch, order.count - count)
        await Promise.all(Array.from({ length: batch }, openOne))
        count += batch
      }
    } else if (heard < order.heard) {
      const { promise, resolve } = Promise.withResolvers<void>()
      goal = order.heard
      reached = resolve
      const timer = setTimeout(resolve, order.withinMs)
      await promise
      clearTimeout(timer)
      goal = Infinity
    }
    process.send?.(heard)
  }
  process.on('message', (order: Order) => void obey(order))
  process.on('disconnect', () => process.exit())
}

if (import.meta.main) listen(process.argv[2] as Kind, Number(process.argv[3]))
