/** API keys: what each may, when it ends, what is stored of it, and how an operator handles them. */
import { describe, expect, test } from 'bun:test'
import { createAuth } from '../../src/auth/auth.ts'
import type { app as declare } from '../../src/kit.ts'
import { topic } from '../../src/kit.ts'
import { createTestClock } from '../clock.ts'
import { createTestLog, faultOf, openStore, tempFolder } from '../harness.ts'
import { runBelfry, spawnBelfry } from '../process.ts'
import { runServer, testApiKey, type TestServer } from '../server.ts'
import { requireService, startSqld } from '../services.ts'

const app = {
  topics: {
    'chat:{room}': topic({
      publish: 'signed-in',
      history: { size: 10, ttl: '1h' },
      presence: true,
    }),
    news: topic({ history: { size: 10, ttl: '1h' } }),
  },
} satisfies Omit<Parameters<typeof declare>[0], 'name'>

async function post(server: TestServer, path: string, key: string, body: unknown = {}) {
  const headers = { 'content-type': 'application/json', 'x-api-key': key }
  const response = await server.get(`/api/${path}`, {
    method: 'POST',
    headers,
    body: JSON.stringify(body),
  })
  return { status: response.status, body: (await response.json()) as Record<string, unknown> }
}

/** On a store of its own, with a clock that is moved by hand. */
async function setUp() {
  const folder = tempFolder()
  const clock = createTestClock()
  const store = await openStore(folder.file('a.db'), [])
  const auth = await createAuth({ clock, log: createTestLog(), store }, {})
  store.onChange(({ notice }) => notice && auth.hear(notice))
  await auth.load()
  const isGood = (key: string) => auth.identifyKey(key).ok
  return {
    clock,
    store,
    auth,
    isGood,
    async [Symbol.asyncDispose]() {
      await auth.stop()
      await store.stop()
      folder[Symbol.dispose]()
    },
  }
}

describe('an API key', () => {
  test('is stored as a hash: not it, nor its secret, is in the tables or the log', async () => {
    await using it = await setUp()
    const { key, id } = await it.auth.keys.create({ name: 'ci', scopes: ['admin'] })
    expect(key).toMatch(/^bfk_[0-9a-f]{16}_[\w-]{43}$/)
    const all = [
      ...(await it.store.read({ sql: 'select * from belfry_keys', params: [] })),
      ...(await it.store.read({ sql: 'select * from log', params: [] })),
    ]
    expect(JSON.stringify(all)).toContain(id)
    expect(JSON.stringify(all)).not.toContain(key.slice(-43))
    expect(JSON.stringify(await it.auth.keys.list())).not.toContain(key.slice(-43))
    expect(it.auth.identifyKey(key)).toMatchObject({ ok: true, identity: { kind: 'key', key: id } })
  })

  test('anything but the whole key is none', async () => {
    await using it = await setUp()
    const { key } = await it.auth.keys.create({ name: 'ci', scopes: ['admin'] })
    const other = await it.auth.keys.create({ name: 'other', scopes: ['admin'] })
    const turned = key.slice(0, -1) + (key.endsWith('A') ? 'B' : 'A')
    for (const wrong of [
      ...['', 'bfk_', key.slice(0, -1), `${key}A`, ` ${key}`, key.toUpperCase(), turned],
      key.slice(0, 21) + other.key.slice(21),
      key.slice(0, 21),
    ]) {
      expect(it.isGood(wrong)).toBe(false)
    }
    expect([it.isGood(key), it.isGood(other.key)]).toEqual([true, true])
  })

  test('ends when it said, and when it is revoked', async () => {
    await using it = await setUp()
    const short = await it.auth.keys.create({ name: 'short', scopes: ['admin'], ttlMs: 60_000 })
    const long = await it.auth.keys.create({ name: 'long', scopes: ['admin'] })
    it.clock.advance(59_999)
    expect(it.isGood(short.key)).toBe(true)
    it.clock.advance(1)
    expect([it.isGood(short.key), it.isGood(long.key)]).toEqual([false, true])
    await it.auth.keys.revoke(long.id)
    expect(it.isGood(long.key)).toBe(false)
    // A second time changes nothing.
    const before = await it.auth.keys.list()
    it.clock.advance(1_000)
    await it.auth.keys.revoke(long.id)
    expect(await it.auth.keys.list()).toEqual(before)
    expect((await faultOf(() => it.auth.keys.revoke('none'))).code).toBe('not_found')
  })

  test('that is over makes room: ten thousand are in use at most', async () => {
    await using it = await setUp()
    const hash = '0'.repeat(64)
    const hear = (n: number, expiresMs: number | null, revokedMs: number | null) => {
      const id = n.toString(16).padStart(16, '0')
      it.auth.hear({ kind: 'key', data: { id, hash, scopes: ['read:*'], expiresMs, revokedMs } })
    }
    const now = it.clock.now()
    for (let n = 0; n < 10_000; n++) hear(n, n % 2 === 0 ? now : null, n % 2 === 0 ? null : now)
    const { key } = await it.auth.keys.create({ name: 'one more', scopes: ['read:*'] })
    expect(it.isGood(key)).toBe(true)
    for (let n = 10_000; n < 19_999; n++) hear(n, null, null)
    const fault = await faultOf(() => it.auth.keys.create({ name: 'a', scopes: ['read:*'] }))
    expect(fault.code).toBe('unavailable')
  })

  test('tells when it was used last, to the minute', async () => {
    await using it = await setUp()
    const { key, id } = await it.auth.keys.create({ name: 'ci', scopes: ['read:*'] })
    const usedMs = async () => (await it.auth.keys.list())[0]?.usedMs
    expect(await usedMs()).toBeUndefined()
    it.isGood(key)
    const first = it.clock.now()
    expect(await usedMs()).toBe(first)
    it.clock.advance(59_000)
    it.isGood(key)
    expect(await usedMs()).toBe(first)
    it.clock.advance(1_000)
    it.isGood(key)
    expect(await usedMs()).toBe(first + 60_000)
    // A wrong one is no use of it.
    it.clock.advance(120_000)
    it.isGood(`${key.slice(0, 21)}${'A'.repeat(43)}`)
    expect(await usedMs()).toBe(first + 60_000)
    expect((await it.auth.keys.list())[0]?.id).toBe(id)
  })

  test('needs a name and scopes that there are', async () => {
    await using it = await setUp()
    for (const [wanted, field] of [
      [{ name: '', scopes: ['admin'] }, 'name'],
      [{ name: 'a', scopes: [] }, 'scopes'],
      ...[
        'root',
        'publish',
        'publish:',
        'publish:a b',
        'delete:*',
        'ADMIN',
        ' admin',
        'admin:*',
      ].map((scope) => [{ name: 'a', scopes: ['admin', scope] }, 'scopes'] as const),
    ] as const) {
      const fault = await faultOf(() => it.auth.keys.create(wanted))
      expect(fault).toMatchObject({ code: 'invalid', fields: [{ field }] })
    }
  })

  test.each([
    ['publish:chat:*', 'chat:a', true],
    ['publish:chat:*', 'chat:', true],
    ['publish:chat:*', 'chatter', false],
    ['publish:chat:*', 'xchat:a', false],
    ['publish:*', 'anything:at:all', true],
    ['publish:news', 'news', true],
    ['publish:news', 'news:a', false],
    ['publish:*:a', 'chat:a', true],
    ['publish:*:a', 'chat:ab', false],
    ['publish:a*b*a', 'aba', true],
    ['publish:a*b*a', 'aa', false],
    ['publish:a*a', 'a', false],
    ['publish:c.at', 'chat', false],
    ['read:*', 'news', false],
  ])('of %s may publish to %s: %p', async (scope, name, may) => {
    await using it = await setUp()
    const { key } = await it.auth.keys.create({ name: 'a', scopes: [scope] })
    const verdict = it.auth.identifyKey(key)
    if (!verdict.ok || verdict.identity.kind !== 'scoped') throw new Error('no scoped key')
    expect(verdict.identity.may('publish', name)).toBe(may)
    expect(verdict.identity.may('read', name)).toBe(scope === 'read:*')
  })
})

describe('the server API', () => {
  test('does for a key what its scopes name, and nothing else', async () => {
    using folder = tempFolder()
    await using server = await runServer({ folder, app })
    const { keys } = server.rooms.auth
    const make = async (...scopes: string[]) => (await keys.create({ name: 'k', scopes })).key
    const [writer, reader, admin] = [
      await make('publish:chat:*'),
      await make('read:chat:a', 'read:news'),
      await make('admin', 'read:nothing'),
    ]
    const statuses = async (path: string, body: unknown) => {
      const found: number[] = []
      for (const key of [testApiKey, admin, writer, reader]) {
        found.push((await post(server, path, key, body)).status)
      }
      return found
    }
    const data = { text: 'hello' }
    expect(await statuses('publish', { channel: 'chat:a', data })).toEqual([200, 200, 200, 403])
    expect(await statuses('publish', { channel: 'news', data })).toEqual([200, 200, 403, 403])
    const rooms = ['chat:a', 'chat:b']
    expect(await statuses('broadcast', { channels: rooms, data })).toEqual([200, 200, 200, 403])
    const mixed = [...rooms, 'news']
    expect(await statuses('broadcast', { channels: mixed, data })).toEqual([200, 200, 403, 403])
    expect(await statuses('history', { channel: 'chat:a' })).toEqual([200, 200, 403, 200])
    expect(await statuses('history', { channel: 'chat:b' })).toEqual([200, 200, 403, 403])
    expect(await statuses('presence', { channel: 'chat:a' })).toEqual([200, 200, 403, 200])
    expect(await statuses('presence_stats', { channel: 'chat:b' })).toEqual([200, 200, 403, 403])
    for (const [path, body] of [
      ['history_remove', { channel: 'chat:a' }],
      ['disconnect', { user: 'ann' }],
      ['subscribe', { user: 'ann', channel: 'chat:a' }],
      ['unsubscribe', { user: 'ann', channel: 'chat:a' }],
      ['refresh', { user: 'ann' }],
      ['connections', {}],
      ['info', {}],
    ] as const) {
      expect([path, await statuses(path, body)]).toEqual([path, [200, 200, 403, 403]])
    }
    const commands = [
      { publish: { channel: 'chat:a', data } },
      { publish: { channel: 'news', data } },
      { info: {} },
    ]
    expect(await post(server, 'batch', writer, { commands })).toMatchObject({
      status: 200,
      body: { replies: [{ publish: {} }, { error: { code: 103 } }, { error: { code: 103 } }] },
    })
    const replay = (key: string, name: string) =>
      server.get(`/api/topics/${name}/history?since=0`, { headers: { 'x-api-key': key } })
    expect((await replay(reader, 'news')).status).toBe(200)
    expect((await replay(writer, 'news')).status).toBe(403)
    // Administrators' doors.
    const stats = async (key: string) =>
      (await server.get('/api/admin/cache/stats', { headers: { 'x-api-key': key } })).status
    expect([await stats(admin), await stats(writer), await stats(reader)]).toEqual([200, 403, 403])
    expect(await statuses('admin/revoke', { jti: 'a' })).toEqual([200, 200, 403, 403])
  })

  test('a revoked key opens nothing, also after a restart, and a good one still does', async () => {
    using folder = tempFolder()
    const news = { channel: 'news', data: 1 }
    let [one, two] = ['', '']
    {
      await using server = await runServer({ folder, app })
      const { keys } = server.rooms.auth
      const made = await keys.create({ name: 'one', scopes: ['publish:*'] })
      one = made.key
      two = (await keys.create({ name: 'two', scopes: ['publish:*'] })).key
      expect(await post(server, 'publish', one, news)).toMatchObject({ status: 200 })
      await keys.revoke(made.id)
      expect(await post(server, 'publish', one, news)).toMatchObject({ status: 401 })
      await server.rooms.store.write([{ sql: 'delete from log', params: [] }])
    }
    await using server = await runServer({ folder, app })
    expect(await post(server, 'publish', one, news)).toMatchObject({ status: 401 })
    expect(await post(server, 'publish', two, news)).toMatchObject({ status: 200 })
    expect((await server.rooms.auth.keys.list())[0]?.usedMs).toBeGreaterThan(0)
  })
})

describe.skipIf(!requireService('sqld'))('several nodes', () => {
  test('a key that one of them makes, or revokes, is so for the others', async () => {
    await using primary = await startSqld()
    using folder = tempFolder()
    const env = { DATABASE_URL: primary.url }
    await using here = await runServer({ folder, app, env })
    await using there = await runServer({ folder, app, env })
    const heard = (): Promise<void> => {
      const { promise, resolve } = Promise.withResolvers<void>()
      there.rooms.store.onChange(({ notice }) => notice && resolve())
      return promise
    }
    const news = { channel: 'news', data: 1 }
    let next = heard()
    const { key, id } = await here.rooms.auth.keys.create({ name: 'a', scopes: ['publish:*'] })
    await next
    expect(await post(there, 'publish', key, news)).toMatchObject({ status: 200 })
    next = heard()
    await here.rooms.auth.keys.revoke(id)
    await next
    expect(await post(there, 'publish', key, news)).toMatchObject({ status: 401 })
  })
})

test('belfry key create, list and revoke: through the running server', async () => {
  using folder = tempFolder()
  const file = `import { app, topic } from 'belfry'\nexport default app({ name: 'keys', topics: { news: topic({}) } })\n`
  await Bun.write(folder.file('app.ts'), file)
  const belfry = (...args: string[]) => runBelfry({ args: ['key', ...args], cwd: folder.path })
  const none = await belfry('list', 'app.ts')
  expect([none.exitCode, none.stderr]).toEqual([1, expect.stringContaining('no server')])
  await using server = await spawnBelfry({ args: ['serve', 'app.ts'], cwd: folder.path })
  const made = await belfry(
    'create',
    'app.ts',
    '--name',
    'ci',
    '--scope',
    'publish:*',
    '--expires',
    '90d',
  )
  const key = made.stdout.trim()
  expect([made.exitCode, key]).toEqual([0, expect.stringMatching(/^bfk_/)])
  expect(made.stderr).toContain('it is not shown again')
  const publish = async () => {
    const headers = { 'content-type': 'application/json', 'x-api-key': key }
    const body = '{"channel":"news","data":1}'
    return (await fetch(`${server.url}/api/publish`, { method: 'POST', headers, body })).status
  }
  expect(await publish()).toBe(200)
  const id = key.slice(4, 20)
  expect((await belfry('list', 'app.ts')).stdout).toMatch(
    new RegExp(`^${id}  ci  publish:\\*  made .*, used .*, ends .*\n$`),
  )
  expect((await belfry('revoke', 'app.ts', '--id', id)).exitCode).toBe(0)
  expect(await publish()).toBe(401)
  expect((await belfry('list', 'app.ts')).stdout).toContain('revoked 2')
  expect((await belfry('revoke', 'app.ts', '--id', 'nothing')).stderr).toContain(
    'no API key nothing',
  )
  expect((await belfry('create', 'app.ts', '--name', 'x', '--scope', 'root')).exitCode).toBe(2)
  expect((await belfry('shake', 'app.ts')).stderr).toContain('say what to do')
})
