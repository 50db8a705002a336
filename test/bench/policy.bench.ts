/**
 * Eviction policies side by side: hit rates on real traces and on a made-up one, from plain LRU to what
 * is possible at all (Bélády's MIN, which knows the future), and what an operation costs.
 */
import { createLru } from './policies/lru.ts'
import { hitRateOfMin } from './policies/min.ts'
import { createSieve } from './policies/sieve.ts'
import { createTinyLfu } from './policies/tiny-lfu.ts'
import { createS3Fifo } from '../../src/cache/policy-s3fifo.ts'
import type { CreatePolicy, Policy } from '../../src/cache/policy.ts'
import { hitRate } from '../cache/replay.ts'
import { traceNames, traceOf } from '../cache/traces.ts'
import { median } from './load.ts'

const sizes = [100, 200, 500, 1000, 2000]
const policies: readonly (readonly [name: string, create: CreatePolicy])[] = [
  ['LRU (lru-cache)', createLru],
  ['SIEVE', createSieve],
  ['W-TinyLFU, window 1 %', (bounds) => createTinyLfu(bounds, 0.01)],
  ['W-TinyLFU, window 20 %', (bounds) => createTinyLfu(bounds, 0.2)],
  ['S3-FIFO (ours)', createS3Fifo],
]

const entries = 10_000
const rounds = 9

type Row = Record<string, string | number>

async function hitRates(): Promise<void> {
  for (const name of traceNames) {
    const trace = await traceOf(name)
    const lru = sizes.map((size) => hitRate(createLru, size, trace))
    const row = (policy: string, rates: readonly number[]): Row => {
      const gains = rates.map((rate, at) => rate - (lru[at] as number))
      const gain = gains.reduce((sum, one) => sum + one, 0) / gains.length
      return {
        policy,
        ...Object.fromEntries(
          sizes.map((size, at) => [`at ${size}`, percent(rates[at] as number)]),
        ),
        'mean, to LRU': `${gain < 0 ? '' : '+'}${percent(gain)}`,
      }
    }
    console.log(
      `hit rate in %, ${name}: ${trace.length} requests of ${new Set(trace).size} keys, cold start`,
    )
    console.table([
      ...policies.map(([policy, create]) =>
        row(
          policy,
          sizes.map((size) => hitRate(create, size, trace)),
        ),
      ),
      row(
        'Bélády (MIN)',
        sizes.map((size) => hitRateOfMin(trace, size)),
      ),
    ])
  }
}

const percent = (share: number): string => (share * 100).toFixed(2)

/** Nanoseconds for each of `keys`. */
function timed(keys: readonly string[], run: (key: string) => void): number {
  const started = Bun.nanoseconds()
  for (const key of keys) run(key)
  return (Bun.nanoseconds() - started) / keys.length
}

function costs(): void {
  const bounds = { entriesMax: entries, bytesMax: entries * 4096, entryBytesMax: 1 << 20 }
  // Keys as requests make them: new strings each time, whose hash is not yet known.
  const keysFrom = (from: number): string[] =>
    Array.from({ length: entries }, (_, n) => ['public /api/posts/', `${from + n}`].join(''))
  const value = {}
  const samples = policies.map(([policy, create]) => ({
    policy,
    create,
    ...{ 'get-hit': [] as number[], set: [] as number[], evict: [] as number[] },
  }))
  // In rounds that visit every policy, so that drift hits all alike; the first two warm up.
  for (let round = -2; round < rounds; round++) {
    for (const sample of samples) {
      const policy: Policy<object> = sample.create(bounds)
      const set = timed(keysFrom(0), (key) => policy.set(key, value, 2048))
      const hit = timed(keysFrom(0), (key) => policy.get(key))
      const evict = timed(keysFrom(entries), (key) => policy.set(key, value, 2048))
      if (round < 0) continue
      sample['get-hit'].push(hit)
      sample.set.push(set)
      sample.evict.push(evict)
    }
  }
  console.log(`ns per operation, ${entries} entries, median of ${rounds} rounds of ${entries}`)
  console.table(
    samples.map(({ policy, ...one }) => ({
      policy,
      'get-hit': Math.round(median(one['get-hit'])),
      set: Math.round(median(one.set)),
      'set when full': Math.round(median(one.evict)),
    })),
  )
}

export async function run(): Promise<void> {
  await hitRates()
  costs()
}

if (import.meta.main) await run()
