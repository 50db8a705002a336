/** Races between nodes, each played by hand: two caches, and a shared tier in which nothing arrives by itself. */
import { describe, expect, test } from 'bun:test'
import { createCache, type CacheRead, type SharedTier, type Source } from '../../src/cache/cache.ts'
import type { CacheEntry } from '../../src/cache/tier.ts'
import { Fault } from '../../src/fault.ts'
import { createFollower } from '../../src/store/follower.ts'
import type { LogEntry } from '../../src/store/messages.ts'
import { createTestClock } from '../clock.ts'
import { createTestLog, faultOf } from '../harness.ts'

const policy = { ttlMs: 60_000, staleMs: 600_000 }
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
const textOf = ({ entry }: CacheRead): string => new TextDecoder().decode(entry.body)
const shown = async (read: CacheRead | Promise<CacheRead>) => {
  const done = await read
  return [done.state, textOf(done)]
}

/** What nodes share. Sets and answers wait while they are held. */
function createSharedMap() {
  const kept = new Map<string, CacheEntry>()
  const leases = new Set<string>()
  const heldSets: (() => void)[] = []
  const heldGets: (() => void)[] = []
  const hold = { sets: false, gets: false }
  const release = (held: (() => void)[]): void => held.splice(0).forEach((run) => run())

  const tier: SharedTier = {
    isUp: true,
    async get(key) {
      // Looked up now, told later: as over a network.
      const found = kept.get(key)
      if (hold.gets) await new Promise<void>((resolve) => void heldGets.push(resolve))
      return found
    },
    set(key, entry) {
      const run = (): void => void kept.set(key, entry)
      if (hold.sets) heldSets.push(run)
      else run()
    },
    delete: (key) => void kept.delete(key),
    async lease(key) {
      if (leases.has(key)) return false
      leases.add(key)
      return true
    },
    stats: () => ({ hits: 0, misses: 0, sets: 0, failures: 0, skipped: 0, isUp: true }),
    start: async () => {},
    stop: async () => {},
  }
  return {
    tier,
    kept,
    hold,
    letSets: () => release(heldSets),
    letGets: () => release(heldGets),
  }
}

function setUp(skewMs = 0) {
  const clock = createTestClock()
  const shared = createSharedMap()
  let loads = 0
  const open = (offsetMs: number) => {
    const skewed = { ...clock, now: () => clock.now() + offsetMs }
    const cache = createCache({ clock: skewed, shared: shared.tier }, { random: () => 0.5 })
    const read = (text: string) =>
      cache.read('k', ['t'], policy, () => {
        loads++
        return Promise.resolve(bytes(text))
      })
    return { cache, read }
  }
  return { clock, shared, a: open(0), b: open(skewMs), c: open(0), loads: () => loads }
}

/** All that can happen without time passing has happened. */
const settled = () => Bun.sleep(0)

describe('the shared tier', () => {
  test('race: a late SET by a node that has not applied yet is rejected by readers', async () => {
    const { shared, a, b, c } = setUp()
    shared.hold.sets = true
    await a.read('old')
    shared.hold.sets = false
    b.cache.apply(1, ['t'])
    expect(await shown(b.read('new'))).toEqual(['miss', 'new'])
    shared.letSets()
    expect(textOf({ entry: shared.kept.get('k') } as CacheRead)).toBe('old')
    expect(await shown(b.read('none'))).toEqual(['hit', 'new'])
    c.cache.apply(1, ['t'])
    expect(await shown(c.read('newer'))).toEqual(['miss', 'newer'])
  })

  test('race: a load that began before a change is not put there at all by whoever has applied it', async () => {
    const { shared, a } = setUp()
    const old = Promise.withResolvers<Uint8Array>()
    const early = a.cache.read('k', ['t'], policy, () => old.promise)
    await settled()
    a.cache.apply(1, ['t'])
    old.resolve(bytes('old'))
    expect(await shown(early)).toEqual(['miss', 'old'])
    expect(shared.kept.size).toBe(0)
  })

  test('race: an entry on its way during an invalidation is rejected, and nobody joins who waits for it', async () => {
    const { shared, a, b } = setUp()
    await a.read('old')
    shared.hold.gets = true
    const early = b.read('early')
    b.cache.apply(1, ['t'])
    const after = b.read('after')
    shared.hold.gets = false
    shared.letGets()
    expect(await shown(early)).toEqual(['miss', 'early'])
    const late = await after
    expect([late.state, textOf(late), late.isCoalesced]).toEqual(['miss', 'after', false])
    expect(await shown(b.read('none'))).toEqual(['hit', 'after'])
  })

  test('race: what is promoted is dropped by the next invalidation like what was loaded', async () => {
    const { a, b } = setUp()
    await a.read('old')
    expect(await shown(b.read('none'))).toEqual(['l2', 'old'])
    b.cache.apply(1, ['t'])
    expect(await shown(b.read('new'))).toEqual(['miss', 'new'])
  })

  test('an entry is valid for a node that is behind the one that left it, and stays so', async () => {
    const { a, b } = setUp()
    a.cache.apply(5, ['t'])
    await a.read('newest')
    expect(await shown(b.read('none'))).toEqual(['l2', 'newest'])
    b.cache.apply(5, ['t'])
    expect(await shown(b.read('none'))).toEqual(['hit', 'newest'])
    b.cache.apply(6, ['t'])
    expect(await shown(b.read('newer'))).toEqual(['miss', 'newer'])
  })

  test("an entry must be valid by the reader's tags, too: whoever left it knew fewer", async () => {
    const { a, b } = setUp()
    await a.cache.read('k', [], policy, async () => bytes('old'))
    b.cache.apply(1, ['t'])
    expect(await shown(b.read('new'))).toEqual(['miss', 'new'])
  })

  test("race: what was left by whoever knew fewer tags is dropped by the reader's, too", async () => {
    const { a, b } = setUp()
    await a.cache.read('k', ['s'], policy, async () => bytes('old'))
    expect(await shown(b.read('none'))).toEqual(['l2', 'old'])
    expect(await shown(b.read('none'))).toEqual(['hit', 'old'])
    b.cache.apply(1, ['t'])
    expect(await shown(b.read('new'))).toEqual(['miss', 'new'])
  })

  test('promotion keeps the logical expiry', async () => {
    const { clock, a, b } = setUp()
    await a.read('one')
    clock.advance(40_000)
    expect(await shown(b.read('none'))).toEqual(['l2', 'one'])
    clock.advance(19_999)
    expect((await b.read('two')).state).toBe('hit')
    await settled()
    clock.advance(1)
    expect((await b.read('two')).entry.freshUntilMs).toBeGreaterThan(clock.now())
    expect(await shown(b.read('none'))).toEqual(['hit', 'two'])
  })

  test('Redis comes back empty: what is valid in memory is served on, and nothing older returns', async () => {
    const { shared, a, b } = setUp()
    await a.read('one')
    shared.kept.clear()
    expect(await shown(a.read('none'))).toEqual(['hit', 'one'])
    a.cache.apply(1, ['t'])
    b.cache.apply(1, ['t'])
    expect(await shown(b.read('two'))).toEqual(['miss', 'two'])
    expect(await shown(a.read('none'))).toEqual(['l2', 'two'])
  })
})

for (const minutes of [-5, 5]) {
  test(`a clock ${minutes} minutes off keeps nothing longer than its TTL, and nothing invalid`, async () => {
    const { clock, a, b } = setUp(minutes * 60_000)
    await a.read('old')
    const seen = await b.read('own')
    expect(seen.entry.freshUntilMs).toBeLessThanOrEqual(
      clock.now() + minutes * 60_000 + policy.ttlMs,
    )
    b.cache.apply(1, ['t'])
    expect(await shown(b.read('new'))).toEqual(['miss', 'new'])
    clock.advance(policy.ttlMs)
    expect((await b.read('newer')).state).not.toBe('hit')
  })
}

test('what is asked for and becomes invalid is loaded ahead by one of two nodes, after each change, and after a hole in the log', async () => {
  const { clock, a, b } = setUp()
  let loads = 0
  const source: Source = {
    group: 't',
    load: () => Promise.resolve({ body: bytes(`load ${++loads}`) }),
    touches: () => true,
    others: (tags) => tags,
    repair: () => undefined,
  }
  const read = ({ cache }: typeof a) => cache.read('k', ['t'], policy, source)
  for (const seq of [1, 2, 3]) {
    for (const node of [a, b, a, b]) await read(node)
    for (const { cache } of [a, b]) {
      if (seq < 3) cache.apply(seq, ['t'])
      else cache.jump(1_000)
    }
    clock.advance(20)
    await settled()
    expect(loads).toBe(seq + 1)
    // The other one finds it in the shared tier.
    expect((await Promise.all([read(a), read(b)])).map(({ state }) => state)).toEqual(['hit', 'l2'])
  }
  expect([a.cache.stats().reloads, b.cache.stats().reloads]).toEqual([3, 0])
})

describe('refresh-ahead', () => {
  test('of two nodes one loads; the other serves what it has', async () => {
    const { clock, a, b, loads } = setUp()
    await a.read('one')
    await b.read('one')
    expect(loads()).toBe(1)
    clock.advance(55_000)
    const both = [a.read('two'), b.read('two')]
    expect((await Promise.all(both.map(shown))).flat()).toEqual(['hit', 'one', 'hit', 'one'])
    await settled()
    expect(loads()).toBe(2)
    // The other finds it in the shared tier once its own is over.
    clock.advance(5_000)
    expect(await shown(a.read('none'))).toEqual(['hit', 'two'])
    expect(await shown(b.read('none'))).toEqual(['l2', 'two'])
    expect(loads()).toBe(2)
  })

  test('race: a refresh that was under way during a write is not kept', async () => {
    const { clock, shared, a } = setUp()
    await a.read('one')
    clock.advance(55_000)
    const slow = Promise.withResolvers<Uint8Array>()
    const load = () => slow.promise
    expect((await a.cache.read('k', ['t'], policy, load)).state).toBe('hit')
    await settled()
    a.cache.apply(1, ['t'])
    expect(await shown(a.read('new'))).toEqual(['miss', 'new'])
    slow.resolve(bytes('old'))
    await settled()
    expect(await shown(a.read('none'))).toEqual(['hit', 'new'])
    expect(textOf({ entry: shared.kept.get('k') } as CacheRead)).toBe('new')
  })
})

describe('following the log', () => {
  const entry = (seq: number): LogEntry => [seq, 0, 'other', '{"op":"update","row":{}}']

  function follow() {
    const log = createTestLog()
    const { a, b, shared, clock } = setUp()
    const follower = createFollower({
      log,
      read: ([seq, atMs, table]) => ({
        ...{ seq, atMs, table, op: 'update', key: '', row: [] },
        tags: [table],
      }),
    })
    follower.onChange(({ seq, tags }) => a.cache.apply(seq, tags))
    follower.onGap((seq) => a.cache.jump(seq))
    follower.jump(10)
    return { follower, a, b, shared, clock }
  }

  test('a node that slept past the retained log drops everything, also what Redis has from before', async () => {
    const { follower, a, b } = follow()
    b.cache.jump(10)
    await b.read('before')
    expect(await shown(a.read('none'))).toEqual(['l2', 'before'])
    follower.accept([entry(11)])
    expect((await a.read('none')).state).toBe('hit')
    // 12 to 499 have been pruned: any of them may have been about `t`.
    follower.accept([entry(500), entry(501)])
    expect(await shown(a.read('after'))).toEqual(['miss', 'after'])
    expect(await shown(a.read('none'))).toEqual(['hit', 'after'])
  })

  test('race: a load that was under way when the log was lost is not kept', async () => {
    const { follower, a } = follow()
    const slow = Promise.withResolvers<Uint8Array>()
    const early = a.cache.read('k', ['t'], policy, () => slow.promise)
    await settled()
    follower.accept([entry(500)])
    slow.resolve(bytes('old'))
    await early
    expect(await shown(a.read('new'))).toEqual(['miss', 'new'])
  })

  test('an entry that comes twice, by a poll and with an own commit, is told once', () => {
    const { follower, a } = follow()
    const told: number[] = []
    follower.onChange(({ seq }) => void told.push(seq))
    follower.accept([entry(11), entry(12)])
    follower.accept([entry(11), entry(12), entry(13)])
    follower.accept([entry(12)])
    expect([told, follower.applied, a.cache.stats().entries]).toEqual([[11, 12, 13], 13, 0])
  })
})

test('an error storm: a thousand callers of a load that fails cost one, and get the same failure', async () => {
  const { a } = setUp()
  let loads = 0
  const down = () => {
    loads++
    return Promise.reject(new Fault('unavailable', 'down'))
  }
  const callers = Array.from({ length: 1_000 }, () =>
    faultOf(async () => await a.cache.read('k', ['t'], policy, down)),
  )
  expect(new Set(await Promise.all(callers)).size).toBe(1)
  expect(loads).toBe(1)
})
