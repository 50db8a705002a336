import { describe, expect, test } from 'bun:test'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { collection, Fault, topic, type Priority, type Routes } from '../../src/kit.ts'
import { shiftedClock } from '../clock.ts'
import { faultOf, openStore, tempFolder, until, type TempFolder } from '../harness.ts'
import { runBelfry, spawnBelfry } from '../process.ts'
import { RawClient } from '../realtime/serve.ts'
import { runServer, testApiKey, type TestServer } from '../server.ts'
import { startSqld } from '../services.ts'

const notes = sqliteTable('notes', { id: integer().primaryKey(), text: text().notNull() })

const open = { read: 'public', create: 'public', update: 'public' } as const

const routes: Routes = (server, { topics }) =>
  server
    .get('/api/report', () => 'long', { priority: 'low' })
    .guard({ priority: 'low' }, (group) => group.post('/api/guess', () => 'luck'))
    .get('/api/own-stream', ({ request }) => topics.stream(request, ['notes']))
    .get('/api/plain', () => 'well')

const app = {
  collections: {
    notes: collection(notes, { ...open, live: () => 'notes', priority: 'high' }),
    drafts: collection(notes, { ...open, ttl: '1m', stale: '1h' }),
    spare: collection(notes, { ...open, priority: 'low' }),
  },
  topics: { notes: topic({ subscribe: 'public' }) },
  routes,
}

const start = (folder: TempFolder) => runServer({ app, folder })

const send = (server: TestServer, path: string, body: unknown, headers = {}, method = 'POST') =>
  server.get(path, {
    method,
    headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  })

const byKey = { 'x-api-key': testApiKey }

const setMode = (server: TestServer, body: unknown, headers: object = byKey) =>
  send(server, '/api/admin/mode', body, headers)

const status = async (server: TestServer) =>
  (await (await server.get('/api/admin/mode', { headers: byKey })).json()) as Record<
    string,
    unknown
  >

const handshake = {
  upgrade: 'websocket',
  connection: 'upgrade',
  'sec-websocket-version': '13',
  'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
}

describe('saving', () => {
  test('what may be stale is, at once, and is loaded behind it; a write is seen all the same', async () => {
    using folder = tempFolder()
    const clock = shiftedClock()
    await using server = await runServer({ app, folder, clock })
    await send(server, '/api/drafts', { id: 1, text: 'one' })
    const read = async () => {
      const answer = await server.get('/api/drafts/1')
      const { text: said } = (await answer.json()) as { text: string }
      return [answer.headers.get('x-cache'), answer.headers.get('cache-status'), said]
    }
    await read()
    await setMode(server, { mode: 'saving' })
    // Beyond the two times that an answer is good for then.
    clock.by += 3 * 60_000
    const [state, told] = await read()
    expect(state).toBe('stale')
    expect(told).toMatch(/^belfry; hit; ttl=-\d+; detail=overload$/)
    await send(server, '/api/drafts/1', { text: 'two' }, {}, 'PATCH')
    for (let n = 0; n < 5; n++) expect((await read())[2]).toBe('two')
    clock.by += 3 * 60_000
    expect((await read())[0]).toBe('stale')
    await until(async () => (await read())[0] === 'hit', 'loaded behind it')
  })
})

describe('an emergency', () => {
  test('low ones are refused before anything of them is looked at; the others are answered', async () => {
    using folder = tempFolder()
    await using server = await start(folder)
    // Known to the fast lane.
    for (let n = 0; n < 3; n++) await server.get('/api/spare')
    await setMode(server, { mode: 'emergency' })
    const refused = [
      await server.get('/api/spare'),
      await server.get('/api/spare/1'),
      await server.get('/api/report'),
      await send(server, '/api/guess', '{'),
      // Not 400, and not 401.
      await send(server, '/api/spare', '{'),
      await server.get('/api/spare', { headers: { authorization: 'Bearer x' } }),
    ]
    for (const { status: code, headers } of refused) {
      expect([code, headers.get('content-type')]).toEqual([503, 'application/problem+json'])
      expect(Number(headers.get('retry-after'))).toBeWithin(2, 6)
      expect(headers.get('x-request-id')).toMatch(/./)
    }
    expect(await refused[0]?.json()).toMatchObject({ status: 503, code: 'overloaded' })
    const answered = [
      await send(server, '/api/notes', { id: 1, text: 'one' }),
      await server.get('/api/notes'),
      await server.get('/api/drafts'),
      await server.get('/api/plain'),
      await server.get('/api/health'),
      await server.get('/api/metrics'),
    ]
    expect(answered.map(({ status: code }) => code)).toEqual([201, 200, 200, 200, 200, 200])
    const metrics = (await answered.at(-1)?.text()) ?? ''
    expect(metrics).toContain('belfry_overload_stage 2')
    expect(metrics).toContain('belfry_overload_refused_total{priority="low"} 6')
    expect(metrics).toContain('belfry_requests_total{route="GET /api/spare",status="503"} 2')
    await setMode(server, { mode: 'auto' })
    expect((await server.get('/api/report')).status).toBe(200)
  })
})

describe('an emergency, on an open socket', () => {
  test('calls are refused as requests are, for a while; what is no call goes on', async () => {
    using folder = tempFolder()
    await using server = await start(folder)
    const client = await RawClient.connect(
      `${server.url.replace('http', 'ws')}/connection/websocket`,
    )
    await setMode(server, { mode: 'emergency' })
    const call = async (method: string, data?: unknown) =>
      await client.call({ rpc: { method, data } })
    for (const [method, data] of [['GET /api/spare'], ['POST /api/guess', 5]] as const) {
      const { error } = await call(method, data)
      expect(error).toMatchObject({
        ...{ code: 503, temporary: true },
        message: 'more is asked of the server than it can do: try again later',
      })
    }
    expect(await call('GET /api/plain')).toMatchObject({ rpc: { data: 'well' } })
    expect(await call('POST /api/notes', { id: 1, text: 'one' })).toMatchObject({ rpc: {} })
    expect(await client.call({ subscribe: { channel: 'notes' } })).toMatchObject({ subscribe: {} })
    expect(await status(server)).toMatchObject({ refused: { low: 2, normal: 0, high: 0 } })
    await setMode(server, { mode: 'auto' })
    expect(await call('GET /api/report')).toMatchObject({ rpc: { data: 'long' } })
    client.close()
  })
})

describe('closed', () => {
  test('no new sockets and streams; the open ones go on', async () => {
    using folder = tempFolder()
    await using server = await start(folder)
    const stream = await server.get('/api/stream?topics=notes')
    const reader = stream.body?.getReader()
    await setMode(server, { mode: 'closed' })
    const refused = [
      await server.get('/connection/websocket', { headers: handshake }),
      await server.get('/api/stream?topics=notes'),
      await server.get('/connection/sse?cf_connect=%7B%22id%22%3A1%2C%22connect%22%3A%7B%7D%7D'),
      await server.get('/connection/http_stream', { method: 'POST', body: '{}' }),
      await server.get('/api/own-stream'),
    ]
    for (const { status: code, headers } of refused) {
      expect(code).toBe(503)
      expect(headers.get('retry-after')).toMatch(/^[1-5]$/)
    }
    await send(server, '/api/notes', { id: 1, text: 'heard' })
    let heard = ''
    await until(async () => {
      heard += new TextDecoder().decode((await reader?.read())?.value)
      return heard.includes('"text":"heard"')
    }, 'the stream goes on')
    await reader?.cancel()
    expect((await server.get('/api/notes')).status).toBe(200)
    await setMode(server, { mode: 'auto' })
    const again = await server.get('/api/stream?topics=notes')
    expect(again.status).toBe(200)
    await again.body?.cancel()
  })
})

describe('the mode', () => {
  test('is for administrators, and says what is wrong', async () => {
    using folder = tempFolder()
    await using server = await start(folder)
    expect((await setMode(server, { mode: 'emergency' }, {})).status).toBe(401)
    expect((await server.get('/api/admin/mode')).status).toBe(401)
    const wrong = [{ mode: 'panic' }, { mode: 'saving', for: 'long' }, { for: '1m' }, { how: 1 }]
    for (const body of wrong) expect((await setMode(server, body)).status).toBe(400)
    expect((await setMode(server, { mode: 'auto', for: '1m' })).status).toBe(400)
    expect(await status(server)).toMatchObject({ mode: 'normal', stage: 'normal', why: 'calm' })
    const told = (await (await setMode(server, { mode: 'saving', for: '10m' })).json()) as object
    expect(told).toMatchObject({ mode: 'saving', stage: 'saving', why: 'mode' })
    expect(await status(server)).toMatchObject({
      untilMs: expect.any(Number),
      signals: { requestsWaitMs: expect.any(Number), memoryShare: expect.any(Number) },
      refused: { low: 0, normal: 0, high: 0, connection: 0 },
    })
  })

  test('survives a restart, and is heard through the log', async () => {
    using folder = tempFolder()
    {
      await using server = await start(folder)
      await setMode(server, { mode: 'emergency' })
    }
    await using server = await start(folder)
    expect(await status(server)).toMatchObject({ mode: 'emergency', stage: 'refusing' })
    // As another node says it.
    const data = { mode: 'saving', atMs: Date.now() + 1_000 }
    await server.rooms.store.note({ kind: 'mode', data }, [])
    expect(await status(server)).toMatchObject({ mode: 'saving' })
  })

  test('is known also where the log no longer tells of it', async () => {
    using folder = tempFolder()
    await using sqld = await startSqld()
    const env = { DATABASE_URL: sqld.url }
    await using server = await runServer({ app, folder, env })
    const database = { kind: 'remote', primary: { url: sqld.url }, replicas: [] } as const
    await using other = await openStore(database, [notes])
    const said = { mode: 'saving', atMs: Date.now() }
    await other.remember('mode', JSON.stringify(said))
    // Two entries, of which the first has gone: it may have been about anything.
    await other.write([
      { sql: "insert into notes values (1, 'one'), (2, 'two')", params: [] },
      { sql: 'delete from log where seq = (select max(seq) - 1 from log)', params: [] },
    ])
    await until(async () => (await status(server))['mode'] === 'saving', 'it is recalled')
  })

  test('belfry mode: through the running server', async () => {
    using folder = tempFolder()
    const text = `import { app } from 'belfry'\nexport default app({ name: 'empty' })\n`
    await Bun.write(folder.file('app.ts'), text)
    const belfry = (...args: string[]) => runBelfry({ args: ['mode', ...args], cwd: folder.path })
    expect((await belfry('app.ts')).stderr).toContain('no server of this app')
    await using _ = await spawnBelfry({ args: ['serve', 'app.ts'], cwd: folder.path })
    const set = await belfry('emergency', 'app.ts', '--for', '10m')
    expect([set.exitCode, set.stderr]).toEqual([0, ''])
    expect(set.stdout).toMatch(/^mode emergency until \S+Z\nstage refusing for 0 s \(mode\)\n/)
    expect((await belfry('app.ts')).stdout).toStartWith('mode emergency until')
    expect((await belfry('auto', 'app.ts')).stdout).toStartWith('mode auto\nstage normal')
    expect((await belfry('app.ts', '--for', '1m')).exitCode).toBe(2)
    expect((await belfry('panic', 'app.ts')).exitCode).toBe(2)
  })
})

test('a priority that there is not is named at start', async () => {
  using folder = tempFolder()
  const wrong: Routes = (server) =>
    server.get('/api/own', () => '', { priority: 'urgent' as Priority })
  const fault = await faultOf(() => runServer({ app: { routes: wrong }, folder }))
  expect(fault).toBeInstanceOf(Fault)
  expect(fault.fields).toEqual([
    { field: 'routes.GET /api/own.priority', message: 'must be one of high, normal, low' },
  ])
})
