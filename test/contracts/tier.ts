/**
 * What every tier of the cache must do, said once and run on each: the one in memory through an adapter that
 * makes it asynchronous, the shared one as it is.
 */
import { expect, test } from 'bun:test'
import type { CacheEntry } from '../../src/cache/tier.ts'

export interface TierUnderTest extends AsyncDisposable {
  get(key: string): Promise<CacheEntry | undefined>
  /** Done once it would be found. */
  set(key: string, entry: CacheEntry): Promise<void>
  delete(key: string): Promise<void>
  /** A larger body is not kept. */
  readonly bodyBytesMax: number
}

const bytesOf = (...values: number[]): Uint8Array => new Uint8Array(values)

export function entryOf(body: Uint8Array | string, more: Partial<CacheEntry> = {}): CacheEntry {
  return {
    body: typeof body === 'string' ? new TextEncoder().encode(body) : body,
    etag: '"e1"',
    asOf: 42,
    tags: ['posts', 'posts:1'],
    storedAtMs: 1_767_225_600_000,
    freshUntilMs: 1_767_225_660_000.25,
    staleUntilMs: 1_767_226_000_000.5,
    ...more,
  }
}

export function tierContract(start: () => Promise<TierUnderTest>): void {
  const contract = (name: string, run: (tier: TierUnderTest) => Promise<void>): void =>
    test(name, async () => {
      await using tier = await start()
      await run(tier)
    })

  contract('what was never set is not there', async (tier) => {
    expect(await tier.get('a')).toBeUndefined()
  })

  contract(
    'an entry comes back whole: tags, times with fractions, the log position',
    async (tier) => {
      const entry = entryOf('{"id":1}')
      await tier.set('a', entry)
      expect(await tier.get('a')).toEqual(entry)
    },
  )

  contract('a remembered "not found" says so, and only that one', async (tier) => {
    await tier.set('a', entryOf('', { isAbsent: true }))
    await tier.set('b', entryOf(''))
    expect((await tier.get('a'))?.isAbsent).toBe(true)
    expect((await tier.get('b'))?.isAbsent).toBeUndefined()
  })

  contract('bytes are bytes: each of 256, line ends, none at all, not UTF-8', async (tier) => {
    const bodies = {
      all: new Uint8Array(256).map((_, index) => index),
      lines: new TextEncoder().encode('$5\r\nhello\r\n'),
      none: bytesOf(),
      broken: bytesOf(0xff, 0xfe, 0xc3, 0x28, 0),
    }
    for (const [key, body] of Object.entries(bodies)) await tier.set(key, entryOf(body))
    for (const [key, body] of Object.entries(bodies))
      expect((await tier.get(key))?.body).toEqual(body)
  })

  contract('a body that is a window into more is kept without the rest', async (tier) => {
    const whole = bytesOf(9, 9, 1, 2, 3, 9, 9)
    await tier.set('a', entryOf(whole.subarray(2, 5)))
    expect([...((await tier.get('a'))?.body ?? [])]).toEqual([1, 2, 3])
  })

  contract('the last one set is the one', async (tier) => {
    await tier.set('a', entryOf('old', { asOf: 1 }))
    await tier.set('a', entryOf('new', { asOf: 2, tags: [] }))
    expect(await tier.get('a')).toEqual(entryOf('new', { asOf: 2, tags: [] }))
  })

  contract('what was deleted is gone, and its neighbours stay', async (tier) => {
    await tier.set('a', entryOf('a'))
    await tier.set('b', entryOf('b'))
    await tier.delete('a')
    await tier.delete('never there')
    expect(await tier.get('a')).toBeUndefined()
    expect(await tier.get('b')).toEqual(entryOf('b'))
  })

  contract('no two keys are one: long, odd, and made to look like another', async (tier) => {
    const long = 'k'.repeat(10_000)
    const keys = [
      ...['a', 'A', ' a', 'a ', 'a:b', 'a%3Ab', '', '#', '=a', '#a', 'lease:a', ':lease:=a'],
      ...['é', 'e\u0301', '\u0000', 'a\r\nDEL b', '\ud800', '\ud801', '*', long, `${long}x`],
    ]
    for (const key of keys) await tier.set(key, entryOf(JSON.stringify(key)))
    for (const key of keys) expect(await tier.get(key)).toEqual(entryOf(JSON.stringify(key)))
  })

  contract('a body of the largest size is kept, a larger one is not', async (tier) => {
    await tier.set('fits', entryOf(new Uint8Array(tier.bodyBytesMax).fill(7)))
    await tier.set('larger', entryOf(new Uint8Array(2 * tier.bodyBytesMax)))
    expect((await tier.get('fits'))?.body.length).toBe(tier.bodyBytesMax)
    expect(await tier.get('larger')).toBeUndefined()
  })
}
