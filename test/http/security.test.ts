import { expect, test } from 'bun:test'
import { connect } from 'node:net'
import { integer, sqliteTable } from 'drizzle-orm/sqlite-core'
import { createOriginCheck } from '../../src/http/origin.ts'
import { collection } from '../../src/kit.ts'
import { tempFolder } from '../harness.ts'
import { runServer, type TestServer } from '../server.ts'

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
