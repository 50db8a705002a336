/** Tokens of connections and of subscriptions, and topics that the server subscribes, for the stock client. */
import { describe, expect, test } from 'bun:test'
import { generateKeyPairSync } from 'node:crypto'
import { State } from 'centrifuge'
import { exportJWK, SignJWT } from 'jose'
import { createAuth } from '../../src/auth/auth.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { createTestClock } from '../clock.ts'
import { createTestLog } from '../harness.ts'
import type { plansOf } from './serve.ts'
import { RawClient, serve, until } from './serve.ts'
import { codeOf, hear, stockClient, subscribed, transports } from './stock.ts'

const topics = {
  'open:{name}': { subscribe: 'public', publish: 'public', historySize: 100 },
  'secret:{name}': { historySize: 10, presence: true },
  'user:{id}': { historySize: 10 },
  'state:{id}': { last: true },
  plain: { subscribe: 'public' },
} as const satisfies Parameters<typeof plansOf>[0]

const expiryMs = 25_000 + 60_000

describe.each([...transports])('over %s', (transport) => {
  test('a token that is none ends it for good; one that has expired is fetched anew', async () => {
    await using server = serve(topics)
    const wrong = stockClient(server, transport, { token: 'nonsense' })
    const ends: number[] = []
    wrong.on('disconnected', ({ code }) => void ends.push(code))
    wrong.connect()
    await until(() => ends.length === 1, 'ended')
    expect(ends).toEqual([3500])

    const tokens = ['user:ann']
    const client = stockClient(server, transport, {
      token: 'expired',
      getToken: () => Promise.resolve(tokens.shift() ?? ''),
    })
    client.connect()
    await until(() => client.state === State.Connected, 'connected')
    expect(tokens).toEqual([])
    expect(server.realtime.connectionsOf('ann')).toHaveLength(1)
    client.disconnect()
    await until(() => server.realtime.connectionsOf('ann').length === 0, 'gone')
  })

  test('in the headers of the command, where the transport has none', async () => {
    await using server = serve(topics)
    const client = stockClient(server, transport, { headers: { Authorization: 'Bearer user:ann' } })
    client.connect()
    await until(() => client.state === State.Connected, 'connected')
    expect(server.realtime.connectionsOf('ann')).toHaveLength(1)
    client.disconnect()
    const wrong = stockClient(server, transport, { headers: { Authorization: 'Basic YW5u' } })
    wrong.connect()
    await until(() => wrong.state === State.Disconnected, 'refused')
  })

  test('it is refreshed on the live connection before it ends', async () => {
    await using server = serve(topics)
    let fetched = 0
    const client = stockClient(server, transport, {
      token: 'user:ann:1000',
      getToken: () => Promise.resolve(`user:ann:${++fetched * 100_000}`),
    })
    const heard = await subscribed(client, 'open:a')
    await until(() => fetched === 1, 'a new one is asked for')
    await client.history('open:a')
    expect(heard.subscribed).toHaveLength(1)
    expect(client.state).toBe(State.Connected)
    client.disconnect()
  })

  test('not refreshed it ends after its grace with 3005, and the client comes back', async () => {
    const clock = createTestClock()
    await using server = serve(topics, { clock })
    const client = stockClient(server, transport, { token: 'user:ann:60000' })
    const codes: number[] = []
    client.on('connecting', ({ code }) => void codes.push(code))
    const heard = await subscribed(client, 'open:a')
    server.realtime.publish('open:a', 1)
    await until(() => heard.publications.length === 1, 'live')
    const before = server.realtime.connectionsOf('ann')[0]
    for (let ms = 0; ms <= expiryMs + 6_000; ms += 1_000) {
      clock.advance(1_000)
      if (ms % 5_000 === 0 && ms < expiryMs) await client.history('open:a')
    }
    await until(() => heard.subscribed.length === 2, 'back')
    expect(codes).toContain(3005)
    expect(heard.subscribed[1]).toMatchObject({ recovered: true })
    expect(server.realtime.connectionsOf('ann')[0]).not.toBe(before)
    client.disconnect()
  })

  test('a subscription token lets in beyond the rule, and into no other topic', async () => {
    await using server = serve(topics)
    const client = stockClient(server, transport, { token: 'user:ann' })
    const good = hear(client, 'secret:a', { token: 'topic|ann|secret:a' })
    const refused = ['topic|ann|secret:a', 'topic|bob|secret:c', 'topic||secret:d', 'user:ann']
    const others = ['secret:b', 'secret:c', 'secret:d', 'secret:e'].map((name, at) =>
      hear(client, name, { token: refused[at] ?? '' }),
    )
    client.connect()
    await until(() => good.subscribed.length === 1, 'let in')
    await until(() => others.every(({ left }) => left.length === 2), 'the others are refused')
    expect(others.map(({ left }) => left[1])).toEqual([103, 103, 103, 103])
    server.realtime.publish('secret:a', 'hush')
    await until(() => good.publications.length === 1, 'heard')
    // Who is let in may ask about it, too.
    expect((await good.subscription.history({ limit: 5 })).publications).toHaveLength(1)
    const { clients } = await good.subscription.presence()
    expect(Object.values(clients)).toMatchObject([
      { user: 'ann', connInfo: { name: 'ANN' }, chanInfo: { seat: 1 } },
    ])
    expect(await codeOf(client.history('secret:b'))).toBe(103)
    // A new token of the connection does not take away what another one gave.
    server.realtime.connectionsOf('ann')[0]?.refresh(undefined)
    client.disconnect()

    const visitor = stockClient(server, transport)
    const theirs = hear(visitor, 'secret:a', { token: 'topic||secret:a' })
    visitor.connect()
    await until(() => theirs.subscribed.length === 1, 'a visitor is let in')
    visitor.disconnect()
  })

  test('a subscription token that has expired is fetched anew, and again when it ends', async () => {
    const clock = createTestClock()
    await using server = serve(topics, { clock })
    const tokens = ['expired', 'topic||secret:a|60000', 'expired', 'topic||secret:a|60000']
    const client = stockClient(server, transport)
    const heard = hear(client, 'secret:a', {
      getToken: () => Promise.resolve(tokens.shift() ?? ''),
    })
    client.connect()
    await until(() => heard.subscribed.length === 1, 'subscribed')
    expect(tokens).toHaveLength(2)
    for (let ms = 0; ms <= expiryMs + 6_000; ms += 1_000) {
      clock.advance(1_000)
      if (ms % 5_000 === 0) await client.history('open:a')
    }
    await until(() => heard.subscribed.length === 2, 'subscribed again')
    expect(heard.left).toContain(2501)
    expect(heard.subscribed[1]).toMatchObject({ wasRecovering: true, recovered: true })
    client.disconnect()
  })

  test('a subscription is refreshed while it lives', async () => {
    await using server = serve(topics)
    let fetched = 0
    const client = stockClient(server, transport)
    const getToken = () => {
      fetched += 1
      return Promise.resolve(`topic||secret:a|${fetched === 1 ? 1_000 : 600_000}`)
    }
    const heard = hear(client, 'secret:a', { getToken })
    client.connect()
    await until(() => fetched === 2, 'a new one is asked for')
    await client.history('open:a')
    expect(heard.subscribed).toHaveLength(1)
    // The first `subscribing`, and nothing after it.
    expect(heard.left).toEqual([0])
    client.disconnect()
  })

  test('the token subscribes: topics of its own, recovered as any other', async () => {
    await using server = serve(topics)
    server.realtime.publish('state:ann', 'on')
    const client = stockClient(server, transport, {
      token: 'user:ann::user:ann,state:ann,nothing,user:ann',
    })
    const heard: unknown[] = []
    const begun: [string, boolean][] = []
    client.on('publication', ({ channel, data }) => void heard.push([channel, data]))
    client.on('subscribed', ({ channel, recovered }) => void begun.push([channel, recovered]))
    client.connect()
    await until(() => heard.length === 1, 'the latest of a state')
    expect(heard).toEqual([['state:ann', 'on']])
    expect(begun).toEqual([
      ['user:ann', false],
      ['state:ann', false],
    ])
    server.realtime.publish('user:ann', 1)
    await until(() => heard.length === 2, 'live')
    server.realtime.connectionsOf('ann')[0]?.end({ code: 3011, reason: 'force reconnect' })
    await until(() => server.realtime.stats().connections === 0, 'away')
    server.realtime.publish('user:ann', 2)
    server.realtime.publish('user:ann', 3)
    await until(() => begun.length === 4, 'back')
    server.realtime.publish('user:ann', 4)
    await until(() => heard.length === 6, 'all')
    expect(begun[2]).toEqual(['user:ann', true])
    expect(heard.slice(1)).toEqual([
      ['user:ann', 1],
      ['user:ann', 2],
      ['user:ann', 3],
      ...[['state:ann', 'on']],
      ['user:ann', 4],
    ])
    client.disconnect()
  })

  test('the server subscribes and unsubscribes, whatever the rule says', async () => {
    await using server = serve(topics)
    const client = stockClient(server, transport, { token: 'user:ann' })
    const events: unknown[] = []
    client.on('subscribed', ({ channel }) => void events.push(['subscribed', channel]))
    client.on('unsubscribed', ({ channel }) => void events.push(['unsubscribed', channel]))
    client.on('publication', ({ channel, data }) => void events.push([channel, data]))
    server.realtime.publish('state:ann', 'on')
    const own = await subscribed(client, 'open:a')
    const [connection] = server.realtime.connectionsOf('ann')
    expect(connection?.subscribe('state:ann')).toBe(true)
    expect(connection?.subscribe('state:ann')).toBe(false)
    expect(connection?.subscribe('nothing')).toBe(false)
    expect(connection?.subscribe('open:a')).toBe(false)
    server.realtime.publish('state:ann', 'off')
    await until(() => events.length === 3, 'told and heard')
    connection?.unsubscribe('state:ann', { code: 2000, reason: 'server unsubscribe' })
    expect(connection?.unsubscribe('state:ann', { code: 2000, reason: 'twice' })).toBe(false)
    server.realtime.publish('state:ann', 'unheard')
    // From 2500 on a client subscribes again by itself.
    connection?.unsubscribe('open:a', { code: 2500, reason: 'insufficient state' })
    await until(() => own.subscribed.length === 2, 'subscribed again')
    expect(own.left).toEqual([0, 2500])
    expect(events).toEqual([
      ['subscribed', 'state:ann'],
      ['state:ann', 'on'],
      ['state:ann', 'off'],
      ['unsubscribed', 'state:ann'],
    ])
    connection?.unsubscribe('open:a', { code: 2000, reason: 'server unsubscribe' })
    await until(() => own.left.length === 3, 'told')
    expect(own.left[2]).toBe(2000)
    expect(server.realtime.stats().subscriptions).toBe(0)
    client.disconnect()
  })
})

test('a refresh with an expired token is answered by 3005: the stock client takes an error as final', async () => {
  await using server = serve(topics)
  const client = await RawClient.connect(server.wsUrl, 'user:ann')
  client.send('{"id":9,"refresh":{"token":"expired"}}')
  await until(() => client.closed !== undefined, 'closed')
  expect(client.closed).toEqual({ code: 3005, reason: 'connection expired' })
})

test('sub_refresh: an expired token ends the subscription, one of another topic or none is refused', async () => {
  await using server = serve(topics)
  const client = await RawClient.connect(server.wsUrl, 'user:ann')
  const call = async (channel: string, token: unknown) =>
    (await client.call({ sub_refresh: { channel, token } })).error?.code
  await client.call({ subscribe: { channel: 'secret:a', token: 'topic|ann|secret:a' } })
  expect(await call('secret:a', 'topic|ann|secret:b')).toBe(103)
  expect(await call('secret:b', 'topic|ann|secret:b')).toBe(103)
  expect(await call('secret:a', 5)).toBe(107)
  expect(await call('secret:a', 'topic|ann|secret:a|50')).toBeUndefined()
  expect(await call('secret:a', 'expired')).toBe(109)
  const pushes = client.replies.flatMap(({ push }) => push?.unsubscribe?.code ?? [])
  expect(pushes).toEqual([2501])
  expect(server.realtime.stats().subscriptions).toBe(0)
  client.close()
})

describe.each([...transports])('an issuer that is away, over %s', (transport) => {
  test('nobody is sent away for good: who connects comes back until its keys are there', async () => {
    const { publicKey, privateKey } = generateKeyPairSync('ed25519')
    let isUp = false
    await using issuer = Bun.serve({
      port: 0,
      fetch: async () =>
        isUp
          ? Response.json({ keys: [await exportJWK(publicKey)] })
          : new Response('away', { status: 503 }),
    })
    let shiftMs = 0
    const clock = { ...systemClock, tick: () => systemClock.tick() + shiftMs }
    const auth = await createAuth({ clock, log: createTestLog() }, { jwks: [issuer.url.href] })
    await using server = serve(topics, auth)
    const header = { alg: 'EdDSA' }
    const token = await new SignJWT({ sub: 'ann' }).setProtectedHeader(header).sign(privateKey)
    const client = stockClient(server, transport, { token })
    const codes: number[] = []
    client.on('error', ({ error }) => void codes.push(error.code))
    client.on('disconnected', ({ code }) => void codes.push(code))
    client.connect()
    await until(() => codes.length > 2, 'told more than once')
    expect([new Set(codes), client.state]).toEqual([new Set([100]), State.Connecting])
    isUp = true
    // The next question is not asked sooner.
    shiftMs = 31_000
    await until(() => client.state === State.Connected, 'let in')
    expect(server.realtime.connectionsOf('ann')).toHaveLength(1)
    expect(server.errors).toEqual([])
    client.disconnect()
    await auth.stop()
  })
})

test('what the server began, a client does not end', async () => {
  await using server = serve(topics)
  const client = await RawClient.connect(server.wsUrl, 'user:ann::user:ann')
  const unsubscribe = await client.call({ unsubscribe: { channel: 'user:ann' } })
  expect(unsubscribe.error?.code).toBe(103)
  expect((await client.call({ subscribe: { channel: 'user:ann' } })).error?.code).toBe(105)
  client.close()
})

test('a publication while a subscription token is verified comes after the reply, and once', async () => {
  const clock = createTestClock()
  let release: (() => void) | undefined
  let isAsked = false
  const gate = new Promise<void>((resolve) => (release = resolve))
  await using server = serve(topics, {
    clock,
    async identifyTopic(token) {
      isAsked = true
      await gate
      const [, , topic = ''] = token.split('|')
      return { ok: true, pass: { topic, user: '', expiresAtMs: undefined } }
    },
  })
  const client = await RawClient.connect(server.wsUrl)
  client.send('{"id":50,"subscribe":{"channel":"secret:a","token":"topic||secret:a"}}')
  await until(() => isAsked, 'asked')
  // Each microtask around the one that subscribes publishes once.
  const publishing = gate.then(async () => {
    for (let n = 1; n <= 20; n += 1) {
      server.realtime.publish('secret:a', n)
      await Promise.resolve()
    }
  })
  release?.()
  await publishing
  await until(() => client.replies.some(({ id }) => id === 50), 'subscribed')
  server.realtime.publish('secret:a', 21)
  await until(() => client.publications.some(({ data }) => data === 21), 'the last')
  const at = client.replies.findIndex(({ id }) => id === 50)
  expect(client.replies.findIndex(({ push }) => push?.pub !== undefined)).toBeGreaterThan(at)
  const start = client.replies[at]?.subscribe?.offset ?? -1
  const offsets = client.publications.map(({ offset }) => offset)
  expect(offsets).toEqual(Array.from({ length: 21 - start }, (_, i) => start + 1 + i))
  client.close()
})
