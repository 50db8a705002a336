import { describe, expect, test } from 'bun:test'
import { createRedisTier, redisNamespace } from '../../src/cache/cache.ts'
import type { RedisPort } from '../../src/cache/tier-redis.ts'
import { sealEntry } from '../../src/cache/envelope.ts'
import { Fault } from '../../src/fault.ts'
import { createTestClock } from '../clock.ts'
import { entryOf } from '../contracts/tier.ts'
import { until } from '../harness.ts'
import { requireService, startRedis } from '../services.ts'
import { openRedis, settled } from './redis.ts'

const namespace = redisNamespace({ app: 'test', schema: 's1', database: 'd1' })

interface FakePort extends RedisPort {
  isUp: boolean
  answer: 'kept' | 'refused' | Fault
  readonly values: Map<string, Uint8Array>
  readonly said: string[]
}

/** Redis as this tier sees it, that does as it is told. */
function createFakePort(): FakePort {
  const values = new Map<string, Uint8Array>()
  const said: string[] = []
  const port: FakePort = {
    isUp: true,
    answer: 'kept',
    values,
    said,
    async get(key: string) {
      said.push(`get ${key}`)
      if (port.answer instanceof Fault) throw port.answer
      return values.get(key)
    },
    async set(key: string, value: Uint8Array, ttlMs: number) {
      said.push(`set ${key} ${ttlMs}`)
      if (port.answer instanceof Fault) throw port.answer
      if (port.answer === 'kept') values.set(key, value)
      return port.answer
    },
    async delete(key: string) {
      said.push(`delete ${key}`)
      if (port.answer instanceof Fault) throw port.answer
      values.delete(key)
    },
    async claim(key: string) {
      said.push(`claim ${key}`)
      if (port.answer instanceof Fault) throw port.answer
      return !values.has(key)
    },
  }
  return port
}

function setup() {
  const redis = createFakePort()
  const clock = createTestClock()
  const tier = createRedisTier({ redis, clock }, { namespace })
  return { redis, clock, tier }
}

const turn = (): Promise<void> => Bun.sleep(0)

describe('the tier in Redis', () => {
  test('what is no entry is a miss, counted, and deleted', async () => {
    const { redis, tier } = setup()
    const good = sealEntry(entryOf('a')) ?? new Uint8Array()
    const bad = {
      garbage: new TextEncoder().encode('{"id":1}'),
      short: good.subarray(0, good.length - 1),
      newer: good.with(4, 3),
      empty: new Uint8Array(),
    }
    for (const [key, value] of Object.entries(bad)) redis.values.set(`${namespace}:=${key}`, value)
    for (const key of Object.keys(bad)) expect(await tier.get(key)).toBeUndefined()
    await turn()
    expect([...redis.values.keys()]).toEqual([])
    expect(tier.stats()).toMatchObject({ hits: 0, misses: 4, failures: 4 })
  })

  test('when Redis refuses sets, none is tried for 5 s; gets and deletes go on', async () => {
    const { redis, clock, tier } = setup()
    redis.answer = 'refused'
    tier.set('a', entryOf('a'), 1_000)
    await turn()
    redis.answer = 'kept'
    const before = redis.said.length
    for (let i = 0; i < 100; i++) tier.set('a', entryOf('a'), 1_000)
    clock.advance(4_999)
    tier.set('a', entryOf('a'), 1_000)
    expect(redis.said.length).toBe(before)
    expect(await tier.get('a')).toBeUndefined()
    tier.delete('a')
    expect(redis.said.slice(before)).toEqual([`get ${namespace}:=a`, `delete ${namespace}:=a`])
    clock.advance(1)
    tier.set('a', entryOf('a'), 1_000)
    await turn()
    expect(await tier.get('a')).toEqual(entryOf('a'))
    expect(tier.stats()).toEqual({
      ...{ hits: 1, misses: 1, sets: 1, failures: 1, skipped: 101, isUp: true },
    })
  })

  test('whatever fails is a miss, a dropped set, a lease for everyone; and counted', async () => {
    const { redis, tier } = setup()
    redis.answer = new Fault('timeout', 'too late')
    expect(await tier.get('a')).toBeUndefined()
    expect(await tier.lease('a', 1_000)).toBe(true)
    tier.set('a', entryOf('a'), 1_000)
    tier.delete('a')
    await turn()
    expect(tier.stats()).toMatchObject({ hits: 0, misses: 1, sets: 0, failures: 4, skipped: 0 })
  })

  test('away, it is not asked', async () => {
    const { redis, tier } = setup()
    redis.isUp = false
    expect(await tier.get('a')).toBeUndefined()
    expect(await tier.lease('a', 1_000)).toBe(true)
    tier.set('a', entryOf('a'), 1_000)
    tier.delete('a')
    expect(redis.said).toEqual([])
    expect(tier.stats()).toMatchObject({ skipped: 4, failures: 0, isUp: false })
    expect(tier.isUp).toBe(false)
  })

  test('stopped, it is not asked, until it is started again', async () => {
    const { redis, tier } = setup()
    await tier.stop()
    expect(await tier.get('a')).toBeUndefined()
    expect([tier.isUp, redis.said]).toEqual([false, []])
    await tier.start()
    expect(tier.isUp).toBe(true)
  })

  test.each([0, -1, Number.NaN])('an entry with a TTL of %p is not set', (ttlMs) => {
    const { redis, tier } = setup()
    tier.set('a', entryOf('a'), ttlMs)
    expect(redis.said).toEqual([])
  })

  test('keys: printable and short as they are, else as a hash; leases apart from entries', async () => {
    const { redis, tier } = setup()
    await tier.get('posts/1?a=b')
    await tier.get('k'.repeat(201))
    await tier.get('a b')
    await tier.lease('posts', 1_000)
    expect(redis.said).toEqual([
      `get ${namespace}:=posts/1?a=b`,
      expect.stringMatching(/^get belfry:v2:test:s1:d1:#[\w-]{43}$/),
      expect.stringMatching(/^get belfry:v2:test:s1:d1:#[\w-]{43}$/),
      `claim ${namespace}:lease:=posts`,
    ])
    expect(redis.said[1]).not.toBe(redis.said[2])
  })

  test('no key can be made to look like a hash, or like a lease', async () => {
    const { redis, tier } = setup()
    const long = 'k'.repeat(201)
    await tier.get(long)
    const hash = redis.said[0]?.split(':').at(-1) ?? ''
    await tier.get(hash)
    await tier.lease('a', 1_000)
    await tier.get('lease:=a')
    expect(new Set(redis.said.map((line) => line.split(' ')[1])).size).toBe(4)
  })

  test('no two apps, schemas or databases have one namespace', () => {
    const parts = [
      { app: 'a', schema: 'b', database: 'c' },
      { app: 'a:b', schema: '', database: 'c' },
      { app: 'a', schema: 'b:c', database: '' },
      { app: 'a%3Ab', schema: '', database: 'c' },
      { app: 'a', schema: 'b', database: 'd' },
    ]
    expect(new Set(parts.map(redisNamespace)).size).toBe(parts.length)
  })
})

describe.skipIf(!requireService('redis-server'))('the tier in a real Redis', () => {
  test('every key has an end; another database of the same app finds nothing', async () => {
    await using server = await startRedis()
    await using ours = await openRedis(server.port, { namespace: 'belfry:v2:a:s:one' })
    await using others = await openRedis(server.port, { namespace: 'belfry:v2:a:s:two' })
    ours.tier.set('a', entryOf('a'), 60_000)
    ours.tier.set('long', entryOf('a'), Number.MAX_VALUE)
    expect(await ours.tier.lease('a', 5_000)).toBe(true)
    await settled(ours)
    expect(await others.tier.get('a')).toBeUndefined()
    expect(await ours.tier.get('a')).toEqual(entryOf('a'))
    const ends = await endsOf(server.port)
    expect(ends.length).toBe(3)
    for (const ms of ends) expect(ms).toBeGreaterThan(0)
  })

  test('an entry is gone after its TTL; a lease is one process only, and comes free', async () => {
    await using server = await startRedis()
    await using one = await openRedis(server.port)
    await using two = await openRedis(server.port)
    // Not over before it is looked at, on a machine that is busy.
    const ttlMs = 2_000
    one.tier.set('a', entryOf('a'), ttlMs)
    expect(await Promise.all([one.tier.lease('a', ttlMs), two.tier.lease('a', ttlMs)])).toEqual([
      true,
      false,
    ])
    expect(await one.tier.lease('b', ttlMs)).toBe(true)
    expect(await two.tier.get('a')).toEqual(entryOf('a'))
    await until(async () => (await two.tier.get('a')) === undefined, 'the entry is gone')
    await until(() => two.tier.lease('a', 1_000), 'the lease is free')
  })
})

/** What is left of each key, in milliseconds; -1 is for ever. */
async function endsOf(port: number): Promise<number[]> {
  const client = new Bun.RedisClient(`redis://127.0.0.1:${port}`)
  try {
    const keys = await client.keys('*')
    return await Promise.all(keys.map((key) => client.pttl(key)))
  } finally {
    client.close()
  }
}
