/**
 * A restart under everybody's feet: clients hear a topic that is published to without pause, the server is
 * sent SIGTERM and started again on the same port, and all come back. Run by restart.test.ts, small, and by
 * restart.bench.ts, with 15,000 clients.
 */
import { must } from '../../src/lib/assert.ts'
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
  /** From SIGTERM to the end of the process, and to its successor's first words. */
  readonly drainedMs: number
  readonly upMs: number
}

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
    await until(() => fleet.subscribed === size, `all ${size} are back`, withinMs)
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
      ...{ recovered, told, problems, codes, failures, waitMsMax, backMs, drainedMs, upMs },
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

/** The most that came within one second, anywhere among these moments. */
export function busiestSecond(momentsMs: readonly number[]): number {
  let most = 0
  let from = 0
  for (const [to, at] of momentsMs.entries()) {
    while (must(momentsMs[from], () => 'from is not after to') <= at - 1_000) from += 1
    most = Math.max(most, to - from + 1)
  }
  return most
}
