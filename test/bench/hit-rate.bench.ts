/**
 * Hit rates of the community app by its own workload (Zipf 0.99 over all its pages, 2 % writes, the declared
 * TTLs, 10,000 entries), on a clock that gives each request its time: 40,000 at 200 a second are
 * 200 s, in which what has a TTL of 5 minutes begins to expire. With a Redis, too, where there is one.
 */
import { measureHitRate, type HitRate } from '../apps/hit-rate.ts'
import { tempFolder } from '../harness.ts'
import { requireService, startRedis } from '../services.ts'

const options = { warmUp: 10_000, requests: 40_000 }

export async function run(): Promise<void> {
  const rows: Record<string, string>[] = []
  for (const [seed, perSecond] of [
    [1, 1_000],
    [2, 200],
  ] as const) {
    using folder = tempFolder()
    rows.push(
      rowOf(`${perSecond}/s`, await measureHitRate(folder, { ...options, seed, perSecond })),
    )
  }
  if (requireService('redis-server')) {
    await using redis = await startRedis()
    using folder = tempFolder()
    const env = { REDIS_URL: redis.url }
    const rate = await measureHitRate(folder, { ...options, seed: 3, perSecond: 1_000, env })
    rows.push(rowOf('1000/s, with Redis', rate))
  }
  console.log('community app: reads answered without the database, in %')
  console.table(rows)
}

function rowOf(workload: string, rate: HitRate): Record<string, string> {
  const percent = (share: number): string => (share * 100).toFixed(2)
  return {
    workload,
    'from memory': percent(rate.memory),
    combined: percent(rate.combined),
    'queries/1,000 requests': rate.queriesPer1000.toFixed(1),
    'loaded ahead/1,000': rate.aheadPer1000.toFixed(1),
    'mended by the log/1,000': rate.repairsPer1000.toFixed(1),
  }
}

if (import.meta.main) await run()
