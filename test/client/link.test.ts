/** What a server may do to a client, by a server that does nothing else. */
import { describe, expect, test } from 'bun:test'
import { createClient, type Gap, type State } from '../../src/client/client.ts'
import { createTestClock } from '../clock.ts'
import { until } from '../harness.ts'
import { fakeServer } from './fake-server.ts'

const connect = { client: 'c', version: '1', ping: 25, pong: true }

/** Replies to `subscribe` by connection: where the topic stands, and whether what was missed is there. */
function server(...replies: readonly unknown[]) {
  return fakeServer((method, _, connection) =>
    method === 'connect' ? connect : method === 'subscribe' ? replies[connection] : {},
  )
}

const standsAt = (offset: number, more: object = {}) => ({
  ...{ recoverable: true, positioned: true, epoch: 'e', offset },
  ...more,
})

const publication = (offset: number) => ({
  push: { channel: 'room', pub: { data: { offset }, offset } },
})

const sentAway = (reconnect_after_ms?: number) => ({
  push: { disconnect: { code: 3001, reason: 'shutdown', reconnect_after_ms } },
})

function listen(url: string, after?: (ms: number, run: () => void) => () => void) {
  const states: State[] = []
  const heard: unknown[] = []
  const gaps: Gap[] = []
  const client = createClient({
    url,
    state: (state) => states.push(state),
    ...(after ? { after } : {}),
    centrifuge: { minReconnectDelay: 1, maxReconnectDelay: 20, websocket: WebSocket },
  })
  const room = client.subscribe('room', {
    message: (data) => heard.push((data as { offset: number }).offset),
    gap: (gap) => {
      gaps.push(gap)
      heard.push(gap)
    },
  })
  return { client, room, states, heard, gaps }
}

describe('reconnect_after_ms', () => {
  test('is obeyed: no connection before it is over, then each topic from its position', async () => {
    const clock = createTestClock()
    using fake = server(standsAt(0), standsAt(1, { recovered: true, was_recovering: true }))
    const { client, room, states, heard } = listen(fake.url, clock.after)
    await until(() => states.includes('connected') && fake.commands.length === 2, 'subscribed')
    fake.push(publication(1))
    await until(() => heard.length === 1, 'heard')

    fake.push(sentAway(4_000))
    fake.close(3001, 'shutdown')
    await until(() => states.length === 3, 'sent away')
    // Any reconnect of the stock client's own would come within 20 ms of real time: let those pass by
    // making a whole round trip of another kind.
    for (let trip = 0; trip < 50; trip += 1) await fetch(fake.url)
    clock.advance(3_999)
    for (let trip = 0; trip < 50; trip += 1) await fetch(fake.url)
    expect([fake.opened, states]).toEqual([1, ['connecting', 'connected', 'connecting']])
    clock.advance(1)
    await until(() => fake.commands.length === 4, 'subscribed again')
    expect(fake.opened).toBe(2)
    expect(fake.commands[3]).toEqual({
      subscribe: { channel: 'room', flag: 1, recover: true, epoch: 'e', offset: 1 },
    })
    await until(() => client.state === 'connected', 'connected again')
    fake.push(publication(2))
    await until(() => heard.length === 2, 'heard again')
    expect([heard, room.position]).toEqual([[1, 2], { epoch: 'e', offset: 2 }])
    client.close()
  })

  test('a client that is closed meanwhile stays closed', async () => {
    const clock = createTestClock()
    using fake = server(standsAt(0))
    const { client, states } = listen(fake.url, clock.after)
    await until(() => fake.commands.length === 2, 'subscribed')
    fake.push(sentAway(10))
    await until(() => states.length === 3, 'sent away')
    client.close()
    clock.advance(10)
    for (let trip = 0; trip < 50; trip += 1) await fetch(fake.url)
    expect(fake.opened).toBe(1)
  })

  test('what is asked for meanwhile waits, too', async () => {
    const clock = createTestClock()
    using fake = server(standsAt(0), standsAt(0, { recovered: true, was_recovering: true }))
    const { client, states } = listen(fake.url, clock.after)
    await until(() => fake.commands.length === 2, 'subscribed')
    fake.push(sentAway(10))
    await until(() => states.length === 3, 'sent away')
    const called = client.rpc('GET /api/posts')
    client.subscribe('other', {})
    for (let trip = 0; trip < 50; trip += 1) await fetch(fake.url)
    expect(fake.opened).toBe(1)
    clock.advance(10)
    await called
    expect(fake.commands.slice(2).map((command) => Object.keys(command)[0])).toContain('rpc')
    expect(fake.opened).toBe(2)
    client.close()
  })

  test('without one the stock client comes back by its own measure', async () => {
    using fake = server(standsAt(0), standsAt(0, { recovered: true, was_recovering: true }))
    const { client } = listen(fake.url, () => {
      throw new Error('nobody said when')
    })
    await until(() => fake.commands.length === 2, 'subscribed')
    fake.push(sentAway())
    await until(() => fake.commands.length === 4, 'subscribed again')
    client.close()
  })

  test('a server that wants no return gets none', async () => {
    using fake = server(standsAt(0))
    const { client, states } = listen(fake.url)
    await until(() => fake.commands.length === 2, 'subscribed')
    fake.push({ push: { disconnect: { code: 3503, reason: 'force disconnect' } } })
    await until(() => client.state === 'closed', 'closed')
    expect(states).toEqual(['connecting', 'connected', 'closed'])
  })
})

describe('a gap', () => {
  test('is told before what follows it, when a number is skipped; what comes twice is heard once', async () => {
    using fake = server(standsAt(0))
    const { client, heard } = listen(fake.url)
    await until(() => fake.commands.length === 2, 'subscribed')
    for (const offset of [1, 2, 2, 5, 4, 6]) fake.push(publication(offset))
    await until(() => heard.at(-1) === 6, 'the last')
    expect(heard).toEqual([1, 2, { reason: 'missed', missed: 2 }, 5, 6])
    client.close()
  })

  test('is told when nothing could be recovered, and by how much', async () => {
    using fake = server(standsAt(0), standsAt(9, { was_recovering: true }))
    const { client, heard, gaps } = listen(fake.url)
    await until(() => fake.commands.length === 2, 'subscribed')
    fake.push(publication(1))
    await until(() => heard.length === 1, 'heard')
    fake.close(3000, 'x')
    await until(() => gaps.length === 1, 'told')
    expect(gaps).toEqual([{ reason: 'missed', missed: 8 }])
    client.close()
  })

  test('also in a topic that keeps nothing, which the stock client never asks to recover', async () => {
    const bare = (offset: number) => standsAt(offset, { recoverable: false })
    using fake = server(bare(3), bare(4))
    const { client, heard, gaps } = listen(fake.url)
    await until(() => fake.commands.length === 2, 'subscribed')
    fake.close(3000, 'x')
    await until(() => gaps.length === 1, 'told')
    expect([gaps, heard.slice(1)]).toEqual([[{ reason: 'missed', missed: 1 }], []])
    client.close()
  })
})

test('a handler that throws is reported, and nothing stops', async () => {
  using fake = server(standsAt(0))
  const errors: unknown[] = []
  const heard: unknown[] = []
  const client = createClient({ url: fake.url, error: (error) => errors.push(error) })
  client.subscribe('room', {
    message(data) {
      heard.push(data)
      throw new Error('no')
    },
  })
  await until(() => fake.commands.length === 2, 'subscribed')
  fake.push(publication(1))
  fake.push(publication(2))
  await until(() => heard.length === 2, 'both are heard')
  expect(errors).toEqual([new Error('no'), new Error('no')])
  client.close()
})
