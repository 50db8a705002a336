/**
 * A peer and its audience, in a process of their own: so that many of them can be open at once, each with
 * as many sockets as a process may hold, and be measured slice by slice in turn. `bun stand.ts <peer>` is the child.
 */
import { openAudience, type Audience } from './audience.ts'
import { startPeer, type Peer, type PeerName } from './peer.ts'

export interface Slice {
  readonly deliveries: number
  readonly cpuSeconds: number
  readonly seconds: number
}

type Order =
  | { readonly kind: 'open'; readonly count: number }
  | { readonly kind: 'slice'; readonly perTick: number; readonly forMs: number }
  | { readonly kind: 'block'; readonly perTick: number }
  | { readonly kind: 'delays'; readonly publications: number; readonly restMs: number }

export interface Stand {
  readonly name: PeerName
  open(count: number): Promise<void>
  /** Publishes again and again, one tick's at a time, for so long. */
  slice(perTick: number, forMs: number): Promise<Slice>
  /** Longest CPU time in which the server's event loop did nothing else; 0 or undefined where that is not known. */
  block(perTick: number): Promise<number | undefined>
  /** From a publication to each of its deliveries, in ms: so many of each tenth. */
  delays(publications: number, restMs: number): Promise<readonly number[]>
  stop(): Promise<void>
}

/** Of a ms: what delays are counted by. */
export const delayStepMs = 0.1

/** What takes longer has gone wrong. */
const answerMsMax = 90_000
const endMsMax = 5_000

/** Longer ones are counted as this. */
const delayMsMax = 20_000

/** Times that the event loop is watched: by a timer, so not while it is measured what a delivery costs. */
const watchedTimes = 5

export function startStand(name: PeerName): Stand {
  const waiting: ((answer: unknown) => void)[] = []
  const child = Bun.spawn([process.execPath, import.meta.path, name], {
    stdio: ['ignore', 'inherit', 'inherit'],
    ipc: (answer) => waiting.shift()?.(answer),
  })
  const died = child.exited.then((code) => {
    throw new Error(`the stand of ${name} ended with ${code}`)
  })
  died.catch(() => {})
  const ask = async (order: Order): Promise<unknown> => {
    const answer = new Promise<unknown>((resolve) => void waiting.push(resolve))
    child.send(order)
    const { promise: late, reject } = Promise.withResolvers<never>()
    const timer = setTimeout(
      () => reject(new Error(`${name} has not answered ${JSON.stringify(order)}`)),
      answerMsMax,
    )
    try {
      return await Promise.race([answer, died, late])
    } finally {
      clearTimeout(timer)
    }
  }
  return {
    name,
    open: async (count) => void (await ask({ kind: 'open', count })),
    slice: async (perTick, forMs) => (await ask({ kind: 'slice', perTick, forMs })) as Slice,
    block: async (perTick) => ((await ask({ kind: 'block', perTick })) as [number?])[0],
    delays: async (publications, restMs) =>
      (await ask({ kind: 'delays', publications, restMs })) as number[],
    async stop() {
      child.kill()
      await Promise.race([child.exited, Bun.sleep(endMsMax)])
      child.kill('SIGKILL')
      await child.exited
    },
  }
}

/** The child. */
class Running {
  readonly peer: Peer
  #audience: Audience | undefined
  #count = 0
  #expected = 0

  constructor(peer: Peer) {
    this.peer = peer
  }

  async obey(order: Order): Promise<unknown> {
    if (order.kind === 'open') return await this.open(order.count)
    if (order.kind === 'slice') return await this.slice(order)
    if (order.kind === 'block') return [await this.block(order.perTick)]
    return await this.delays(order)
  }

  async open(count: number): Promise<void> {
    this.#audience = await openAudience(this.peer, count)
    this.#count = count
  }

  async publish(count: number): Promise<void> {
    this.#expected += this.#count * count
    await Promise.all([this.peer.publish(count), this.#audience?.reach(this.#expected)])
  }

  async slice({ perTick, forMs }: { perTick: number; forMs: number }): Promise<Slice> {
    const cpu = await this.peer.cpuSeconds()
    const startedAt = performance.now()
    let times = 0
    do {
      await this.publish(perTick)
      times += 1
    } while (performance.now() - startedAt < forMs)
    const seconds = (performance.now() - startedAt) / 1_000
    const cpuSeconds = (await this.peer.cpuSeconds()) - cpu
    return { deliveries: times * perTick * this.#count, cpuSeconds, seconds }
  }

  async block(perTick: number): Promise<number | undefined> {
    if (!this.peer.watch) return undefined
    await this.peer.watch()
    for (let n = 0; n < watchedTimes; n += 1) await this.publish(perTick)
    return await this.peer.watch()
  }

  async delays(order: { publications: number; restMs: number }): Promise<number[]> {
    const { publications, restMs } = order
    const counts: number[] = []
    if (!this.#audience) return counts
    let at = 0
    this.#audience.onDeliveries = (count) => {
      const ms = Math.min(performance.now() - at, delayMsMax)
      const step = Math.round(ms / delayStepMs)
      counts[step] = (counts[step] ?? 0) + count
    }
    for (let n = 0; n < publications; n += 1) {
      await Bun.sleep(restMs)
      at = performance.now()
      await this.publish(1)
    }
    this.#audience.onDeliveries = undefined
    return Array.from(counts, (count) => count ?? 0)
  }
}

if (import.meta.main) {
  const peer = await startPeer(process.argv[2] as PeerName)
  const running = new Running(peer)
  const end = (): void => {
    peer.stop()
    process.exit()
  }
  process.on('SIGTERM', end)
  process.on('disconnect', end)
  process.on('message', (order: Order) => {
    running.obey(order).then(
      (answer) => process.send?.(answer ?? {}),
      (error: unknown) => {
        console.error(error)
        end()
      },
    )
  })
}
