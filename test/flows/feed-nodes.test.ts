/** Two whole servers on one database, with and without one Redis: one asks upstream for all, and both are told. */
import { describe, expect, test } from 'bun:test'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { collection, feed, topic } from '../../src/kit.ts'
import { retellMs } from '../../src/feeds/values.ts'
import { createPrices } from '../feeds/setup.ts'
import { tempFolder, until } from '../harness.ts'
import { RawClient } from '../realtime/serve.ts'
import { runServer, type TestServer } from '../server.ts'
import { requireService, startRedis, startSqld } from '../services.ts'

const rows = sqliteTable('rows', { id: text().primaryKey(), n: integer().notNull() })

/** Longer than a lease, its settling and a renewal, on a busy machine. */
const takeOverMs = 30_000

/** And what a Redis without time has swallowed is said again after half a minute. */
const toldMs = takeOverMs + 2 * retellMs

async function pair(values: Record<string, unknown>, { hasRedis = true } = {}) {
  const [sqld, redis] = [await startSqld(), hasRedis ? await startRedis() : undefined]
  const folder = tempFolder()
  const upstream = createPrices(values)
  /** Node and keys of each call. */
  const calls: { node: string; feed: string; keys: readonly string[] }[] = []
  let n = 0
  const app = {
    collections: { rows: collection(rows, { read: 'public' }) },
    topics: {
      'price:{mint}': topic({ subscribe: 'public' }),
      count: topic({ subscribe: 'public', last: true }),
    },
    feeds: {
      prices: feed({
        ...{ every: '200ms', keyed: 'price:{mint}', idle: '2s' },
        load: (context) => {
          calls.push({ node: context.env['NODE'] ?? '', feed: 'prices', keys: context.keys })
          return upstream.load(context)
        },
      }),
      count: feed({
        ...{ every: '200ms', publish: 'count' },
        load: ({ env }) => {
          calls.push({ node: env['NODE'] ?? '', feed: 'count', keys: [] })
          return { n: (n += 1) }
        },
      }),
      rows: feed({
        ...{ every: '200ms', into: 'rows' },
        load: ({ env }) => {
          calls.push({ node: env['NODE'] ?? '', feed: 'rows', keys: [] })
          return [{ id: 'a', n: calls.length }]
        },
      }),
    },
  } as const
  const start = (node: string) =>
    runServer({
      ...{ app, folder },
      env: {
        ...{ DATABASE_URL: sqld.url, NODE: node },
        ...(redis ? { REDIS_URL: redis.url } : {}),
      },
    })
  // One after the other: the first one makes the tables.
  const servers = [await start('one'), await start('two')] as const
  const nodesOf = (name: string, since = 0): string[] =>
    [
      ...new Set(calls.slice(since).flatMap(({ node, feed: of }) => (of === name ? [node] : []))),
    ].sort()
  return {
    ...{ servers, redis, sqld, upstream, calls, nodesOf },
    async [Symbol.asyncDispose]() {
      for (const server of servers) await server.stop()
      await redis?.[Symbol.asyncDispose]()
      await sqld[Symbol.asyncDispose]()
      folder[Symbol.dispose]()
    },
  }
}

const listen = async ({ url }: TestServer, ...names: string[]): Promise<RawClient> => {
  const client = await RawClient.connect(`${url.replace('http', 'ws')}/connection/websocket`)
  for (const channel of names) await client.call({ subscribe: { channel } })
  return client
}
const said = (client: RawClient, topicName: string): unknown[] =>
  client.publications.filter(({ channel }) => channel === topicName).map(({ data }) => data)

const hasSqld = requireService('sqld') !== undefined
const hasBoth = hasSqld && requireService('redis-server') !== undefined

describe.skipIf(!hasBoth)('two nodes, one Redis', () => {
  test('one asks for what is heard and read at both; both have what it hears', async () => {
    await using both = await pair({ a: { usd: 1 }, b: { usd: 1 }, c: { usd: 1 } })
    const [one, two] = both.servers
    await until(() => both.nodesOf('count').length > 0, 'somebody asks', takeOverMs)
    const clients = [await listen(one, 'price:a', 'count'), await listen(two, 'price:b', 'count')]
    const [first, second] = clients as [RawClient, RawClient]
    await until(() => said(first, 'price:a').length > 0, 'told at one')
    await until(() => said(second, 'price:b').length > 0, 'told at the other')
    both.upstream.told.set('a', { usd: 2 })
    both.upstream.told.set('b', { usd: 2 })
    await until(
      () => said(first, 'price:a').length > 1 && said(second, 'price:b').length > 1,
      'news',
    )
    expect(said(first, 'price:a')).toEqual([{ usd: 1 }, { usd: 2 }])
    expect(said(second, 'price:b')).toEqual([{ usd: 1 }, { usd: 2 }])
    await until(() => said(first, 'count').length > 3 && said(second, 'count').length > 3, 'counts')

    // A read at each of them of a key that nobody hears, and of one that is heard at the other.
    for (const server of both.servers) {
      for (const key of ['c', 'a', 'b']) {
        const answer = await server.get(`/api/topics/price:${key}/last`)
        expect([key, answer.status]).toEqual([key, 200])
      }
      expect((await server.get('/api/topics/count/last')).status).toBe(200)
      expect((await server.get('/api/topics/price:x/last')).status).toBe(404)
    }
    for (const name of ['prices', 'count', 'rows']) expect(both.nodesOf(name)).toHaveLength(1)
    // Both by the same node or not: each call was of keys that somebody wants, each once.
    expect(both.calls.some(({ keys }) => keys.includes('a') && keys.includes('b'))).toBe(true)
    for (const client of clients) client.close()
    await until(() => {
      const last = both.calls.findLast(({ feed: of }) => of === 'prices')
      return last?.keys.length === 0 || both.servers.every(({ rooms }) => keysOf(rooms) === 0)
    }, 'nobody is asked for what nobody wants')
  }, 90_000)

  test('upstream fails: both say so, and both say when it is over', async () => {
    await using both = await pair({})
    const clients = await Promise.all(both.servers.map((server) => listen(server, 'price:a')))
    // Not before both are there: the topic tells nobody what it said last.
    both.upstream.told.set('a', { usd: 1 })
    await until(() => clients.every((one) => said(one, 'price:a').length > 0), 'told', toldMs)
    const states = () =>
      Promise.all(
        both.servers.map(async (server) =>
          (await server.get('/api/topics/price:a/last')).headers.get('x-cache'),
        ),
      )
    await until(async () => (await states()).every((one) => one === 'hit'), 'known at both')
    both.upstream.failure = new Error('down')
    await until(async () => (await states()).every((one) => one === 'stale'), 'stale at both')
    both.upstream.failure = undefined
    await until(async () => (await states()).every((one) => one === 'hit'), 'well at both')
    await until(
      () => clients.every((one) => said(one, 'price:a').length === 3),
      'told of both',
      toldMs,
    )
    for (const client of clients) {
      const [, stale, well] = said(client, 'price:a')
      expect(stale).toMatchObject({ usd: 1, stale: true })
      expect(well).toEqual({ usd: 1 })
      client.close()
    }
  }, 180_000)

  test('who asked goes: the other asks at once, for what its own subscribers hear', async () => {
    await using both = await pair({ b: { usd: 1 } })
    await until(
      () => both.nodesOf('prices').length + both.nodesOf('rows').length > 0,
      'asks',
      takeOverMs,
    )
    const clients = await Promise.all(both.servers.map((server) => listen(server, 'price:a')))
    both.upstream.told.set('a', { usd: 1 })
    await until(() => clients.every((one) => said(one, 'price:a').length > 0), 'told', toldMs)
    const [who] = both.nodesOf('prices')
    const [gone, stays] = who === 'one' ? both.servers : both.servers.toReversed()
    await gone?.stop()
    const since = both.calls.length
    const left = who === 'one' ? 'two' : 'one'
    await until(() => both.nodesOf('prices', since).includes(left), 'taken over', takeOverMs)
    await until(() => both.nodesOf('rows', since).includes(left), 'taken over', takeOverMs)
    both.upstream.told.set('a', { usd: 5 })
    const listener = clients[who === 'one' ? 1 : 0]
    const isTold = () => JSON.stringify(listener && said(listener, 'price:a').at(-1))
    await until(() => isTold() === '{"usd":5}', 'told by the other')
    expect((await stays?.get('/api/topics/price:a/last'))?.status).toBe(200)
    for (const client of clients) client.close()
  }, 180_000)

  test('Redis goes: each asks for its own; it comes back: one asks', async () => {
    await using both = await pair({ a: { usd: 1 }, b: { usd: 1 } })
    const [first, second] = [
      await listen(both.servers[0], 'price:a'),
      await listen(both.servers[1], 'price:b'),
    ]
    await until(
      () => said(first, 'price:a').length + said(second, 'price:b').length === 2,
      'told',
      takeOverMs,
    )
    await both.redis?.kill()
    await until(
      () => {
        both.calls.splice(0, both.calls.length - 20)
        return both.nodesOf('prices').length === 2
      },
      'each asks',
      takeOverMs,
    )
    both.upstream.told.set('a', { usd: 2 })
    both.upstream.told.set('b', { usd: 2 })
    // Who is sent to subscribe again does so by itself in a real client; here the server's own value tells.
    const valueAt = async (at: 0 | 1, key: string) =>
      await (await both.servers[at].get(`/api/topics/price:${key}/last`)).text()
    await until(
      async () => (await valueAt(0, 'a')).includes('2') && (await valueAt(1, 'b')).includes('2'),
      'known at each',
    )
    await both.redis?.restart()
    await until(
      () => {
        both.calls.splice(0, Math.max(0, both.calls.length - 20))
        return both.calls.length === 20 && both.nodesOf('prices').length === 1
      },
      'one asks',
      takeOverMs,
    )
    first.close()
    second.close()
  }, 90_000)
})

describe.skipIf(!hasSqld)('two nodes without Redis', () => {
  test('rows are asked for by one; what is published, by each for its own', async () => {
    await using both = await pair({ a: { usd: 1 }, b: { usd: 1 } }, { hasRedis: false })
    const [first, second] = [
      await listen(both.servers[0], 'price:a', 'count'),
      await listen(both.servers[1], 'price:b', 'count'),
    ]
    await until(
      () => said(first, 'price:a').length > 0 && said(second, 'price:b').length > 0,
      'told',
    )
    await until(() => said(first, 'count').length > 1 && said(second, 'count').length > 1, 'counts')
    await until(() => both.nodesOf('rows').length > 0, 'rows', takeOverMs)
    expect(both.nodesOf('rows')).toHaveLength(1)
    expect(both.nodesOf('prices')).toEqual(['one', 'two'])
    const keysOfOne = both.calls.filter(({ node, feed: of }) => node === 'one' && of === 'prices')
    expect(keysOfOne.every(({ keys }) => !keys.includes('b'))).toBe(true)
    first.close()
    second.close()
  }, 60_000)
})

function keysOf({ feeds }: TestServer['rooms']): number {
  return feeds.stats().find(({ name }) => name === 'prices')?.keys ?? 0
}
