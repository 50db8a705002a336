import { describe, expect, test } from 'bun:test'
import { eq } from 'drizzle-orm'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { t } from 'elysia'
import { signToken } from '../../src/auth/auth.ts'
import { collection, Fault, topic, type Routes } from '../../src/kit.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { faultOf, tempFolder } from '../harness.ts'
import { runServer, startIsOver, testSecret, type TestServer } from '../server.ts'

const accounts = sqliteTable('accounts', { id: text().primaryKey(), cents: integer().notNull() })

const routes: Routes = (server, { db, topics }) =>
  server
    .get('/api/whoami', ({ user, requestId }) => ({ user, requestId }))
    .get('/api/rich/:name', async ({ params, load }) => {
      const [one, same] = await Promise.all([
        load.one(accounts.id, params.name),
        load.one(accounts.id, params.name),
      ])
      if (!one) throw new Fault('not_found', `no account ${params.name}`)
      return { cents: one.cents, same: same?.cents }
    })
    .get('/api/plain', ({ cookie }) => {
      for (const name of ['a', 'b']) cookie[name]?.set({ value: '1' })
      return 'text'
    })
    .get('/api/broken', () => {
      throw new Error('a secret of the app')
    })
    .get('/api/teapot', ({ status }) => status(418, 'short and stout'))
    .get('/api/teapot/thrown', ({ status }) => {
      // oxlint-disable-next-line typescript/only-throw-error -- Elysia's own way
      throw status(418, 'short and stout')
    })
    .get('/api/mine/stream', ({ request, user }) =>
      topics.stream(request, [`mine:${user?.id ?? 'nobody'}`]),
    )
    .post('/api/echo', ({ body }) => body as object)
    .post(
      '/api/accounts/:from/transfer',
      async ({ params, body, user, request }) => {
        if (!user) throw new Fault('unauthenticated', 'sign in to transfer')
        const once = { key: request.headers.get('idempotency-key'), user, request: body }
        return await db.transaction(
          async (tx) => {
            const move = async (id: string, cents: number): Promise<number> => {
              const [account] = await tx.select().from(accounts).where(eq(accounts.id, id))
              if (!account) throw new Fault('not_found', `no account ${id}`)
              const left = account.cents + cents
              if (left < 0) throw new Fault('conflict', 'not enough money')
              await tx.update(accounts).set({ cents: left }).where(eq(accounts.id, id))
              return left
            }
            const left = await move(params.from, -body.cents)
            await move(body.to, body.cents)
            return { left }
          },
          { once },
        )
      },
      { body: t.Object({ to: t.String(), cents: t.Integer({ minimum: 1 }) }) },
    )

const app = {
  collections: {
    accounts: collection(accounts, { read: 'public', create: 'public', live: () => 'accounts' }),
  },
  topics: {
    accounts: topic({ subscribe: 'public' }),
    'mine:{user}': topic({ subscribe: ({ user, params }) => user?.id === params['user'] }),
  },
  routes,
}

async function send(
  server: TestServer,
  path: string,
  body: unknown,
  headers: Record<string, string> = {},
): Promise<Response> {
  const token = await signToken(
    testSecret,
    { sub: 'ann' },
    { nowMs: systemClock.now(), ttlMs: 60_000 },
  )
  return await server.get(path, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      authorization: `Bearer ${token}`,
      ...headers,
    },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  })
}

async function open(server: TestServer): Promise<void> {
  for (const id of ['a', 'b']) await send(server, '/api/accounts', { id, cents: 100 })
}

const balances = async (server: TestServer): Promise<unknown> => {
  const { items } = (await (await server.get('/api/accounts')).json()) as { items: unknown }
  return items
}

describe('routes of the app', () => {
  test('know who asks, and are answered with the headers of every door', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    const response = await server.get('/api/whoami')
    const id = response.headers.get('x-request-id')
    expect(await response.json()).toEqual({ user: null, requestId: id })
    expect(response.headers.get('x-response-time')).toEndWith('ms')
    expect(response.headers.get('cache-control')).toBe('no-store')
    const bad = await server.get('/api/whoami', { headers: { authorization: 'Bearer nonsense' } })
    expect(bad.status).toBe(401)
    expect(await (await server.get('/api/metrics')).text()).toContain('route="GET /api/whoami"')
  })

  test('a transaction happens whole; the cache and live subscribers follow it', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    await open(server)
    expect(await balances(server)).toEqual([
      { id: 'a', cents: 100 },
      { id: 'b', cents: 100 },
    ])
    const seq = server.rooms.store.stats().seq
    const moved = await send(server, '/api/accounts/a/transfer', { to: 'b', cents: 30 })
    expect([moved.status, await moved.json()]).toEqual([200, { left: 70 }])
    expect(await balances(server)).toEqual([
      { id: 'a', cents: 70 },
      { id: 'b', cents: 130 },
    ])
    expect(server.rooms.store.stats().seq).toBe(seq + 2)

    // The first leg is written before the second one finds no account.
    const lost = await send(server, '/api/accounts/a/transfer', { to: 'nobody', cents: 5 })
    expect([lost.status, await lost.json()]).toMatchObject([404, { detail: 'no account nobody' }])
    const poor = await send(server, '/api/accounts/a/transfer', { to: 'b', cents: 71 })
    expect(poor.status).toBe(409)
    expect(await balances(server)).toMatchObject([{ cents: 70 }, { cents: 130 }])
  })

  test('race: fifty transfers at once move each their money', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    await open(server)
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, at) =>
        at % 2 === 0
          ? send(server, '/api/accounts/a/transfer', { to: 'b', cents: 3 })
          : send(server, '/api/accounts/b/transfer', { to: 'a', cents: 1 }),
      ),
    )
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]))
    expect(await balances(server)).toEqual([
      { id: 'a', cents: 50 },
      { id: 'b', cents: 150 },
    ])
  })

  test('the same key again does nothing and is answered as the first time', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    await open(server)
    const key = { 'idempotency-key': 'once' }
    const body = { to: 'b', cents: 30 }
    const answers = await Promise.all(
      [1, 2, 3].map(() => send(server, '/api/accounts/a/transfer', body, key)),
    )
    for (const answer of answers) expect(await answer.json()).toEqual({ left: 70 })
    const other = await send(server, '/api/accounts/a/transfer', { ...body, cents: 1 }, key)
    expect(other.status).toBe(422)
    expect(await balances(server)).toMatchObject([{ cents: 70 }, { cents: 130 }])
  })

  test('bad input is a problem that names the field; a bug is logged and not shown', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    const wrong = await send(server, '/api/accounts/a/transfer', { to: 'b', cents: 0.5 })
    expect([wrong.status, await wrong.json()]).toMatchObject([
      400,
      { code: 'invalid', errors: [{ field: 'cents' }] },
    ])
    expect((await send(server, '/api/accounts/a/transfer', '{')).status).toBe(400)
    expect((await send(server, '/api/echo', { text: 'x'.repeat(1_100_000) })).status).toBe(413)
    const missing = await server.get('/api/rich/nobody')
    expect(await missing.json()).toMatchObject({ status: 404, detail: 'no account nobody' })

    for (const path of ['/api/teapot', '/api/teapot/thrown']) {
      const teapot = await server.get(path)
      expect([teapot.status, await teapot.text()]).toEqual([418, 'short and stout'])
    }
    const broken = await server.get('/api/broken')
    expect(broken.status).toBe(500)
    expect(await broken.text()).not.toContain('secret')
    const line = server.log.lines.find(({ event }) => event === 'http.fault')
    expect(line?.fields['requestId']).toBe(broken.headers.get('x-request-id') ?? '')
  })

  test('look-ups of one tick are one query', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    await open(server)
    await startIsOver(server)
    const before = server.rooms.store.stats().reads
    expect(await (await server.get('/api/rich/a')).json()).toEqual({ cents: 100, same: 100 })
    expect(server.rooms.store.stats().reads).toBe(before + 1)
  })

  test('a stream of topics asks their rules about who made the request', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    expect((await server.get('/api/mine/stream')).status).toBe(403)
    const token = await signToken(
      testSecret,
      { sub: 'ann' },
      { nowMs: systemClock.now(), ttlMs: 60_000 },
    )
    const response = await server.get('/api/mine/stream', {
      headers: { authorization: `Bearer ${token}` },
    })
    expect(response.headers.get('content-type')).toStartWith('text/event-stream')
    server.rooms.realtime.publish('mine:ann', { hello: 'ann' })
    let heard = ''
    const decoder = new TextDecoder()
    for await (const chunk of response.body ?? []) {
      heard += decoder.decode(chunk)
      if (heard.includes('hello')) break
    }
    expect(heard).toContain('"channel":"mine:ann"')
  })

  test.each<[name: string, declare: Routes]>([
    ['a route Belfry serves', (server) => server.get('/api/health', () => 'mine')],
    ['a row of a collection', (server) => server.get('/api/accounts/:any', () => 'mine')],
    ['one twice', (server) => server.get('/x/:a', () => '1').get('/x/:b', () => '2')],
    ['a WebSocket', (server) => server.ws('/ws', { message() {} })],
  ])('refused at start: %s', async (_, declare) => {
    using folder = tempFolder()
    const fault = await faultOf(() => runServer({ app: { ...app, routes: declare }, folder }))
    expect([fault.code, fault.fields?.[0]?.field.startsWith('routes.')]).toEqual(['invalid', true])
  })
})

test('a text stays a text, and each cookie is set', async () => {
  using folder = tempFolder()
  await using server = await runServer({ app, folder })
  const { headers } = await server.get('/api/plain')
  expect(headers.get('content-type')).toStartWith('text/plain')
  expect(headers.getSetCookie()).toHaveLength(2)
})
