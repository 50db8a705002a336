/**
 * A restart under many subscribers of a durable topic: SIGTERM sends them away over five seconds, each with
 * the time to come back, and the new process lets them in no faster than it admits. First with clients that
 * obey, then with stock ones, which come back after a second, whatever was said. What each missed is
 * recovered, publication by publication. `PERSIST=0`: of a topic in memory, so that each is told instead.
 */
import { admittedBeyond, restart, type Restarted } from '../flows/restart.ts'
import { source } from '../process.ts'
import { pinned, quantile } from './load.ts'

const size = Number(process.env['SUBSCRIBERS'] ?? 15_000)
const persist = process.env['PERSIST'] !== '0'

/** 15,000 deliveries each: what is left of the core is for those who come back. */
const publishEveryMs = 1_000
const bucketMs = 500

/** As `src/realtime/realtime.ts` has them. */
const admitted = { perSecond: 4_000, burst: 1_000 }
const withinMs = 120_000

export async function run(): Promise<void> {
  for (const [who, obedientShare] of [
    ['our client, which waits as it is told', 1],
    ['the stock client, which waits 0.5 to 1 s', 0],
  ] as const) {
    const command = [...pinned, ...source]
    print(who, await restart({ size, persist, obedientShare, publishEveryMs, withinMs, command }))
  }
}

function print(who: string, result: Restarted): void {
  const { backMs, codes } = result
  console.log(`\na restart under ${size} subscribers: ${who}`)
  console.table({
    'exit code': result.exitCode,
    'close codes': [...codes].map(([code, count]) => `${code}: ${count}`).join(', '),
    'SIGTERM to the end, ms': Math.round(result.drainedMs),
    'SIGTERM to the new process, ms': Math.round(result.upMs),
    'publications acknowledged': result.acknowledged,
    recovered: result.recovered,
    'told that they are not': result.told,
    'lost without a word': result.lost.length,
    'offsets out of place': result.problems.length,
    'attempts that found nobody': result.failures,
    'back after (ms since the new process was started), median': Math.round(quantile(backMs, 0.5)),
    'the last one': Math.round(Math.max(...backMs)),
    'longest wait for the answer to connect, ms': Math.round(result.waitMsMax),
    // By the server's own count, between any two moments; below zero: under the limit all the time.
    [`beyond ${admitted.perSecond} a second and ${admitted.burst} at once`]: admittedBeyond(
      result.counts,
      admitted.perSecond,
      admitted.burst,
    ),
  })
  for (const problem of result.problems) console.log(problem)
  const buckets = new Map<number, number>()
  let before = 0
  for (const { askedMs, toldMs, subscriptions } of result.counts) {
    const from = Math.floor((askedMs + toldMs) / 2 / bucketMs) * bucketMs
    buckets.set(from, (buckets.get(from) ?? 0) + subscriptions - before)
    before = subscriptions
  }
  console.log('back, as the server counts them')
  console.table(
    [...buckets].map(([from, connects]) => ({
      'from ms': from,
      connects,
      '': '█'.repeat(Math.max(0, connects) / 50),
    })),
  )
}

if (import.meta.main) {
  await run()
  process.exit()
}
