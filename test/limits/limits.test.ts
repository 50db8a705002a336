import { describe, expect, test } from 'bun:test'
import { createLimiter, createLimits, type LimitPolicy } from '../../src/limits/limits.ts'
import { Runs, runsMax } from '../../src/limits/runs.ts'
import { createTestClock } from '../clock.ts'
import { createRandom } from '../lib/random.ts'
import { mostInAnyWindow } from './log.ts'

const policyOf = (quota: number, windowMs = 1000, more: Partial<LimitPolicy> = {}) => ({
  name: `p${quota}`,
  quota,
  windowMs,
  ...more,
})

describe('limits.take', () => {
  test('refuses the request over the quota and says when the next fits', () => {
    const clock = createTestClock()
    const limits = createLimits({ clock }, policyOf(2))
    expect(limits.take('a')).toEqual({ ok: true, left: 1, resetMs: 1000 })
    clock.advance(400)
    expect(limits.take('a')).toEqual({ ok: true, left: 0, resetMs: 600 })
    expect(limits.take('a')).toEqual({ ok: false, left: 0, resetMs: 600 })
    expect(limits.take('b').ok).toBe(true)
    clock.advance(600)
    expect(limits.take('a')).toEqual({ ok: true, left: 0, resetMs: 400 })
  })

  test('what is given back may be taken at once, by whoever was refused too', () => {
    const clock = createTestClock()
    const limits = createLimits({ clock }, policyOf(1))
    expect([limits.take('a').ok, limits.take('a').ok]).toEqual([true, false])
    limits.giveBack('a')
    limits.giveBack('nobody')
    expect([limits.take('a').ok, limits.take('a').ok]).toEqual([true, false])
  })

  // Also above 512, where takes that lie close together are one run.
  test.each([1, 5, 37, 511, 600, 2000])(
    'property: of %i, no window of any place ever holds more',
    (quota) => {
      const windowMs = 10_000
      for (const seed of [11, 12, 13]) {
        const random = createRandom(seed)
        const clock = createTestClock()
        const limits = createLimits({ clock }, policyOf(quota, windowMs))
        const taken: number[] = []
        let from = 0
        const take = () => {
          const decision = limits.take('a')
          if (decision.ok) taken.push(clock.tick())
          while ((taken[from] ?? Infinity) <= clock.tick() - windowMs) from++
          const inside = taken.length - from
          expect(decision.left).toBeLessThanOrEqual(quota - inside)
          return { ...decision, inside }
        }
        for (let step = 0; step < 8 * quota + 2000; step++) {
          // Bursts, a trickle of three times the rate, and pauses.
          if (random.below(3) === 0) clock.advance(random.below(Math.ceil((2 * windowMs) / quota)))
          if (random.below(4 * quota) === 0) clock.advance(random.below(windowMs))
          const { ok, inside, resetMs } = take()
          if (ok) continue
          // Nothing is refused that the exact log has room for, but for a grain; what is promised is kept.
          if (quota <= runsMax) expect(inside).toBe(quota)
          expect(resetMs).toBeGreaterThan(0)
          if (random.below(quota) > 0) continue
          clock.advance(resetMs)
          expect(take().ok).toBe(true)
        }
        const most = mostInAnyWindow(taken, windowMs)
        expect(most).toBeLessThanOrEqual(quota)
        expect(most).toBeGreaterThanOrEqual(quota * 0.99)
        expect(taken.length).toBeGreaterThan(3 * quota)
      }
    },
  )
})

describe('all policies of a request', () => {
  const both = (key: string) => [
    { policy: policyOf(2), key },
    { policy: policyOf(3, 5000), key: 'all' },
  ]

  test('one of each is taken, or of none', () => {
    const clock = createTestClock()
    const limiter = createLimiter({ clock })
    const take = (key: string) => limiter.take(both(key))
    expect([take('a'), take('a')]).toMatchObject([{ ok: true }, { ok: true }])
    expect(take('a')).toMatchObject({ ok: false, verdicts: [{ ok: false }, { ok: true, left: 1 }] })
    // Refused again from memory, by the one that refused.
    expect(take('a')).toMatchObject({ ok: false, verdicts: [{ ok: false, resetMs: 1000 }] })
    expect(take('b')).toMatchObject({ ok: true, verdicts: [{ left: 1 }, { left: 0 }] })
    expect(take('b')).toMatchObject({ ok: false, verdicts: [{ ok: true }, { ok: false }] })
    // Of `b`'s own nothing was taken by that.
    clock.advance(4999)
    expect(limiter.take([{ policy: policyOf(2), key: 'b' }])).toMatchObject({
      verdicts: [{ left: 1 }],
    })
    expect(limiter.stats().refused).toEqual(
      new Map([
        ['p2', 2],
        ['p3', 1],
      ]),
    )
  })

  test('a shadow counts and refuses nobody', () => {
    const limiter = createLimiter({ clock: createTestClock() })
    const asks = [{ policy: policyOf(1, 1000, { isShadow: true }), key: 'a' }]
    expect(limiter.take(asks)).toMatchObject({ ok: true, verdicts: [{ ok: true }] })
    expect(limiter.take(asks)).toMatchObject({ ok: true, verdicts: [{ ok: false }] })
    expect(limiter.blocked(asks)).toBeUndefined()
    expect(limiter.stats()).toMatchObject({
      taken: new Map([['p1', 1]]),
      refused: new Map([['p1', 1]]),
    })
  })

  test('an offender is known as one until the reset', () => {
    const clock = createTestClock()
    const limiter = createLimiter({ clock })
    const asks = [{ policy: policyOf(1), key: 'a' }]
    void limiter.take(asks)
    expect(limiter.blocked(asks)).toBeUndefined()
    void limiter.take(asks)
    clock.advance(999)
    expect(limiter.blocked(asks)).toMatchObject({ ok: false, verdicts: [{ resetMs: 1 }] })
    clock.advance(1)
    expect(limiter.blocked(asks)).toBeUndefined()
  })
})

describe('memory', () => {
  test('a flood of addresses that come once flushes neither those that came twice nor an offender', () => {
    const clock = createTestClock()
    const limits = createLimits({ clock }, policyOf(3, 60_000), { keysMax: 100 })
    for (let take = 0; take < 2; take++) limits.take('regular')
    for (let take = 0; take < 4; take++) limits.take('offender')
    for (let address = 0; address < 10_000; address++) limits.take(`flood ${address}`)
    expect(limits.keys).toBeLessThanOrEqual(102)
    expect(limits.take('offender').ok).toBe(false)
    expect(limits.take('regular')).toMatchObject({ ok: true, left: 0 })
  })

  // Ten million are in `bun run bench limit-flood`: what a hundred thousand leave behind is all that they do.
  test('a flood of addresses, each once and then each twice, leaves no more behind the longer it lasts', () => {
    const limits = createLimits({ clock: createTestClock() }, policyOf(100, 60_000))
    const heapAfter = (from: number, to: number, times: number): number => {
      for (let n = from; n < to; n++) {
        const key = `address:${n >> 24}.${(n >> 16) & 255}.${(n >> 8) & 255}.${n & 255}`
        for (let take = 0; take < times; take++) limits.take(key)
      }
      Bun.gc(true)
      return process.memoryUsage().heapUsed / 1024 / 1024
    }
    const once = heapAfter(0, 150_000, 1)
    expect(limits.keys).toBe(100_000)
    expect(heapAfter(150_000, 600_000, 1) - once).toBeLessThan(32)
    const twice = heapAfter(600_000, 750_000, 2)
    expect(limits.keys).toBeLessThanOrEqual(200_000)
    expect(heapAfter(750_000, 1_000_000, 2) - twice).toBeLessThan(32)
    expect(twice - once).toBeLessThan(64)
  })

  test('all runs together are bounded too', () => {
    const limits = createLimits({ clock: createTestClock() }, policyOf(50), { runsOfAllMax: 1000 })
    for (let take = 0; take < 50; take++) {
      for (let key = 0; key < 100; key++) limits.take(`k${key}`)
    }
    // 20 keys of 50 each, and those that were taken once.
    expect(limits.keys).toBeLessThanOrEqual(1000)
    expect(limits.take('k99').ok).toBe(false)
  })
})

describe('runs', () => {
  test('are at most as many as said, and what is put together counts as its last', () => {
    const runs = new Runs()
    for (const at of [1, 2, 3, 4, 5]) runs.add(at, 1, 0)
    expect(runs.since(2, 2)).toEqual([
      { at: 3, count: 2 },
      { at: 5, count: 2 },
    ])
    expect(runs.since(6, 2)).toEqual([])
    expect([1, 2, 5, 9].map((count) => runs.takenBy(count))).toEqual([1, 2, 5, 5])
  })

  test('within a grain they are one, from its first on', () => {
    const runs = new Runs()
    for (const at of [0, 4, 9, 10, 12]) runs.add(at, 1, 10)
    expect([runs.length, runs.total, runs.takenBy(1), runs.takenBy(4)]).toEqual([2, 5, 9, 12])
    runs.forget(9)
    expect([runs.length, runs.total]).toEqual([1, 2])
    runs.takeBack()
    runs.takeBack()
    runs.takeBack()
    expect([runs.length, runs.total]).toEqual([0, 0])
  })
})
