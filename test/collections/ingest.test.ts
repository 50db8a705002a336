/** Rows that are pushed: who may, what is written, what is told, and what happens to whoever pushes too much. */
import { describe, expect, test } from 'bun:test'
import { integer, real, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { collection, topic } from '../../src/kit.ts'
import { createIngest } from '../../src/collections/collections.ts'
import { Fault } from '../../src/fault.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { tempFolder, until } from '../harness.ts'
import { runServer, testApiKey } from '../server.ts'

const prices = sqliteTable('prices', {
  token: text({ length: 40 }).primaryKey(),
  price: real().notNull(),
  changes: integer().notNull().default(0),
})

const app = {
  collections: { 'my/prices': collection(prices, { read: 'public', live: () => 'prices' }) },
  topics: { prices: topic({ subscribe: 'public', history: { size: 100, ttl: '1h' } }) },
} as const

async function setUp() {
  const folder = tempFolder()
  const server = await runServer({ app, folder })
  const push = async (body: unknown, key: string | undefined = testApiKey) => {
    const headers = { 'content-type': 'application/json', ...(key ? { 'x-api-key': key } : {}) }
    const init = { method: 'POST', headers, body: JSON.stringify(body) }
    const response = await server.get('/api/my/prices/ingest', init)
    return { status: response.status, body: (await response.json()) as Record<string, unknown> }
  }
  return {
    ...{ server, push },
    async [Symbol.asyncDispose]() {
      await server.stop()
      folder[Symbol.dispose]()
    },
  }
}

describe('ingest', () => {
  test('writes and tells what is new or differs, once, however often it is pushed', async () => {
    await using at = await setUp()
    const rows = [
      { token: 'a', price: 1 },
      { token: 'b', price: 2 },
    ]
    const first = await at.push(rows)
    expect(first).toEqual({ status: 200, body: { rows: 2, changed: 2, seq: expect.any(Number) } })
    expect(await at.push(rows)).toEqual({ status: 200, body: { rows: 2, changed: 0, seq: null } })
    expect(await at.push([{ token: 'b', price: 3 }, rows[0]])).toMatchObject({
      body: { rows: 2, changed: 1 },
    })
    expect(await at.push({ token: 'c', price: 4 })).toMatchObject({ body: { changed: 1 } })
    const list = (await (await at.server.get('/api/my/prices')).json()) as { items: unknown[] }
    expect(list.items).toHaveLength(3)
    const said = async () =>
      ((await (await at.server.get('/api/topics/prices/history')).json()) as { offset: number })
        .offset
    await until(async () => (await said()) === 4, 'told')
  })

  test('is for keys that may write this collection', async () => {
    await using at = await setUp()
    const { keys } = at.server.rooms.auth
    const mine = await keys.create({ name: 'mine', scopes: ['write:my/*'] })
    const other = await keys.create({
      name: 'other',
      scopes: ['write:yours', 'publish:*', 'read:*'],
    })
    const row = { token: 'a', price: 1 }
    expect((await at.push(row, mine.key)).status).toBe(200)
    expect((await at.push(row, other.key)).status).toBe(403)
    expect((await at.push(row, '')).status).toBe(401)
    // Who may write may not publish what was never written.
    const headers = { 'content-type': 'application/json', 'x-api-key': mine.key }
    const body = JSON.stringify({ channel: 'prices', data: 1 })
    const published = await at.server.get('/api/publish', { method: 'POST', headers, body })
    expect(published.status).toBe(403)
  })

  test('names every wrong field, and writes nothing of a request that has one', async () => {
    await using at = await setUp()
    const wrong = [{ token: 'a', price: 1 }, { token: 'b' }, { price: 'x', token: 'c', no: 1 }, 7]
    const refused = await at.push(wrong)
    expect(refused.status).toBe(400)
    const named = (refused.body['fields'] ?? refused.body['errors']) as { field: string }[]
    expect(named.map(({ field }) => field).toSorted()).toEqual([
      ...['rows[1].price', 'rows[2].no', 'rows[2].price', 'rows[3]'],
    ])
    const list = (await (await at.server.get('/api/my/prices')).json()) as { items: unknown[] }
    expect(list.items).toHaveLength(0)
    const many = Array.from({ length: 1_001 }, (_, n) => ({ token: `t${n}`, price: n }))
    expect((await at.push(many)).status).toBe(413)
  })

  test('who pushes more than waits is told how long, and nothing of it is written', async () => {
    await using at = await setUp()
    const { collections } = at.server.rooms
    const [plan] = collections.plans
    if (!plan) throw new Error('there is one')
    const ingest = createIngest(systemClock, collections)
    const rowsOf = (from: number) =>
      Array.from({ length: 1_000 }, (_, n) => ({ token: `t${from + n}`, price: n }))
    // All in one turn: nothing can have been written meanwhile.
    const taken = Array.from({ length: 10 }, (_, n) => ingest(plan, rowsOf(n * 1_000)))
    const refused = await ingest(plan, rowsOf(90_000)).catch((thrown: unknown) => thrown)
    expect(refused).toBeInstanceOf(Fault)
    const { code, retryAfterMs = 0 } = refused as Fault
    expect(code).toBe('too_many')
    expect(retryAfterMs).toBeGreaterThanOrEqual(50)
    expect(retryAfterMs).toBeLessThanOrEqual(30_000)
    for (const { changed } of await Promise.all(taken)) expect(changed).toBe(1_000)
    expect(await ingest(plan, rowsOf(90_000))).toMatchObject({ changed: 1_000 })
  }, 60_000)
})
