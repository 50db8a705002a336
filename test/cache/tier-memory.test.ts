import { describe, expect, test } from 'bun:test'
import { bytesOf, createMemoryTier, isGone } from '../../src/cache/tier-memory.ts'
import type { CacheEntry } from '../../src/cache/tier.ts'
import { systemClock } from '../../src/lib/clock.ts'

const mega = 1024 * 1024
const bounds = { entriesMax: 10_000, bytesMax: 64 * mega, entryBytesMax: mega }

function entryOf(bytes: number, more: Partial<CacheEntry> = {}): CacheEntry {
  const times = { storedAtMs: 0, freshUntilMs: 1, staleUntilMs: 2 }
  return { body: new Uint8Array(bytes), etag: '"e"', asOf: 0, tags: ['t'], ...times, ...more }
}

describe('memory tier', () => {
  test('gives back the very entry that was set, until it is deleted', () => {
    const tier = createMemoryTier(bounds, systemClock)
    const entry = entryOf(100)
    tier.set('k', entry)
    expect(tier.get('k')).toBe(entry)
    tier.delete('k')
    expect(tier.get('k')).toBeUndefined()
    expect([tier.size, tier.bytes, tier.evictions]).toEqual([0, 0, 0])
  })

  test('counts body, key, tags and variants, and a replaced entry once', () => {
    const tier = createMemoryTier(bounds, systemClock)
    const variants = [{ coding: 'br', body: new Uint8Array(512) }]
    const sizes = [
      entryOf(1024),
      entryOf(2048),
      entryOf(1024, { tags: ['t', 'tt'] }),
      entryOf(1024, { variants }),
    ].map((entry) => {
      tier.set('k', entry)
      expect(tier.bytes).toBe(bytesOf('k', entry))
      return tier.bytes
    })
    const [plain = 0] = sizes
    expect(sizes.map((size) => size - plain)).toEqual([0, 1024, 34, 672])
    expect(bytesOf('kk', entryOf(1024)) - plain).toBe(1)
    expect(tier.size).toBe(1)
  })

  test('an entry larger than allowed is not kept, also by its variants', () => {
    const tier = createMemoryTier(bounds, systemClock)
    tier.set('large', entryOf(mega))
    tier.set('k', entryOf(1000))
    tier.set('k', entryOf(1000, { variants: [{ coding: 'zstd', body: new Uint8Array(mega) }] }))
    expect([tier.get('large'), tier.get('k'), tier.size]).toEqual([undefined, undefined, 0])
  })

  test('counts evictions and names the hot keys first', () => {
    const tier = createMemoryTier({ ...bounds, entriesMax: 100 }, systemClock)
    for (let n = 0; n < 150; n++) {
      tier.set(`k${n}`, entryOf(10))
      if (n % 40 === 0) for (let use = 0; use < 3; use++) tier.get(`k${n}`)
    }
    expect([tier.size, tier.evictions]).toEqual([100, 50])
    expect([...tier.keys()].slice(0, 3)).toContain('k120')
    expect([...tier.keys()].length).toBe(100)
  })

  test('collects at the end of a turn after so many bytes of large bodies, and never for small ones', () => {
    const collected: string[] = []
    const turn: (() => void)[] = []
    const soon = (run: () => void) => void turn.push(run)
    const collect = (which: string) => void collected.push(which)
    const tier = createMemoryTier({ ...bounds, bytesMax: 128 * mega }, { soon }, { collect })
    const setSome = (count: number, bytes: number) => {
      for (let n = 0; n < count; n++) tier.set(`${bytes} ${n}`, entryOf(bytes))
      const before = collected.length
      for (const run of turn.splice(0)) run()
      return collected.length - before
    }
    expect(setSome(20_000, 2_000)).toBe(0)
    // 2 MB, a 64th of the bound: 19 of what 100 KB take.
    expect(setSome(18, 100 * 1024)).toBe(0)
    expect(setSome(1, 100 * 1024)).toBe(1)
    expect(setSome(18, 100 * 1024)).toBe(0)
    expect(setSome(1 + 19 * 10, 100 * 1024)).toBe(1)
    expect(collected).toEqual(['young', 'young'])
    // One of 64 is of everything, also of those that one turn has made one.
    expect(setSome(19 * 60, 100 * 1024)).toBe(1)
    expect(collected).toEqual(['young', 'young', 'all'])
  })
})

describe('a large body that leaves', () => {
  /** Turns end when told. */
  function openTier(entriesMax = 2) {
    const turn: (() => void)[] = []
    const soon = (run: () => void) => void turn.push(run)
    const tier = createMemoryTier({ ...bounds, entriesMax }, { soon }, { collect: () => {} })
    return { tier, endTurn: () => turn.splice(0).forEach((run) => run()) }
  }
  const bytes = 100 * 1024

  test('is there until the turn is over, and its memory is free then', () => {
    const { tier, endTurn } = openTier()
    const [first, second] = [entryOf(bytes), entryOf(bytes)]
    tier.set('a', first)
    tier.set('b', second)
    tier.delete('a')
    expect([first.body.byteLength, isGone(first)]).toEqual([bytes, false])
    endTurn()
    expect([first.body.buffer.byteLength, isGone(first)]).toEqual([0, true])
    expect([second.body.byteLength, isGone(second)]).toEqual([bytes, false])
    // Replaced, evicted, and too large to be kept at all.
    const third = entryOf(bytes)
    tier.set('b', third)
    const tooLarge = entryOf(mega + 1)
    tier.set('c', tooLarge)
    endTurn()
    expect([second, third, tooLarge].map(isGone)).toEqual([true, false, true])
    for (const key of ['d', 'e', 'f']) tier.set(key, entryOf(bytes))
    endTurn()
    expect(isGone(third)).toBe(true)
  })

  test('is not freed while another entry has it', () => {
    const { tier, endTurn } = openTier()
    const entry = entryOf(bytes)
    tier.set('a', entry)
    tier.set('a', { ...entry, freshUntilMs: 10 })
    tier.set('b', entry)
    endTurn()
    tier.delete('a')
    endTurn()
    expect(isGone(entry)).toBe(false)
    tier.delete('b')
    // And comes back before the turn is over.
    tier.set('c', entry)
    endTurn()
    expect(isGone(entry)).toBe(false)
    tier.delete('c')
    endTurn()
    expect(isGone(entry)).toBe(true)
  })

  test('is left alone if it is a window into more, or small', () => {
    const { tier, endTurn } = openTier()
    const window = entryOf(0, { body: new Uint8Array(2 * bytes).subarray(bytes) })
    const small = entryOf(1000)
    tier.set('a', window)
    tier.set('b', small)
    tier.delete('a')
    tier.delete('b')
    endTurn()
    expect([window.body.byteLength, small.body.byteLength]).toEqual([bytes, 1000])
  })

  test('was copied by whoever answers with it', async () => {
    const { tier, endTurn } = openTier()
    const entry = entryOf(bytes)
    entry.body.fill(65)
    tier.set('a', entry)
    const response = new Response(entry.body)
    tier.delete('a')
    endTurn()
    expect(await response.text()).toBe('A'.repeat(bytes))
  })
})

interface Weight {
  readonly bytesMax: number
  /** RSS above what the process weighed when its tier was empty. */
  readonly after: number
  readonly peak: number
  readonly size: number
  readonly bytes: number
  readonly evictions: number
}

/** In a process of its own: nothing else is in its memory. */
async function weigh(...args: readonly number[]): Promise<Weight> {
  const child = Bun.spawn(
    [process.execPath, `${import.meta.dir}/memory-fixture.ts`, ...args.map(String)],
    { stdout: 'pipe', stderr: 'inherit' },
  )
  const said = await new Response(child.stdout).text()
  expect(await child.exited).toBe(0)
  return JSON.parse(said) as Weight
}

/** Code that is compiled, pages the allocator keeps: not the entries', and the same for any bound. */
const processBytes = 6 * mega

describe('the process', () => {
  test('10,000 entries of 2 KB weigh what is counted', async () => {
    const { after, bytes, size, evictions } = await weigh(10_000, 2048, 10_000, 128 * mega)
    expect([size, evictions]).toEqual([10_000, 0])
    expect(after).toBeLessThan(bytes * 1.2 + processBytes)
    // And the count is no excuse to keep too little.
    expect(bytes).toBeLessThan(after * 1.2)
  })

  test('100,000 distinct keys of 100 KB: memory stays within the bound + 20 %', async () => {
    const { after, peak, bytesMax, bytes, size, evictions } = await weigh(
      ...[100_000, 100 * 1024, 10_000, 128 * mega],
    )
    expect(bytes).toBeLessThanOrEqual(bytesMax)
    expect(bytes).toBeGreaterThan(bytesMax * 0.99)
    expect(size + evictions).toBe(100_000)
    expect(after).toBeLessThan(bytesMax * 1.2)
    // Under way: what is between two collections, on a machine that may be busy.
    expect(peak).toBeLessThan(bytesMax * 1.5)
  }, 120_000)
})
