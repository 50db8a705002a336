import { expect, test } from 'bun:test'
import { createCache } from '../../src/cache/cache.ts'
import { createValues } from '../../src/collections/values.ts'
import { createTestClock } from '../clock.ts'

const setUp = () => {
  const cache = createCache({ clock: createTestClock() })
  const invalidate = async (tags: readonly string[]) => cache.apply(1, tags)
  return createValues({ cache, invalidate })
}

test('a value is shared by all who ask, and frozen: nobody changes what others see', async () => {
  const values = setUp()
  const load = () => ({ rows: [{ id: 1 }] })
  const get = () => values.get('rows', { ttl: '1h', scope: 'public' }, load)
  const [first, second] = [await get(), await get()]
  expect(second).toBe(first)
  expect(() => first.rows.push({ id: 2 })).toThrow(TypeError)
  expect(() => Object.assign(first.rows[0] ?? {}, { id: 2 })).toThrow(TypeError)
  expect(await get()).toEqual(load())
})

test('after an invalidation there is another one, and more than are kept decoded are as right', async () => {
  const values = setUp()
  const text = 'x'.repeat(10_000)
  const get = (at: number, version: number) =>
    values.get(['rows', at], { ttl: '1h', scope: 'public', tags: ['all'] }, () => ({
      version,
      text,
    }))
  for (let round = 0; round < 2; round++) {
    for (let at = 0; at < 1_000; at++) expect((await get(at, 1)).version).toBe(1)
  }
  await values.invalidate('all')
  for (let at = 0; at < 1_000; at++) expect((await get(at, 2)).version).toBe(2)
})
