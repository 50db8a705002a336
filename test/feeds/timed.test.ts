import { describe, expect, test } from 'bun:test'
import { Fault } from '../../src/fault.ts'
import type { Lease } from '../../src/feeds/feeds.ts'
import { faultOf } from '../harness.ts'
import { pass, setUp, turns } from './setup.ts'

/** A lease that a test gives and takes. */
function createLease(): Lease & { give(units: number): void; left: number } {
  const listeners: (() => void)[] = []
  const lease = {
    units: 0,
    left: 0,
    leave: async () => void (lease.left += 1),
    onChange: (listener: () => void) => void listeners.push(listener),
    give(units: number) {
      lease.units = units
      for (const listener of listeners) listener()
    },
  }
  return lease
}

/** A Redis at which nobody else is. */
const shared = {
  redis: {
    isUp: true,
    script: () => Promise.resolve([]),
    publish: () => undefined,
    subscribe: () => () => undefined,
  },
  namespace: 'n',
}

describe('timed feeds', () => {
  test('aligned: at start, then on whole multiples of the interval', async () => {
    const times: number[] = []
    const feed = setUp({ every: '10s', isAligned: true, load: ({ now }) => void times.push(now) })
    feed.clock.advance(3_000)
    feed.feeds.start()
    await pass(feed, 30_000, 500)
    const start = Date.UTC(2026, 0, 1)
    expect(times.map((at) => at - start)).toEqual([3_000, 10_000, 20_000, 30_000])
    await feed.feeds.stop()
  })

  test('cron: not at start, once for each moment, later by up to the jitter', async () => {
    const times: number[] = []
    const feed = setUp(
      { every: { cron: '*/2 * * * *' }, jitterMs: 10_000, load: ({ now }) => void times.push(now) },
      { random: () => 0.5 },
    )
    feed.feeds.start()
    await pass(feed, 6 * 60_000, 1_000)
    const start = Date.UTC(2026, 0, 1)
    expect(times.map((at) => at - start)).toEqual([125_000, 245_000])
    await feed.feeds.stop()
  })

  test('jitter is drawn anew for each tick', async () => {
    const draws = [0, 0.5, 1, 0]
    const times: number[] = []
    const feed = setUp(
      { every: '1s', jitterMs: 400, load: ({ now }) => void times.push(now) },
      { random: () => draws.shift() ?? 0 },
    )
    feed.feeds.start()
    await pass(feed, 5_000)
    const start = Date.UTC(2026, 0, 1)
    expect(times.slice(0, 5).map((at) => at - start)).toEqual([0, 1_000, 2_200, 3_600, 4_600])
    await feed.feeds.stop()
  })

  test('adaptive: faster while the value changes, slower while it does not', async () => {
    let value = 0
    let isMoving = true
    const feed = setUp({
      publish: 'stats',
      adaptive: { minMs: 200, maxMs: 3_000 },
      load: () => ({ value: isMoving ? (value += 1) : value }),
    })
    feed.feeds.start()
    await pass(feed, 10_000)
    expect((await feed.feeds.last('stats', 'stats'))?.intervalMs).toBe(200)
    isMoving = false
    await pass(feed, 40_000)
    expect((await feed.feeds.last('stats', 'stats'))?.intervalMs).toBe(3_000)
    await feed.feeds.stop()
  })

  test('upstream fails: the value is told to be stale once, and once that it is not', async () => {
    let isDown = false
    const feed = setUp({
      publish: 'stats',
      load: () => {
        if (isDown) throw new Error('down')
        return { n: 1 }
      },
    })
    feed.feeds.start()
    await pass(feed, 2_500)
    const asOf = Date.UTC(2026, 0, 1) + 2_000
    isDown = true
    await pass(feed, 5_000)
    expect(feed.published).toEqual([
      ['stats', { n: 1 }],
      ['stats', { n: 1, stale: true, as_of: asOf }],
    ])
    expect(await feed.feeds.last('stats', 'stats')).toMatchObject({ isStale: true, asOfMs: asOf })
    isDown = false
    await pass(feed, 5_000)
    expect(feed.published.slice(2)).toEqual([['stats', { n: 1 }]])
    await feed.feeds.stop()
  })

  test('a feed that says nothing new after a failure is not stale either', async () => {
    const answers: (() => unknown)[] = [
      () => ({ n: 1 }),
      () => {
        throw new Error('down')
      },
      () => null,
    ]
    const feed = setUp({ publish: 'stats', load: () => (answers.shift() ?? (() => null))() })
    feed.feeds.start()
    await turns()
    await pass(feed, 3_000)
    expect(feed.published.map(([, data]) => data)).toEqual([
      { n: 1 },
      { n: 1, stale: true, as_of: Date.UTC(2026, 0, 1) },
      { n: 1 },
    ])
    await feed.feeds.stop()
  })

  test('a publication that does not get through is made with the next answer, and the clock goes on', async () => {
    let isFull = true
    const told: unknown[] = []
    const feed = setUp(
      { publish: 'stats', load: () => ({ n: 1 }) },
      {
        publish(_, data) {
          if (isFull) throw new Fault('unavailable', 'full')
          told.push(data)
        },
      },
    )
    feed.feeds.start()
    await pass(feed, 3_500)
    expect(feed.feeds.stats()[0]).toMatchObject({ ticks: 4, failures: 0 })
    expect(await feed.feeds.last('stats', 'stats')).toMatchObject({ isStale: false })
    isFull = false
    await pass(feed, 1_000)
    expect(told).toEqual([{ n: 1 }])
    await feed.feeds.stop()
  })

  test('whoever reads before there is a value waits for it, or is told that there is none', async () => {
    const answer = Promise.withResolvers<unknown>()
    const feed = setUp({ publish: 'stats', timeoutMs: 5_000, load: () => answer.promise })
    feed.feeds.start()
    const reads = [feed.feeds.last('stats', 'stats'), feed.feeds.read('f', ['stats'])]
    answer.resolve({ n: 1 })
    const [last, read] = await Promise.all(reads)
    expect(last).toMatchObject({ text: '{"n":1}', isHit: false })
    expect([...(read as ReadonlyMap<string, { value: unknown }>).values()][0]?.value).toEqual({
      n: 1,
    })
    expect((await faultOf(() => feed.feeds.read('g', []))).code).toBe('not_found')
    expect(feed.feeds.last('other', 'other')).toBeUndefined()
    await feed.feeds.stop()

    const failing = setUp({ publish: 'stats', load: () => Promise.reject(new Error('down')) })
    const reading = faultOf(() => failing.feeds.last('stats', 'stats'))
    failing.feeds.start()
    expect((await reading).code).toBe('unavailable')
    await failing.feeds.stop()
  })

  test('one node asks: who has the lease, from when it has it, until it has it no more', async () => {
    const lease = createLease()
    let ticks = 0
    const signals: AbortSignal[] = []
    const feed = setUp(
      {
        into: [{ path: 'prices' } as never],
        isSingle: true,
        load: async ({ signal }) => {
          ticks += 1
          signals.push(signal)
          return []
        },
      },
      { lease: () => lease },
    )
    feed.feeds.start()
    await pass(feed, 5_000)
    expect(ticks).toBe(0)
    lease.give(1)
    await pass(feed, 2_500)
    expect(ticks).toBe(3)
    lease.give(0)
    await pass(feed, 5_000)
    expect(ticks).toBe(3)
    lease.give(1)
    await pass(feed, 500)
    expect(ticks).toBe(4)
    await feed.feeds.stop()
    expect(lease.left).toBe(1)
  })

  test('a call is cut off when the lease is lost, and is no failure', async () => {
    const lease = createLease()
    let reason: unknown
    const feed = setUp(
      {
        into: [{ path: 'prices' } as never],
        isSingle: true,
        load: ({ signal }) =>
          new Promise(() => signal.addEventListener('abort', () => (reason = signal.reason))),
      },
      { lease: () => lease },
    )
    feed.feeds.start()
    lease.give(1)
    lease.give(0)
    await pass(feed, 100)
    expect(String(reason)).toContain('another node asks')
    expect(feed.feeds.stats()[0]?.failures).toBe(0)
    await feed.feeds.stop()
  })

  test('cron: what was due while nobody had the lease is made up for, what was due before the start is not', async () => {
    const lease = createLease()
    const times: number[] = []
    const feed = setUp(
      {
        every: { cron: '*/2 * * * *' },
        into: [{ path: 'prices' } as never],
        isSingle: true,
        load: ({ now }) => (times.push(now), []),
      },
      { lease: () => lease },
    )
    const start = Date.UTC(2026, 0, 1)
    feed.clock.advance(5_000)
    feed.feeds.start()
    lease.give(1)
    await pass(feed, 1_000)
    expect(times).toEqual([])
    lease.give(0)
    // 00:02 passes, and 00:02:08 another node is known to be dead.
    await pass(feed, 122_000, 1_000)
    lease.give(1)
    await pass(feed, 120_000, 1_000)
    expect(times.map((at) => at - start)).toEqual([128_000, 240_000])
    await feed.feeds.stop()
  })

  test('what an answer brings after the lease was lost is not published, told of or not', async () => {
    for (const isTold of [true, false]) {
      const lease = createLease()
      const written = Promise.withResolvers<never[]>()
      const feed = setUp(
        { into: [{ path: 'prices' } as never], publish: 'stats', load: () => ({ prices: [] }) },
        { lease: () => lease, shared, collections: { upsert: () => written.promise } },
      )
      feed.feeds.start()
      lease.give(1)
      await turns()
      if (isTold) lease.give(0)
      // As after a pause: no timer has said so yet.
      else Object.assign(lease, { units: 0 })
      written.resolve([])
      await turns()
      expect(feed.published).toEqual([])
      // It comes back with the lease.
      lease.give(1)
      await turns()
      expect(feed.published).toHaveLength(1)
      await feed.feeds.stop()
    }
  })

  test('nobody asks any more: what was said last is stale, until somebody does', async () => {
    const lease = createLease()
    const feed = setUp({ publish: 'stats', load: () => ({ n: 1 }) }, { lease: () => lease, shared })
    feed.feeds.start()
    lease.give(1)
    await pass(feed, 5_000, 500)
    lease.give(0)
    await pass(feed, 29_000, 500)
    const last = async () => await feed.feeds.last('stats', 'stats')
    expect(await last()).toMatchObject({ isStale: false })
    await pass(feed, 3_000, 500)
    expect(await last()).toMatchObject({ isStale: true })
    lease.give(1)
    await turns()
    expect(await last()).toMatchObject({ isStale: false })
    await feed.feeds.stop()
  })

  test('who stops asks no more, although Redis is away', async () => {
    const lease = createLease()
    let ticks = 0
    const feed = setUp(
      { publish: 'stats', load: () => (ticks += 1) },
      { lease: () => lease, shared: { ...shared, redis: { ...shared.redis, isUp: false } } },
    )
    lease.leave = async () => lease.give(0)
    feed.feeds.start()
    lease.give(1)
    await pass(feed, 3_100)
    const before = ticks
    expect(before).toBeGreaterThan(0)
    await feed.feeds.stop()
    await pass(feed, 5_000)
    expect(ticks).toBe(before)
  })
})
