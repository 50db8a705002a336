import { describe, expect, test } from 'bun:test'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { collection } from '../../src/kit.ts'
import { signToken } from '../../src/auth/auth.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { createTestClock } from '../clock.ts'
import { tempFolder } from '../harness.ts'
import { runServer, testSecret, type TestServer } from '../server.ts'

const notes = sqliteTable('notes', {
  id: integer().primaryKey({ autoIncrement: true }),
  text: text().notNull(),
})

const app = {
  collections: {
    notes: collection(notes, {
      read: 'public',
      create: 'public',
      update: 'public',
      remove: 'public',
    }),
  },
}

function send(
  server: TestServer,
  method: string,
  path: string,
  body: unknown,
  headers: Record<string, string> = {},
): Promise<Response> {
  return server.get(path, {
    method,
    headers: { 'content-type': 'application/json', ...headers },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
}

const tokenOf = async (sub: string): Promise<Record<string, string>> => {
  const token = await signToken(testSecret, { sub }, { nowMs: systemClock.now(), ttlMs: 600_000 })
  return { authorization: `Bearer ${token}` }
}

describe('If-Match', () => {
  test('a change of the version that was read happens; of an older one it is 412 and changes nothing', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    const created = await send(server, 'POST', '/api/notes', { text: 'one' })
    const first = created.headers.get('etag') ?? ''
    expect((await server.get('/api/notes/1')).headers.get('etag')).toBe(first)

    const changed = await send(
      server,
      'PATCH',
      '/api/notes/1',
      { text: 'two' },
      { 'if-match': first },
    )
    expect(changed.status).toBe(200)
    const second = changed.headers.get('etag') ?? ''
    expect((await server.get('/api/notes/1')).headers.get('etag')).toBe(second)

    const late = await send(
      server,
      'PATCH',
      '/api/notes/1',
      { text: 'three' },
      { 'if-match': first },
    )
    expect(late.status).toBe(412)
    expect(await late.json()).toMatchObject({ status: 412, code: 'precondition' })
    const gone = await send(server, 'DELETE', '/api/notes/1', undefined, { 'if-match': first })
    expect(gone.status).toBe(412)
    expect(await (await server.get('/api/notes/1')).json()).toMatchObject({ text: 'two' })

    for (const one of ['*', `"x", ${second}`]) {
      const response = await send(
        server,
        'PATCH',
        '/api/notes/1',
        { text: 'two' },
        { 'if-match': one },
      )
      expect(response.status).toBe(200)
    }
    const weak = await send(
      server,
      'PATCH',
      '/api/notes/1',
      { text: 'x' },
      { 'if-match': `W/${second}` },
    )
    expect(weak.status).toBe(412)
    expect(
      (await send(server, 'DELETE', '/api/notes/9', undefined, { 'if-match': '*' })).status,
    ).toBe(404)
  })

  test('race: of two changes of the same version one happens', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    const created = await send(server, 'POST', '/api/notes', { text: 'one' })
    const headers = { 'if-match': created.headers.get('etag') ?? '' }
    const answers = await Promise.all(
      Array.from({ length: 10 }, (_, at) =>
        send(server, 'PATCH', '/api/notes/1', { text: `by ${at}` }, headers),
      ),
    )
    const statuses = answers.map(({ status }) => status).toSorted((a, b) => a - b)
    expect(statuses).toEqual([200, ...Array.from({ length: 9 }, () => 412)])
  })
})

describe('Idempotency-Key', () => {
  test('the same key again creates nothing and is answered as the first time', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    const headers = { 'idempotency-key': 'a-key-of-mine' }
    const first = await send(server, 'POST', '/api/notes', { text: 'one' }, headers)
    const again = await send(server, 'POST', '/api/notes', { text: 'one' }, headers)
    expect([first.status, again.status]).toEqual([201, 201])
    expect(await again.json()).toEqual(await first.json())
    for (const name of ['location', 'etag', 'x-log-seq']) {
      expect(again.headers.get(name)).toBe(first.headers.get(name))
    }
    expect(again.headers.get('idempotency-replayed')).toBe('true')
    expect(first.headers.get('idempotency-replayed')).toBeNull()
    const { items } = (await (await server.get('/api/notes')).json()) as { items: unknown[] }
    expect(items).toEqual([{ id: 1, text: 'one' }])

    const other = await send(server, 'POST', '/api/notes', { text: 'two' }, headers)
    expect(other.status).toBe(422)
    expect(await other.json()).toMatchObject({ code: 'reused' })
    const bad = await send(
      server,
      'POST',
      '/api/notes',
      { text: 'x' },
      { 'idempotency-key': 'a b' },
    )
    expect(await bad.json()).toMatchObject({ status: 400, errors: [{ field: 'idempotency-key' }] })
  })

  test('race: twenty at once under one key create one row', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    const headers = { 'idempotency-key': 'storm' }
    const answers = await Promise.all(
      Array.from({ length: 20 }, () =>
        send(server, 'POST', '/api/notes', { text: 'one' }, headers),
      ),
    )
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([201]))
    expect(answers.filter(({ headers: own }) => own.has('idempotency-replayed'))).toHaveLength(19)
    expect(await server.rooms.store.db.select().from(notes)).toHaveLength(1)
  })

  test('one user’s key is not another’s, a failed one is free, an old one is forgotten', async () => {
    using folder = tempFolder()
    const clock = createTestClock(Date.now())
    await using server = await runServer({ app, folder, clock })
    const key = { 'idempotency-key': 'k' }
    const ann = { ...key, ...(await tokenOf('ann')) }
    const ben = { ...key, ...(await tokenOf('ben')) }
    expect((await send(server, 'POST', '/api/notes', {}, ann)).status).toBe(400)
    const one = await send(server, 'POST', '/api/notes', { text: 'ann' }, ann)
    const two = await send(server, 'POST', '/api/notes', { text: 'ben' }, ben)
    expect(await one.json()).toEqual({ id: 1, text: 'ann' })
    expect(await two.json()).toEqual({ id: 2, text: 'ben' })
    clock.jump(24 * 60 * 60 * 1000 + 1)
    const anonymous = await send(server, 'POST', '/api/notes', { text: 'v' }, key)
    expect(await anonymous.json()).toEqual({ id: 3, text: 'v' })
    clock.jump(24 * 60 * 60 * 1000 + 1)
    const later = await send(server, 'POST', '/api/notes', { text: 'other' }, key)
    expect(await later.json()).toEqual({ id: 4, text: 'other' })
  })
})
