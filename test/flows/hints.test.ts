/** How a node hears of other nodes' writes: by a hint through Redis, by its poll when that is lost, or too late. */
import { describe, expect, test } from 'bun:test'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { createCache } from '../../src/cache/cache.ts'
import { systemClock, type Clock } from '../../src/lib/clock.ts'
import { createStore } from '../../src/store/store.ts'
import { openRedis } from '../cache/redis.ts'
import { createTestLog, until } from '../harness.ts'
import { requireService, startRedis, startSqld } from '../services.ts'

const notes = sqliteTable('notes', { id: integer().primaryKey(), text: text().notNull() })
const policy = { ttlMs: 60_000, staleMs: 0 }
const channel = 'hints:news'

/** Never looks by itself. */
const asleep: Clock = { ...systemClock, every: () => () => {} }

interface NodeOptions {
  readonly clock?: Clock
  readonly isDeaf?: boolean
}

async function openNode(
  url: string,
  redisPort: number,
  { clock = systemClock, isDeaf = false }: NodeOptions = {},
) {
  const { redis, ...opened } = await openRedis(redisPort)
  const store = createStore(
    { clock, log: createTestLog(), announce: () => redis.publish(channel, '') },
    { database: { kind: 'remote', primary: { url }, replicas: [] }, tables: [notes] },
  )
  const cache = createCache({ clock: systemClock, shared: opened.tier })
  const gaps: number[] = []
  store.onChange(({ seq, tags }) => cache.apply(seq, tags))
  store.onGap((seq) => cache.jump(seq))
  await store.start()
  store.onGap((seq) => void gaps.push(seq))
  if (!isDeaf) redis.subscribe(channel, store.wake, store.wake)
  await until(() => isDeaf || redis.stats().isListening, 'it listens')
  const read = async (): Promise<string> => {
    const { entry } = await cache.read('notes', ['notes'], policy, async (minSeq) => {
      const rows = await store.read({ sql: 'select text from notes', params: [] }, { minSeq })
      return new TextEncoder().encode(String(rows))
    })
    return new TextDecoder().decode(entry.body)
  }
  const write = (body: string) => {
    const sql = 'insert into notes values (1, ?) on conflict do update set text = excluded.text'
    return store.write([{ sql, params: [body] }])
  }
  return {
    ...{ store, cache, gaps, read, write },
    async [Symbol.asyncDispose]() {
      await store.stop()
      await opened[Symbol.asyncDispose]()
    },
  }
}

const isRun = requireService('sqld') !== undefined && requireService('redis-server') !== undefined

describe.skipIf(!isRun)('two nodes, one primary, one Redis', () => {
  test('a hint alone is enough: a node that never polls follows', async () => {
    await using sqld = await startSqld()
    await using redis = await startRedis()
    await using a = await openNode(sqld.url, redis.port)
    await using b = await openNode(sqld.url, redis.port, { clock: asleep })
    await a.write('one')
    await until(async () => (await b.read()) === 'one', 'b shows it')
    await a.write('two')
    await until(async () => (await b.read()) === 'two', 'b shows that, too')
  })

  test('hints are lost while Redis is away, and nothing else is: the poll brings it', async () => {
    await using sqld = await startSqld()
    await using redis = await startRedis()
    await using a = await openNode(sqld.url, redis.port)
    await using b = await openNode(sqld.url, redis.port)
    await a.write('one')
    await until(async () => (await b.read()) === 'one', 'b shows it')
    await redis.kill()
    await a.write('two')
    expect(await a.read()).toBe('two')
    await until(async () => (await b.read()) === 'two', 'b shows that, too')
  })

  test('a hint lost for good is made up for as soon as Redis is back: whoever listens anew looks', async () => {
    await using sqld = await startSqld()
    await using redis = await startRedis()
    await using a = await openNode(sqld.url, redis.port)
    await using b = await openNode(sqld.url, redis.port, { clock: asleep })
    await a.write('one')
    await until(async () => (await b.read()) === 'one', 'b shows it')
    await redis.kill()
    await a.write('two')
    await redis.restart()
    await until(async () => (await b.read()) === 'two', 'b shows that, too')
  })

  test('Redis paused, and its hints with it: writes are answered, and the poll brings them', async () => {
    await using sqld = await startSqld()
    await using redis = await startRedis()
    await using a = await openNode(sqld.url, redis.port)
    await using b = await openNode(sqld.url, redis.port)
    await a.write('one')
    await until(async () => (await b.read()) === 'one', 'b shows it')
    redis.pause()
    try {
      await a.write('two')
      expect(await a.read()).toBe('two')
      await until(async () => (await b.read()) === 'two', 'b shows that, too')
    } finally {
      redis.resume()
    }
  })

  test('a node that slept past the retained log drops everything, what Redis has among it', async () => {
    await using sqld = await startSqld()
    await using redis = await startRedis()
    await using a = await openNode(sqld.url, redis.port)
    await using b = await openNode(sqld.url, redis.port, { clock: asleep, isDeaf: true })
    await a.write('one')
    b.store.wake()
    await until(() => b.store.stats().seq === a.store.stats().seq, 'b has applied it')
    // What it looks for last, in vain, is on its way.
    await Bun.sleep(100)
    expect(await b.read()).toBe('one')
    await a.write('two')
    expect(await a.read()).toBe('two')
    const pruned = a.store.stats().seq
    // A later one about something else, and what told of the change is gone.
    await a.store.write([{ sql: "insert into notes values (2, 'other')", params: [] }])
    await a.store.write([{ sql: 'delete from log where seq <= ?', params: [pruned] }])
    expect(await b.read()).toBe('one')
    b.store.wake()
    await until(() => b.store.stats().seq > pruned, 'b has followed')
    expect(b.gaps).toEqual([pruned])
    expect(await b.read()).toBe('two,other')
    expect(b.cache.stats().entries).toBe(1)
  })
})
