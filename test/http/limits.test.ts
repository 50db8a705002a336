import { describe, expect, test } from 'bun:test'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { signToken } from '../../src/auth/auth.ts'
import { wholeSeconds } from '../../src/http/faults.ts'
import { collection, topic, type AppOptions } from '../../src/kit.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { createTestClock } from '../clock.ts'
import { RawClient } from '../realtime/serve.ts'
import { tempFolder, until } from '../harness.ts'
import { runServer, testApiKey, testSecret, type TestServer } from '../server.ts'
import { requireService, startRedis } from '../services.ts'

const notes = sqliteTable('notes', {
  id: integer().primaryKey({ autoIncrement: true }),
  text: text({ length: 100 }).notNull(),
})

const app: Omit<AppOptions, 'name'> = {
  limits: {
    api: '3/min',
    strict: '2/min',
    login: { rate: '2/15min', by: 'address' },
    later: { rate: '1/min', shadow: true },
    writes: '5/min',
    credentials: '3/min',
  },
  collections: {
    notes: collection(notes, {
      read: 'public',
      create: 'public',
      limits: { read: ['api', 'later'], create: ['strict', '100/day'] },
    }),
    free: collection(notes, { read: 'public', create: 'public' }),
  },
  routes: (server, { limits }) =>
    server
      .get('/own/free', () => 'free')
      .get('/own/api', ({ user }) => user?.id ?? 'visitor', { limit: 'api' })
      .guard({ limit: 'strict' }, (guarded) => guarded.get('/own/guarded', () => 'in'))
      .post(
        '/own/login/:account',
        async ({ params }) => {
          await limits.take('strict', params.account)
          return 'tried'
        },
        { limit: 'login' },
      ),
}

const asUser = async (sub: string) => {
  const token = await signToken(testSecret, { sub }, { nowMs: systemClock.now(), ttlMs: 60_000 })
  return { authorization: `Bearer ${token}` }
}

/** Behind one proxy, so that a test can come from anywhere. */
const env = { TRUSTED_PROXIES: 'loopback' }
const from = (address: string) => ({ 'x-forwarded-for': address })

async function statuses(count: number, ask: () => Promise<Response>): Promise<number[]> {
  const all: number[] = []
  for (let time = 0; time < count; time++) all.push((await ask()).status)
  return all
}

const post = (
  server: TestServer,
  path: string,
  headers: Record<string, string>,
  body = '{"text":"a"}',
) =>
  server.get(path, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body,
  })

describe('limits of an app', () => {
  test('a read beyond its policy is a problem that says when to come again', async () => {
    using folder = tempFolder()
    const clock = { ...systemClock, tick: createTestClock().tick }
    await using server = await runServer({ app, folder, env, clock })
    const ask = () => server.get('/api/notes', { headers: from('192.0.2.1') })
    const first = await ask()
    expect(first.headers.get('ratelimit-policy')).toBe('"api";q=3;w=60')
    expect(first.headers.get('ratelimit')).toBe('"api";r=2;t=60')
    // From the cache, by the short way, and counted all the same.
    expect((await ask()).headers.get('x-cache')).toBe('hit')
    expect((await ask()).headers.get('ratelimit')).toBe('"api";r=0;t=60')
    const refused = await ask()
    expect(refused.status).toBe(429)
    expect(refused.headers.get('content-type')).toBe('application/problem+json')
    expect(refused.headers.get('retry-after')).toBe('60')
    expect(refused.headers.get('ratelimit')).toBe('"api";r=0;t=60')
    expect(await refused.json()).toMatchObject({
      status: 429,
      code: 'too_many',
      detail: 'more requests of this kind than 3 (api)',
    })
    // One budget, wherever it is attached; and another one for somebody else.
    expect((await server.get('/own/api', { headers: from('192.0.2.1') })).status).toBe(429)
    expect((await server.get('/own/api', { headers: from('192.0.2.2') })).status).toBe(200)
    // What has no policy has no limit.
    expect(await statuses(9, () => server.get('/own/free'))).toEqual(Array(9).fill(200))
    const free = await server.get('/api/free')
    expect([free.status, free.headers.get('ratelimit')]).toEqual([200, null])
    const metrics = await (await server.get('/api/metrics')).text()
    expect(metrics.split('\n').filter((line) => line.includes('limit_refused'))).toEqual([
      '# TYPE belfry_limit_refused_total counter',
      'belfry_limit_refused_total{policy="later"} 2',
      'belfry_limit_refused_total{policy="api"} 2',
    ])
  })

  test('a user is counted wherever he comes from, a visitor by address, the API key not at all', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder, env })
    const ann = await asUser('ann')
    let n = 0
    const asAnn = () => server.get('/own/api', { headers: { ...ann, ...from(`192.0.2.${++n}`) } })
    expect(await statuses(4, asAnn)).toEqual([200, 200, 200, 429])
    expect((await server.get('/own/api', { headers: from('192.0.2.1') })).status).toBe(200)
    // All addresses of a /64 are one.
    const six = () => server.get('/own/api', { headers: from(`2001:db8:0:1::${++n}`) })
    expect(await statuses(4, six)).toEqual([200, 200, 200, 429])
    const key = () => server.get('/own/api', { headers: { 'x-api-key': testApiKey } })
    expect(await statuses(5, key)).toEqual(Array(5).fill(200))
  })

  test('an API key with scopes is counted wherever it comes from, one that may do all not at all', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder, env })
    const { keys } = server.rooms.auth
    const make = async (...scopes: string[]) => (await keys.create({ name: 'k', scopes })).key
    const [one, two, admin] = [await make('read:*'), await make('read:*'), await make('admin')]
    let n = 0
    const as = (key: string) => () =>
      server.get('/own/api', { headers: { 'x-api-key': key, ...from(`192.0.2.${++n}`) } })
    expect(await statuses(4, as(one))).toEqual([200, 200, 200, 429])
    expect(await statuses(4, as(two))).toEqual([200, 200, 200, 429])
    expect(await statuses(5, as(admin))).toEqual(Array(5).fill(200))
    // Visitors of the addresses that they came from are others.
    const visitor = () => server.get('/own/api', { headers: from('192.0.2.1') })
    expect(await statuses(4, visitor)).toEqual([200, 200, 200, 429])
    // Unless the policy counts addresses, whoever asks.
    const login = () =>
      post(server, `/own/login/${++n}`, { 'x-api-key': one, ...from('192.0.2.9') })
    expect(await statuses(3, login)).toEqual([200, 200, 429])
    expect((await post(server, '/own/login/x', from('192.0.2.9'))).status).toBe(429)
  })

  test('several policies: one of each, and what is wrong in a body counts', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder, env })
    const created = await post(server, '/api/notes', from('192.0.2.1'))
    expect(created.headers.get('ratelimit-policy')).toBe(
      '"strict";q=2;w=60, "notes.create-2";q=100;w=86400',
    )
    expect(created.headers.get('ratelimit')).toMatch(
      /^"strict";r=1;t=60, "notes.create-2";r=99;t=86400$/,
    )
    expect((await post(server, '/api/notes', from('192.0.2.1'), '{"no')).status).toBe(400)
    // Refused before the body is read: a broken one is not looked at.
    expect((await post(server, '/api/notes', from('192.0.2.1'), '{"no')).status).toBe(429)
    // Other writes have the default, as the app says it.
    const other = await post(server, '/api/free', from('192.0.2.1'))
    expect(other.headers.get('ratelimit-policy')).toBe('"writes";q=5;w=60')
    expect((await server.get('/own/guarded', { headers: from('192.0.2.1') })).status).toBe(429)
  })

  test('tries at one account from many addresses, and at many accounts from one', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder, env })
    let n = 0
    const one = () => post(server, '/own/login/ann', from(`192.0.2.${++n}`))
    expect(await statuses(4, one)).toEqual([200, 200, 429, 429])
    const many = () => post(server, `/own/login/${++n}`, from('198.51.100.1'))
    expect(await statuses(4, many)).toEqual([200, 200, 429, 429])
    // By address, whoever says that he is somebody.
    const signed = { ...(await asUser('bob')), ...from('198.51.100.1') }
    expect((await post(server, '/own/login/x', signed)).status).toBe(429)
  })

  test('refused credentials are counted, and not looked at after that', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder, env })
    let n = 0
    const forged = () =>
      server.get('/api/free', {
        headers: { authorization: `Bearer a.b.${++n}`, ...from('192.0.2.1') },
      })
    expect(await statuses(5, forged)).toEqual([401, 401, 401, 429, 429])
    const { verifications } = server.rooms.auth.stats()
    expect((await forged()).status).toBe(429)
    expect(server.rooms.auth.stats().verifications).toBe(verifications)
    // Visitors there, and users elsewhere, are welcome.
    const ann = await asUser('ann')
    expect((await server.get('/api/free', { headers: from('192.0.2.1') })).status).toBe(200)
    expect(
      (await server.get('/api/free', { headers: { ...ann, ...from('192.0.2.2') } })).status,
    ).toBe(200)
  })
})

describe('what a socket publishes', () => {
  const talk: Omit<AppOptions, 'name'> = {
    topics: { talk: topic({ subscribe: 'public', publish: () => true, limit: '2/min' }) },
  }
  const open = async (server: TestServer, headers: Record<string, string>) => {
    const url = `${server.url.replace('http', 'ws')}/connection/websocket`
    const client = await RawClient.open(url, headers)
    await client.call({ connect: {} })
    return client
  }
  const publish = async (client: RawClient): Promise<number> =>
    (await client.call({ publish: { channel: 'talk', data: 1 } })).error?.code ?? 0

  test('counts by user, by API key, and by the address that a trusted proxy names', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app: talk, folder, env })
    const { key } = await server.rooms.auth.keys.create({ name: 'k', scopes: ['read:*'] })
    const ann = await asUser('ann')
    const [a, b] = ['192.0.2.1', '192.0.2.2']
    for (const [one, other] of [
      [
        { ...ann, ...from(a) },
        { ...ann, ...from(b) },
      ],
      [
        { 'x-api-key': key, ...from(a) },
        { 'x-api-key': key, ...from(b) },
      ],
      [from(a), from(a)],
    ] as const) {
      const [first, second] = [await open(server, one), await open(server, other)]
      expect([await publish(first), await publish(second), await publish(first)]).toEqual([
        ...[0, 0, 111],
      ])
      first.close()
      second.close()
    }
    const elsewhere = await open(server, from(b))
    expect(await publish(elsewhere)).toBe(0)
    const known = await server.rooms.realtime.control.connections(undefined, 9)
    expect(known.items.map(({ address }) => address)).toEqual([b])
    elsewhere.close()
  })

  test('as many sockets of one address as said, behind a trusted proxy too', async () => {
    using folder = tempFolder()
    const few = { ...env, CONNECTIONS_PER_ADDRESS: '1' }
    await using server = await runServer({ app: talk, folder, env: few })
    const first = await open(server, from('192.0.2.1'))
    const refused = new RawClient(
      `${server.url.replace('http', 'ws')}/connection/websocket`,
      from('192.0.2.1'),
    )
    await until(() => refused.closed !== undefined, 'the second of the same is refused')
    const other = await open(server, from('192.0.2.2'))
    first.close()
    await until(() => server.rooms.realtime.stats().sockets === 1, 'the first has gone')
    const again = await open(server, from('192.0.2.1'))
    for (const client of [other, again]) client.close()
  })
})

describe.skipIf(!requireService('redis-server'))('limits of two servers on one Redis', () => {
  test('are one, and go on without it', async () => {
    using folders = tempFolder()
    using other = tempFolder()
    await using redis = await startRedis()
    const shared = { ...env, REDIS_URL: redis.url }
    await using one = await runServer({ app, folder: folders, env: shared })
    await using two = await runServer({ app, folder: other, env: shared })
    const alone = async (server: TestServer) => {
      const text = await (await server.get('/api/metrics')).text()
      return Number(/^belfry_limit_alone_total (\d+)$/m.exec(text)?.[1])
    }
    let n = 0
    // Each found it: a take is no longer decided alone.
    for (const server of [one, two]) {
      await until(async () => {
        const before = await alone(server)
        await server.get('/own/api', { headers: from(`203.0.113.${++n}`) })
        return (await alone(server)) === before
      }, 'Redis is found')
    }
    const ask = (server: TestServer, address: string) => async () =>
      server.get('/own/api', { headers: from(address) })
    expect(await statuses(2, ask(one, '192.0.2.1'))).toEqual([200, 200])
    const last = await ask(two, '192.0.2.1')()
    expect([last.status, last.headers.get('ratelimit')]).toEqual([
      200,
      expect.stringContaining('r=0;'),
    ])
    expect(await statuses(1, ask(one, '192.0.2.1'))).toEqual([429])
    expect(await statuses(2, ask(two, '192.0.2.2'))).toEqual([200, 200])
    expect(await statuses(1, ask(one, '192.0.2.2'))).toEqual([200])
    await redis.kill()
    // No reset, for whom this server knows; and no failure.
    expect(await statuses(1, ask(one, '192.0.2.2'))).toEqual([429])
    expect(await statuses(4, ask(two, '192.0.2.3'))).toEqual([200, 200, 200, 429])
  })
})

describe('what an app file may say of limits', () => {
  const problemsOf = async (options: Omit<AppOptions, 'name'>): Promise<string> => {
    using folder = tempFolder()
    try {
      await using server = await runServer({ app: options, folder })
      return server.url
    } catch (error) {
      return JSON.stringify((error as { fields?: unknown }).fields)
    }
  }

  test('what is wrong is named, all at once', async () => {
    const wrong = {
      limits: { Api: '1/min', fast: '1/fortnight', odd: { rate: '1/s', every: 1 } },
      collections: { notes: collection(notes, { limits: { read: 'aip', reed: '1/s' } as never }) },
      topics: { t: { kind: 'topic', options: { limit: 'nowhere' } } },
    }
    expect(JSON.parse(await problemsOf(wrong as never))).toEqual([
      { field: 'limits.Api', message: 'a name is 1 to 30 lower-case letters, digits and dashes' },
      { field: 'limits.fast', message: '"1/fortnight" is no rate like 5/10s, 100/min' },
      { field: 'limits.odd', message: 'every is no option of a limit (rate, shadow, by)' },
      { field: 'topics.t.limit', message: '"nowhere" is no rate like 5/10s, 100/min' },
      {
        field: 'collections.notes.limits.reed',
        message: expect.stringContaining('is not an option'),
      },
      { field: 'collections.notes.limits.read', message: "aip is none of the app's limits ()" },
    ])
  })

  test('a route names a limit that is there', async () => {
    const wrong: Omit<AppOptions, 'name'> = {
      routes: (server) => server.get('/own', () => 'x', { limit: 'aip' }),
    }
    expect(await problemsOf(wrong)).toContain('routes.GET /own.limit')
  })
})

test('seconds to wait are rounded up, and not for what sums of fractions are off by', () => {
  const now = 12_345.678_901_2
  expect(wholeSeconds(now + 60_000 - now)).toBe(60)
  expect([60_000, 60_000.000_000_01, 60_001, 59_999, 1].map(wholeSeconds)).toEqual([
    60, 60, 61, 60, 1,
  ])
})
