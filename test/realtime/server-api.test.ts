/** What a backend does over HTTP with its key: to topics, and to those who are connected. */
import { describe, expect, test } from 'bun:test'
import { createTestClock } from '../clock.ts'
import { RawClient, serve, until, type TestServer } from './serve.ts'

const topics = {
  'chat:{room}': {
    subscribe: 'public',
    publish: 'public',
    presence: true,
    historySize: 10,
  },
  'news:{id}': { subscribe: 'public', historySize: 10 },
  secret: {},
} as const

interface Answered {
  readonly status: number
  readonly result: Record<string, unknown>
  readonly errors: { field: string; message: string }[]
  readonly replies: Record<string, unknown>[]
}

async function post(server: TestServer, method: string, body: unknown): Promise<Answered> {
  const response = await fetch(`${server.url}/api/${method}`, {
    method: 'POST',
    headers: { 'x-api-key': 'key', 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })
  return { status: response.status, ...((await response.json()) as Omit<Answered, 'status'>) }
}

const offsets = (client: RawClient) => client.publications.map(({ offset }) => offset)

const methods = [
  ...['publish', 'broadcast', 'batch', 'subscribe', 'unsubscribe', 'disconnect', 'refresh'],
  ...['presence', 'presence_stats', 'history', 'history_remove', 'channels', 'connections', 'info'],
]

test.each(methods)('%s needs the key, and no field that it does not have', async (method) => {
  await using server = serve(topics)
  const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{}' }
  expect((await fetch(`${server.url}/api/${method}`, init)).status).toBe(401)
  const { status, errors } = await post(server, method, { chanel: 'a' })
  expect(status).toBe(400)
  expect(errors[0]).toMatchObject({ field: 'chanel' })
})

describe('a user', () => {
  test('is subscribed and unsubscribed on each connection, whatever the rule says', async () => {
    await using server = serve(topics)
    const [one, two, other] = [
      await RawClient.connect(server.wsUrl, 'user:ann'),
      await RawClient.connect(server.wsUrl, 'user:ann'),
      await RawClient.connect(server.wsUrl, 'user:bob'),
    ]
    const subscribed = await post(server, 'subscribe', { user: 'ann', channel: 'secret' })
    expect([subscribed.status, subscribed.result]).toEqual([200, {}])
    server.realtime.publish('secret', 1)
    await until(() => offsets(one).length === 1 && offsets(two).length === 1, 'both of Ann hear')
    await post(server, 'unsubscribe', { user: 'ann', channel: 'secret' })
    server.realtime.publish('secret', 2)
    for (const client of [one, two, other]) {
      await client.call({ ping: {} })
      client.close()
    }
    expect(one.replies.find(({ push }) => push?.unsubscribe)?.push).toMatchObject({
      channel: 'secret',
      unsubscribe: { code: 2000 },
    })
    expect([one, two, other].map((client) => offsets(client).length)).toEqual([1, 1, 0])
  })

  test('is subscribed from a position on', async () => {
    await using server = serve(topics)
    for (let n = 1; n <= 3; n += 1) server.realtime.publish('news:a', n)
    const client = await RawClient.connect(server.wsUrl, 'user:ann')
    const { epoch } = server.realtime.history('news:a', {
      limit: 0,
      since: undefined,
      reverse: false,
    })
    const recover_since = { offset: 1, epoch }
    await post(server, 'subscribe', { user: 'ann', channel: 'news:a', recover_since })
    await until(() => offsets(client).length === 2, 'what it missed')
    expect(offsets(client)).toEqual([2, 3])
    const malformed = { user: 'ann', channel: 'news:a', recover_since: { offset: 'x' } }
    expect((await post(server, 'subscribe', malformed)).errors).toEqual([
      { field: 'recover_since', message: 'must be { offset, epoch }' },
    ])
    client.close()
  })

  test('is disconnected: all, all but some, one; with what code', async () => {
    await using server = serve(topics)
    const connect = async (token?: string) => {
      const client = await RawClient.open(server.wsUrl)
      const reply = await client.call({ connect: token === undefined ? {} : { token } })
      return { client, id: (reply['connect'] as { client: string }).client }
    }
    const [one, two, three] = [
      await connect('user:ann'),
      await connect('user:ann'),
      await connect('user:ann'),
    ]
    const [bob, visitor] = [await connect('user:bob'), await connect()]
    await post(server, 'disconnect', { user: 'ann', client: one.id })
    await until(() => one.client.closed !== undefined, 'one is')
    expect(one.client.closed).toEqual({ code: 3503, reason: 'force disconnect' })
    const disconnect = { code: 4100, reason: 'come back' }
    await post(server, 'disconnect', { user: 'ann', whitelist: [three.id], disconnect })
    await until(() => two.client.closed !== undefined, 'another is')
    expect(two.client.closed).toEqual(disconnect)
    expect(three.client.closed).toBeUndefined()
    await post(server, 'disconnect', { user: '' })
    await until(() => visitor.client.closed !== undefined, 'visitors are')
    expect(bob.client.closed).toBeUndefined()
    await post(server, 'disconnect', { client: bob.id })
    await until(() => bob.client.closed !== undefined, 'by its id alone')
    for (const wrong of [{ code: 1000 }, { code: 3500, reason: 'x'.repeat(101) }, 5]) {
      const { errors } = await post(server, 'disconnect', { user: 'ann', disconnect: wrong })
      expect(errors.map(({ field }) => field)).toEqual(['disconnect'])
    }
    expect((await post(server, 'disconnect', {})).errors).toEqual([
      { field: 'user', message: 'is missing: name a user, a client or both' },
    ])
    three.client.close()
  })

  test('is given another end, or ended', async () => {
    const clock = createTestClock()
    await using server = serve(topics, { clock })
    const one = await RawClient.connect(server.wsUrl, 'user:ann:60000')
    const two = await RawClient.connect(server.wsUrl, 'user:bob:60000')
    const expire_at = Math.ceil(clock.now() / 1000) + 3_600
    await post(server, 'refresh', { user: 'ann', expire_at })
    await until(() => one.replies.some(({ push }) => push && 'refresh' in push), 'is told')
    const { result } = await post(server, 'connections', { user: 'ann' })
    expect(Object.values(result['connections'] as object)).toMatchObject([{ expire_at }])
    await post(server, 'refresh', { user: 'bob', expired: true })
    await until(() => two.closed !== undefined, 'closed')
    expect(two.closed?.code).toBe(3005)
    one.close()
  })
})

describe('asking', () => {
  test('presence, channels, connections, info', async () => {
    await using server = serve(topics)
    const ann = await RawClient.connect(server.wsUrl, 'user:ann')
    const visitor = await RawClient.connect(server.wsUrl)
    for (const client of [ann, visitor]) await client.call({ subscribe: { channel: 'chat:a' } })
    await ann.call({ subscribe: { channel: 'news:b' } })
    server.realtime.publish('chat:empty', 1)

    const presence = (await post(server, 'presence', { channel: 'chat:a' })).result
    expect(Object.values(presence['presence'] as object)).toMatchObject([
      { user: 'ann' },
      { user: '' },
    ])
    expect((await post(server, 'presence_stats', { channel: 'chat:a' })).result).toEqual({
      num_clients: 2,
      num_users: 2,
    })
    const none = await post(server, 'presence', { channel: 'news:b' })
    expect([none.status, none.errors[0]?.message]).toEqual([400, 'declares no presence'])
    expect((await post(server, 'presence', { channel: 'nothing' })).status).toBe(404)

    const named = async (pattern?: string) =>
      Object.keys(
        (await post(server, 'channels', pattern === undefined ? {} : { pattern })).result[
          'channels'
        ] as object,
      ).toSorted()
    expect(await named()).toEqual(['chat:a', 'news:b'])
    expect(await named('chat:*')).toEqual(['chat:a'])
    expect(await named('*:b')).toEqual(['news:b'])
    expect(await named('n*w*b')).toEqual(['news:b'])
    for (const pattern of ['chat', 'chat:a*a', '*:a:*', 'b*'])
      expect(await named(pattern)).toEqual([])
    expect(await named('news:b')).toEqual(['news:b'])

    const all = (await post(server, 'connections', {})).result['connections'] as object
    expect(new Set(Object.values(all).map(({ user }) => String(user)))).toEqual(
      new Set(['', 'ann']),
    )
    const own = (await post(server, 'connections', { user: 'ann' })).result['connections'] as object
    expect(Object.values(own)).toEqual([
      { user: 'ann', address: '127.0.0.1', state: { channels: { 'chat:a': {}, 'news:b': {} } } },
    ])
    const one = (await post(server, 'connections', { limit: 1 })).result['connections'] as object
    expect(Object.keys(one)).toHaveLength(1)

    expect((await post(server, 'info', {})).result['nodes']).toMatchObject([
      { name: 'test', num_clients: 2, num_users: 1, num_subs: 3, num_channels: 3 },
    ])
    for (const client of [ann, visitor]) client.close()
  })

  test('a history that is removed is gone, and the topic counts on', async () => {
    await using server = serve(topics)
    for (let n = 1; n <= 3; n += 1) server.realtime.publish('news:a', n)
    const before = (await post(server, 'history', { channel: 'news:a', limit: -1 })).result
    expect(before['publications']).toHaveLength(3)
    expect((await post(server, 'history_remove', { channel: 'news:a' })).result).toEqual({})
    const after = (await post(server, 'history', { channel: 'news:a', limit: -1 })).result
    expect(after).toEqual({ ...before, publications: [] })
    const since = { offset: 1, epoch: before['epoch'] }
    expect((await post(server, 'history', { channel: 'news:a', limit: -1, since })).status).toBe(
      409,
    )
    server.realtime.publish('news:a', 4)
    const [kept] = server.realtime.history('news:a', {
      limit: -1,
      since: undefined,
      reverse: false,
    }).publications
    expect(kept?.offset).toBe(4)
  })
})

describe('an idempotency key', () => {
  test('publishes once to a topic for five minutes', async () => {
    const clock = createTestClock()
    await using server = serve(topics, { clock })
    const say = async (channel: string, data: unknown) =>
      (await post(server, 'publish', { channel, data, idempotency_key: 'k' })).result['offset']
    expect([await say('news:a', 1), await say('news:a', 1), await say('news:b', 1)]).toEqual([
      1, 1, 1,
    ])
    const body = { channels: ['news:a', 'news:b', 'news:c'], data: 1, idempotency_key: 'k' }
    for (let n = 0; n < 2; n += 1) {
      const { responses } = (await post(server, 'broadcast', body)).result
      expect(responses).toMatchObject([1, 1, 1].map((offset) => ({ result: { offset } })))
    }
    expect(server.realtime.stats().publications).toBe(3)
    clock.advance(5 * 60_000)
    expect(await say('news:a', 1)).toBe(2)
  })

  test('of a publication that was refused is free', async () => {
    await using server = serve(topics)
    const data = 'x'.repeat(70_000)
    const body = { channel: 'news:a', data, idempotency_key: 'k' }
    expect((await post(server, 'publish', body)).status).toBe(413)
    const next = await post(server, 'publish', { ...body, data: 1 })
    expect([next.status, next.result['offset']]).toEqual([200, 1])
    const long = { ...body, data: 1, idempotency_key: 'k'.repeat(256) }
    expect((await post(server, 'publish', long)).status).toBe(400)
  })
})

describe('batch', () => {
  test.each([false, true])('answers each in its place (parallel: %p)', async (parallel) => {
    await using server = serve(topics)
    const commands = [
      { publish: { channel: 'news:a', data: 1 } },
      { publish: { channel: 'nothing', data: 1 } },
      { publish: { channel: 'news:a', dta: 1 } },
      { dance: {} },
      { batch: { commands: [] } },
      { publish: {}, history: {} },
      5,
      null,
      { broadcast: { channels: ['news:a', 'nothing'], data: 2 } },
      { history: { channel: 'news:a', limit: -1 } },
    ]
    const { status, replies } = await post(server, 'batch', { commands, parallel })
    expect(status).toBe(200)
    const codes = replies.map(({ error }) => (error as { code?: number } | undefined)?.code)
    expect(codes).toEqual([undefined, 102, 107, 104, 104, 104, 104, 104, undefined, undefined])
    expect(replies[0]).toMatchObject({ publish: { offset: 1 } })
    expect(replies[8]).toMatchObject({
      broadcast: { responses: [{ result: { offset: 2 } }, { error: { code: 102 } }] },
    })
    expect(replies[9]).toMatchObject({ history: { publications: [{ data: 1 }, { data: 2 }] } })
  })

  test('is bounded in commands and in the topics of its broadcasts', async () => {
    await using server = serve(topics)
    const refused = async (commands: unknown) =>
      (await post(server, 'batch', { commands })).errors[0]?.message
    expect(await refused([])).toBe('must be 1 to 1000 commands')
    expect(await refused(Array(1_001).fill({ info: {} }))).toBe('must be 1 to 1000 commands')
    const channels = Array(1_000).fill('news:a')
    expect(await refused(Array(11).fill({ broadcast: { channels, data: 1 } }))).toBe(
      'publishes to more than 10000 topics',
    )
    expect(server.realtime.stats().publications).toBe(0)
  })
})
