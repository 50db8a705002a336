import { describe, expect, test } from 'bun:test'
import { connect } from 'node:net'
import { integer, real, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { signToken } from '../../src/auth/auth.ts'
import { collection, desc } from '../../src/kit.ts'
import { openStore, tempFolder, until } from '../harness.ts'
import { runServer, startIsOver, testSecret } from '../server.ts'

const prices = sqliteTable('prices', {
  id: integer().primaryKey(),
  region: text({ length: 10 }).notNull(),
  price: real().notNull(),
})

const options = {
  collections: {
    'prices/live': collection(prices, {
      read: 'public',
      create: ({ user }) => user?.role === 'scraper',
      update: ({ user }) => user?.role === 'scraper',
      remove: ({ user }) => user?.role === 'scraper',
      filters: ['region'],
      orders: { newest: desc(prices.id) },
    }),
    secrets: collection(prices, { read: 'signed-in', create: 'public' }),
  },
}

async function scraper(): Promise<Record<string, string>> {
  const times = { nowMs: Date.now(), ttlMs: 60_000 }
  const token = await signToken(testSecret, { sub: 's', role: 'scraper' }, times)
  return { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
}

const row = (id: number): string => JSON.stringify({ id, region: 'NSW1', price: id / 2 })

/** Raw bytes in, raw bytes out: for what no client library would send. */
function raw(port: number, bytes: string | Buffer): Promise<string> {
  return new Promise((resolve, reject) => {
    let received = ''
    const socket = connect(port, '127.0.0.1', () => socket.write(bytes))
    socket.on('data', (data: Buffer) => {
      received += data.toString()
      if (/\r\n\r\n/.test(received)) socket.end()
    })
    socket.on('close', () => resolve(received))
    socket.on('error', (error) => (received === '' ? reject(error) : resolve(received)))
  })
}

describe('reads', () => {
  test('miss, then hit with the same ETag, then 304', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app: options, folder })
    const path = '/api/prices/live?region=NSW1'
    const first = await server.get(path)
    const second = await server.get(path)
    const headers = (response: Response, ...names: string[]) =>
      names.map((name) => response.headers.get(name))
    expect(headers(first, 'x-cache', 'cache-status')).toEqual(['miss', 'belfry; fwd=miss'])
    expect(headers(second, 'x-cache', 'cache-control', 'content-type')).toEqual([
      'hit',
      'public, no-cache',
      'application/json',
    ])
    expect(second.headers.get('cache-status')).toMatch(/^belfry; hit; ttl=\d+$/)
    expect(second.headers.get('x-response-time')).toMatch(/^[\d.]+ms$/)
    expect(second.headers.get('x-request-id')).not.toBe(first.headers.get('x-request-id'))
    const etag = first.headers.get('etag') ?? ''
    expect(second.headers.get('etag')).toBe(etag)
    for (const ifNoneMatch of [etag, `"other", W/${etag}`, '*']) {
      const third = await server.get(path, { headers: { 'if-none-match': ifNoneMatch } })
      expect([third.status, await third.text(), third.headers.get('etag')]).toEqual([304, '', etag])
    }
    const other = await server.get(path, { headers: { 'if-none-match': '"other"' } })
    expect(other.status).toBe(200)
    const head = await server.get(path, { method: 'HEAD' })
    expect([head.status, head.headers.get('etag'), await head.text()]).toEqual([200, etag, ''])
    const known = { method: 'HEAD', headers: { 'if-none-match': etag } }
    const { status, headers: same } = await server.get(path, known)
    expect([status, same.get('etag'), same.get('content-length')]).toEqual([304, etag, null])
  })

  test('1,000 simultaneous requests for one cold key run exactly one query', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app: options, folder })
    await startIsOver(server)
    const before = server.rooms.store.stats().reads
    const responses = await Promise.all(
      Array.from({ length: 1000 }, () => server.get('/api/prices/live?limit=7')),
    )
    expect(server.rooms.store.stats().reads - before).toBe(1)
    expect(new Set(responses.map(({ status }) => status))).toEqual(new Set([200]))
    // Whoever came while the load ran joined it; whoever came later hit.
    const shared = responses.filter(
      ({ headers }) => headers.get('x-coalesced') === '1' || headers.get('x-cache') === 'hit',
    )
    expect(shared.length).toBe(999)
  })

  test('what only some may read is private and varies', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app: options, folder })
    const visitor = await server.get('/api/secrets')
    expect([visitor.status, visitor.headers.get('www-authenticate')]).toEqual([401, 'Bearer'])
    const user = await server.get('/api/secrets', { headers: await scraper() })
    expect([user.headers.get('cache-control'), user.headers.get('vary')]).toEqual([
      'private, no-cache',
      'authorization, origin',
    ])
  })
})

describe('writes', () => {
  test('201 with the row and where it is, 200, 204, 404', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app: options, folder })
    const headers = await scraper()
    const created = await server.get('/api/prices/live', { method: 'POST', headers, body: row(1) })
    expect(created.status).toBe(201)
    expect(await created.json()).toEqual({ id: 1, region: 'NSW1', price: 0.5 })
    const location = created.headers.get('location') ?? ''
    expect([location, created.headers.get('x-log-seq')]).toEqual(['/api/prices/live/1', '1'])
    const patched = await server.get(location, { method: 'PATCH', headers, body: '{"price":9}' })
    expect(await patched.json()).toEqual({ id: 1, region: 'NSW1', price: 9 })
    const read = await server.get(location)
    expect(await read.json()).toEqual({ id: 1, region: 'NSW1', price: 9 })
    const removed = await server.get(location, { method: 'DELETE', headers })
    expect([removed.status, await removed.text()]).toEqual([204, ''])
    expect((await server.get(location)).status).toBe(404)
  })

  test('are limited by user, with IETF headers, and reads are not', async () => {
    using folder = tempFolder()
    const writePolicy = { name: 'writes', quota: 2, windowMs: 60_000 }
    await using server = await runServer({ app: options, folder, writePolicy })
    const headers = await scraper()
    const post = (id: number) =>
      server.get('/api/prices/live', { method: 'POST', headers, body: row(id) })
    const first = await post(1)
    expect([first.headers.get('ratelimit-policy'), first.headers.get('ratelimit')]).toEqual([
      '"writes";q=2;w=60',
      '"writes";r=1;t=60',
    ])
    await post(2)
    const refused = await post(3)
    expect(refused.status).toBe(429)
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(50)
    expect(await refused.json()).toMatchObject({ status: 429, code: 'too_many' })
    for (const [method, body] of [
      ['PATCH', '{"price":1}'],
      ['DELETE', undefined],
    ] as const) {
      const init = { method, headers, ...(body ? { body } : {}) }
      expect((await server.get('/api/prices/live/1', init)).status).toBe(429)
    }
    // A visitor is counted by address, on his own.
    const visitor = await server.get('/api/secrets', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: row(4),
    })
    expect(visitor.status).toBe(201)
    expect((await server.get('/api/prices/live')).status).toBe(200)
  })
})

describe('bad input gets a clear problem and loses nothing', () => {
  const json = { 'content-type': 'application/json' }
  const cases: [string, RequestInit & { path?: string }, number, string, string[]?][] = [
    ['malformed JSON', { body: '{"id": 1,' }, 400, 'the body is not valid JSON'],
    ['broken UTF-8', { body: Buffer.from([0x22, 0xff, 0x22]) }, 400, 'the body is not valid UTF-8'],
    [
      'no JSON type',
      { body: '{}', headers: { 'content-type': 'text/plain' } },
      400,
      'the body must be application/json',
      ['content-type'],
    ],
    [
      'wrong types',
      { body: '{"id":"1","region":5,"price":null}' },
      400,
      'the row is not valid',
      ['id', 'region', 'price'],
    ],
    [
      'unknown fields',
      { body: '{"id":1,"region":"a","price":1,"x":1}' },
      400,
      'the row is not valid',
      ['x'],
    ],
    ['an array', { body: '[]' }, 400, 'the body must be a JSON object'],
    [
      '10 MB',
      { body: `"${'x'.repeat(10 * 1024 * 1024)}"` },
      413,
      'the body is larger than 1048576 bytes',
    ],
    [
      'an unknown parameter',
      { method: 'GET', path: '/api/prices/live?page=2' },
      400,
      'the query is not valid',
      ['page'],
    ],
    [
      'a path of 10,000 characters',
      { method: 'GET', path: `/${'x'.repeat(10_000)}` },
      413,
      'the URL is longer than 8192 characters',
    ],
    [
      'a bad token',
      { method: 'GET', path: '/api/prices/live', headers: { authorization: 'Bearer x' } },
      401,
      'the token is malformed',
    ],
    [
      'a bad scheme',
      { method: 'GET', path: '/api/prices/live', headers: { authorization: 'Basic eA==' } },
      401,
      'authorization must be: Bearer <token>',
    ],
    [
      'a bad key',
      { method: 'GET', path: '/api/prices/live', headers: { 'x-api-key': 'x' } },
      401,
      'the API key is not valid',
    ],
    [
      'a method that is not served',
      { method: 'PUT', path: '/api/prices/live' },
      405,
      'PUT is not served here, GET, POST are',
    ],
    ['nothing there', { method: 'GET', path: '/nope' }, 404, 'nothing is served at this path'],
    [
      'no such row',
      { method: 'GET', path: '/api/prices/live/abc' },
      404,
      'no such row in prices/live',
    ],
    [
      'a bad escape in an id',
      { method: 'GET', path: '/api/prices/live/%E0%A4%A' },
      404,
      'no such row in prices/live',
    ],
  ]

  for (const [name, init, status, detail, fields] of cases) {
    test(name, () => expectProblem(init, status, detail, fields))
  }

  async function expectProblem(
    { path = '/api/prices/live', ...init }: RequestInit & { path?: string },
    status: number,
    detail: string,
    fields: string[] | undefined,
  ): Promise<void> {
    using folder = tempFolder()
    await using server = await runServer({ app: options, folder })
    const response = await server.get(path, {
      method: 'POST',
      ...init,
      headers: (init.headers as undefined) ?? { ...(await scraper()), ...json },
    })
    expect(response.status).toBe(status)
    expect(response.headers.get('content-type')).toBe('application/problem+json')
    const problem = (await response.json()) as { detail: string; errors?: { field: string }[] }
    expect(problem.detail).toStartWith(detail)
    expect(problem.errors?.map(({ field }) => field)).toEqual(fields)
    expect(server.rooms.store.stats().writes).toBe(0)
    // And the server goes on.
    expect((await server.get('/api/health')).status).toBe(200)
  }

  test('10 MB in chunks that declare no length', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app: options, folder })
    const chunk = new Uint8Array(64 * 1024).fill(0x20)
    let sent = 0
    const body = new ReadableStream<Uint8Array>({
      pull(controller) {
        if (sent++ < 160) controller.enqueue(chunk)
        else controller.close()
      },
    })
    const response = await server.get('/api/prices/live', {
      method: 'POST',
      headers: await scraper(),
      body,
    })
    expect(response.status).toBe(413)
  })

  test('1 MB of headers, no Host, a Host of two letters, a lower-case upgrade', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app: options, folder })
    const huge = await raw(
      server.port,
      `GET /api/health HTTP/1.1\r\nhost: localhost\r\nx-huge: ${'x'.repeat(1024 * 1024)}\r\n\r\n`,
    )
    expect(huge === '' || /^HTTP\/1.1 (431|400)/.test(huge)).toBe(true)
    const short = await raw(server.port, 'GET /api/health HTTP/1.1\r\nhost: ab\r\n\r\n')
    expect(short).toStartWith('HTTP/1.1 200')
    expect((await server.get('/api/health')).status).toBe(200)
  })

  test('an unknown failure is logged with the request id and never shown', async () => {
    using folder = tempFolder()
    const failing = {
      collections: {
        prices: collection(prices, {
          read: () => {
            throw new Error('the secret is swordfish')
          },
        }),
      },
    }
    await using server = await runServer({ app: failing, folder })
    const response = await server.get('/api/prices')
    const text = await response.text()
    expect(response.status).toBe(500)
    expect(text).not.toContain('swordfish')
    const { requestId } = JSON.parse(text) as { requestId: string }
    const line = server.log.lines.find(({ event }) => event === 'http.fault')
    expect(line?.fields['requestId']).toBe(requestId)
  })
})

test('whatever a room throws, only the log sees it', async () => {
  using folder = tempFolder()
  await using server = await runServer({ app: options, folder })
  const rooms = server.rooms as unknown as { collections: { list: () => never } }
  rooms.collections.list = () => {
    throw new Error('the secret is swordfish')
  }
  const response = await server.get('/api/prices/live')
  expect(response.status).toBe(500)
  expect(await response.json()).toMatchObject({ detail: 'internal error', code: 'internal' })
  const line = server.log.lines.find(({ event }) => event === 'http.fault')
  expect(String(line?.fields['error'])).toContain('swordfish')
})

test('requests under way when the server stops are answered', async () => {
  using folder = tempFolder()
  await using server = await runServer({ app: options, folder })
  const headers = await scraper()
  const posts = Array.from({ length: 50 }, (_, id) =>
    server.get('/api/prices/live', { method: 'POST', headers, body: row(id + 1) }),
  )
  const settled = Promise.allSettled(posts)
  // Some are in, some come too late: whichever, what was answered is what was stored.
  await until(() => server.rooms.store.stats().commits > 0, 'the first is committed')
  await server.stop()
  const outcomes = await settled
  const answered = outcomes.filter((one) => one.status === 'fulfilled' && one.value.status === 201)
  await using store = await openStore(folder.file('test.db'), [prices])
  const stored = await store.read({ sql: 'select count(*) from prices', params: [] })
  expect(stored).toEqual([[answered.length]])
})

describe('cross-origin', () => {
  test('only configured origins are told they may', async () => {
    using folder = tempFolder()
    const env = { CORS_ORIGIN: 'https://app.example.com' }
    await using server = await runServer({ app: options, folder, env })
    const ask = (origin: string) => server.get('/api/prices/live', { headers: { origin } })
    const allowed = await ask('https://app.example.com')
    expect(allowed.headers.get('access-control-allow-origin')).toBe('https://app.example.com')
    expect(
      (await ask('https://evil.example.com')).headers.get('access-control-allow-origin'),
    ).not.toBe('https://evil.example.com')
    const preflight = await server.get('/api/prices/live', {
      method: 'OPTIONS',
      headers: { origin: 'https://app.example.com', 'access-control-request-method': 'POST' },
    })
    expect(preflight.status).toBe(204)
  })
})
