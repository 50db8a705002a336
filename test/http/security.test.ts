import { expect, test } from 'bun:test'
import { connect } from 'node:net'
import { integer, sqliteTable } from 'drizzle-orm/sqlite-core'
import { createOriginCheck } from '../../src/http/origin.ts'
import { collection, topic, type Routes } from '../../src/kit.ts'
import { tempFolder, until } from '../harness.ts'
import { runServer, testApiKey, type TestServer } from '../server.ts'

const notes = sqliteTable('notes', { id: integer().primaryKey() })
const app = { collections: { notes: collection(notes, { read: 'public' }) } }

test('pages and problems are what they say, and a page is not framed elsewhere', async () => {
  using folder = tempFolder()
  await using server = await runServer({ app, folder })
  const page = await server.get('/')
  expect(page.headers.get('x-content-type-options')).toBe('nosniff')
  expect(page.headers.get('x-frame-options')).toBe('SAMEORIGIN')
  expect(page.headers.get('referrer-policy')).toBe('strict-origin-when-cross-origin')
  const problem = await server.get('/api/notes?%3Cscript%3E=1')
  expect([problem.status, problem.headers.get('x-content-type-options')]).toEqual([400, 'nosniff'])
})

test('what may be asked of a path is said, with and without a body of it', async () => {
  using folder = tempFolder()
  await using server = await runServer({ app, folder })
  const asked = async (path: string, method: string) => {
    const response = await server.get(path, { method })
    return [response.status, response.headers.get('allow'), (await response.text()).length > 0]
  }
  const all = 'GET, HEAD, POST, OPTIONS'
  expect(await asked('/api/notes', 'OPTIONS')).toEqual([204, all, false])
  expect(await asked('/api/notes', 'PUT')).toEqual([405, all, true])
  expect(await asked('/api/notes/1', 'OPTIONS')).toEqual([
    204,
    'GET, HEAD, PATCH, DELETE, OPTIONS',
    false,
  ])
  expect(await asked('/api/notes', 'HEAD')).toEqual([200, null, false])
  expect(await asked('/api/notes/1', 'HEAD')).toEqual([404, null, false])
})

test('every door says what may be asked of it, and HEAD is an answer without its body', async () => {
  using folder = tempFolder()
  const routes: Routes = (belfry, { topics }) =>
    belfry
      .get('/own', () => 'own')
      .put('/own', () => 'put')
      .post('/own/:name/done', () => 'done')
      .get('/own/:name', () => 'one')
      .get('/own/stream', ({ request }) => topics.stream(request, ['live']))
  const topics = { live: topic({ subscribe: 'public', history: { size: 1, ttl: '1h' } }) }
  await using server = await runServer({ app: { ...app, topics, routes }, folder })
  const read = 'GET, HEAD, OPTIONS'
  const write = 'POST, OPTIONS'
  const doors: Record<string, string> = {
    ...{ '/': read, '/belfry.js': read, '/api/health': read, '/api/metrics': read },
    ...{ '/api/admin/cache/stats': read, '/api/admin/revoke': write },
    ...{ '/connection/websocket': 'GET, OPTIONS', '/connection/sse': 'GET, OPTIONS' },
    ...{ '/connection/http_stream': write, '/emulation': write },
    ...{ '/api/stream?topics=live': read, '/api/topics/live/history': read },
    ...{ '/api/publish': write, '/api/server/publish': write },
    ...{ '/api/notes': 'GET, HEAD, POST, OPTIONS', '/own': 'GET, HEAD, PUT, OPTIONS' },
    ...{ '/own/a/done': write, '/own/a': read, '/own/stream': read },
  }
  const headers = { 'x-api-key': testApiKey }
  for (const [path, allow] of Object.entries(doors)) {
    const ask = (method: string) => server.get(path, { method, headers })
    const options = await ask('OPTIONS')
    expect([path, options.status, options.headers.get('allow')]).toEqual([path, 204, allow])
    for (const method of ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE']) {
      if (allow.includes(method)) continue
      const refused = await ask(method)
      expect([path, method, refused.status, refused.headers.get('allow')]).toEqual([
        ...[path, method, 405, allow],
      ])
      if (method !== 'HEAD') expect(await refused.json()).toMatchObject({ code: 'not_allowed' })
    }
    if (!allow.includes('HEAD')) continue
    const [head, get] = [await ask('HEAD'), await ask('GET')]
    expect([path, head.status, await head.text()]).toEqual([path, get.status, ''])
    // Elysia gives a text of the app's own its type only with its body.
    if (!path.startsWith('/own')) {
      expect(head.headers.get('content-type')).toBe(get.headers.get('content-type'))
    }
    await get.body?.cancel()
  }
  await until(() => server.rooms.realtime.stats().streams === 0, 'no head left a stream behind')
  for (const path of ['/nothing', '/own/a/b/c', '/own/a/undone', '/api/healthy', '/api/server']) {
    for (const method of ['GET', 'OPTIONS', 'POST', 'DELETE']) {
      expect([path, (await server.get(path, { method })).status]).toEqual([path, 404])
    }
  }
})

test('of whose pages a WebSocket may be', () => {
  const check = (origins: string[], origin: string | null, host = 'api.example.com:3000') =>
    createOriginCheck(origins)(new Headers({ host, ...(origin === null ? {} : { origin }) }))
  const listed = ['https://app.example.com']
  expect(check([], null)).toBe(true)
  expect(check([], 'https://api.example.com:3000')).toBe(true)
  expect(check([], 'http://api.example.com:3000')).toBe(true)
  expect(check([], 'https://api.example.com')).toBe(false)
  expect(check([], 'https://evil.example')).toBe(false)
  expect(check([], 'null')).toBe(false)
  expect(check(listed, 'https://app.example.com')).toBe(true)
  expect(check(listed, 'https://app.example.com.evil.example')).toBe(false)
  expect(check(['*'], 'https://evil.example')).toBe(true)
})

/** The first line of what a handshake is answered with. */
function handshake(server: TestServer, headers: Readonly<Record<string, string>>): Promise<string> {
  const lines = Object.entries({
    host: `127.0.0.1:${server.port}`,
    upgrade: 'websocket',
    connection: 'Upgrade',
    'sec-websocket-version': '13',
    'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
    ...headers,
  }).map(([name, value]) => `${name}: ${value}\r\n`)
  return new Promise((resolve, reject) => {
    const socket = connect(server.port, '127.0.0.1')
    socket.once('data', (bytes) => {
      socket.destroy()
      resolve(String(bytes).split('\r\n', 1)[0] ?? '')
    })
    socket.once('error', reject)
    socket.once('end', () => resolve('closed'))
    socket.write(`GET /connection/websocket HTTP/1.1\r\n${lines.join('')}\r\n`)
  })
}

test('a WebSocket is opened for our pages and those of CORS_ORIGIN', async () => {
  using folder = tempFolder()
  const env = { CORS_ORIGIN: 'https://app.example.com' }
  await using server = await runServer({ app, folder, env })
  const of = (origin: string) => handshake(server, { origin })
  expect(await handshake(server, {})).toBe('HTTP/1.1 101 Switching Protocols')
  expect(await of(`http://127.0.0.1:${server.port}`)).toBe('HTTP/1.1 101 Switching Protocols')
  expect(await of('https://app.example.com')).toBe('HTTP/1.1 101 Switching Protocols')
  expect(await of('https://evil.example')).toBe('HTTP/1.1 403 Forbidden')
})

test('headers beyond 16 KB are refused before anything looks at them', async () => {
  using folder = tempFolder()
  await using server = await runServer({ app, folder })
  const before = server.rooms.auth.stats().verifications
  const answer = await handshake(server, { authorization: `Bearer ${'a'.repeat(20_000)}` })
  expect(answer).toBe('HTTP/1.1 431 Request Header Fields Too Large')
  expect(server.rooms.auth.stats().verifications).toBe(before)
})
