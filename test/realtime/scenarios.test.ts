/** The stock client does all that it can, over each of its transports: one suite, three ways through. */
import { describe, expect, test } from 'bun:test'
import { State } from 'centrifuge'
import { createTestClock } from '../clock.ts'
import type { plansOf } from './serve.ts'
import { serve, until } from './serve.ts'
import { codeOf, dataOf, hear, offsetsOf, stockClient, subscribed, transports } from './stock.ts'

const topics = {
  'prices:{region}': { subscribe: 'public', historySize: 100 },
  'short:{region}': { subscribe: 'public', historySize: 3 },
  'chat:{room}': { subscribe: 'public', publish: 'signed-in', historySize: 10 },
  live: { subscribe: 'public' },
  last: { subscribe: 'public', last: true },
  members: { subscribe: 'signed-in' },
} as const satisfies Parameters<typeof plansOf>[0]

const range = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, at) => from + at)

describe.each([...transports])('over %s', (transport) => {
  test('it connects, hears each publication once and in order, and leaves', async () => {
    await using server = serve(topics)
    const client = stockClient(server, transport)
    const used: string[] = []
    client.on('connected', (context) => void used.push(context.transport))
    const prices = await subscribed(client, 'prices:NSW1')
    const live = hear(client, 'live')
    await until(() => live.subscribed.length === 1, 'the second, too')
    expect(used).toEqual([transport])
    expect(prices.subscribed[0]).toMatchObject({ recoverable: true, positioned: true })
    expect(live.subscribed[0]).toMatchObject({ recoverable: false, positioned: true })
    for (let n = 1; n <= 200; n += 1) {
      server.realtime.publish('prices:NSW1', { n })
      server.realtime.publish('live', `two\nlines ${n} ü`)
    }
    await until(() => live.publications.length === 200, 'all')
    expect(offsetsOf(prices)).toEqual(range(1, 200))
    expect(dataOf(prices)).toEqual(range(1, 200).map((n) => ({ n })))
    expect(offsetsOf(live)).toEqual(range(1, 200))
    expect(dataOf(live)[6]).toBe('two\nlines 7 ü')

    live.subscription.unsubscribe()
    await until(() => server.realtime.stats().subscriptions === 1, 'unsubscribed')
    server.realtime.publish('live', 'unheard')
    server.realtime.publish('prices:NSW1', { n: 201 })
    await until(() => prices.publications.length === 201, 'the other goes on')
    expect(live.publications).toHaveLength(200)
    client.disconnect()
    await until(() => server.realtime.stats().connections === 0, 'gone')
    expect(server.realtime.stats()).toMatchObject({ sockets: 0, subscriptions: 0 })
  })

  test('what it missed comes exactly, or it is told that it cannot', async () => {
    await using server = serve(topics)
    const client = stockClient(server, transport)
    const prices = await subscribed(client, 'prices:NSW1')
    const short = hear(client, 'short:NSW1')
    await until(() => short.subscribed.length === 1, 'the second, too')
    server.realtime.publish('prices:NSW1', 1)
    await until(() => prices.publications.length === 1, 'live')
    client.disconnect()
    await until(() => server.realtime.stats().connections === 0, 'away')
    for (const n of range(2, 51)) {
      server.realtime.publish('prices:NSW1', n)
      server.realtime.publish('short:NSW1', n)
    }
    client.connect()
    await until(() => short.subscribed.length === 2 && prices.subscribed.length === 2, 'back')
    server.realtime.publish('prices:NSW1', 52)
    server.realtime.publish('short:NSW1', 52)
    await until(() => dataOf(prices).includes(52) && dataOf(short).includes(52), 'live again')
    expect(dataOf(prices)).toEqual(range(1, 52))
    expect(prices.subscribed[1]).toMatchObject({ wasRecovering: true, recovered: true })
    expect(short.subscribed[1]).toMatchObject({ wasRecovering: true, recovered: false })
    expect(dataOf(short)).toEqual([52])
    client.disconnect()
  })

  test('a new epoch is no recovery', async () => {
    const first = serve(topics)
    const port = Number(new URL(first.url).port)
    const client = stockClient(first, transport)
    const heard = await subscribed(client, 'prices:NSW1')
    first.realtime.publish('prices:NSW1', 1)
    await until(() => heard.publications.length === 1, 'one')
    await first.stop()
    await using second = serve(topics, { port })
    second.realtime.publish('prices:NSW1', 2)
    await until(() => heard.subscribed.length === 2, 'subscribed to the new one')
    expect(heard.subscribed[1]).toMatchObject({ wasRecovering: true, recovered: false })
    client.disconnect()
  })

  test('a subscription that must recover loads its state again when it cannot', async () => {
    await using server = serve(topics)
    const client = stockClient(server, transport)
    const loads: number[] = []
    const getState = () => {
      const { offset, epoch } = server.realtime.history('short:A', {
        limit: 0,
        since: undefined,
        reverse: false,
      })
      loads.push(offset)
      return Promise.resolve({ offset, epoch })
    }
    const heard = hear(client, 'short:A', { getState } as never)
    client.connect()
    await until(() => heard.subscribed.length === 1, 'subscribed')
    client.disconnect()
    await until(() => server.realtime.stats().connections === 0, 'away')
    for (const n of range(1, 9)) server.realtime.publish('short:A', n)
    client.connect()
    await until(() => heard.subscribed.length === 2, 'back')
    server.realtime.publish('short:A', 10)
    await until(() => heard.publications.length === 1, 'live')
    expect(loads).toEqual([0, 9])
    expect(offsetsOf(heard)).toEqual([10])
    client.disconnect()
  })

  test('the latest comes with the subscription', async () => {
    await using server = serve(topics)
    server.realtime.publish('last', 'old')
    server.realtime.publish('last', 'new')
    const client = stockClient(server, transport)
    const heard = await subscribed(client, 'last')
    await until(() => heard.publications.length === 1, 'the latest')
    expect(dataOf(heard)).toEqual(['new'])
    client.disconnect()
  })

  test('it publishes where it may, and reads history both ways', async () => {
    await using server = serve(topics)
    const ann = stockClient(server, transport, { token: 'user:ann' })
    const visitor = stockClient(server, transport)
    const heard = await subscribed(visitor, 'chat:a')
    ann.connect()
    for (const n of range(1, 12)) await ann.publish('chat:a', { n })
    await until(() => heard.publications.length === 12, 'all')
    expect(await codeOf(visitor.publish('chat:a', 1))).toBe(103)
    expect(await codeOf(visitor.publish('nothing', 1))).toBe(102)

    const { epoch, ...all } = await visitor.history('chat:a', { limit: 100 })
    expect(all.offset).toBe(12)
    expect(all.publications.map(({ offset }) => offset)).toEqual(range(3, 12))
    const since = { offset: 10, epoch }
    const after = await visitor.history('chat:a', { since, limit: 1 })
    expect(after.publications.map(({ data }) => data as unknown)).toEqual([{ n: 11 }])
    const before = await visitor.history('chat:a', { since, limit: 2, reverse: true })
    expect(before.publications.map(({ offset }) => offset)).toEqual([9, 8])
    expect(await visitor.history('chat:a')).toMatchObject({ offset: 12, publications: [] })
    expect(await codeOf(visitor.history('chat:a', { since: { offset: 1, epoch: 'x' } }))).toBe(112)
    expect(await codeOf(visitor.history('live'))).toBe(108)
    ann.disconnect()
    visitor.disconnect()
  })

  test('commands of one batch, messages, and calls that are not served', async () => {
    await using server = serve(topics)
    const client = stockClient(server, transport, { token: 'user:ann' })
    const heard = await subscribed(client, 'chat:a')
    client.startBatching()
    const calls = range(1, 50).map((n) => client.publish('chat:a', n))
    client.stopBatching()
    await Promise.all(calls)
    await until(() => heard.publications.length === 50, 'all')
    expect(dataOf(heard)).toEqual(range(1, 50))
    await client.send({ nobody: 'listens' })
    expect(await codeOf(client.rpc('GET /api/health', null))).toBe(108)
    expect(await codeOf(client.presence('chat:a'))).toBe(108)
    expect(await codeOf(client.presenceStats('chat:a'))).toBe(108)
    expect(client.state).toBe(State.Connected)
    client.disconnect()
  })

  test('rpc is answered out of turn, as what is called answers', async () => {
    let release: (() => void) | undefined
    const slow = new Promise<void>((resolve) => (release = resolve))
    await using server = serve(topics, {
      limits: { callsPerConnectionMax: 2 },
      async call({ identity, address, method, path, body }) {
        if (path === '/slow') await slow
        if (path === '/bug') throw new TypeError('a bug')
        if (path === '/none') {
          return { ok: false, error: { code: 404, message: 'no such "post"', temporary: false } }
        }
        const who = identity.user?.id ?? null
        return { ok: true, data: JSON.stringify({ who, address, method, path, body }) }
      },
    })
    const client = stockClient(server, transport, { token: 'user:ann' })
    client.connect()
    const { data } = await client.rpc('POST /api/posts?x=1', { title: 'a' })
    expect(data).toEqual({
      who: 'ann',
      address: '127.0.0.1',
      method: 'POST',
      path: '/api/posts?x=1',
      body: { title: 'a' },
    })
    const waiting = [client.rpc('GET /slow', null), client.rpc('GET /slow', null)]
    await until(() => server.realtime.connectionsOf('ann')[0]?.calls === 2, 'both under way')
    expect(await codeOf(client.rpc('GET /third', null))).toBe(111)
    expect(await codeOf(client.publish('chat:a', 1))).toBeUndefined()
    release?.()
    await Promise.all(waiting)
    expect(await client.rpc('GET /none', null).catch((error: unknown) => error)).toMatchObject({
      code: 404,
      message: 'no such "post"',
    })
    expect(await codeOf(client.rpc('GET /bug', null))).toBe(100)
    expect(server.errors).toEqual(['realtime.command-failed'])
    expect(await codeOf(client.rpc('getTime', null))).toBe(108)
    expect(await codeOf(client.rpc('GET /api/posts', { body: 'of a GET' }))).toBe(107)
    client.disconnect()
  })

  test('pings are answered, each connection stays', async () => {
    const clock = createTestClock()
    await using server = serve(topics, { clock })
    const client = stockClient(server, transport)
    const heard = await subscribed(client, 'live')
    for (let second = 0; second < 120; second += 1) {
      clock.advance(1_000)
      server.realtime.publish('live', second)
      await until(() => heard.publications.length === second + 1, 'heard')
      // There and back: the pong, if there was a ping, has arrived.
      if (second % 5 === 0) await client.history('prices:A')
    }
    expect(heard.subscribed).toHaveLength(1)
    expect(client.state).toBe(State.Connected)
    client.disconnect()
  })

  test('the server ends it: for a moment, for good, or with everybody', async () => {
    await using server = serve(topics)
    const codes: [string, number][] = []
    const watch = (token: string) => {
      const client = stockClient(server, transport, { token })
      client.on('connecting', ({ code }) => code >= 100 && codes.push(['connecting', code]))
      client.on('disconnected', ({ code }) => codes.push(['disconnected', code]))
      return client
    }
    const ann = watch('user:ann')
    const heard = await subscribed(ann, 'prices:A')
    server.realtime.connectionsOf('ann')[0]?.end({ code: 3011, reason: 'force reconnect' })
    await until(() => heard.subscribed.length === 2, 'she is back')
    expect(heard.subscribed[1]).toMatchObject({ recovered: true })
    server.realtime.connectionsOf('ann')[0]?.end({ code: 3503, reason: 'force disconnect' })
    await until(() => ann.state === State.Disconnected, 'for good')
    expect(codes).toEqual([
      ['connecting', 3011],
      ['disconnected', 3503],
    ])
    codes.length = 0
    const bob = watch('user:bob')
    await subscribed(bob, 'prices:A')
    await server.realtime.drain()
    await until(() => codes.length > 0, 'told')
    expect(codes[0]).toEqual(['connecting', 3001])
    bob.disconnect()
  })
})
