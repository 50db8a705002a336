/** The promise of the room, kept towards the stock `centrifuge` client: exact recovery, or a word about it. */
import {
  Centrifuge,
  type PublicationContext,
  type Subscription,
  type SubscribedContext,
} from 'centrifuge'
import { describe, expect, test } from 'bun:test'
import { createTestClock } from '../clock.ts'
import { RawClient, serve, until, type TestServer } from './serve.ts'

const topics = {
  'prices:{region}': { subscribe: 'public', historySize: 100 },
  'short:{region}': { subscribe: 'public', historySize: 10 },
  'chat:{room}': { subscribe: 'public', publish: 'public', historySize: 100 },
  live: { subscribe: 'public' },
  last: { subscribe: 'public', last: true },
  both: { subscribe: 'public', last: true, historySize: 5 },
} as const

interface Heard {
  readonly client: Centrifuge
  readonly subscription: Subscription
  readonly publications: PublicationContext[]
  readonly subscribed: SubscribedContext[]
}

function listen(server: TestServer, topic: string): Heard {
  const client = new Centrifuge(server.wsUrl, {
    minReconnectDelay: 1,
    maxReconnectDelay: 20,
    websocket: WebSocket,
  })
  const subscription = client.newSubscription(topic)
  const heard: Heard = { client, subscription, publications: [], subscribed: [] }
  subscription.on('publication', (context) => heard.publications.push(context))
  subscription.on('subscribed', (context) => heard.subscribed.push(context))
  subscription.subscribe()
  client.connect()
  return heard
}

function publish(server: TestServer, topic: string, from: number, count: number): void {
  for (let n = from; n < from + count; n += 1) server.realtime.publish(topic, { n })
}

const numbers = ({ publications }: Heard) =>
  publications.map(({ data }) => (data as { n: number }).n)
const range = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, i) => from + i)

describe('the stock client', () => {
  test('misses 50 publications, comes back, and gets exactly those 50 in order', async () => {
    await using server = serve(topics)
    const heard = listen(server, 'prices:NSW1')
    await until(() => heard.subscribed.length === 1, 'subscribed')
    publish(server, 'prices:NSW1', 1, 5)
    await until(() => heard.publications.length === 5, 'five')

    heard.client.disconnect()
    await until(() => server.realtime.stats().connections === 0, 'disconnected')
    publish(server, 'prices:NSW1', 6, 50)
    heard.client.connect()
    await until(() => heard.subscribed.length === 2, 'subscribed again')
    await until(() => heard.publications.length >= 55, 'all')
    publish(server, 'prices:NSW1', 56, 1)
    await until(() => heard.publications.length >= 56, 'the next one')

    expect(numbers(heard)).toEqual(range(1, 56))
    expect(heard.publications.map(({ offset }) => offset)).toEqual(range(1, 56))
    expect(heard.subscribed[1]).toMatchObject({ wasRecovering: true, recovered: true })
    heard.client.disconnect()
  })

  test('is told when the history is too short, and gets no part of it', async () => {
    await using server = serve(topics)
    const heard = listen(server, 'short:NSW1')
    await until(() => heard.subscribed.length === 1, 'subscribed')
    publish(server, 'short:NSW1', 1, 1)
    await until(() => heard.publications.length === 1, 'one')

    heard.client.disconnect()
    await until(() => server.realtime.stats().connections === 0, 'disconnected')
    publish(server, 'short:NSW1', 2, 11)
    heard.client.connect()
    await until(() => heard.subscribed.length === 2, 'subscribed again')
    publish(server, 'short:NSW1', 13, 1)
    await until(() => heard.publications.length >= 2, 'the next one')

    expect(heard.subscribed[1]).toMatchObject({ wasRecovering: true, recovered: false })
    expect(numbers(heard)).toEqual([1, 13])
    heard.client.disconnect()
  })

  test('is told when the server is another one with equal offsets', async () => {
    const first = serve(topics)
    const port = Number(new URL(first.url).port)
    const heard = listen(first, 'prices:NSW1')
    await until(() => heard.subscribed.length === 1, 'subscribed')
    publish(first, 'prices:NSW1', 1, 3)
    await until(() => heard.publications.length === 3, 'three')
    await first.stop()

    await using second = serve(topics, { port })
    publish(second, 'prices:NSW1', 101, 3)
    await until(() => heard.subscribed.length === 2, 'subscribed to the new one')
    expect(heard.subscribed[1]).toMatchObject({ wasRecovering: true, recovered: false })
    expect(numbers(heard)).toEqual([1, 2, 3])
    heard.client.disconnect()
  })

  test('publishes where the rule lets it, and hears itself', async () => {
    await using server = serve(topics)
    const heard = listen(server, 'chat:one')
    await heard.subscription.ready()
    await heard.subscription.publish({ n: 1 })
    await until(() => heard.publications.length === 1, 'heard')
    expect(numbers(heard)).toEqual([1])
    heard.client.disconnect()
  })

  test('reads the history', async () => {
    await using server = serve(topics)
    const heard = listen(server, 'prices:NSW1')
    await heard.subscription.ready()
    publish(server, 'prices:NSW1', 1, 5)
    const newest = await heard.subscription.history({ limit: 2, reverse: true })
    expect(newest.publications.map(({ offset }) => offset)).toEqual([5, 4])
    const since = { offset: 2, epoch: newest.epoch }
    const rest = await heard.subscription.history({ limit: -1, since })
    expect(rest.publications.map(({ offset }) => offset)).toEqual([3, 4, 5])
    expect((await heard.subscription.history({ limit: 0 })).publications).toEqual([])
    heard.client.disconnect()
  })
})

describe('subscribe', () => {
  test('gives the latest publication where `last` is declared', async () => {
    await using server = serve(topics)
    publish(server, 'last', 1, 3)
    publish(server, 'both', 1, 3)
    const client = await RawClient.connect(server.wsUrl)
    const latest = [{ data: { n: 3 }, offset: 3 }]
    const last = (await client.call({ subscribe: { channel: 'last' } })).subscribe
    expect(last).toMatchObject({ offset: 3, publications: latest })
    expect(last?.recoverable).toBeUndefined()
    const both = (await client.call({ subscribe: { channel: 'both' } })).subscribe
    expect(both).toMatchObject({ offset: 3, recoverable: true, publications: latest })
    client.close()
  })

  test('a publication in the same tick is neither lost nor doubled', async () => {
    const order: string[] = []
    let publishNow = () => {}
    await using server = serve({
      // Runs in the middle of `subscribe`, after the command arrived and before its answer.
      mine: {
        subscribe: () => {
          publishNow()
          return true
        },
        historySize: 10,
        last: true,
      },
      other: { subscribe: 'public', publish: 'public', historySize: 10 },
    })
    const client = await RawClient.connect(server.wsUrl)
    publishNow = () => {
      order.push('rule')
      server.realtime.publish('mine', { from: 'rule' })
      server.realtime.publish('other', { from: 'rule' })
    }
    // `other` is subscribed in the same frame, before and after a publication to it.
    client.send(
      [
        '{"id":101,"publish":{"channel":"other","data":1}}',
        '{"id":102,"subscribe":{"channel":"other"}}',
        '{"id":103,"publish":{"channel":"other","data":2}}',
        '{"id":104,"subscribe":{"channel":"mine"}}',
        '{"id":105,"publish":{"channel":"other","data":3}}',
      ].join('\n'),
    )
    await until(() => client.publications.length >= 3, 'three publications')
    server.realtime.publish('other', 'end')
    server.realtime.publish('mine', 'end')
    await until(() => client.publications.length >= 5, 'the end')

    expect(order).toEqual(['rule'])
    const of = (channel: string) => client.publications.filter((one) => one.channel === channel)
    expect(of('other').map(({ offset }) => offset)).toEqual([2, 3, 4, 5])
    expect(of('mine').map(({ offset }) => offset)).toEqual([2])
    const lines = client.replies.map(({ id, push }) => (push ? `push ${push.channel}` : id))
    expect(lines.indexOf(102)).toBeLessThan(lines.indexOf('push other'))
    expect(lines.indexOf(104)).toBeLessThan(lines.indexOf('push mine'))
    const mine = client.replies.find(({ id }) => id === 104)?.subscribe
    expect(mine?.publications).toEqual([{ data: { from: 'rule' }, offset: 1 }])
    client.close()
  })

  test('recovers within the ring and says so outside of it', async () => {
    await using server = serve(topics)
    publish(server, 'short:A', 1, 12)
    const client = await RawClient.connect(server.wsUrl)
    const { epoch } = (await client.call({ subscribe: { channel: 'short:A' } })).subscribe ?? {
      epoch: '',
    }
    const ask = async (offset: number, of = epoch) => {
      await client.call({ unsubscribe: { channel: 'short:A' } })
      const subscribe = { channel: 'short:A', recover: true, offset, epoch: of }
      const reply = (await client.call({ subscribe })).subscribe
      return [reply?.recovered, reply?.publications?.map((one) => one.offset) ?? []]
    }
    expect(await ask(12)).toEqual([true, []])
    expect(await ask(11)).toEqual([true, [12]])
    expect(await ask(2)).toEqual([true, range(3, 12)])
    expect(await ask(1)).toEqual([false, []])
    expect(await ask(13)).toEqual([false, []])
    expect(await ask(11, 'other')).toEqual([false, []])
    expect(await ask(11, '')).toEqual([false, []])
    client.close()
  })

  test('does not recover what would overrun the buffer of its own socket', async () => {
    await using server = serve(topics)
    const client = await RawClient.connect(server.wsUrl)
    const { epoch } = (await client.call({ subscribe: { channel: 'short:A' } })).subscribe ?? {
      epoch: '',
    }
    await client.call({ unsubscribe: { channel: 'short:A' } })
    for (let n = 0; n < 3; n += 1) server.realtime.publish('short:A', 'x'.repeat(50_000))
    const subscribe = { channel: 'short:A', recover: true, epoch }
    const all = (await client.call({ subscribe: { ...subscribe, offset: 0 } })).subscribe
    expect(all).toMatchObject({ recovered: false, was_recovering: true, offset: 3 })
    await client.call({ unsubscribe: { channel: 'short:A' } })
    const two = (await client.call({ subscribe: { ...subscribe, offset: 1 } })).subscribe
    expect(two?.publications?.map(({ offset }) => offset)).toEqual([2, 3])
    client.close()
  })

  test('forgets what is older than the ttl', async () => {
    const clock = createTestClock()
    await using server = serve(
      { aged: { subscribe: 'public', historySize: 10, historyTtlMs: 5_000 } },
      { clock },
    )
    const client = await RawClient.connect(server.wsUrl)
    const { epoch } = (await client.call({ subscribe: { channel: 'aged' } })).subscribe ?? {
      epoch: '',
    }
    await client.call({ unsubscribe: { channel: 'aged' } })
    publish(server, 'aged', 1, 1)
    clock.advance(3_000)
    publish(server, 'aged', 2, 1)
    clock.advance(3_000)
    const subscribe = { channel: 'aged', recover: true, epoch }
    expect(
      (await client.call({ subscribe: { ...subscribe, offset: 0 } })).subscribe?.recovered,
    ).toBe(false)
    await client.call({ unsubscribe: { channel: 'aged' } })
    const one = (await client.call({ subscribe: { ...subscribe, offset: 1 } })).subscribe
    expect(one).toMatchObject({ recovered: true, publications: [{ data: { n: 2 }, offset: 2 }] })
    client.close()
  })

  test('a dropped topic comes back with another epoch', async () => {
    const clock = createTestClock()
    await using server = serve(topics, { clock })
    const first = server.realtime.publish('live', 1)
    expect(server.realtime.stats().topics).toBe(1)
    clock.advance(120_000)
    expect(server.realtime.stats().topics).toBe(0)
    const second = server.realtime.publish('live', 1)
    expect(second.offset).toBe(first.offset)
    expect(second.epoch).not.toBe(first.epoch)
  })

  test('all histories together stay below their bound, oldest first', async () => {
    await using server = serve(topics, { limits: { historyBytesMax: 20_000 } })
    for (let n = 0; n < 100; n += 1) {
      server.realtime.publish(`prices:${n % 7}`, 'x'.repeat(1_000))
      expect(server.realtime.stats().historyBytes).toBeLessThanOrEqual(20_000)
    }
    const kept = range(0, 6).flatMap((n) => {
      const { publications } = server.realtime.history(`prices:${n}`, {
        limit: -1,
        since: undefined,
        reverse: false,
      })
      return publications.length
    })
    expect(kept.reduce((sum, count) => sum + count, 0)).toBe(17)
    expect(Math.max(...kept) - Math.min(...kept)).toBe(1)
  })
})
