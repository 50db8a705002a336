import { expect, test } from 'bun:test'
import { createCache } from '../../src/cache/cache.ts'
import { createValues } from '../../src/collections/values.ts'
import type { CacheKey, CacheScope } from '../../src/collections/declare.ts'
import { Fault } from '../../src/fault.ts'
import { createTestClock } from '../clock.ts'
import { createTestLog } from '../harness.ts'

const open = () => {
  const clock = createTestClock()
  const log = createTestLog()
  // In the middle of what varies: TTLs are exact, and a hold takes 625 ms.
  const cache = createCache({ clock }, { random: () => 0.5 })
  const invalidate = async (tags: readonly string[]) => cache.apply(1, tags)
  return { clock, log, cache, values: createValues({ cache, invalidate, log }) }
}

const setUp = () => open().values

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

test('what an app’s load throws is trouble: the old value stands in, and the operator hears of it', async () => {
  const { clock, log, values } = open()
  let loads = 0
  const get = (load: () => unknown) =>
    values.get('rates', { ttl: '1m', stale: '1h', scope: 'public' }, () => {
      loads++
      return load()
    })
  const fail = () => Promise.reject(new TypeError('fetch failed'))
  expect(await get(() => 1)).toBe(1)
  clock.advance(60_001)
  expect([await get(fail), loads]).toEqual([1, 2])
  expect(log.lines).toMatchObject([
    { level: 'warn', event: 'cache.load_failed', fields: { path: 'route rates' } },
  ])
  // For a moment it is not tried again.
  expect([await get(() => 2), loads, log.lines.length]).toEqual([1, 2, 1])
  clock.advance(625)
  expect([await get(() => 2), loads]).toEqual([2, 3])
})

test('a store that fails within an app’s query is trouble, a refusal is told', async () => {
  const { clock, values } = open()
  const get = (load: () => unknown) =>
    values.get('rates', { ttl: '1m', stale: '1h', scope: 'public' }, load)
  await get(() => 1)
  clock.advance(60_001)
  const denied = () => Promise.reject(new Fault('denied', 'not you'))
  await expect(get(denied)).rejects.toThrow('not you')
  // As Drizzle says it.
  const failed = (cause: Fault) => () => Promise.reject(new Error('Failed query', { cause }))
  await expect(get(failed(new Fault('invalid', 'no such thing')))).rejects.toThrow('Failed query')
  expect(await get(failed(new Fault('unavailable', 'the database is away')))).toBe(1)
})

test('without an old value a failure is told to all who ask, and tried again after a moment', async () => {
  const { clock, log, values } = open()
  let loads = 0
  const fail = () => {
    loads++
    throw new TypeError('fetch failed')
  }
  const get = () => values.get('rates', { scope: 'public' }, fail)
  for (let n = 0; n < 3; n++) await expect(get()).rejects.toThrow('fetch failed')
  clock.advance(625)
  await expect(get()).rejects.toThrow('fetch failed')
  expect([loads, log.lines.length]).toEqual([2, 0])
})

const claims: Readonly<Record<string, unknown>> = { tenant: { id: 1 } }
test.each([
  ['no scope', undefined],
  ['nothing in it', {}],
  ['a claim that is missing', { tenant: claims['group'] }],
  ['a claim that is no text', { tenant: claims['tenant'] }],
  ['an empty tenant', { tenant: '' }],
  ['a user who is not looked up', { user: undefined }],
  ['a misspelt option', { usr: null }],
  ['another beside it', { user: null, usr: { id: 'ann' } }],
  ['two of them', { user: { id: 'ann' }, tenant: 'acme' }],
  ['another word', 'private'],
])('%s is no scope that all would share', async (_, scope) => {
  const get = setUp().get('rows', { scope: scope as CacheScope }, () => 1)
  await expect(get).rejects.toThrow(/scope of a cached value/)
})

test('scopes are apart, whatever their names are', async () => {
  const values = setUp()
  const get = (scope: CacheScope, value: string) => values.get('k', { scope }, () => value)
  const scopes: CacheScope[] = [
    'public',
    { user: null },
    { user: { id: 'public' } as never },
    { user: { id: 'a b' } as never },
    { user: { id: 'a%20b' } as never },
    { tenant: 'public' },
    { tenant: 'a b' },
    { tenant: 'user:public' },
  ]
  for (const [at, scope] of scopes.entries()) expect(await get(scope, `${at}`)).toBe(`${at}`)
  for (const [at, scope] of scopes.entries()) expect(await get(scope, 'other')).toBe(`${at}`)
})

test.each([
  [['a', undefined]],
  [['a', null]],
  [['a', { id: 1 }]],
  [['a', ['b']]],
  [Array.from({ length: 17 }, () => 'a')],
  [[]],
  [''],
  ['a::b'],
  ['a:*'],
])('%j is no key', async (key) => {
  const get = setUp().get(key as CacheKey, { scope: 'public' }, () => 1)
  await expect(get).rejects.toThrow(/a cache key must be/)
})

test('what a client sends may be part of a key, whatever it is, and is apart from all else', async () => {
  const { values, cache } = open()
  const long = 'x'.repeat(8_000)
  const sent = [
    '',
    ' ',
    '*',
    ':',
    '%2A',
    '%3A',
    '#',
    'é',
    'e\u0301',
    '😀',
    '\ud800',
    '\udfff',
    long,
    `${long}y`,
  ]
  const keys: CacheKey[] = [
    ...sent.map((part) => ['a', part]),
    ...sent.map((part) => [part]),
    ['a'],
    ['a', '', ''],
    Array.from({ length: 16 }, (_, at) => `${long}${at}`),
  ]
  const get = (key: CacheKey, value: number) => values.get(key, { scope: 'public' }, () => value)
  for (const [at, key] of keys.entries()) expect(await get(key, at)).toBe(at)
  for (const [at, key] of keys.entries()) expect(await get(key, -1)).toBe(at)
  const longest = Math.max(...cache.hottest(100).map(({ length }) => length))
  expect(longest).toBeLessThanOrEqual('=public '.length + 1_024)
  await values.invalidate('a:*')
  for (const [at, key] of keys.entries()) expect(await get(key, -1)).toBe(key[0] === 'a' ? -1 : at)
})

test('what JSON cannot say is as if there were nothing; null is something', async () => {
  const values = setUp()
  const get = (key: string, value: unknown) => values.get(key, { scope: 'public' }, () => value)
  for (let n = 0; n < 2; n++) {
    expect(await get('none', Symbol.iterator)).toBeUndefined()
    expect(await get('null', null)).toBeNull()
  }
})
