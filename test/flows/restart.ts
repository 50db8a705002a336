/**
 * A restart under everybody's feet: clients hear a topic that is published to without pause, the server is
 * sent SIGTERM and started again on the same port, and all come back. Run by restart.test.ts, small, and by
 * restart.bench.ts, with 15,000 clients.
 */
import { tempFolder, until } from '../harness.ts'
import { spawnBelfry, type BelfryProcess } from '../process.ts'
import { freePort } from '../services.ts'
import { createFleet, type Fleet } from './fleet.ts'

export interface RestartOptions {
  readonly size: number
  /** The topic's history outlives the process. */
  readonly persist: boolean
  readonly obedientShare: number
  readonly publishEveryMs: number
  /** What to run in place of Belfry's source. */
  readonly command?: readonly string[]
  readonly withinMs: number
}

export interface Restarted {
  readonly exitCode: number
  readonly recovered: number
  readonly told: number
  /** Publications that were acknowledged and that somebody has not heard, and was not told so. */
  readonly lost: readonly number[]
  readonly problems: readonly string[]
  readonly acknowledged: number
  readonly codes: ReadonlyMap<number, number>
  readonly failures: number
  readonly waitMsMax: number
  /** When somebody was back, in ms since the start of the new process, in order. */
  readonly backMs: readonly number[]
  /** What the new process said of its subscriptions, while they came back. */
  readonly counts: readonly Counted[]
  /** From SIGTERM to the end of the process, and to its successor's first words. */
  readonly drainedMs: number
  readonly upMs: number
}

/** So many at some time between the two, in ms since the start of the new process. */
export interface Counted {
  readonly askedMs: number
  readonly toldMs: number
  readonly subscriptions: number
}

/** Between two questions for them. */
const countEveryMs = 50

const topic = 'news'
const apiKey = 'restart-key'

const appFile = (persist: boolean): string => `
import { app, topic } from 'belfry'
export default app({
  name: 'restart',
  topics: {
    ${topic}: topic({ subscribe: 'public', history: { size: 5000, ttl: '1h' }, persist: ${persist} }),
  },
})
`

/** Enough that everybody has a position worth keeping. */
const publicationsBefore = 5

export async function restart(options: RestartOptions): Promise<Restarted> {
  const { size, persist, obedientShare, withinMs } = options
  using folder = tempFolder()
  await Bun.write(folder.file('app.ts'), appFile(persist))
  const port = await freePort()
  const start = (): Promise<BelfryProcess> =>
    spawnBelfry({
      ...(options.command ? { command: options.command } : {}),
      args: ['serve', 'app.ts'],
      cwd: folder.path,
      env: { PORT: String(port), API_KEY: apiKey, LOG_LEVEL: 'error' },
    })
  const publisher = createPublisher(port, options.publishEveryMs)
  const fleet = createFleet({ port, topic, size, obedientShare })
  try {
    await using before = await start()
    await fleet.open()
    await until(() => fleet.subscribed === size, `all ${size} hear the topic`, withinMs)
    publisher.start()
    const heard = () => fleet.countAt(publicationsBefore) === size
    await until(heard, `all ${size} hear what is published`, withinMs)

    const stoppedAt = performance.now()
    before.kill('SIGTERM')
    const exitCode = await before.exited
    const drainedMs = performance.now() - stoppedAt
    const startedAt = performance.now()
    await using _after = await start()
    const upMs = performance.now() - stoppedAt
    const counting = createCounting(port, startedAt)
    await until(() => fleet.subscribed === size, `all ${size} are back`, withinMs)
    const counts = await counting.stop()
    const last = await publisher.stop()
    await until(
      () => fleet.countAt(last) === size,
      `all ${size} hear the last publication`,
      withinMs,
    )
    const { recovered, told, problems, missed, codes, failures, waitMsMax } = fleet
    const backMs = fleet.connects.map((at) => at - startedAt).filter((ms) => ms > 0)
    return {
      exitCode,
      ...{ recovered, told, problems, codes, failures, waitMsMax, backMs, drainedMs, upMs, counts },
      acknowledged: publisher.acknowledged.size,
      lost: [...missed].filter((n) => publisher.acknowledged.has(n)),
    }
  } catch (cause) {
    throw new Error(`${stateOf(fleet, size)}: ${String(cause)}`, { cause })
  } finally {
    publisher.abandon()
    fleet.close()
  }
}

function stateOf({ subscribed, failures, problems }: Fleet, size: number): string {
  return `${subscribed} of ${size} hear the topic, ${failures} attempts failed, ${problems.join('; ') || 'no problems'}`
}

/** Numbers its publications; those that were not acknowledged may have been made or not. */
function createPublisher(port: number, everyMs: number) {
  const acknowledged = new Set<number>()
  let isOver = false
  let isAbandoned = false
  let running = Promise.resolve(0)
  const publish = async (n: number): Promise<boolean> => {
    const response = await fetch(`http://127.0.0.1:${port}/api/publish`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-api-key': apiKey },
      body: JSON.stringify({ channel: topic, data: { n } }),
    }).catch(() => undefined)
    const answer = response?.ok ? ((await response.json()) as { result?: object }) : undefined
    return answer?.result !== undefined
  }
  const run = async (): Promise<number> => {
    let n = 0
    let last = 0
    // Until one after the end is acknowledged: whoever has that has all.
    for (let isLast = false; !isLast && !isAbandoned;) {
      isLast = isOver
      n += 1
      if (await publish(n)) acknowledged.add((last = n))
      else isLast = false
      if (!isLast) await Bun.sleep(everyMs)
    }
    return last
  }
  return {
    acknowledged,
    start: () => void (running = run()),
    /** The last one's number. */
    stop: async () => {
      isOver = true
      return await running
    },
    abandon: () => void (isAbandoned = true),
  }
}

/** Asks the server, because what a busy client hears together was not said together. */
function createCounting(port: number, startedAt: number) {
  const counts: Counted[] = []
  let isOver = false
  const count = async (): Promise<void> => {
    const askedMs = performance.now() - startedAt
    const response = await fetch(`http://127.0.0.1:${port}/api/metrics`).catch(() => undefined)
    const found = /^belfry_subscriptions (\d+)/m.exec((await response?.text()) ?? '')
    const toldMs = performance.now() - startedAt
    if (found) counts.push({ askedMs, toldMs, subscriptions: Number(found[1]) })
  }
  const run = async (): Promise<void> => {
    for (; !isOver; await Bun.sleep(countEveryMs)) await count()
    await count()
  }
  const running = run()
  return {
    async stop() {
      isOver = true
      await running
      return counts
    },
  }
}

/** How many more than a bucket admits came between any two counts; negative: so many fewer. */
export function admittedBeyond(
  counts: readonly Counted[],
  perSecond: number,
  burst: number,
): number {
  let most = -Infinity
  for (const [at, from] of counts.entries()) {
    for (const to of counts.slice(at + 1)) {
      const seconds = (to.toldMs - from.askedMs) / 1_000
      const came = to.subscriptions - from.subscriptions
      most = Math.max(most, came - burst - perSecond * seconds)
    }
  }
  return Math.round(most)
}
