/**
 * A process that loads ever new answers of 100 KB into a memory tier, as a server would (rows to text, text to bytes,
 * bytes to a response), and says what it weighs and how long it stood still:
 * `bun cache-memory.fixture.ts <how> <bytes max> <requests>`.
 */
import { edenGC } from 'bun:jsc'
import { createMemoryTier } from '../../src/cache/tier-memory.ts'
import { systemClock } from '../../src/lib/clock.ts'

export interface Weight {
  /** Above what the process weighed when warm and empty. */
  readonly peakBytes: number
  readonly afterBytes: number
  readonly stallsMs: readonly number[]
  readonly cpuMs: number
}

export const ways = ['ours', 'full collections', 'left alone'] as const

const itemsEach = 100
const text = 'y'.repeat(960)
const encoder = new TextEncoder()
const load = (n: number): Uint8Array =>
  encoder.encode(
    JSON.stringify({ items: Array.from({ length: itemsEach }, (_, id) => ({ id, n, text })) }),
  )

/** Asked in one turn of the event loop. */
const turnRequests = 10
const warmUp = 1_000
const entryBytesMax = 1024 * 1024

function openTier(how: string, bytesMax: number, stallsMs: number[]) {
  let due = 0
  const timed = (run: () => void): void => {
    const startedAt = performance.now()
    run()
    stallsMs.push(performance.now() - startedAt)
  }
  const collect = (which: 'young' | 'all'): void => {
    if (how === 'ours') timed(which === 'young' ? edenGC : () => Bun.gc(true))
    // What we had before: all of the heap, for each sixteenth of the bound.
    if (how === 'full collections' && ++due % 4 === 0) timed(() => Bun.gc(true))
  }
  return createMemoryTier({ entriesMax: 10_000, bytesMax, entryBytesMax }, systemClock, { collect })
}

async function fill(
  how: string,
  tier: ReturnType<typeof openTier>,
  requests: number,
  turn: () => void = () => {},
): Promise<void> {
  const [tags, times] = [['posts'], { storedAtMs: 0, freshUntilMs: 1, staleUntilMs: 2 }]
  for (let n = 0; n < requests; n++) {
    const loaded = load(n)
    // A window is not the tier's to free.
    const body = how === 'ours' ? loaded : loaded.subarray(1)
    tier.set(`public /api/posts?after=${n}`, { body, etag: `"${n}"`, asOf: n, tags, ...times })
    // oxlint-disable-next-line no-new -- what it costs is what we are here for
    new Response(body)
    if (n % turnRequests !== 0) continue
    turn()
    await Bun.sleep(0)
  }
}

async function settled(): Promise<number> {
  let least = Infinity
  for (let n = 0; n < 5; n++) {
    Bun.gc(true)
    await Bun.sleep(50)
    least = Math.min(least, process.memoryUsage.rss())
  }
  return least
}

async function weigh(how: string, bytesMax: number, requests: number): Promise<Weight> {
  // What a server has beside its cache: sockets, which a full collection visits one by one.
  const sockets = Array.from({ length: 100_000 }, (_, id) => ({ id, topics: new Map([[id, {}]]) }))
  await fill('ours', openTier('ours', 1, []), warmUp)
  const before = await settled()
  const stallsMs: number[] = []
  const tier = openTier(how, bytesMax, stallsMs)
  let peak = 0
  const from = process.cpuUsage()
  await fill(how, tier, requests, () => (peak = Math.max(peak, process.memoryUsage.rss())))
  const { user, system } = process.cpuUsage(from)
  const after = await settled()
  if (sockets.length === 0 || tier.bytes > bytesMax) throw new Error('more than the bound')
  return {
    peakBytes: peak - before,
    afterBytes: after - before,
    stallsMs,
    cpuMs: (user + system) / 1000,
  }
}

if (import.meta.main) {
  const [how = '', bytesMax, requests] = process.argv.slice(2)
  console.log(JSON.stringify(await weigh(how, Number(bytesMax), Number(requests))))
}
