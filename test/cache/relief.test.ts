/** What an overload makes of the cache: older answers where that is declared, fewer loads, and never what a write made old. */
import { describe, expect, test } from 'bun:test'
import { createCache, type CacheRead, type Relief } from '../../src/cache/cache.ts'
import { createTestClock } from '../clock.ts'
import { faultOf, until } from '../harness.ts'

const policy = { ttlMs: 60_000, staleMs: 600_000 }
const textOf = (read: CacheRead): string => new TextDecoder().decode(read.entry.body)

function setUp() {
  const clock = createTestClock()
  const relief = { factor: 1, mayLoad: (_: Parameters<Relief['mayLoad']>[0]) => true }
  const cache = createCache({ clock, relief }, { random: () => 0.5 })
  let loads = 0
  const read = (from: Partial<typeof policy> = {}, priority?: 'low') =>
    cache.read('k', ['t'], { ...policy, ...from, priority }, () => {
      loads++
      return Promise.resolve(new TextEncoder().encode(String(loads)))
    })
  return { clock, cache, relief, read, loads: () => loads }
}

describe('saving', () => {
  test('an answer is given for some TTLs without a load, then while it is loaded anew', async () => {
    const { clock, relief, read, loads } = setUp()
    await read()
    relief.factor = 4
    // The last of its TTL does not load it ahead, either.
    for (const afterMs of [55_000, 65_000, 179_000]) {
      clock.advance(afterMs - clock.tick())
      expect(textOf(await read())).toBe('1')
    }
    expect(loads()).toBe(1)
    clock.advance(241_000 - clock.tick())
    const stale = read()
    expect(stale).toMatchObject({ state: 'stale', isCoalesced: false, isSparing: true })
    await until(() => loads() === 2, 'loaded behind it')
    await until(async () => (await read()).state === 'hit', 'and kept')
    expect(textOf(await read())).toBe('2')
  })

  test('not beyond what may be stale, and not where nothing may', async () => {
    const { clock, relief, read } = setUp()
    await read()
    relief.factor = 4
    clock.advance(660_001)
    expect((await read()).state).toBe('miss')
    clock.advance(60_001)
    expect((await read({ staleMs: 0 })).state).toBe('miss')
  })

  test('what a write made old is not given', async () => {
    const { clock, cache, relief, read } = setUp()
    await read()
    relief.factor = 4
    cache.apply(1, ['t'])
    expect(textOf(await read())).toBe('2')
    clock.advance(61_000)
    cache.apply(2, ['t'])
    expect(textOf(await read())).toBe('3')
  })
})

test('a load that is too much is refused; what is there, or on its way, is given', async () => {
  const { relief, read, cache, loads } = setUp()
  const asked: unknown[] = []
  relief.mayLoad = (priority) => {
    asked.push(priority)
    return asked.length === 1
  }
  const [first, joined] = await Promise.all([read({}, 'low'), read({}, 'low')])
  expect([first.state, joined.isCoalesced, (await read()).state]).toEqual(['miss', true, 'hit'])
  cache.apply(1, ['t'])
  const fault = await faultOf(() => read())
  expect([fault.code, fault.retryAfterMs]).toEqual(['overloaded', 2_000])
  expect([asked, loads()]).toEqual([['low', undefined], 1])
})
