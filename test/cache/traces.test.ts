/** Hit rates on real traces: what the README claims, and that the measuring is right. */
import { describe, expect, test } from 'bun:test'
import { createS3Fifo } from '../../src/cache/policy-s3fifo.ts'
import { createLru } from '../bench/policies/lru.ts'
import { hitRateOfMin } from '../bench/policies/min.ts'
import { createRandom } from '../lib/random.ts'
import { hitRate } from './replay.ts'
import { nasa, traceNames, traceOf, web12, zipfWithScans } from './traces.ts'

const sizes = [100, 200, 500, 1000, 2000]
const to4 = (rate: number): number => Math.round(rate * 1e4) / 1e4

describe('plain LRU, as told in traces/SOURCE.md', () => {
  test('web12', async () => {
    const trace = await web12()
    expect([trace.length, new Set(trace).size]).toEqual([95_607, 13_756])
    const known = { 100: 0.3622, 500: 0.5578, 1000: 0.6473, 2000: 0.7256, 5000: 0.807 }
    for (const [size, rate] of Object.entries({ ...known, 20_000: 0.8561 })) {
      expect(to4(hitRate(createLru, Number(size), trace))).toBe(rate)
    }
  })

  test('nasa', async () => {
    const trace = await nasa()
    expect([trace.length, new Set(trace).size]).toEqual([30_969, 2088])
    const known = { 50: 0.5429, 100: 0.648, 200: 0.7466, 500: 0.8506, 20_000: 0.9326 }
    for (const [size, rate] of Object.entries(known)) {
      expect(to4(hitRate(createLru, Number(size), trace))).toBe(rate)
    }
  })
})

describe('S3-FIFO', () => {
  /** Points gained over LRU, at least: what was measured, less a tenth for keys of one hash. */
  const gains = {
    web12: [-0.2, 2.9, 5, 4.2, 2.9],
    nasa: [7, 4.7, 2, 0.4, -0.1],
    'zipf + scans': [9.8, 8.9, 7.7, 6.8, 6.1],
  }
  test.each(traceNames)('gains on LRU, and stays below Bélády: %s', async (name) => {
    const trace = await traceOf(name)
    for (const [at, size] of sizes.entries()) {
      const rate = hitRate(createS3Fifo, size, trace)
      expect(100 * (rate - hitRate(createLru, size, trace))).toBeGreaterThan(gains[name][at] ?? 0)
      expect(rate).toBeLessThanOrEqual(hitRateOfMin(trace, size))
    }
  })

  test('hot pages that are changed now and then keep their places', () => {
    const [trace, random] = [zipfWithScans(), createRandom(1)]
    const rateWith = (isDeleted: boolean): number => {
      const policy = createS3Fifo<true>({ entriesMax: 500, bytesMax: 500, entryBytesMax: 1 })
      let hits = 0
      for (const key of trace) {
        if (policy.get(key)) hits++
        else policy.set(key, true, 1)
        // A write in fifty requests, to what is read most.
        if (isDeleted && random.below(50) === 0) policy.delete(random.pick(trace))
      }
      return hits / trace.length
    }
    // Each invalidation costs the one load it must, and not the place: 1.02 points, and 1.34 without ghosts.
    expect(100 * (rateWith(false) - rateWith(true))).toBeLessThan(1.15)
  })
})

describe('Bélády', () => {
  /** The most hits there can be: tries every way to evict. */
  function mostHits(trace: readonly string[], max: number): number {
    let best = new Map<string, number>([['', 0]])
    for (const key of trace) {
      const next = new Map<string, number>()
      const reach = (kept: readonly string[], hits: number): void => {
        const name = kept.toSorted().join()
        next.set(name, Math.max(next.get(name) ?? 0, hits))
      }
      for (const [name, hits] of best) {
        const kept = name === '' ? [] : name.split(',')
        if (kept.includes(key)) reach(kept, hits + 1)
        else {
          reach(kept, hits)
          if (kept.length < max) reach([...kept, key], hits)
          for (const gone of kept) reach([...kept.filter((one) => one !== gone), key], hits)
        }
      }
      best = next
    }
    return Math.max(...best.values())
  }

  test('has the most hits there can be', () => {
    for (let seed = 1; seed <= 60; seed++) {
      const random = createRandom(seed)
      const trace = Array.from({ length: 40 }, () => `k${random.below(8)}`)
      const max = 1 + random.below(4)
      expect(hitRateOfMin(trace, max) * trace.length).toBeCloseTo(mostHits(trace, max))
    }
  })
})
