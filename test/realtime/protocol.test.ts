/** What the protocol says to those who do not keep it, and the deadlines of a connection. */
import { describe, expect, test } from 'bun:test'
import type { Verdict } from '../../src/auth/auth.ts'
import { createTestClock } from '../clock.ts'
import { identifyFor, RawClient, serve, until } from './serve.ts'

const topics = {
  'open:{name}': { subscribe: 'public', historySize: 10 },
  'chat:{name}': { subscribe: 'public', publish: 'signed-in' },
  members: { subscribe: 'signed-in', historySize: 5 },
  'inbox:{user}': {
    subscribe: ({
      user,
      params,
    }: {
      user: { id: string } | null
      params: Readonly<Record<string, string>>
    }) => user?.id === params.user,
  },
  broken: {
    subscribe: (): boolean => {
      throw new TypeError('a bug of the app')
    },
  },
  late: { subscribe: (() => Promise.resolve(true)) as unknown as () => boolean },
  closed: {},
} as const

const codeOf = async (client: RawClient, command: Record<string, unknown>) =>
  (await client.call(command)).error?.code

describe('errors', () => {
  test('each refusal has the code that clients know', async () => {
    await using server = serve(topics)
    const client = await RawClient.connect(server.wsUrl)
    const subscribe = (channel: unknown) => codeOf(client, { subscribe: { channel } })
    expect(await subscribe('nothing')).toBe(102)
    expect(await subscribe('open:')).toBe(102)
    expect(await subscribe('open:a:b')).toBe(102)
    expect(await subscribe('open:a b')).toBe(102)
    expect(await subscribe(`open:${'x'.repeat(300)}`)).toBe(102)
    expect(await subscribe(5)).toBe(107)
    expect(await subscribe('closed')).toBe(103)
    expect(await subscribe('members')).toBe(103)
    expect(await subscribe('inbox:ann')).toBe(103)
    expect(await subscribe('late')).toBe(103)
    expect(await subscribe('open:a')).toBeUndefined()
    expect(await subscribe('open:a')).toBe(105)
    expect(
      await codeOf(client, { subscribe: { channel: 'open:b', recover: true, offset: -1 } }),
    ).toBe(107)
    expect(await codeOf(client, { publish: { channel: 'open:a', data: 1 } })).toBe(103)
    expect(await codeOf(client, { publish: { channel: 'chat:a', data: 1 } })).toBe(103)
    expect(await codeOf(client, { publish: { channel: 'chat:a' } })).toBe(107)
    expect(await codeOf(client, { history: { channel: 'chat:a' } })).toBe(108)
    expect(await codeOf(client, { history: { channel: 'members', limit: 1 } })).toBe(103)
    const since = { offset: 1, epoch: 'other' }
    expect(await codeOf(client, { history: { channel: 'open:a', limit: 1, since } })).toBe(112)
    expect(await codeOf(client, { presence: { channel: 'open:a' } })).toBe(108)
    expect(await codeOf(client, { rpc: {} })).toBe(108)
    expect(await codeOf(client, { dance: {} })).toBe(104)
    client.close()
  })

  test('a rule that throws is logged, answered, and ends nobody', async () => {
    await using server = serve(topics)
    const client = await RawClient.connect(server.wsUrl)
    expect(await codeOf(client, { subscribe: { channel: 'broken' } })).toBe(100)
    expect(server.errors).toEqual(['realtime.rule-threw'])
    expect(await codeOf(client, { subscribe: { channel: 'open:a' } })).toBeUndefined()
    client.close()
  })

  test('rules see who it is', async () => {
    await using server = serve(topics)
    const client = await RawClient.connect(server.wsUrl, 'user:ann')
    expect(await codeOf(client, { subscribe: { channel: 'members' } })).toBeUndefined()
    expect(await codeOf(client, { subscribe: { channel: 'inbox:ann' } })).toBeUndefined()
    expect(await codeOf(client, { subscribe: { channel: 'inbox:bob' } })).toBe(103)
    expect(
      await codeOf(client, { publish: { channel: 'chat:a', data: { hi: 1 } } }),
    ).toBeUndefined()
    client.close()
  })

  test('the identity of the upgrade counts, the token of connect wins', async () => {
    await using server = serve(topics)
    const authorization = 'Bearer user:ann'
    const client = await RawClient.open(server.wsUrl, { authorization })
    await client.call({ connect: {} })
    expect(await codeOf(client, { subscribe: { channel: 'inbox:ann' } })).toBeUndefined()
    client.close()
    const other = await RawClient.open(server.wsUrl, { authorization })
    await other.call({ connect: { token: 'user:bob' } })
    expect(await codeOf(other, { subscribe: { channel: 'inbox:ann' } })).toBe(103)
    other.close()
  })

  test('10,000 subscribe commands on one socket: 128 are heard, the rest refused', async () => {
    await using server = serve(topics, { limits: { commandsBurst: 20_000 } })
    const client = await RawClient.connect(server.wsUrl)
    for (let frame = 0; frame < 10; frame += 1) {
      const lines = Array.from({ length: 1_000 }, (_, i) => {
        const n = frame * 1_000 + i
        return `{"id":${1_000 + n},"subscribe":{"channel":"open:${n}"}}`
      })
      client.send(lines.join('\n'))
    }
    await until(() => client.replies.length >= 10_001, 'all answered')
    expect(client.replies.filter(({ error }) => error?.code === 106)).toHaveLength(10_000 - 128)
    expect(server.realtime.stats()).toMatchObject({ subscriptions: 128, topics: 128 })
    client.close()
    await until(() => server.realtime.stats().subscriptions === 0, 'nothing left')
  })
})

describe('the rate of commands', () => {
  const pings = (from: number, count: number) =>
    Array.from({ length: count }, (_, at) => `{"id":${from + at},"ping":{}}`).join('\n')
  const limits = { commandsBurst: 20, commandsPerSecond: 10 }

  test('beyond burst and rate each is refused with 111, and time gives them back', async () => {
    const clock = createTestClock()
    await using server = serve(topics, { clock, limits })
    const client = await RawClient.connect(server.wsUrl)
    client.send(pings(100, 25))
    await until(() => client.replies.some(({ id }) => id === 124), 'all answered')
    const refused = client.replies.filter(({ error }) => error?.code === 111)
    expect(refused.map(({ id }) => id)).toEqual([119, 120, 121, 122, 123, 124])
    // Six are owed, and one is wanted.
    clock.advance(700)
    expect(await codeOf(client, { ping: {} })).toBeUndefined()
    expect(await codeOf(client, { ping: {} })).toBe(111)
    client.close()
  })

  test('who goes on is closed with 3013, and pongs out of turn are commands, too', async () => {
    await using server = serve(topics, { clock: createTestClock(), limits })
    const other = await RawClient.connect(server.wsUrl)
    for (const frame of [pings(100, 60), Array.from({ length: 60 }, () => '{}').join('\n')]) {
      const client = await RawClient.connect(server.wsUrl)
      client.send(frame)
      await until(() => client.closed !== undefined, 'closed')
      expect(client.closed).toEqual({ code: 3013, reason: 'too many requests' })
    }
    expect(await codeOf(other, { ping: {} })).toBeUndefined()
    other.close()
  })
})

describe('frames', () => {
  test('two commands in one frame are answered in one', async () => {
    await using server = serve(topics)
    const client = await RawClient.open(server.wsUrl)
    client.send('{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"open:a"}}\n')
    await until(() => client.replies.length === 2, 'both')
    expect(client.frames).toHaveLength(1)
    client.close()
  })

  test.each([
    ['broken JSON', '{"id":1,'],
    ['not an object', '[1]'],
    ['two methods', '{"id":9,"ping":{},"rpc":{}}'],
    ['an id that is none', '{"id":"9","ping":{}}'],
    ['no id', '{"subscribe":{"channel":"open:a"}}'],
    ['params that are none', '{"id":9,"subscribe":"open:a"}'],
    ['a second connect', '{"id":9,"connect":{}}'],
    ['nothing', ''],
    ['depth', '['.repeat(60_000)],
  ])('%s closes with 3501', async (_, frame) => {
    await using server = serve(topics)
    const client = await RawClient.connect(server.wsUrl)
    client.send(frame)
    await until(() => client.closed !== undefined, 'closed')
    expect(client.closed).toEqual({ code: 3501, reason: 'bad request' })
    expect(server.realtime.stats().connections).toBe(0)
  })

  test('a command before connect closes with 3501', async () => {
    await using server = serve(topics)
    const client = await RawClient.open(server.wsUrl)
    client.send('{"id":1,"subscribe":{"channel":"open:a"}}')
    await until(() => client.closed !== undefined, 'closed')
    expect(client.closed?.code).toBe(3501)
  })

  test('a frame over 64 KB closes, and is terminal for the client', async () => {
    await using server = serve(topics)
    const client = await RawClient.connect(server.wsUrl)
    client.send(`{"id":9,"ping":{"x":"${'x'.repeat(70_000)}"}}`)
    await until(() => client.closed !== undefined, 'closed')
    expect(client.closed?.code).toBe(1009)
  })

  test('a binary frame is text if it is UTF-8', async () => {
    await using server = serve(topics)
    const client = await RawClient.connect(server.wsUrl)
    client.socket.send(Buffer.from('{"id":77,"ping":{}}'))
    await until(() => client.replies.some(({ id }) => id === 77), 'the reply')
    client.socket.send(new Uint8Array([0x7b, 0xff, 0xfe]))
    await until(() => client.closed !== undefined, 'closed')
    expect(client.closed?.code).toBe(3501)
  })

  test('what is nested too deep closes before it is read: writing it again would take seconds', async () => {
    await using server = serve(topics, {
      call: ({ body }) => Promise.resolve({ ok: true, data: JSON.stringify(body) }),
    })
    const data = (depth: number) => '['.repeat(depth) + ']'.repeat(depth)
    for (const command of [
      'publish":{"channel":"chat:a"',
      'rpc":{"method":"POST /a"',
      'send":{"x":1',
    ]) {
      const client = await RawClient.connect(server.wsUrl, 'user:ann')
      client.send(`{"id":77,"${command},"data":${data(90)}}}`)
      expect(await codeOf(client, { ping: {} })).toBeUndefined()
      client.send(`{"id":78,"${command},"data":${data(30_000)}}}`)
      await until(() => client.closed !== undefined, 'closed')
      expect(client.closed?.code).toBe(3501)
    }
  })
})

describe('tokens', () => {
  test('a wrong one closes with 3500, an expired one is told so', async () => {
    await using server = serve(topics)
    const wrong = await RawClient.open(server.wsUrl)
    wrong.send('{"id":1,"connect":{"token":"x"}}')
    await until(() => wrong.closed !== undefined, 'closed')
    expect(wrong.closed).toEqual({ code: 3500, reason: 'invalid token' })
    const expired = await RawClient.open(server.wsUrl)
    expect(await codeOf(expired, { connect: { token: 'expired' } })).toBe(109)
    expired.close()
  })

  test('while it is verified, what follows waits in order', async () => {
    const clock = createTestClock()
    const verify = identifyFor(clock)
    let release: ((verdict: Verdict) => void) | undefined
    const identify = () => new Promise<Verdict>((resolve) => (release = resolve))
    await using server = serve(topics, { clock, identify })
    const client = await RawClient.open(server.wsUrl)
    client.send('{"id":1,"connect":{"token":"t"}}\n{"id":2,"subscribe":{"channel":"members"}}')
    client.send('{"id":3,"subscribe":{"channel":"inbox:ann"}}')
    client.send('{"id":4,"ping":{}}')
    await until(() => release !== undefined, 'asked')
    // Its deadline is not the time that verification takes.
    clock.advance(20_000)
    expect(client.replies).toEqual([])
    release?.(verify('user:ann'))
    await until(() => client.replies.length === 4, 'all')
    expect(client.replies.map(({ id, error }) => [id, error?.code])).toEqual([
      [1, undefined],
      [2, undefined],
      [3, undefined],
      [4, undefined],
    ])
    client.close()
  })

  test('too much that waits closes', async () => {
    await using server = serve(topics, { identify: () => new Promise<Verdict>(() => {}) })
    const client = await RawClient.open(server.wsUrl)
    client.send('{"id":1,"connect":{"token":"t"}}')
    for (let n = 2; n < 100; n += 1) client.send(`{"id":${n},"ping":{}}`)
    await until(() => client.closed !== undefined, 'closed')
    expect(client.closed?.code).toBe(3501)
  })

  test('verification that fails is an internal error, not the end', async () => {
    await using server = serve(topics, { identify: () => Promise.reject(new TypeError('jwks')) })
    const client = await RawClient.open(server.wsUrl)
    expect(await codeOf(client, { connect: { token: 't' } })).toBe(100)
    expect(server.errors).toEqual(['realtime.command-failed'])
    client.close()
  })

  test('an expired connection gets 25 s to refresh, then 3005', async () => {
    const clock = createTestClock()
    await using server = serve(topics, { clock })
    const client = await RawClient.open(server.wsUrl)
    const connect = { connect: { token: 'user:ann:60000' } }
    expect((await client.call(connect)).connect).toMatchObject({ expires: true, ttl: 60 })
    for (let second = 0; second < 84; second += 1) {
      clock.advance(1_000)
      if (second % 5 === 0) await client.call({ ping: {} })
    }
    expect(client.closed).toBeUndefined()
    const refreshed = await client.call({ refresh: { token: 'user:ann:30000' } })
    expect(refreshed.refresh).toEqual({ expires: true, ttl: 30 })
    for (let second = 0; second < 62 && !client.closed; second += 1) {
      clock.advance(1_000)
      await new Promise((resolve) => setImmediate(resolve))
    }
    await until(() => client.closed !== undefined, 'closed')
    expect(client.closed).toEqual({ code: 3005, reason: 'connection expired' })
  })

  test('a refresh of another user ends the connection; one that may hear less ends subscriptions', async () => {
    let isAllowed = true
    await using server = serve({
      club: { subscribe: () => isAllowed },
      'open:{n}': { subscribe: 'public' },
    })
    const client = await RawClient.connect(server.wsUrl, 'user:ann')
    await client.call({ subscribe: { channel: 'club' } })
    await client.call({ subscribe: { channel: 'open:a' } })
    isAllowed = false
    expect((await client.call({ refresh: { token: 'user:ann' } })).refresh).toEqual({})
    await until(
      () => client.replies.some(({ push }) => push?.unsubscribe?.code === 2000),
      'the push',
    )
    expect(server.realtime.stats().subscriptions).toBe(1)
    client.send('{"id":99,"refresh":{"token":"user:bob"}}')
    await until(() => client.closed !== undefined, 'closed')
    expect(client.closed?.code).toBe(3500)
  })
})

describe('deadlines', () => {
  test('pings each 25 s; without a pong within 8 s it closes with 3012', async () => {
    const clock = createTestClock()
    await using server = serve(topics, { clock })
    const client = await RawClient.connect(server.wsUrl)
    const silent = await RawClient.connect(server.wsUrl)
    silent.answersPings = false
    const pings = (of: RawClient) => of.frames.filter((frame) => frame === '{}').length
    for (let second = 0; second < 25; second += 1) {
      clock.advance(1_000)
      // Twice there and back: the pong to a ping of this second has arrived.
      await client.call({ ping: {} })
      await client.call({ ping: {} })
    }
    await until(() => pings(client) === 1 && pings(silent) === 1, 'one ping each')
    clock.advance(8_000)
    await until(() => silent.closed !== undefined, 'closed')
    expect(silent.closed).toEqual({ code: 3012, reason: 'no pong' })
    expect(client.closed).toBeUndefined()
    expect(server.realtime.stats().connections).toBe(1)
    client.close()
  })

  test('whose command takes long is not taken for dead: the pong waits behind it', async () => {
    const clock = createTestClock()
    const known = identifyFor(clock)
    const gate = Promise.withResolvers<void>()
    let asked = 0
    await using server = serve(topics, {
      clock,
      identify: async (token) => {
        asked += 1
        if (asked > 1) await gate.promise
        return known(token)
      },
    })
    const client = await RawClient.connect(server.wsUrl, 'user:ann')
    const refreshed = client.call({ refresh: { token: 'user:ann' } })
    await until(() => asked === 2, 'it takes long')
    clock.advance(25_000)
    await until(() => client.frames.includes('{}'), 'pinged')
    // What it says comes after its pong, and is heard by nobody yet.
    client.send('{"id":99,"ping":{}}')
    clock.advance(20_000)
    gate.resolve()
    await refreshed
    await until(() => client.replies.some(({ id }) => id === 99), 'heard')
    clock.advance(20_000)
    expect(client.closed).toBeUndefined()
    client.close()
  })

  test('who does not connect within 10 s is closed with 3502', async () => {
    const clock = createTestClock()
    await using server = serve(topics, { clock })
    const client = await RawClient.open(server.wsUrl)
    await until(() => server.realtime.stats().sockets === 1, 'open')
    clock.advance(9_000)
    expect(server.realtime.stats().sockets).toBe(1)
    clock.advance(7_000)
    await until(() => client.closed !== undefined, 'closed')
    expect(client.closed).toEqual({ code: 3502, reason: 'stale' })
  })

  test('a drain tells everybody to come back later, and lets nobody in', async () => {
    await using server = serve(topics)
    const client = await RawClient.connect(server.wsUrl)
    await client.call({ subscribe: { channel: 'open:a' } })
    const stream = await fetch(`${server.url}/api/stream?topics=open:a`)
    await server.realtime.drain()
    await until(() => client.closed !== undefined, 'closed')
    expect(client.closed).toEqual({ code: 3001, reason: 'shutdown' })
    expect(await stream.text()).toEndWith('\n\n')
    expect(server.realtime.stats()).toMatchObject({ connections: 0, subscriptions: 0 })
    expect((await fetch(`${server.url}/api/stream?topics=open:a`)).status).toBe(503)
  })
})
