/** Two nodes on one primary, with a Redis between them that comes and goes. */
import { describe, expect, test } from 'bun:test'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { collection, desc } from '../../src/kit.ts'
import { systemClock, type Clock } from '../../src/lib/clock.ts'
import { followMs } from '../../src/store/replica.ts'
import { tempFolder, until } from '../harness.ts'
import { runServer, type TestServer } from '../server.ts'
import { requireService, startRedis, startSqld } from '../services.ts'

const posts = sqliteTable('posts', {
  id: integer().primaryKey({ autoIncrement: true }),
  title: text().notNull(),
})

const app = {
  collections: {
    posts: collection(posts, {
      ttl: '10m',
      read: 'public',
      create: 'public',
      update: 'public',
      orders: { newest: desc(posts.id) },
    }),
  },
}

const send = (server: TestServer, method: string, path: string, body: unknown) =>
  server.get(path, {
    method,
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })

const stateOf = async (server: TestServer, path: string): Promise<string | null> => {
  const response = await server.get(path)
  expect(response.status).toBe(200)
  await response.text()
  return response.headers.get('x-cache')
}

const isRedisUp = (server: TestServer): boolean => server.rooms.cache.stats().shared?.isUp ?? false

describe.skipIf(!requireService('sqld') || !requireService('redis-server'))('two nodes', () => {
  test('what one has loaded the other finds in Redis; what either writes neither gives any more', async () => {
    using folder = tempFolder()
    await using primary = await startSqld()
    await using redis = await startRedis()
    const env = { DATABASE_URL: primary.url, REDIS_URL: redis.url }
    await using a = await runServer({ app, folder, env })
    await using b = await runServer({ app, folder, env })
    await until(() => isRedisUp(a) && isRedisUp(b), 'both have redis')
    await send(a, 'POST', '/api/posts', { title: 'one' })
    await until(() => b.rooms.store.stats().seq === 1, 'b has heard')

    expect(await stateOf(a, '/api/posts/1')).toBe('miss')
    await until(() => (a.rooms.cache.stats().shared?.sets ?? 0) > 0, 'a has put it there')
    expect(await stateOf(b, '/api/posts/1')).toBe('l2')
    expect(await stateOf(b, '/api/posts/1')).toBe('hit')

    await send(b, 'PATCH', '/api/posts/1', { title: 'two' })
    expect(await (await b.get('/api/posts/1')).json()).toMatchObject({ title: 'two' })
    await until(() => a.rooms.store.stats().seq === 2, 'a has heard')
    expect(await (await a.get('/api/posts/1')).json()).toMatchObject({ title: 'two' })

    // Another process that starts knows what has changed, and uses what has not.
    await using c = await runServer({ app, folder, env })
    await until(() => isRedisUp(c), 'c has redis')
    expect(await stateOf(c, '/api/posts/1')).toBe('l2')
  })

  test('news of a write comes through Redis, also to who does not look', async () => {
    using folder = tempFolder()
    await using primary = await startSqld()
    await using redis = await startRedis()
    const env = { DATABASE_URL: primary.url, REDIS_URL: redis.url }
    await using a = await runServer({ app, folder, env })
    let isAsleep = false
    const every: Clock['every'] = (ms, run) =>
      systemClock.every(ms, () => (isAsleep && ms === followMs ? undefined : run()))
    const clock = { ...systemClock, every }
    await using b = await runServer({ app, folder, env, clock })
    await until(() => isRedisUp(a) && isRedisUp(b), 'both have redis')
    isAsleep = true
    for (let seq = 1; seq <= 20; seq++) {
      await send(a, 'POST', '/api/posts', { title: 'x' })
      await until(() => b.rooms.store.stats().seq >= seq, 'b has heard')
    }
  })

  test('no request fails while Redis is paused, killed, or empty again, and it is used again', async () => {
    using folder = tempFolder()
    await using redis = await startRedis()
    const env = { REDIS_URL: redis.url }
    await using server = await runServer({ app, folder, env, redisMs: undefined })
    await until(() => isRedisUp(server), 'redis is there')
    for (let n = 0; n < 30; n++) await send(server, 'POST', '/api/posts', { title: `${n}` })
    const readSome = async (from: number): Promise<void> => {
      for (let id = from; id < from + 10; id++) {
        expect((await server.get(`/api/posts/${id}`)).status).toBe(200)
      }
    }
    redis.pause()
    await readSome(1)
    redis.resume()
    await redis.kill()
    await readSome(11)
    await send(server, 'PATCH', '/api/posts/1', { title: 'changed' })
    expect(await (await server.get('/api/posts/1')).json()).toMatchObject({ title: 'changed' })
    await redis.restart()
    await until(() => isRedisUp(server), 'redis is back')
    const before = server.rooms.cache.stats().shared?.sets ?? 0
    await readSome(21)
    await until(() => (server.rooms.cache.stats().shared?.sets ?? 0) > before, 'it is used again')
  })
})
