/** What apps do with the stock client in a hurry: at once, in loops, before there is a connection. */
import { describe, expect, test } from 'bun:test'
import { State, SubscriptionState } from 'centrifuge'
import { serve, until, type plansOf } from './serve.ts'
import { codeOf, hear, stockClient, subscribed, transports } from './stock.ts'

const topics = {
  'room:{name}': { subscribe: 'public', publish: 'public', presence: true, historySize: 50 },
  'secret:{name}': {},
} as const satisfies Parameters<typeof plansOf>[0]

describe.each([...transports])('over %s', (transport) => {
  test('connect and disconnect, ten times at once', async () => {
    await using server = serve(topics)
    const client = stockClient(server, transport)
    for (let n = 0; n < 10; n += 1) {
      client.connect()
      client.disconnect()
    }
    expect(client.state).toBe(State.Disconnected)
    await subscribed(client, 'room:a')
    await until(() => server.realtime.stats().connections === 1, 'the others are gone')
    client.disconnect()
    await until(() => server.realtime.stats().connections === 0, 'and the last')
  })

  test('subscribe and unsubscribe, ten times at once: it is there once, or not at all', async () => {
    await using server = serve(topics)
    const client = stockClient(server, transport)
    client.connect()
    await client.ready()
    const { subscription } = hear(client, 'room:a')
    for (let n = 0; n < 10; n += 1) {
      subscription.unsubscribe()
      subscription.subscribe()
    }
    await subscription.ready()
    expect(await subscription.presenceStats()).toEqual({ numClients: 1, numUsers: 1 })
    for (let n = 0; n < 10; n += 1) {
      subscription.subscribe()
      subscription.unsubscribe()
    }
    expect(subscription.state).toBe(SubscriptionState.Unsubscribed)
    await until(() => server.realtime.stats().subscriptions === 0, 'nobody is there')
    expect((await client.presence('room:a')).clients).toEqual({})
    subscription.subscribe()
    await subscription.ready()
    await client.publish('room:a', 1)
    expect(server.realtime.stats().subscriptions).toBe(1)
    client.disconnect()
  })

  test('calls before it is connected, and commands between connect and its reply', async () => {
    await using server = serve(topics)
    const client = stockClient(server, transport)
    const heard = hear(client, 'room:a')
    const early = [client.publish('room:a', 1), client.publish('room:a', 2)]
    const call = codeOf(client.rpc('method', { my: 'data' }))
    client.connect()
    heard.subscription.unsubscribe()
    heard.subscription.subscribe()
    await Promise.all(early)
    expect(await call).toBe(108)
    await until(() => heard.subscribed.length === 1, 'subscribed')
    client.disconnect()
    client.connect()
    heard.subscription.unsubscribe()
    await client.ready()
    expect(server.realtime.stats().subscriptions).toBe(0)
    heard.subscription.subscribe()
    await until(() => heard.subscribed.length === 2, 'and again')
    client.disconnect()
  })

  test('a network that goes and comes', async () => {
    await using server = serve(topics)
    const networkEventTarget = new EventTarget()
    const client = stockClient(server, transport, { networkEventTarget })
    const heard = await subscribed(client, 'room:a')
    server.realtime.publish('room:a', 1)
    await until(() => heard.publications.length === 1, 'live')
    networkEventTarget.dispatchEvent(new Event('offline'))
    expect(client.state).toBe(State.Connecting)
    server.realtime.publish('room:a', 2)
    networkEventTarget.dispatchEvent(new Event('online'))
    await until(() => heard.publications.length === 2, 'recovered')
    expect(heard.subscribed[1]).toMatchObject({ wasRecovering: true, recovered: true })
    await until(() => server.realtime.stats().connections === 1, 'one connection')
    client.disconnect()
  })

  test('fifty subscriptions whose tokens come when they come', async () => {
    await using server = serve(topics)
    const client = stockClient(server, transport)
    const names = Array.from({ length: 50 }, (_, n) => `secret:${n}`)
    const waiting: (() => void)[] = []
    const all = names.map((name) =>
      hear(client, name, {
        getToken: () => new Promise((resolve) => waiting.push(() => resolve(`topic||${name}`))),
      }),
    )
    client.connect()
    await until(() => waiting.length === 50, 'all are asked for')
    // In another order than they were asked for.
    for (let n = 0; n < 50; n += 1) waiting[(n * 7) % 50]?.()
    await until(() => all.every((heard) => heard.subscribed.length === 1), 'all subscribed')
    expect(server.realtime.stats().subscriptions).toBe(50)
    for (const { subscription } of all) subscription.unsubscribe()
    client.disconnect()
    expect(all.every(({ left }) => left.at(-1) === 0)).toBe(true)
  })

  test('two clients that talk, each hears both in the same order', async () => {
    await using server = serve(topics)
    const [ann, bob] = [stockClient(server, transport), stockClient(server, transport)]
    const [hers, his] = [await subscribed(ann, 'room:a'), await subscribed(bob, 'room:a')]
    await Promise.all(
      Array.from({ length: 40 }, (_, n) => (n % 2 ? ann : bob).publish('room:a', n)),
    )
    await until(() => hers.publications.length === 40 && his.publications.length === 40, 'all')
    expect(hers.publications.map(({ data }) => data as unknown)).toEqual(
      his.publications.map(({ data }) => data as unknown),
    )
    expect(hers.publications.map(({ offset }) => offset)).toEqual(
      Array.from({ length: 40 }, (_, n) => n + 1),
    )
    ann.disconnect()
    bob.disconnect()
  })
})
