/** `rpc`: the app's own API through a live connection, behind the same gates, for the stock client. */
import { describe, expect, test } from 'bun:test'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { signToken } from '../../src/auth/auth.ts'
import { collection, desc, Fault, topic, type Routes } from '../../src/kit.ts'
import { tempFolder, until } from '../harness.ts'
import { codeOf, hear, stockClient, transports } from '../realtime/stock.ts'
import { runServer, testApiKey, testSecret } from '../server.ts'

const notes = sqliteTable('notes', {
  id: integer().primaryKey({ autoIncrement: true }),
  author: text().notNull(),
  text: text({ length: 20 }).notNull(),
})

const routes: Routes = (server, { topics }) =>
  server
    .post('/api/echo', ({ body }) => body as object)
    .get('/api/whoami', ({ user }) => ({ id: user?.id ?? null }))
    .get('/api/plain', () => 'two\nlines')
    .get('/api/laid-out', () => new Response('{\n  "a": [1,\r\n 2]\n}', json))
    .get('/api/broken', () => new Response('{"a":', json))
    .get('/api/nothing', ({ set }) => void (set.status = 204))
    .get('/api/bytes', () => new Response(new Uint8Array([0xff, 0xfe])))
    .get('/api/picture', () => new Response(new Uint8Array([1, 2]), picture))
    .get('/api/huge', () => ({ text: 'x'.repeat(200_000) }))
    .get('/api/teapot', ({ status }) => status(418, 'short and stout'))
    .get('/api/busy', () => {
      throw new Fault('unavailable', 'come back later')
    })
    .get('/api/bug', () => {
      throw new Error('a secret of the app')
    })
    .get('/api/mine/stream', ({ request }) => topics.stream(request, ['notes']))

const json = { headers: { 'content-type': 'application/json' } }
const picture = { headers: { 'content-type': 'image/png' } }

const app = {
  collections: {
    notes: collection(notes, {
      read: 'public',
      create: ({ user }) => user && { author: user.id },
      orders: { newest: desc(notes.id) },
      filters: ['author'],
      live: () => 'notes',
    }),
  },
  topics: {
    notes: topic({ subscribe: 'public', history: { size: 10, ttl: '1h' }, presence: true }),
    'secret:{name}': topic({ history: { size: 10, ttl: '1h' } }),
  },
  routes,
}

const tokenOf = (claims: Parameters<typeof signToken>[1]) =>
  signToken(testSecret, claims, { nowMs: Date.now(), ttlMs: 60_000 })

async function refusal(call: Promise<unknown>): Promise<unknown> {
  return await call.then(
    () => 'no error',
    (error: unknown) => error,
  )
}

describe.each([...transports])('over %s', (transport) => {
  test('reads, writes and own routes answer as over HTTP, to the same user', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    const ann = stockClient(server, transport, { token: await tokenOf({ sub: 'ann' }) })
    const visitor = stockClient(server, transport)
    const heard = hear(visitor, 'notes')
    ann.connect()
    visitor.connect()
    await until(() => heard.subscribed.length === 1, 'subscribed')

    const created = await ann.rpc('POST /api/notes', { text: 'hello' })
    expect(created.data).toEqual({ id: 1, author: 'ann', text: 'hello' })
    await until(() => heard.publications.length === 1, 'the change is announced')
    const listed = await visitor.rpc('GET /api/notes?order=newest&author=ann', null)
    const direct = await server.get('/api/notes?order=newest&author=ann')
    expect(listed.data).toEqual(await direct.json())
    // Cached by the one, given to the other.
    expect(direct.headers.get('x-cache')).toBe('hit')
    expect((await ann.rpc('GET /api/whoami', null)).data).toEqual({ id: 'ann' })
    expect((await visitor.rpc('GET /api/whoami', null)).data).toEqual({ id: null })
    expect((await visitor.rpc('GET /api/plain', null)).data).toBe('two\nlines')
    expect((await visitor.rpc('GET /api/laid-out', null)).data).toEqual({ a: [1, 2] })
    expect((await visitor.rpc('GET /api/nothing', null)).data).toBeNull()
    const { clients } = await visitor.presence('notes')
    expect(Object.values(clients)).toMatchObject([{ user: '' }])
    ann.disconnect()
    visitor.disconnect()
  })

  test('refusals carry the status and what is wrong', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    const ann = stockClient(server, transport, { token: await tokenOf({ sub: 'ann' }) })
    const visitor = stockClient(server, transport)
    ann.connect()
    visitor.connect()
    expect(await refusal(visitor.rpc('POST /api/notes', { text: 'x' }))).toMatchObject({
      code: 401,
    })
    expect(await refusal(ann.rpc('POST /api/notes', { text: 5, nope: 1 }))).toEqual({
      code: 400,
      message: 'the row is not valid: text must be a string, nope is not a column',
      temporary: false,
    })
    expect(await refusal(ann.rpc('GET /api/notes/77', null))).toMatchObject({ code: 404 })
    expect(await refusal(ann.rpc('DELETE /api/notes', null))).toMatchObject({ code: 405 })
    expect(await refusal(ann.rpc('GET /nowhere', null))).toMatchObject({ code: 404 })
    expect(await refusal(ann.rpc('GET /api/teapot', null))).toEqual({
      code: 418,
      message: 'short and stout',
      temporary: false,
    })
    expect(await refusal(ann.rpc('GET /api/busy', null))).toEqual({
      code: 503,
      message: 'come back later',
      temporary: true,
    })
    expect(await refusal(ann.rpc('GET /api/bug', null))).toEqual({
      code: 500,
      message: 'internal error',
      temporary: false,
    })
    expect(await codeOf(ann.rpc('GET /api/broken', null))).toBe(502)
    expect(await codeOf(ann.rpc('GET /api/huge', null))).toBe(106)
    expect(await codeOf(ann.rpc('GET /api/picture', null))).toBe(108)
    expect(await codeOf(ann.rpc('GET /api/bytes', null))).toBe(108)
    // The server API is for its key; no body or header of a call can claim it.
    const publish = ann.rpc('POST /api/publish', {
      channel: 'notes',
      data: 1,
      'x-api-key': testApiKey,
    })
    expect(await codeOf(publish)).toBe(401)
    ann.disconnect()
    visitor.disconnect()
  })

  test('what never ends is not called, and opens nothing', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    const client = stockClient(server, transport)
    client.connect()
    const paths = [
      '/api/stream?topics=notes',
      '/connection/websocket',
      '/connection/sse?cf_connect=%7B%22id%22%3A1%2C%22connect%22%3A%7B%7D%7D',
      '/api/../connection/sse?cf_connect=x',
      '/emulation',
    ]
    for (const path of paths) expect(await codeOf(client.rpc(`GET ${path}`, null))).toBe(108)
    expect(await codeOf(client.rpc('GET /api/mine/stream', null))).toBe(400)
    expect(server.rooms.realtime.stats()).toMatchObject({ connections: 1, subscriptions: 0 })
    client.disconnect()
  })

  test('writes are counted with those over HTTP: by user, and by address for visitors', async () => {
    using folder = tempFolder()
    const writePolicy = { name: 'writes', quota: 3, windowMs: 60_000 }
    await using server = await runServer({ app, folder, writePolicy })
    const token = await tokenOf({ sub: 'ann' })
    const ann = stockClient(server, transport, { token })
    const visitor = stockClient(server, transport)
    ann.connect()
    visitor.connect()
    const over = (headers: Record<string, string>) =>
      server.get('/api/notes', {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
        body: '{"text":"x"}',
      })
    await ann.rpc('POST /api/notes', { text: 'x' })
    expect((await over({ authorization: `Bearer ${token}` })).status).toBe(201)
    await ann.rpc('POST /api/notes', { text: 'x' })
    const refused = await refusal(ann.rpc('POST /api/notes', { text: 'x' }))
    expect(refused).toMatchObject({ code: 429, temporary: true })
    expect(await codeOf(visitor.rpc('POST /api/notes', { text: 'x' }))).toBe(401)
    expect((await over({})).status).toBe(401)
    expect(await codeOf(visitor.rpc('POST /api/notes', { text: 'x' }))).toBe(401)
    expect((await over({})).status).toBe(429)
    ann.disconnect()
    visitor.disconnect()
  })

  test('a signed token for one topic lets in there, and identifies nobody', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    const pass = await tokenOf({ sub: 'ann', channel: 'secret:a', info: { seat: 1 } })
    const ann = stockClient(server, transport, { token: await tokenOf({ sub: 'ann' }) })
    const heard = hear(ann, 'secret:a', { token: pass })
    ann.connect()
    await until(() => heard.subscribed.length === 1, 'let in')
    server.rooms.realtime.publish('secret:a', 'hush')
    await until(() => heard.publications.length === 1, 'heard')
    ann.disconnect()

    const visitor = stockClient(server, transport)
    const theirs = hear(visitor, 'secret:b', { token: await tokenOf({ channel: 'secret:b' }) })
    visitor.connect()
    await until(() => theirs.subscribed.length === 1, 'a token of nobody, for a visitor')
    visitor.disconnect()

    const thief = stockClient(server, transport, { token: pass })
    const ends: number[] = []
    thief.on('disconnected', ({ code }) => void ends.push(code))
    thief.connect()
    await until(() => ends.length === 1, 'refused')
    expect(ends).toEqual([3500])
    const authorization = `Bearer ${pass}`
    expect((await server.get('/api/whoami', { headers: { authorization } })).status).toBe(401)
  })
})

test('another origin may open the fallbacks, if it is told that it may', async () => {
  using folder = tempFolder()
  const origin = 'https://app.example'
  await using server = await runServer({ app, folder, env: { CORS_ORIGIN: origin } })
  const connect = encodeURIComponent('{"id":1,"connect":{}}')
  const stream = await server.get(`/connection/sse?cf_connect=${connect}`, { headers: { origin } })
  expect(stream.headers.get('access-control-allow-origin')).toBe(origin)
  await stream.body?.cancel()
  const preflight = await server.get('/emulation', {
    method: 'OPTIONS',
    headers: {
      origin,
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'content-type',
    },
  })
  expect(preflight.headers.get('access-control-allow-origin')).toBe(origin)
  expect(preflight.headers.get('access-control-allow-headers')?.toLowerCase()).toContain(
    'content-type',
  )
})

test('a body nested deeper than 100 levels is a 400, at collections and at own routes', async () => {
  using folder = tempFolder()
  await using server = await runServer({ app, folder })
  const authorization = `Bearer ${await tokenOf({ sub: 'ann' })}`
  const post = (path: string, body: string) =>
    server.get(path, {
      method: 'POST',
      headers: { 'content-type': 'application/json; charset=utf-8', authorization },
      body,
    })
  const deep = `{"text":${'['.repeat(30_000)}${']'.repeat(30_000)}}`
  for (const path of ['/api/notes', '/api/echo']) {
    const response = await post(path, deep)
    expect([path, response.status]).toEqual([path, 400])
    expect(((await response.json()) as { detail: string }).detail).toContain('100 levels')
  }
  expect(await (await post('/api/echo', '{"a":[[1]]}')).json()).toEqual({ a: [[1]] })
})
