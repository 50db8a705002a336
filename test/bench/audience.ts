/** Lean subscribers of a peer: they count deliveries, answer pings and do nothing else. */
import { until } from '../harness.ts'
import type { Peer } from './peer.ts'
import { mark, type Protocol } from './wire.ts'

/** As much of a peer as is heard. */
export type Heard = Pick<Peer, 'name' | 'port' | 'protocol' | 'subscribers'>

export interface Audience {
  /** Resolves when so many deliveries have come in all; fails after `withinMs`. */
  reach(deliveries: number, withinMs?: number): Promise<void>
  /** From now on: calls it with how many came at once. */
  onDeliveries: ((count: number) => void) | undefined
  close(): void
}

/** Sockets opened at a time: below what a listen queue holds. */
export const openBatch = 200

const openMsMax = 60_000

const markBytes = Buffer.from(mark)

interface State {
  /** Of the protocol's steps: those that are done. */
  step: number
  /** Since the last one. */
  heard: string
  /** How much of a mark the last chunk ended with. */
  begun: number
}

/** Marks that end in this chunk. */
function count(data: State, chunk: Buffer): number {
  let found = 0
  let at = 0
  if (data.begun > 0) {
    const rest = markBytes.subarray(data.begun)
    if (rest.equals(chunk.subarray(0, rest.length))) {
      found += 1
      at = rest.length
    }
  }
  for (at = chunk.indexOf(markBytes, at); at >= 0; at = chunk.indexOf(markBytes, at + 1)) found += 1
  const last = chunk.length - 1
  if (chunk[last] === markBytes[0]) data.begun = 1
  else data.begun = chunk[last] === markBytes[1] && chunk[last - 1] === markBytes[0] ? 2 : 0
  return found
}

export async function openAudience(peer: Heard, size: number): Promise<Audience> {
  const protocol: Protocol = peer.protocol
  const { steps, ping, pong } = protocol
  let delivered = 0
  let goal = Infinity
  let reached = () => {}
  let open = 0
  let isClosing = false

  const greet = (socket: Bun.Socket<State>, chunk: Buffer): void => {
    const { data } = socket
    data.heard += chunk.toString('latin1')
    for (let step = steps[data.step]; step; step = steps[data.step]) {
      const at = data.heard.indexOf(step.until)
      if (at === -1) return
      data.heard = data.heard.slice(at + step.until.length)
      data.step += 1
      if (step.say) socket.write(step.say)
    }
    data.heard = ''
    open += 1
  }
  const hear = (socket: Bun.Socket<State>, chunk: Buffer): void => {
    if (ping && pong && chunk.includes(ping)) socket.write(pong)
    if (socket.data.step < steps.length) return greet(socket, chunk)
    const came = count(socket.data, chunk)
    delivered += came
    audience.onDeliveries?.(came)
    if (delivered >= goal) reached()
  }
  const audience: Audience = {
    onDeliveries: undefined,
    async reach(wanted, withinMs = 30_000) {
      if (delivered >= wanted) return
      const { promise, resolve, reject } = Promise.withResolvers<void>()
      const timer = setTimeout(
        () => reject(new Error(`${peer.name}: ${delivered} of ${wanted} deliveries came`)),
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
  const closed = () => {
    if (!isClosing) console.error(`${peer.name} closed a subscriber`)
  }
  const hello = Buffer.from(protocol.hello(peer.port))
  const sockets: Bun.Socket<State>[] = []
  while (sockets.length < size) {
    const batch = Array.from({ length: Math.min(openBatch, size - sockets.length) }, () =>
      Bun.connect<State>({
        hostname: '127.0.0.1',
        port: peer.port,
        data: { step: 0, heard: '', begun: 0 },
        socket: {
          open: (socket) => void socket.write(hello),
          data: hear,
          close: closed,
          error: () => {},
        },
      }),
    )
    sockets.push(...(await Promise.all(batch)))
  }
  const isOpen = async () => open === size && (await peer.subscribers()) >= size
  await until(isOpen, `${size} subscribers of ${peer.name}`, openMsMax)
  return audience
}
