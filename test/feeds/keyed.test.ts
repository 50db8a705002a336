import { describe, expect, test } from 'bun:test'
import { Fault } from '../../src/fault.ts'
import { sumOf } from '../../src/feeds/values.ts'
import type { Clock } from '../../src/lib/clock.ts'
import { createTestClock } from '../clock.ts'
import { faultOf } from '../harness.ts'
import { createPrices, keyed, pass, prices, setUp, turns } from './setup.ts'

const pattern = keyed.pattern

/** A keyed feed that has started, over prices that a test moves. */
function start(
  values: Record<string, unknown> = {},
  plan: Parameters<typeof setUp>[0] = {},
  deps: Parameters<typeof setUp>[1] = {},
) {
  const upstream = createPrices(values)
  const all = setUp({ keyed, load: upstream.load, ...plan }, deps)
  all.feeds.start()
  const hear = (key: string, isHeard = true) => all.feeds.heard(pattern, `price:${key}`, isHeard)
  const last = async (key: string) => await all.feeds.last(pattern, `price:${key}`)
  return { ...all, upstream, hear, last }
}

describe('keyed feeds', () => {
  test('nobody listens: nobody is asked', async () => {
    const feed = start({ a: { usd: 1 } })
    await pass(feed, 5_000)
    expect(feed.upstream.calls).toEqual([])
  })

  test('who hears a key first has it asked for at once, then each interval; what changed is published', async () => {
    const feed = start({ a: { usd: 1 } })
    feed.hear('a')
    await turns()
    expect(feed.upstream.calls).toEqual([['a']])
    expect(feed.published).toEqual([['price:a', { usd: 1 }]])
    await pass(feed, 2_000)
    expect(feed.upstream.calls.length).toBe(3)
    expect(feed.published.length).toBe(1)
    feed.upstream.told.set('a', { usd: 2 })
    await pass(feed, 1_000)
    expect(feed.published.at(-1)).toEqual(['price:a', { usd: 2 }])
    expect(feed.published.length).toBe(2)
    await feed.feeds.stop()
  })

  test('keys that come in one turn are one call, up to a batch; later ones take old ones along', async () => {
    const names = Array.from({ length: 250 }, (_, n) => `k${n}`)
    const feed = start(Object.fromEntries(names.map((name) => [name, { name }])))
    for (const name of names) feed.hear(name)
    await turns()
    expect(feed.upstream.calls.map(({ length }) => length)).toEqual([100, 100, 50])
    await pass(feed, 600)
    feed.upstream.calls.length = 0
    feed.hear('new')
    await turns()
    const [call] = feed.upstream.calls
    expect(call?.[0]).toBe('new')
    expect(call?.length).toBeGreaterThan(1)
    await feed.feeds.stop()
  })

  test('a round is spread: its calls are an equal time apart, each key once', async () => {
    const names = Array.from({ length: 400 }, (_, n) => `k${n}`)
    const feed = start(Object.fromEntries(names.map((name) => [name, 1])))
    for (const name of names) feed.hear(name)
    await pass(feed, 3_000)
    feed.upstream.calls.length = 0
    const times: number[] = []
    for (let n = 0; n < 80; n += 1) {
      await pass(feed, 25, 25)
      while (times.length < feed.upstream.calls.length) times.push(feed.clock.tick())
    }
    expect(feed.upstream.calls.map(({ length }) => length)).toEqual(Array(8).fill(100))
    expect(new Set(feed.upstream.calls.slice(0, 4).flat()).size).toBe(400)
    const gaps = times.slice(1).map((at, n) => at - (times[n] ?? 0))
    expect(gaps).toEqual(Array(7).fill(250))
    await feed.feeds.stop()
  })

  test('1,000 who hear a cold key and 1,000 who read it: one call', async () => {
    const feed = start({ a: { usd: 1 } })
    const open = Promise.withResolvers<void>()
    feed.upstream.gate = open.promise
    const reads: Promise<unknown>[] = []
    for (let n = 0; n < 1_000; n += 1) {
      // The hub tells of the first one only; each further one is told as if it had been the first.
      feed.hear('a')
      reads.push(feed.last('a'), feed.feeds.read('f', ['a']))
      if (n % 100 === 0) await turns(1)
    }
    expect(feed.upstream.calls).toEqual([['a']])
    open.resolve()
    const answers = await Promise.all(reads)
    expect(answers).toHaveLength(2_000)
    expect(feed.upstream.calls).toEqual([['a']])
    expect(feed.published).toEqual([['price:a', { usd: 1 }]])
    await feed.feeds.stop()
  })

  test('a key that nobody hears and nobody reads is dropped after a while', async () => {
    const feed = start({ a: 1, b: 1 }, { keyed: { ...keyed, idleMs: 10_000 } })
    feed.hear('a')
    await feed.last('b')
    await pass(feed, 8_000)
    feed.hear('a', false)
    await pass(feed, 4_000)
    // Read 12 s ago, and heard until 4 s ago.
    expect(feed.upstream.calls.at(-1)).toEqual(['a'])
    expect(feed.feeds.stats()[0]?.keys).toBe(1)
    await pass(feed, 8_000)
    const { length } = feed.upstream.calls
    await pass(feed, 5_000)
    expect(feed.upstream.calls.length).toBe(length)
    expect(feed.feeds.stats()[0]?.keys).toBe(0)
    await feed.feeds.stop()
  })

  test('reads keep a key, and publish nothing', async () => {
    const feed = start({ a: 1 }, { keyed: { ...keyed, idleMs: 3_000 } })
    for (let n = 0; n < 10; n += 1) {
      expect((await feed.last('a'))?.text).toBe('1')
      await pass(feed, 2_000)
    }
    expect(feed.upstream.calls.length).toBeGreaterThan(15)
    expect(feed.published).toEqual([])
    // Whoever comes to hear it gets what is known.
    feed.hear('a')
    await turns()
    expect(feed.published).toEqual([['price:a', 1]])
    await feed.feeds.stop()
  })

  test('upstream fails: the last value, stale, told once; it answers again: told once', async () => {
    const feed = start({ a: { usd: 1 }, n: 5 })
    feed.hear('a')
    feed.hear('n')
    await turns()
    const asOf = feed.clock.now()
    feed.upstream.failure = new Error('down')
    await pass(feed, 5_000)
    expect(feed.published.slice(2)).toEqual([
      ['price:a', { usd: 1, stale: true, as_of: asOf }],
      ['price:n', { value: 5, stale: true, as_of: asOf }],
    ])
    const last = await feed.last('a')
    expect(JSON.parse(last?.text ?? '')).toEqual({ usd: 1, stale: true, as_of: asOf })
    expect(last).toMatchObject({ isStale: true, asOfMs: asOf })
    const read = await feed.feeds.read('f', ['a', 'unknown'])
    expect([...read]).toEqual([['a', { value: { usd: 1 }, asOfMs: asOf, isStale: true }]])

    feed.upstream.failure = undefined
    await pass(feed, 4_000)
    // The same as ever: that it is no longer stale is news.
    expect(feed.published.slice(4)).toEqual([
      ['price:a', { usd: 1 }],
      ['price:n', 5],
    ])
    const { lines } = feed.log
    expect(lines.filter(({ event }) => event === 'feed.recovered')).toHaveLength(1)
    await feed.feeds.stop()
  })

  test('nothing was ever known, and upstream fails: said so, and asked again', async () => {
    const feed = start({ a: 1 })
    feed.upstream.failure = new Error('down')
    const fault = await faultOf(() => feed.last('a'))
    expect(fault.code).toBe('unavailable')
    expect(fault.message).not.toContain('down')
    // Not by each reader.
    expect((await faultOf(() => feed.last('a'))).code).toBe('unavailable')
    expect(feed.upstream.calls).toHaveLength(1)
    feed.upstream.failure = undefined
    await pass(feed, 1_100)
    expect((await feed.last('a'))?.text).toBe('1')
    await feed.feeds.stop()
  })

  test('an upstream that hangs is given up after the time-out', async () => {
    const feed = start({ a: 1 })
    feed.upstream.gate = new Promise(() => {})
    const reading = faultOf(() => feed.last('a'))
    await pass(feed, 600)
    expect((await reading).code).toBe('timeout')
    await feed.feeds.stop()
  })

  test('a key that upstream does not know is remembered as absent, and asked for with the others', async () => {
    const feed = start({ a: 1 })
    expect((await faultOf(() => feed.last('x'))).code).toBe('not_found')
    for (let n = 0; n < 50; n += 1) {
      expect((await faultOf(() => feed.last('x'))).code).toBe('not_found')
    }
    expect(feed.upstream.calls).toEqual([['x']])
    feed.upstream.told.set('x', 2)
    await pass(feed, 1_100)
    expect((await feed.last('x'))?.text).toBe('2')
    // Known once, and not any more: what was known stays, and is stale.
    feed.hear('x')
    feed.upstream.told.delete('x')
    await pass(feed, 1_100)
    expect((await feed.last('x'))?.isStale).toBe(true)
    await feed.feeds.stop()
  })

  test('a key that upstream does not know is not asked for because somebody read it once, but while it is heard', async () => {
    const feed = start({ a: 1 })
    await feed.last('a')
    for (const name of ['x', 'y'])
      expect((await faultOf(() => feed.last(name))).code).toBe('not_found')
    feed.hear('y')
    await pass(feed, 10_000)
    const times = (name: string) => feed.upstream.calls.filter((keys) => keys.includes(name)).length
    expect(times('x')).toBeLessThanOrEqual(2)
    expect([times('a'), times('y')].every((count) => count >= 9)).toBe(true)
    await feed.feeds.stop()
  })

  test('names of objects own parts are no keys of theirs', async () => {
    const feed = start({})
    const read = await feed.feeds.read('f', ['constructor', '__proto__', 'toString'])
    expect(read.size).toBe(0)
    await feed.feeds.stop()
  })

  test('no more keys than there may be: those that nobody hears make room, heard ones do not', async () => {
    const feed = start({}, { load: ({ keys }) => new Map(keys.map((key) => [key, key])) })
    for (let n = 0; n < 20_000; n += 1) feed.hear(`k${n}`)
    await turns(5)
    expect((await faultOf(() => feed.last('more'))).code).toBe('unavailable')
    feed.hear('k7', false)
    expect((await feed.last('more'))?.text).toBe('"more"')
    expect(feed.feeds.stats()[0]?.keys).toBe(20_000)
    await feed.feeds.stop()
  })

  test('a key that is heard and had no room comes in as soon as there is some', async () => {
    const feed = start(
      {},
      {
        keyed: { ...keyed, idleMs: 1_000 },
        load: ({ keys }) => new Map(keys.map((key) => [key, 1])),
      },
    )
    for (let n = 0; n < 20_000; n += 1) feed.hear(`k${n}`)
    feed.hear('more')
    feed.hear('gone')
    feed.hear('gone', false)
    await turns(5)
    feed.hear('k7', false)
    feed.hear('k8', false)
    await pass(feed, 3_000, 500)
    expect(feed.published).toContainEqual(['price:more', 1])
    expect(feed.published).not.toContainEqual(['price:gone', 1])
    expect(feed.log.lines.filter(({ event }) => event === 'feed.full')).toHaveLength(1)
    await feed.feeds.stop()
  })

  test('who reads a key for the first time leaves no timer behind', async () => {
    const clock = createTestClock()
    const open = new Set<object>()
    const after: Clock['after'] = (ms, run) => {
      const timer = { ms }
      const end = (): void => void open.delete(timer)
      open.add(timer)
      const cancel = clock.after(ms, () => (end(), run()))
      return () => (end(), cancel())
    }
    const feed = start({ a: 1 }, { timeoutMs: 7_777 }, { clock: { ...clock, after } })
    expect((await feed.last('a'))?.text).toBe('1')
    expect([...open]).not.toContainEqual({ ms: 7_777 })
    await feed.feeds.stop()
  })

  test('what has not changed elsewhere is only then what is known here, and is asked for if it is not', async () => {
    const said: string[] = []
    const hears = new Map<string, (text: string) => void>()
    const redis = {
      isUp: true,
      script: (_: unknown, __: unknown, args: readonly unknown[]) => {
        said.push(String(args[4]))
        return Promise.resolve([])
      },
      publish: () => undefined,
      subscribe: (channel: string, hear: (text: string) => void) => {
        hears.set(channel, hear)
        return () => undefined
      },
    }
    const lease = { units: 0, leave: () => Promise.resolve(), onChange: () => undefined }
    const shared = { redis, namespace: 'n' }
    const feed = start({}, {}, { shared, lease: () => lease })
    const tell = (news: object) =>
      hears.get('n:feed:{f}:news')?.(JSON.stringify({ by: 'x', ...news }))
    feed.hear('a')
    await turns()
    said.length = 0
    tell({ values: [['a', { usd: 1 }, 0]] })
    tell({ failed: ['a'] })
    expect((await feed.last('a'))?.isStale).toBe(true)
    tell({ unchanged: [['a', sumOf('{"usd":1}')]] })
    expect((await feed.last('a'))?.isStale).toBe(false)
    tell({ failed: ['a'] })
    tell({ unchanged: [['a', sumOf('{"usd":2}')]] })
    expect((await feed.last('a'))?.isStale).toBe(true)
    await turns()
    expect(said.map((hint) => (JSON.parse(hint) as { adds: unknown }).adds)).toEqual([['a']])
    await feed.feeds.stop()
  })

  test('changed values are rows of a collection', async () => {
    const feed = start({ a: { id: 'a', usd: 1 }, b: { id: 'b', usd: 1 } }, { into: [prices] })
    feed.hear('a')
    feed.hear('b')
    await turns()
    feed.upstream.told.set('b', { id: 'b', usd: 2 })
    await pass(feed, 1_000)
    expect(feed.upserts).toEqual([
      [
        {
          plan: prices,
          rows: [
            { id: 'a', usd: 1 },
            { id: 'b', usd: 1 },
          ],
        },
      ],
      [{ plan: prices, rows: [{ id: 'b', usd: 2 }] }],
    ])
    await feed.feeds.stop()
  })

  test('adaptive: faster while values change, slower while they do not', async () => {
    let price = 0
    let isMoving = true
    const feed = start(
      {},
      {
        adaptive: { minMs: 250, maxMs: 4_000 },
        load: ({ keys }) => new Map(keys.map((key) => [key, isMoving ? (price += 1) : price])),
      },
    )
    feed.hear('a')
    await pass(feed, 10_000)
    const [busy] = feed.feeds.stats()
    expect(busy?.ticks).toBeGreaterThan(25)
    expect((await feed.last('a'))?.intervalMs).toBe(250)
    isMoving = false
    await pass(feed, 60_000)
    expect((await feed.last('a'))?.intervalMs).toBe(4_000)
    await feed.feeds.stop()
  })

  test('an answer that is no object of values fails the call', async () => {
    const feed = start({}, { load: () => [1, 2] })
    expect((await faultOf(() => feed.last('a'))).code).toBe('unavailable')
    await feed.feeds.stop()
  })

  test('no leave to ask: who waits for a first value is told when to come again, and it is tried then', async () => {
    let isFull = true
    let asks = 0
    const turn = () => {
      asks += 1
      if (!isFull) return Promise.resolve({ drop() {} })
      return Promise.reject(new Fault('too_many', 'full', { retryAfterMs: 3_000 }))
    }
    const feed = start({ a: 1 }, { budget: 'b' }, { turn })
    const fault = await faultOf(() => feed.last('a'))
    expect(fault).toMatchObject({ code: 'unavailable', retryAfterMs: 3_000 })
    feed.hear('a')
    await pass(feed, 2_500)
    // For a new key and for the line: neither again before.
    expect(asks).toBeLessThanOrEqual(2)
    isFull = false
    await pass(feed, 1_500)
    expect(feed.published).toEqual([['price:a', 1]])
    await feed.feeds.stop()
  })

  test('no leave once: a new key does not wait for the next round, however far it is', async () => {
    const refusals = [false, true]
    const turn = () =>
      refusals.shift() === true
        ? Promise.reject(new Fault('too_many', 'full', { retryAfterMs: 3_000 }))
        : Promise.resolve({ drop() {} })
    const feed = start({ a: 1, b: 2 }, { every: '1h', budget: 'b' }, { turn })
    feed.hear('a')
    await turns()
    expect(feed.published).toEqual([['price:a', 1]])
    feed.hear('b')
    await pass(feed, 3_500)
    expect(feed.published).toContainEqual(['price:b', 2])
    await feed.feeds.stop()
  })

  test('nothing is heard from upstream for long, for whatever reason: the values are stale, once', async () => {
    let granted = 0
    const turn = () =>
      granted++ < 3 ? Promise.resolve({ drop() {} }) : new Promise<{ drop(): void }>(() => {})
    const feed = start({ a: { usd: 1 } }, { budget: 'b' }, { turn })
    feed.hear('a')
    await pass(feed, 60_000, 250)
    expect(feed.published).toHaveLength(2)
    expect(feed.published[1]?.[1]).toMatchObject({ usd: 1, stale: true })
    await feed.feeds.stop()
  })

  test('leave that nobody needs any more is given back', async () => {
    const open = Promise.withResolvers<void>()
    let dropped = 0
    const turn = async () => {
      await open.promise
      return { drop: () => void (dropped += 1) }
    }
    const feed = start({ a: 1 }, { budget: 'b', keyed: { ...keyed, idleMs: 1_000 } }, { turn })
    feed.hear('a')
    await turns()
    feed.hear('a', false)
    await pass(feed, 3_000)
    open.resolve()
    await turns()
    expect(feed.upstream.calls).toEqual([])
    expect(dropped).toBeGreaterThan(0)
    await feed.feeds.stop()
  })

  test('a publication that does not get through is made with the next answer', async () => {
    let isFull = true
    const told: unknown[] = []
    const feed = start(
      { a: 1 },
      {},
      {
        publish: (_, data) => {
          if (isFull) throw new Fault('unavailable', 'full')
          told.push(data)
        },
      },
    )
    feed.hear('a')
    await pass(feed, 2_000)
    isFull = false
    await pass(feed, 1_100)
    expect(told).toEqual([1])
    await feed.feeds.stop()
  })

  test('a value that is too long is none', async () => {
    const feed = start({ a: 'x'.repeat(50_000), b: 1 })
    const read = await feed.feeds.read('f', ['a', 'b'])
    expect([...read.keys()]).toEqual(['b'])
    expect(feed.log.lines.some(({ event }) => event === 'feed.value-too-long')).toBe(true)
    await feed.feeds.stop()
  })

  test('over Redis, which may lose one, what has not changed is said again each half a minute', async () => {
    const redis = {
      isUp: true,
      script: () => Promise.resolve([]),
      publish: () => undefined,
      subscribe: () => () => undefined,
    }
    const shared = { redis, namespace: 'n' }
    for (const isKept of [false, true]) {
      const feed = start({ a: 1 }, { isKept }, { shared })
      feed.hear('a')
      await pass(feed, 61_500, 250)
      expect(feed.published).toHaveLength(isKept ? 1 : 3)
      redis.isUp = false
      await pass(feed, 35_000, 250)
      expect(feed.published).toHaveLength(isKept ? 1 : 3)
      redis.isUp = true
      await feed.feeds.stop()
    }
  })
})
