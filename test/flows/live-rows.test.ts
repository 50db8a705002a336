/** Rows of different rights on one topic, at every way they leave by: what hearing gives is what reading gives. */
import { describe, expect, test } from 'bun:test'
import type { Centrifuge } from 'centrifuge'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { signToken } from '../../src/auth/auth.ts'
import { createClient, type Gap } from '../../src/client/client.ts'
import { asc, collection, eq, topic } from '../../src/kit.ts'
import { must } from '../../src/lib/assert.ts'
import { tempFolder, until } from '../harness.ts'
import { hear, stockClient, transports, type Heard } from '../realtime/stock.ts'
import { runServer, testApiKey, testSecret, type TestServer } from '../server.ts'

const tickets = sqliteTable('tickets', {
  id: integer().primaryKey(),
  tenant: text({ length: 20 }).notNull(),
  note: text({ length: 80 }).notNull(),
  secret: text({ length: 80 }).notNull(),
})

const history = { size: 100, ttl: '1h' } as const
const app = {
  collections: {
    tickets: collection(tickets, {
      read: ({ user }) => eq(tickets.tenant, user?.['tenant'] as string),
      create: 'public',
      update: 'public',
      orders: { oldest: asc(tickets.id) },
      hide: { secret: true, note: { unless: ({ user }) => user?.role === 'staff' } },
      live: () => ['all', 'kept'],
    }),
  },
  topics: {
    all: topic({ subscribe: 'public', history, last: true }),
    kept: topic({ subscribe: 'public', history, persist: true }),
  },
}

const claims = {
  ann: { sub: 'ann', tenant: 'a' },
  eve: { sub: 'eve', tenant: 'a', role: 'staff' },
  bob: { sub: 'bob', tenant: 'b' },
  visitor: undefined,
} as const
type Name = keyof typeof claims
const names = Object.keys(claims) as Name[]

const sign = (given: Readonly<Record<string, unknown>>): Promise<string> =>
  signToken(testSecret, given, { nowMs: Date.now(), ttlMs: 600_000 })

async function tokenOf(name: Name, more: object = {}): Promise<string | undefined> {
  const own = claims[name]
  return own && (await sign({ ...own, ...more }))
}

async function headersOf(name: Name): Promise<Record<string, string>> {
  const token = await tokenOf(name)
  return token === undefined ? {} : { authorization: `Bearer ${token}` }
}

const planOf = (server: TestServer) =>
  must(server.rooms.collections.plans[0], () => 'the app has one')

/** Of tenants a and b in turn; what must not be seen is in the text once. */
async function create(server: TestServer, from: number, to: number): Promise<void> {
  for (let id = from; id <= to; id++) {
    const tenant = id % 3 === 0 ? 'b' : 'a'
    const row = { id, tenant, note: `note-${tenant}-${id}`, secret: `secret-${tenant}-${id}` }
    await server.rooms.collections.create(planOf(server), null, row)
  }
}

/** What REST gives. */
async function rowsOf(server: TestServer, name: Name): Promise<unknown[]> {
  const path = '/api/tickets?limit=100'
  const response = await server.get(path, { headers: await headersOf(name) })
  return ((await response.json()) as { items: unknown[] }).items
}

const rowsIn = ({ publications }: Pick<Heard, 'publications'>): unknown[] =>
  publications.map(({ data }) => (data as { row: unknown }).row)

async function client(
  server: TestServer,
  name: Name,
  transport: (typeof transports)[number] = 'websocket',
  more: object = {},
): Promise<Centrifuge> {
  const token = await tokenOf(name, more)
  return stockClient(server, transport, token === undefined ? {} : { token })
}

describe('rows of different rights on one topic', () => {
  test.each(transports)('over %s, live and after a connection was lost', async (transport) => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    const ears: { name: Name; stock: Centrifuge; heard: Heard }[] = []
    for (const name of names) {
      const stock = await client(server, name, transport)
      const heard = hear(stock, 'all')
      stock.connect()
      await until(() => heard.subscribed.length === 1, `${name} is subscribed`)
      ears.push({ name, stock, heard })
    }
    await create(server, 1, 6)
    const isWhole = async (): Promise<boolean> => {
      for (const { name, heard } of ears) {
        const rows = await rowsOf(server, name)
        if (heard.publications.length < rows.length) return false
        expect(rowsIn(heard)).toEqual(rows)
      }
      return true
    }
    await until(isWhole, 'everybody has heard what is his')
    for (const { stock } of ears) stock.disconnect()
    await create(server, 7, 12)
    for (const { stock } of ears) stock.connect()
    await until(() => ears.every(({ heard }) => heard.subscribed.length === 2), 'all are back')
    await until(isWhole, 'everybody has recovered what is his')
    for (const { heard } of ears) expect(heard.subscribed[1]?.recovered).toBe(true)
    await create(server, 13, 15)
    await until(isWhole, 'and hears on')
    const said = JSON.stringify(ears.map(({ heard }) => heard.publications))
    expect(said).not.toContain('secret')
    for (const { stock } of ears) stock.disconnect()
  })

  test('at first, by history, by a token’s own channels and by one for the topic', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    await create(server, 1, 7)
    for (const name of names) {
      const rows = await rowsOf(server, name)
      const stock = await client(server, name)
      const heard = hear(stock, 'all')
      stock.connect()
      await until(() => heard.subscribed.length === 1, 'subscribed')
      const { publications } = await heard.subscription.history({ limit: 100 })
      expect(rowsIn({ publications })).toEqual(rows)
      // A page is full of what may be seen.
      const page = await heard.subscription.history({ limit: 2 })
      expect(rowsIn(page)).toEqual(rows.slice(0, 2))
      const back = await heard.subscription.history({ limit: 2, reverse: true })
      expect(rowsIn(back)).toEqual(rows.toReversed().slice(0, 2))
      expect(rowsIn(heard)).toEqual(rows.slice(-1))
      stock.disconnect()
      if (name === 'visitor') continue

      const own = await client(server, name, 'websocket', { channels: ['all'] })
      const told: unknown[] = []
      own.on('publication', ({ data }) => void told.push((data as { row: unknown }).row))
      own.connect()
      await own.ready()
      await until(() => told.length === 1, 'the latest')
      expect(told).toEqual(rows.slice(-1))
      own.disconnect()
      const pass = await sign({ ...claims[name], channel: 'kept' })
      const third = await client(server, name)
      const kept = hear(third, 'kept', { token: pass })
      third.connect()
      await until(() => kept.subscribed.length === 1, 'let in')
      const all = await kept.subscription.history({ limit: 100 })
      expect(rowsIn(all)).toEqual(rows)
      third.disconnect()
    }
  })

  test('as server-sent events, live, resumed and at first', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    const open = async (name: Name, lastId?: string) => {
      const abort = new AbortController()
      const response = await server.get('/api/stream?topics=all', {
        headers: { ...(await headersOf(name)), ...(lastId ? { 'last-event-id': lastId } : {}) },
        signal: abort.signal,
      })
      let said = ''
      const reading = (async () => {
        const decoder = new TextDecoder()
        for await (const chunk of response.body ?? []) {
          said += decoder.decode(chunk as Uint8Array, { stream: true })
        }
      })().catch(() => {})
      await until(() => said.includes('id: '), 'it is open')
      return {
        rows: () =>
          [...said.matchAll(/^data: (\{"channel".*)$/gm)].map(
            ([, data = '']) => (JSON.parse(data) as { data: { row: unknown } }).data.row,
          ),
        text: () => said,
        ids: () => [...said.matchAll(/^id: (.*)$/gm)].map(([, id = '']) => id),
        async end() {
          abort.abort()
          await reading
        },
      }
    }
    const streams = await Promise.all([...names, 'ann' as const].map((name) => open(name)))
    await create(server, 1, 6)
    const lastIds = new Map<Name, string>()
    for (const [at, name] of names.entries()) {
      const stream = must(streams[at], () => 'one for each')
      const rows = await rowsOf(server, name)
      // Whoever has not heard it all knows at least where the topic stands.
      await until(() => stream.ids().length === 7, 'it is told')
      expect(stream.rows()).toEqual(rows)
      expect(stream.text()).not.toContain('secret')
      expect(stream.text()).not.toContain('event: gap')
      lastIds.set(name, stream.ids().at(-1) ?? '')
    }
    for (const stream of streams) await stream.end()
    await create(server, 7, 9)
    for (const name of names) {
      const again = await open(name, lastIds.get(name))
      const rows = await rowsOf(server, name)
      expect(again.rows()).toEqual(rows.slice(name === 'bob' ? 2 : 4))
      await again.end()
      const first = await open(name)
      expect(first.rows()).toEqual(rows.slice(-1))
      await first.end()
    }
  })

  test('over HTTP, of a durable topic; the server’s own tools have what is not hidden from all', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    await create(server, 1, 6)
    const said = async (path: string, init?: RequestInit) =>
      (await (await server.get(path, init)).json()) as {
        publications: { data: { row: Record<string, unknown> } }[]
        next: number | null
      }
    for (const topicName of ['kept', 'all']) {
      for (const name of names) {
        const path = `/api/topics/${topicName}/history`
        const { publications } = await said(path, { headers: await headersOf(name) })
        expect(publications.map(({ data }) => data.row)).toEqual(
          (await rowsOf(server, name)) as never,
        )
      }
      // Pages are of the topic: shorter, and none is left out.
      const headers = await headersOf('bob')
      const found: unknown[] = []
      let after = 0
      for (let pages = 0; pages < 4; pages++) {
        const path = `/api/topics/${topicName}/history?limit=2&after=${after}`
        const page = await said(path, { headers })
        found.push(...page.publications.map(({ data }) => data.row))
        if (typeof page.next !== 'number') break
        after = page.next
      }
      expect(found).toEqual(await rowsOf(server, 'bob'))
    }
    const whole = await said('/api/topics/kept/history', { headers: { 'x-api-key': testApiKey } })
    expect(whole.publications.map(({ data }) => data.row)).toEqual(
      [1, 2, 3, 4, 5, 6].map((id) => {
        const tenant = id % 3 === 0 ? 'b' : 'a'
        return { id, tenant, note: `note-${tenant}-${id}` }
      }),
    )
    const response = await server.get('/api/history', {
      method: 'POST',
      headers: { 'x-api-key': testApiKey, 'content-type': 'application/json' },
      body: JSON.stringify({ channel: 'all', limit: 100 }),
    })
    const text = await response.text()
    expect(text).toContain('note-b-3')
    expect(text).not.toContain('secret')
  })

  test('our own client hears no gap where a row was not for it, live and after it was away', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    const token = must(await tokenOf('bob'), () => 'bob has one')
    const own = createClient({
      url: server.url,
      token,
      centrifuge: { websocket: WebSocket, minReconnectDelay: 1, maxReconnectDelay: 20 },
    })
    const rows: unknown[] = []
    const gaps: Gap[] = []
    let begun = 0
    own.subscribe('all', {
      message: (data) => void rows.push((data as { row: unknown }).row),
      gap: (gap) => void gaps.push(gap),
      subscribed: () => void begun++,
    })
    await until(() => begun === 1, 'it listens')
    await create(server, 1, 7)
    await until(() => rows.length === 2, 'it has heard two')
    own.centrifuge.disconnect()
    await create(server, 8, 11)
    own.centrifuge.connect()
    await until(() => begun === 2, 'it is back')
    await create(server, 12, 14)
    await until(() => rows.length === 4, 'it has heard four')
    expect(rows).toEqual(await rowsOf(server, 'bob'))
    expect(gaps).toEqual([])
    own.close()
    // Who comes anew is given the latest that is his, and goes on from there.
    const late = createClient({ url: server.url, token, centrifuge: { websocket: WebSocket } })
    const heard: unknown[] = []
    late.subscribe('all', {
      message: (data) => void heard.push((data as { row: { id: number } }).row.id),
      gap: (gap) => void gaps.push(gap),
    })
    await until(() => heard.length === 1, 'the latest')
    await create(server, 15, 15)
    await until(() => heard.length === 2, 'and the next')
    expect(heard).toEqual([12, 15])
    expect(gaps).toEqual([])
    late.close()
  })

  test('a row that a hearer may no longer read is gone for him, and he hears nothing of what it is', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    await create(server, 1, 2)
    const ears: Heard[] = []
    const stocks: Centrifuge[] = []
    for (const name of names) {
      const stock = await client(server, name)
      ears.push(hear(stock, 'all'))
      stocks.push(stock)
      stock.connect()
    }
    await until(() => ears.every(({ subscribed }) => subscribed.length === 1), 'subscribed')
    const headers = { 'content-type': 'application/json', ...(await headersOf('ann')) }
    const body = JSON.stringify({ tenant: 'b', note: 'moved' })
    const { status } = await server.get('/api/tickets/1', { method: 'PATCH', headers, body })
    expect(status).toBe(200)
    await create(server, 3, 4)
    await until(
      () => ears.every((one, at) => one.publications.length >= [3, 3, 2, 0][at]!),
      'heard',
    )
    const told = ears.map(({ publications }) =>
      publications.map(({ data }) => {
        const { op, row } = data as { op: string; row: object }
        return [op, row]
      }),
    )
    const row = (id: number, tenant: string) => ({ id, tenant })
    const gone = ['remove', { id: 1 }]
    expect(told[0]).toEqual([['create', row(2, 'a')], gone, ['create', row(4, 'a')]])
    expect(told[1]?.[1]).toEqual(gone)
    expect(told[2]).toEqual([
      ['update', row(1, 'b')],
      ['create', row(3, 'b')],
    ])
    expect(told[3]).toEqual([])
    // Kept, it is the same for who comes back; and the server's own tools see no more of what it was.
    const { publications } = await must(ears[0], () => 'ann').subscription.history({ limit: 100 })
    expect(publications.map(({ data }) => (data as { op: string }).op)).toEqual([
      ...['create', 'create', 'remove', 'create'],
    ])
    const tools = await server.get('/api/history', {
      method: 'POST',
      headers: { 'x-api-key': testApiKey, 'content-type': 'application/json' },
      body: JSON.stringify({ channel: 'all', limit: 100 }),
    })
    expect(await tools.text()).not.toContain('"was"')
    for (const stock of stocks) stock.disconnect()
  })

  test('a new token with other claims hears by them', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    let tenant = 'a'
    const getToken = () =>
      signToken(testSecret, { sub: 'ann', tenant }, { nowMs: Date.now(), ttlMs: 2_000 })
    const stock = stockClient(server, 'websocket', { getToken, token: await getToken() })
    const heard = hear(stock, 'all')
    stock.connect()
    await until(() => heard.subscribed.length === 1, 'subscribed')
    await create(server, 1, 3)
    tenant = 'b'
    const tenants = () => rowsIn(heard).map((row) => (row as { tenant: string }).tenant)
    // The stock client refreshes by itself, some time before its token ends.
    let id = 4
    await until(async () => {
      await create(server, id, id++)
      return tenants().includes('b')
    }, 'it hears the other tenant')
    // All of the one, then all of the other.
    expect(tenants()).toEqual(tenants().toSorted())
    expect(heard.subscribed.length).toBe(1)
    stock.disconnect()
  })
})
