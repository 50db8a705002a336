/** Revoked tokens: at the door, on sockets, on other nodes, after a restart, and from the command line. */
import { describe, expect, test } from 'bun:test'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { signToken } from '../../src/auth/auth.ts'
import { collection, topic, type Routes } from '../../src/kit.ts'
import { shiftedClock } from '../clock.ts'
import { tempFolder } from '../harness.ts'
import { runBelfry, spawnBelfry } from '../process.ts'
import { runServer, testApiKey, testSecret, type TestServer } from '../server.ts'
import { requireService, startSqld } from '../services.ts'
import { openSocket, openStream } from './live.ts'

const notes = sqliteTable('notes', { id: integer().primaryKey(), text: text().notNull() })
const app = {
  collections: { notes: collection(notes, { read: 'signed-in' }) },
  topics: { notes: topic({ subscribe: 'signed-in' }) },
}

const tokenOf = (claims: Record<string, unknown>, nowMs = Date.now()) =>
  signToken(testSecret, claims, { nowMs, ttlMs: 600_000 })

const bearer = (token: string) => ({ headers: { authorization: `Bearer ${token}` } })

async function statusOf(server: TestServer, token: string): Promise<number> {
  return (await server.get('/api/notes', bearer(token))).status
}

async function revoke(server: TestServer, body: unknown, headers: Record<string, string> = {}) {
  const response = await server.get('/api/admin/revoke', {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-api-key': testApiKey, ...headers },
    body: JSON.stringify(body),
  })
  return { status: response.status, body: (await response.json()) as Record<string, unknown> }
}

describe('POST /api/admin/revoke', () => {
  test('by jti, by sid, and all of a user up to a time; after a restart, too', async () => {
    using folder = tempFolder()
    // Time stands: a start may take longer than the late token is ahead.
    const clock = shiftedClock()
    const old = clock.now() - 60_000
    const [one, other, session, early, late, blank] = await Promise.all([
      tokenOf({ sub: 'ann', jti: 'one' }),
      tokenOf({ sub: 'ann', jti: 'other' }),
      tokenOf({ sub: 'bob', jti: 'three', sid: 's1' }),
      tokenOf({ sub: 'cid' }, old),
      tokenOf({ sub: 'cid' }, clock.now() + 2_000),
      tokenOf({ sub: 'one', sid: 's2' }),
    ])
    const all = { one, other, session, early, late, blank }
    const statuses = async (server: TestServer) =>
      Object.fromEntries(
        await Promise.all(
          Object.entries(all).map(async ([name, token]) => [name, await statusOf(server, token)]),
        ),
      ) as Record<string, number>
    const good = { one: 200, other: 200, session: 200, early: 200, late: 200, blank: 200 }
    const after = { ...good, one: 401, session: 401, early: 401 }
    {
      await using server = await runServer({ folder, app, clock })
      expect(await statuses(server)).toEqual(good)
      expect(await revoke(server, { jti: 'one', expiresAt: '2100-01-01T00:00:00Z' })).toMatchObject(
        {
          status: 200,
          body: { revoked: { kind: 'token', id: 'one' } },
        },
      )
      expect(await revoke(server, { sid: 's1' })).toMatchObject({ status: 200 })
      expect(await revoke(server, { user: 'cid' })).toMatchObject({ status: 200 })
      expect(await statuses(server)).toEqual(after)
      // An earlier time takes nothing back.
      expect(await revoke(server, { user: 'cid', before: old - 5_000 })).toMatchObject({
        status: 200,
      })
      expect(await statuses(server)).toEqual(after)
      expect(await statusOf(server, await tokenOf({ sub: 'cid', n: 2 }, old))).toBe(401)
      // The log is kept for a day.
      await server.rooms.store.write([{ sql: 'delete from log', params: [] }])
    }
    await using again = await runServer({ folder, app, clock })
    expect(await statuses(again)).toEqual(after)
    expect(again.rooms.auth.stats().revocations).toBe(3)
  })

  test('is for administrators, and says what is wrong', async () => {
    using folder = tempFolder()
    await using server = await runServer({ folder, app })
    const as = async (claims: Record<string, unknown>) => ({
      'x-api-key': '',
      authorization: `Bearer ${await tokenOf(claims)}`,
    })
    expect(await revoke(server, { jti: 'a' }, { 'x-api-key': 'wrong' })).toMatchObject({
      status: 401,
    })
    expect(await revoke(server, { jti: 'a' }, await as({ sub: 'ann' }))).toMatchObject({
      status: 403,
    })
    const admin = await as({ sub: 'ann', role: 'admin' })
    expect(await revoke(server, { jti: 'a' }, admin)).toMatchObject({ status: 200 })
    for (const [body, field] of [
      [{}, 'user'],
      [{ jti: 'a', user: 'b' }, 'user'],
      [{ jti: '' }, 'jti'],
      [{ jti: 1 }, 'jti'],
      [{ jti: 'x'.repeat(513) }, 'jti'],
      [{ jti: 'a', before: 1 }, 'before'],
      [{ user: 'a', expiresAt: 1 }, 'expiresAt'],
      [{ user: 'a', before: 'yesterday' }, 'before'],
      [{ user: 'a', before: '2026-01-01T00:00' }, 'before'],
      [{ user: 'a', before: Date.now() + 3_600_000 }, 'before'],
      [{ user: 'a', until: 1 }, 'until'],
    ] as const) {
      const { status, body: problem } = await revoke(server, body)
      expect([status, problem['errors']]).toEqual([
        400,
        expect.arrayContaining([expect.objectContaining({ field })]),
      ])
    }
    expect(server.rooms.auth.stats().revocations).toBe(1)
  })
})

describe('sockets', () => {
  test('with a revoked token are closed with 3500; of the same user with another they stay', async () => {
    using folder = tempFolder()
    await using server = await runServer({ folder, app })
    const tokens = await Promise.all([
      tokenOf({ sub: 'ann', jti: 'one', sid: 's1' }),
      tokenOf({ sub: 'ann', jti: 'two', sid: 's1' }),
      tokenOf({ sub: 'ann', jti: 'three', sid: 's2' }),
      tokenOf({ sub: 'bob', jti: 'four' }),
    ])
    const sockets = tokens.map((token) => openSocket(server, bearer(token)))
    for (const socket of sockets) await socket.connect()
    const open = () => server.rooms.realtime.stats().sockets
    await revoke(server, { jti: 'one' })
    expect(await sockets[0]?.closed).toBe(3500)
    expect(open()).toBe(3)
    await revoke(server, { sid: 's1' })
    expect(await sockets[1]?.closed).toBe(3500)
    expect(open()).toBe(2)
    await revoke(server, { user: 'ann' })
    expect(await sockets[2]?.closed).toBe(3500)
    expect(open()).toBe(1)
    for (const socket of sockets) socket[Symbol.dispose]()
  })

  test('that were identified before and connect afterwards are closed, too', async () => {
    using folder = tempFolder()
    await using server = await runServer({ folder, app })
    using socket = openSocket(server, bearer(await tokenOf({ sub: 'ann', jti: 'one' })))
    await socket.opened
    await revoke(server, { jti: 'one' })
    socket.send('{"id":1,"connect":{}}')
    expect(await socket.closed).toBe(3500)
  })

  test('a token in the connect command that is revoked is refused', async () => {
    using folder = tempFolder()
    await using server = await runServer({ folder, app })
    const token = await tokenOf({ sub: 'ann', jti: 'one' })
    await revoke(server, { jti: 'one' })
    using socket = openSocket(server, bearer(await tokenOf({ sub: 'bob' })))
    await socket.opened
    socket.send(JSON.stringify({ id: 1, connect: { token } }))
    expect(await socket.closed).toBe(3500)
  })
})

describe('streams', () => {
  test('of a revoked token, session or user end at once; of the same user with another they stay', async () => {
    using folder = tempFolder()
    const routes: Routes = (belfry, { topics }) =>
      belfry.get('/own/stream', ({ request }) => topics.stream(request, ['notes']))
    await using server = await runServer({ folder, app: { ...app, routes } })
    const [one, two, three, four] = await Promise.all([
      tokenOf({ sub: 'ann', jti: 'one', sid: 's1' }),
      tokenOf({ sub: 'ann', jti: 'two', sid: 's1' }),
      tokenOf({ sub: 'ann', jti: 'three', sid: 's2' }),
      tokenOf({ sub: 'bob', jti: 'four' }),
    ])
    const plain = '/api/stream?topics=notes'
    const first = [
      await openStream(server, plain, bearer(one)),
      await openStream(server, '/own/stream', bearer(one)),
      await openStream(server, `/connection/sse?cf_connect={"id":1,"connect":{}}`, bearer(one)),
      await openStream(server, '/connection/http_stream', {
        ...bearer(one),
        method: 'POST',
        body: '{"id":1,"connect":{}}',
      }),
    ]
    const [second, third, fourth] = [
      await openStream(server, plain, bearer(two)),
      await openStream(server, plain, bearer(three)),
      await openStream(server, plain, bearer(four)),
    ]
    const over = () => [second, third, fourth].map((stream) => stream.isOver)
    await revoke(server, { jti: 'one' })
    await Promise.all(first.map(({ ended }) => ended))
    expect(first.map(({ text: said }) => said.includes('3500'))).toEqual([
      ...[false, false],
      true,
      true,
    ])
    expect(over()).toEqual([false, false, false])
    // Whoever comes back is refused: an EventSource gives up then.
    expect((await server.get(plain, bearer(one))).status).toBe(401)
    await revoke(server, { sid: 's1' })
    await second.ended
    expect(over()).toEqual([true, false, false])
    await revoke(server, { user: 'ann' })
    await third.ended
    expect(over()).toEqual([true, true, false])
    expect(server.rooms.realtime.stats()).toMatchObject({ streams: 1, sockets: 0 })
    expect([...server.rooms.realtime.signedIn.users()]).toEqual(['bob'])
  })
})

describe.skipIf(!requireService('sqld'))('several nodes', () => {
  test('what one of them revokes the others refuse, and close', async () => {
    await using primary = await startSqld()
    using folder = tempFolder()
    const env = { DATABASE_URL: primary.url }
    await using here = await runServer({ folder, app, env })
    await using there = await runServer({ folder, app, env })
    const token = await tokenOf({ sub: 'ann', jti: 'one' })
    expect(await statusOf(there, token)).toBe(200)
    using socket = openSocket(there, bearer(token))
    await socket.connect()
    const stream = await openStream(there, '/api/stream?topics=notes', bearer(token))
    await revoke(here, { jti: 'one' })
    expect(await statusOf(here, token)).toBe(401)
    expect(await socket.closed).toBe(3500)
    await stream.ended
    expect(await statusOf(there, token)).toBe(401)
  })
})

const appFile = `
import { app, collection } from 'belfry'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
const notes = sqliteTable('notes', { id: integer().primaryKey(), text: text().notNull() })
export default app({ name: 'notes', collections: { notes: collection(notes, { read: 'signed-in' }) } })
`

test('belfry token revoke: through the running server', async () => {
  using folder = tempFolder()
  await Bun.write(folder.file('app.ts'), appFile)
  const env = { JWT_SECRET: testSecret }
  const belfry = (...args: string[]) => runBelfry({ args, cwd: folder.path, env })
  const without = await belfry('token', 'revoke', 'app.ts', '--user', 'ann')
  expect([without.exitCode, without.stderr]).toEqual([1, expect.stringContaining('no server')])
  await using server = await spawnBelfry({ args: ['serve', 'app.ts'], cwd: folder.path, env })
  const token = (await belfry('token', '--sub', 'ann')).stdout.trim()
  const status = async () => (await fetch(`${server.url}/api/notes`, bearer(token))).status
  expect(await status()).toBe(200)
  const done = await belfry('token', 'revoke', 'app.ts', '--user', 'ann')
  expect([done.exitCode, done.stdout]).toEqual([
    0,
    expect.stringContaining('revoked: user ann, issued up to'),
  ])
  expect(await status()).toBe(401)
  const wrong = await belfry('token', 'revoke', 'app.ts', '--user', 'ann', '--jti', 'one')
  expect([wrong.exitCode, wrong.stderr]).toEqual([2, expect.stringContaining('give one of')])
})
