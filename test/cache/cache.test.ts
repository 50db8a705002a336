import { describe, expect, test } from 'bun:test'
import { createCache, type CacheRead } from '../../src/cache/cache.ts'
import { joinMsMax } from '../../src/cache/flight.ts'
import { createTags } from '../../src/cache/tags.ts'
import { Fault } from '../../src/fault.ts'
import { createTestClock } from '../clock.ts'

const policy = { ttlMs: 60_000, staleMs: 600_000 }
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
const textOf = (read: CacheRead): string => new TextDecoder().decode(read.entry.body)

function setUp() {
  const clock = createTestClock()
  // 0.5 is the middle of the jitter: TTLs are exact.
  const cache = createCache({ clock }, { random: () => 0.5, refreshAheadShare: 0 })
  let loads = 0
  const load = (text: string) => () => {
    loads++
    return Promise.resolve(bytes(text))
  }
  return { clock, cache, load, loads: () => loads }
}

describe('cache.read', () => {
  test('a miss, then hits with the same bytes and ETag, until the TTL', async () => {
    const { clock, cache, load, loads } = setUp()
    const first = await cache.read('k', ['t'], policy, load('one'))
    expect(first.state).toBe('miss')
    clock.advance(59_999)
    const second = cache.read('k', ['t'], policy, load('two'))
    expect(second).toEqual({ state: 'hit', isCoalesced: false, entry: first.entry })
    clock.advance(1)
    expect(textOf(await cache.read('k', ['t'], policy, load('two')))).toBe('two')
    expect(loads()).toBe(2)
  })

  test('a thousand callers of one cold key cost one load', async () => {
    const { cache, load, loads } = setUp()
    const reads = await Promise.all(
      Array.from({ length: 1000 }, () => cache.read('k', ['t'], policy, load('one'))),
    )
    expect(loads()).toBe(1)
    expect(reads.filter(({ isCoalesced }) => isCoalesced).length).toBe(999)
  })

  test('an invalidated entry is not served again', async () => {
    const { cache, load } = setUp()
    await cache.read('k', ['t'], policy, load('one'))
    cache.apply(1, ['t'])
    const again = await cache.read('k', ['t'], policy, load('two'))
    expect([again.state, textOf(again)]).toEqual(['miss', 'two'])
    cache.apply(2, ['other'])
    expect((await cache.read('k', ['t'], policy, load('three'))).state).toBe('hit')
  })

  test('a load is told what it must have seen: the last change under its tags', async () => {
    const { cache } = setUp()
    const asked: number[] = []
    const load = (minSeq: number) => {
      asked.push(minSeq)
      return Promise.resolve(bytes('x'))
    }
    cache.apply(3, ['t'])
    cache.apply(4, ['other'])
    await cache.read('k', ['t', 'u'], policy, load)
    await cache.read('l', ['u'], policy, load)
    expect(asked).toEqual([3, 0])
  })

  test('after a hole in the log nothing older is given', async () => {
    const { cache, load } = setUp()
    await cache.read('k', ['t'], policy, load('one'))
    cache.jump(9)
    const again = await cache.read('k', ['t'], policy, load('two'))
    expect([again.state, textOf(again)]).toEqual(['miss', 'two'])
  })

  test('race: a load in flight during an invalidation is handed out and never stored', async () => {
    const { cache, load } = setUp()
    const old = Promise.withResolvers<Uint8Array>()
    const early = cache.read('k', ['t'], policy, () => old.promise)
    cache.apply(1, ['t'])
    old.resolve(bytes('old'))
    expect(textOf(await early)).toBe('old')
    const late = await cache.read('k', ['t'], policy, load('new'))
    expect([late.state, textOf(late)]).toEqual(['miss', 'new'])
  })

  test('race: who arrives after the invalidation never joins the older flight', async () => {
    const { cache, load, loads } = setUp()
    const old = Promise.withResolvers<Uint8Array>()
    const early = cache.read('k', ['t'], policy, () => old.promise)
    cache.apply(1, ['t'])
    const late = await cache.read('k', ['t'], policy, load('new'))
    expect([textOf(late), late.isCoalesced, loads()]).toEqual(['new', false, 1])
    old.resolve(bytes('old'))
    await early
    // The older flight lands last, and must not push the newer value out.
    const after = await cache.read('k', ['t'], policy, load('none'))
    expect([after.state, textOf(after)]).toEqual(['hit', 'new'])
  })

  test('a failing load is shared by its callers, and tried again only after a moment', async () => {
    const { clock, cache, load, loads } = setUp()
    const fail = () => Promise.reject(new Fault('unavailable', 'down'))
    const reads = [cache.read('k', [], policy, fail), cache.read('k', [], policy, fail)]
    const outcomes = await Promise.allSettled(reads)
    expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'rejected'])
    const held = (async () => await cache.read('k', [], policy, load('up')))()
    await expect(held).rejects.toThrow('down')
    expect([loads(), cache.stats().held]).toEqual([0, 1])
    expect((await cache.read('other', [], policy, load('up'))).state).toBe('miss')
    clock.advance(1_000)
    expect((await cache.read('k', [], policy, load('up'))).state).toBe('miss')
  })

  test('a load that never ends is waited for by those who came within half a minute, and no more', async () => {
    const { clock, cache, load, loads } = setUp()
    const never = () => new Promise<never>(() => {})
    void cache.read('k', ['t'], policy, never)
    clock.advance(joinMsMax - 1)
    void cache.read('k', ['t'], policy, load('joins'))
    clock.advance(1)
    const read = await cache.read('k', ['t'], policy, load('one'))
    expect([read.isCoalesced, textOf(read), loads(), cache.stats().coalesced]).toEqual([
      ...[false, 'one', 1, 1],
    ])
    expect((await cache.read('k', ['t'], policy, never)).state).toBe('hit')
  })

  test('while a load is held, an expired entry stands in', async () => {
    const { clock, cache, load, loads } = setUp()
    const down = () => Promise.reject(new Fault('unavailable', 'down'))
    await cache.read('k', ['t'], policy, load('one'))
    clock.advance(60_001)
    await cache.read('k', ['t'], policy, down)
    const again = await cache.read('k', ['t'], policy, load('two'))
    expect([again.state, textOf(again), loads()]).toEqual(['stale', 'one', 1])
  })

  test('"not found" is remembered for ten seconds, until somebody makes it', async () => {
    const { clock, cache, load } = setUp()
    let asked = 0
    const nothing = () => {
      asked++
      return Promise.resolve(undefined)
    }
    for (let time = 0; time < 3; time++) {
      expect((await cache.read('k', ['t'], policy, nothing)).entry.isAbsent).toBe(true)
    }
    expect(asked).toBe(1)
    clock.advance(10_001)
    await cache.read('k', ['t'], policy, nothing)
    expect(asked).toBe(2)
    cache.apply(1, ['t'])
    expect(textOf(await cache.read('k', ['t'], policy, load('made')))).toBe('made')
  })

  test('near its end an entry that is asked for is loaded anew, once, and nobody waits', async () => {
    const clock = createTestClock()
    const cache = createCache({ clock }, { random: () => 0.5 })
    await cache.read('k', ['t'], policy, () => Promise.resolve(bytes('one')))
    clock.advance(50_000)
    const unasked = () => Promise.reject(new Fault('internal', 'nobody should ask'))
    expect(cache.read('k', ['t'], policy, unasked)).toMatchObject({ state: 'hit' })
    clock.advance(5_000)
    const next = Promise.withResolvers<Uint8Array>()
    let loads = 0
    const load = () => {
      loads++
      return next.promise
    }
    for (let time = 0; time < 5; time++) {
      const read = cache.read('k', ['t'], policy, load)
      expect(read).toMatchObject({ state: 'hit' })
      expect(textOf(await read)).toBe('one')
    }
    expect(loads).toBe(1)
    next.resolve(bytes('two'))
    await next.promise
    await Bun.sleep(0)
    const fresh = await cache.read('k', ['t'], policy, load)
    expect([fresh.state, textOf(fresh), loads]).toEqual(['hit', 'two', 1])
    clock.advance(50_000)
    expect(cache.read('k', ['t'], policy, load)).toMatchObject({ state: 'hit' })
  })

  test('whoever waits long for a load gets an expired entry, if there is one', async () => {
    const { clock, cache, load } = setUp()
    await cache.read('k', ['t'], policy, load('one'))
    clock.advance(60_001)
    const slow = Promise.withResolvers<Uint8Array>()
    const waiting = [1, 2].map(() => cache.read('k', ['t'], policy, () => slow.promise))
    clock.advance(2_000)
    for (const read of await Promise.all(waiting)) {
      expect([read.state, textOf(read)]).toEqual(['stale', 'one'])
    }
    const first = cache.read('cold', ['t'], policy, () => slow.promise)
    clock.advance(5_000)
    slow.resolve(bytes('late'))
    expect(textOf(await first)).toBe('late')
  })

  test('stale: an expired entry stands in for a store that fails, an invalidated one never', async () => {
    const { clock, cache, load } = setUp()
    const down = () => Promise.reject(new Fault('unavailable', 'down'))
    await cache.read('k', ['t'], policy, load('one'))
    clock.advance(60_001)
    const stale = await cache.read('k', ['t'], policy, down)
    expect([stale.state, textOf(stale)]).toEqual(['stale', 'one'])
    clock.advance(1_000)
    const bug = () => Promise.reject(new Fault('internal', 'bug'))
    await expect((async () => await cache.read('k', ['t'], policy, bug))()).rejects.toThrow('bug')
    cache.apply(1, ['t'])
    await expect((async () => await cache.read('k', ['t'], policy, down))()).rejects.toThrow('down')
  })

  test('race: a write applied while the failing load ran makes the expired entry unusable', async () => {
    const { clock, cache, load } = setUp()
    await cache.read('k', ['t'], policy, load('one'))
    clock.advance(60_001)
    const down = Promise.withResolvers<Uint8Array>()
    const waiting = (async () => await cache.read('k', ['t'], policy, () => down.promise))()
    cache.apply(1, ['t'])
    down.reject(new Fault('unavailable', 'down'))
    await expect(waiting).rejects.toThrow('down')
  })

  test('race: an older flight that lands does not make a newer one unjoinable', async () => {
    const { cache } = setUp()
    const [old, young] = [Promise.withResolvers<Uint8Array>(), Promise.withResolvers<Uint8Array>()]
    const early = cache.read('k', ['t'], policy, () => old.promise)
    cache.apply(1, ['t'])
    const late = cache.read('k', ['t'], policy, () => young.promise)
    old.resolve(bytes('old'))
    await early
    const joiner = cache.read('k', ['t'], policy, () => Promise.resolve(bytes('third')))
    young.resolve(bytes('young'))
    expect((await Promise.all([late, joiner])).map(textOf)).toEqual(['young', 'young'])
  })

  test('stale ends with its window', async () => {
    const { clock, cache, load } = setUp()
    const down = () => Promise.reject(new Fault('unavailable', 'down'))
    await cache.read('k', ['t'], policy, load('one'))
    clock.advance(660_001)
    await expect((async () => await cache.read('k', ['t'], policy, down))()).rejects.toThrow('down')
  })

  test('is bounded by bytes as well as by entries', async () => {
    const clock = createTestClock()
    const cache = createCache({ clock }, { bytesMax: 10_000, entryBytesMax: 2_000, entriesMax: 5 })
    const body = (length: number) => () => Promise.resolve(new Uint8Array(length))
    for (let at = 0; at < 20; at++) await cache.read(`k${at}`, [], policy, body(100))
    expect(cache.stats().entries).toBe(5)
    for (let at = 0; at < 20; at++) await cache.read(`b${at}`, [], policy, body(1_000))
    expect(cache.stats().bytes).toBeLessThanOrEqual(10_000)
    await cache.read('large', [], policy, body(3_000))
    expect((await cache.read('large', [], policy, body(3_000))).state).toBe('miss')
  })

  test('statistics are bounded, whatever paths are made of', async () => {
    const { cache, load } = setUp()
    for (let n = 0; n < 2_000; n++) {
      await cache.read(`k${n}`, [], { ...policy, path: `route ${n}` }, load('one'))
    }
    const { byPath, misses } = cache.stats()
    expect([misses, Object.keys(byPath).length, byPath['route 7']?.misses]).toEqual([
      2_000, 1_001, 1,
    ])
    expect(byPath['other']).toEqual({ hits: 0, misses: 1_000 })
  })

  test('TTLs vary by a tenth either way', async () => {
    const clock = createTestClock()
    for (const [random, freshMs] of [
      [0, 54_000],
      [0.999999, 66_000],
    ] as const) {
      const cache = createCache({ clock }, { random: () => random })
      const { entry } = await cache.read('k', [], policy, () => Promise.resolve(bytes('x')))
      expect(Math.round(entry.freshUntilMs - clock.now())).toBe(freshMs)
    }
  })
})

describe('tags', () => {
  test('forgetting a tag raises the floor: older entries are stale, never wrongly fresh', () => {
    const tags = createTags(2)
    tags.apply(1, ['a'])
    tags.apply(2, ['b'])
    tags.apply(3, ['c'])
    expect(tags.isValid(0, ['a'])).toBe(false)
    expect(tags.isValid(0, ['untouched'])).toBe(false)
    expect(tags.isValid(1, ['untouched'])).toBe(true)
    expect(tags.isValid(1, ['b'])).toBe(false)
    expect(tags.isValid(3, ['a', 'b', 'c'])).toBe(true)
  })
})
