/** What has left the memory tier is freed: nobody is answered with what is no more. */
import { expect, test } from 'bun:test'
import { createCache } from '../../src/cache/cache.ts'
import { Fault } from '../../src/fault.ts'
import { createTestClock } from '../clock.ts'
import { faultOf } from '../harness.ts'

const policy = { ttlMs: 1_000, staleMs: 600_000 }
const large = (): Uint8Array => new Uint8Array(10_000).fill(65)
const turnEnds = () => new Promise<void>((done) => void setImmediate(done))

function setUp() {
  const clock = createTestClock()
  const cache = createCache({ clock }, { entriesMax: 2, random: () => 0.5, refreshAheadShare: 0 })
  const read = async (key: string, load: () => Promise<Uint8Array> = async () => large()) =>
    await cache.read(key, ['t'], policy, load)
  return { clock, read }
}

const down = new Fault('unavailable', 'down')

test('an expired answer stands in for a load that failed, unless it had to leave meanwhile', async () => {
  for (const mustLeave of [false, true]) {
    const { clock, read } = setUp()
    await read('a')
    clock.advance(2_000)
    const slow = Promise.withResolvers<Uint8Array>()
    const asked = read('a', () => slow.promise).then(
      ({ state, entry }) => [state, entry.body.byteLength],
      ({ code }: Fault) => code,
    )
    if (mustLeave) for (const key of ['b', 'c', 'd']) await read(key)
    await turnEnds()
    slow.reject(down)
    expect(await asked).toEqual(mustLeave ? 'unavailable' : ['stale', 10_000])
  }
})

test('all who wait for a load get it whole, also if it is pushed out in the same turn', async () => {
  const { read } = setUp()
  const slow = Promise.withResolvers<Uint8Array>()
  const joined = Array.from({ length: 100 }, async () => {
    const { entry } = await read('a', () => slow.promise)
    return await new Response(entry.body).text()
  })
  slow.resolve(large())
  const others = ['b', 'c', 'd', 'e'].map((key) => read(key))
  expect(new Set(await Promise.all(joined))).toEqual(new Set(['A'.repeat(10_000)]))
  await Promise.all(others)
  await turnEnds()
  expect(await faultOf(() => read('f', () => Promise.reject(down)))).toBe(down)
})
