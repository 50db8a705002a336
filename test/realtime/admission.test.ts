/** How many may come, how fast, and how they are sent away. */
import { Centrifuge } from 'centrifuge'
import { describe, expect, test } from 'bun:test'
import { createAdmission, type Guest } from '../../src/realtime/admission.ts'
import { createTestClock } from '../clock.ts'
import { RawClient, serve, until, type TestServer } from './serve.ts'

const topics = { live: { subscribe: 'public', historySize: 100 } } as const

describe('connects beyond the rate', () => {
  const limits = {
    connectionsMax: 100,
    connectionsPerAddressMax: Infinity,
    connectionsPerUserMax: Infinity,
    connectsPerSecond: 200,
    connectsBurst: 2,
    connectsWaitingMax: 7,
  }

  test('stand in line, and who has gone home takes no place', async () => {
    const clock = createTestClock()
    const admission = createAdmission(clock, limits)
    const order: number[] = []
    const enter = (n: number): Guest & { state: Guest['state'] } => {
      const guest: { state: Guest['state'] } = { state: 'opened' }
      const turn = admission.enter(guest)
      if (turn === 'now') order.push(n)
      else if (turn !== 'full') void turn.then(() => order.push(n))
      return guest
    }
    const guests = Array.from({ length: 9 }, (_, n) => enter(n))
    expect(admission.enter({ state: 'opened' })).toBe('full')
    expect([order, admission.waiting]).toEqual([[0, 1], 7])
    const step = async (ms: number) => {
      clock.advance(ms)
      await new Promise((resolve) => setImmediate(resolve))
    }
    await step(10)
    expect(order).toEqual([0, 1, 2, 3])
    const gone = guests[4]
    if (gone) gone.state = 'closed'
    await step(10)
    expect([order, admission.waiting]).toEqual([[0, 1, 2, 3, 4, 5, 6], 2])
    // Nobody overtakes, though there is room again.
    await step(9)
    enter(9)
    expect(admission.waiting).toBe(3)
    await step(1)
    expect(order.slice(7)).toEqual([7, 8])
    await step(10)
    expect([order.slice(7), admission.waiting]).toEqual([[7, 8, 9], 0])
    clock.advance(10_000)
    expect([enter(10).state, order.at(-1)]).toEqual(['opened', 10])
    admission.stop()
  })

  test('are all served, each with what it sent behind its connect', async () => {
    const clock = createTestClock()
    const limits = { connectsPerSecond: 1_000, connectsBurst: 5, connectsWaitingMax: 1_000 }
    await using server = serve(topics, { clock, limits })
    const clients = await Promise.all(
      Array.from({ length: 100 }, () => RawClient.open(server.wsUrl)),
    )
    for (const client of clients) {
      client.send('{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"live"}}')
      // Later than its `connect`, and still after it.
      client.send('{"id":3,"ping":{}}')
    }
    await until(() => server.realtime.stats().waiting === 95, 'all but the burst wait')
    await until(() => {
      clock.advance(10)
      return clients.every(({ replies }) => replies.length === 3)
    }, 'all are served')
    for (const { replies } of clients) expect(replies.map(({ id }) => id)).toEqual([1, 2, 3])
    expect(server.realtime.stats()).toMatchObject({ sockets: 100, subscriptions: 100 })
    for (const client of clients) client.close()
  })

  test('who stands in line when the server goes down is sent away', async () => {
    await using server = serve(topics, { limits: { connectsPerSecond: 0.001, connectsBurst: 1 } })
    await RawClient.connect(server.wsUrl)
    const waiting = await RawClient.open(server.wsUrl)
    waiting.send('{"id":1,"connect":{}}')
    await until(() => server.realtime.stats().waiting === 1, 'it waits')
    await server.realtime.drain()
    await until(() => waiting.closed !== undefined, 'closed')
    expect([waiting.closed?.code, waiting.replies]).toEqual([3001, []])
    expect(server.realtime.stats()).toMatchObject({ connections: 0, subscriptions: 0 })
  })

  test('a stock client that finds the line full comes back and gets in', async () => {
    await using server = serve(topics, {
      limits: { connectsPerSecond: 100, connectsBurst: 1, connectsWaitingMax: 1 },
    })
    const clients = Array.from(
      { length: 5 },
      () =>
        new Centrifuge(server.wsUrl, {
          minReconnectDelay: 1,
          maxReconnectDelay: 20,
          websocket: WebSocket,
        }),
    )
    for (const client of clients) client.connect()
    await Promise.all(clients.map((client) => client.ready(20_000)))
    for (const client of clients) client.disconnect()
  })
})

describe('event streams beyond the rate', () => {
  const open = async (server: TestServer, accept = 'text/event-stream') => {
    const abort = new AbortController()
    const response = await fetch(`${server.url}/api/stream?topics=live`, {
      headers: { accept },
      signal: abort.signal,
    })
    const stream = { status: response.status, text: '', isOver: false, leave: () => abort.abort() }
    const read = async () => {
      const decoder = new TextDecoder()
      for await (const chunk of response.body ?? []) stream.text += decoder.decode(chunk)
      stream.isOver = true
    }
    void read().catch(() => {})
    return stream
  }
  const hasBegun = ({ text }: { readonly text: string }) => text.includes('\nid: ')

  test('stand in the same line, their answers begun; who goes home takes no place', async () => {
    const clock = createTestClock()
    const limits = { connectsPerSecond: 100, connectsBurst: 2 }
    await using server = serve(topics, { clock, limits })
    const socket = await RawClient.connect(server.wsUrl)
    const first = await open(server)
    await until(() => hasBegun(first), 'the second place')
    const one = await open(server)
    const identity = { kind: 'anonymous', user: null } as const
    const visitor = { identity, address: '', topics: ['live'], lastEventId: undefined }
    const gone = server.realtime.stream(visitor)
    const two = await open(server)
    const late = await RawClient.open(server.wsUrl)
    late.send('{"id":1,"connect":{}}')
    await until(() => server.realtime.stats().waiting === 4, 'a line')
    for (const { status, text } of [one, two]) {
      expect([status, text]).toEqual([200, expect.stringMatching(/^(retry: \d+\n\n)?$/)])
    }
    expect(server.realtime.stats().streams).toBe(1)
    await gone.cancel()
    // A place each 10 ms, in order.
    clock.advance(10)
    await until(() => hasBegun(one), 'the first of the line')
    expect(server.realtime.stats()).toMatchObject({ waiting: 2, streams: 2 })
    clock.advance(10)
    await until(() => hasBegun(two), 'the one after who left')
    expect(server.realtime.stats()).toMatchObject({ waiting: 1, streams: 3 })
    clock.advance(10)
    await until(() => late.replies.length === 1, 'the socket')
    await until(() => server.realtime.stats().waiting === 0, 'all are served')
    expect(server.realtime.stats()).toMatchObject({ sockets: 2, streams: 3 })
    for (const stream of [first, one, two]) stream.leave()
    for (const client of [socket, late]) client.close()
  })

  test('that find the line full, or the server going down, are told when to come back; others get 503', async () => {
    const limits = { connectsPerSecond: 0.001, connectsBurst: 1, connectsWaitingMax: 1 }
    await using server = serve(topics, { limits })
    const inside = await open(server)
    const waiting = await open(server)
    const full = await open(server)
    await until(() => full.isOver, 'sent away')
    const ms = Number(/^retry: (\d+)\n\n$/.exec(full.text)?.[1])
    expect(full.status).toBe(200)
    expect(ms).toBeWithin(4_000, 12_001)
    expect((await open(server, '*/*')).status).toBe(503)
    await server.realtime.drain()
    await until(() => inside.isOver, 'the drain')
    expect(waiting.isOver).toBe(false)
    const after = await open(server)
    await until(() => after.isOver, 'nobody is served')
    expect([after.status, after.text]).toEqual([200, expect.stringMatching(/^retry: \d+\n\n$/)])
    server.realtime.stop()
    await until(() => waiting.isOver, 'who stood in line')
    expect(waiting.text).toMatch(/^retry: \d+\n\n$/)
  })
})

describe('connections at once', () => {
  const stream = (server: TestServer, token?: string) =>
    fetch(`${server.url}/api/stream?topics=live`, {
      headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
    })

  test('of one user: the next is closed with 3504, a stream gets 429', async () => {
    await using server = serve(topics, { limits: { connectionsPerUserMax: 2 } })
    const first = await RawClient.connect(server.wsUrl, 'user:ann')
    const response = await stream(server, 'user:ann')
    expect(response.status).toBe(200)
    const third = await RawClient.open(server.wsUrl)
    third.send('{"id":1,"connect":{"token":"user:ann"}}')
    await until(() => third.closed !== undefined, 'closed')
    expect(third.closed).toEqual({ code: 3504, reason: 'connection limit' })
    expect((await stream(server, 'user:ann')).status).toBe(429)
    const bob = await RawClient.connect(server.wsUrl, 'user:bob')
    first.close()
    await until(() => server.realtime.stats().sockets === 1, 'one has left')
    const again = await RawClient.connect(server.wsUrl, 'user:ann')
    for (const client of [bob, again]) client.close()
    await response.body?.cancel()
    await until(() => server.realtime.stats().connections === 0, 'all have left')
    const two = [await stream(server, 'user:ann'), await stream(server, 'user:ann')]
    expect(two.map(({ status }) => status)).toEqual([200, 200])
    for (const { body } of two) await body?.cancel()
  })

  test('of one address: the next is refused with 429', async () => {
    await using server = serve(topics, { limits: { connectionsPerAddressMax: 2 } })
    const first = await RawClient.connect(server.wsUrl)
    const response = await stream(server)
    expect((await stream(server)).status).toBe(429)
    const refused = new RawClient(server.wsUrl)
    await until(() => refused.closed !== undefined, 'refused')
    await response.body?.cancel()
    await until(() => server.realtime.stats().streams === 0, 'the stream has left')
    const next = await RawClient.connect(server.wsUrl)
    for (const client of [first, next]) client.close()
  })
})

describe('a drain', () => {
  const last = ({ replies }: RawClient) =>
    (replies.at(-1)?.push as { disconnect?: { reconnect_after_ms?: number } } | undefined)
      ?.disconnect?.reconnect_after_ms

  test('is spread, and tells each when to come back: after the restart, in turn', async () => {
    const clock = createTestClock()
    await using server = serve(topics, {
      clock,
      limits: { connectsPerSecond: 500, drainMs: 300 },
    })
    const clients: RawClient[] = []
    while (clients.length < 300) {
      const some = Array.from({ length: 100 }, () => RawClient.connect(server.wsUrl))
      clients.push(...(await Promise.all(some)))
    }
    const drained = server.realtime.drain()
    const gone = () => clients.filter(({ closed }) => closed).length
    await until(() => gone() === 100, 'the first step')
    clock.advance(100)
    await until(() => gone() === 200, 'the second')
    clock.advance(100)
    await drained
    await until(() => gone() === 300, 'the third')
    for (const { closed } of clients) expect(closed).toEqual({ code: 3001, reason: 'shutdown' })
    const delays = clients
      .map(last)
      .map(Number)
      .toSorted((a, b) => a - b)
    // From the end of the drain and a second for the restart, 400 a second; less what has passed.
    expect(delays[0]).toBe(1_200)
    expect(delays.at(-1)).toBe(1_000 + Math.round((299 * 1_000) / 400))
    const backs = new Set(delays)
    expect(backs.size).toBeGreaterThan(200)
    await expect(RawClient.open(server.wsUrl)).rejects.toThrow()
  })

  test('what was published before it is heard first', async () => {
    await using server = serve(topics)
    const client = await RawClient.connect(server.wsUrl)
    await client.call({ subscribe: { channel: 'live' } })
    server.realtime.publish('live', 1)
    await server.realtime.drain()
    await until(() => client.closed !== undefined, 'closed')
    expect(client.publications.map(({ offset }) => offset)).toEqual([1])
  })

  test('the stock client comes back by itself; a stream is told when', async () => {
    await using server = serve(topics)
    const client = new Centrifuge(server.wsUrl, { minReconnectDelay: 1, websocket: WebSocket })
    const codes: number[] = []
    client.on('connecting', ({ code }) => void codes.push(code))
    client.connect()
    await client.ready()
    const response = await fetch(`${server.url}/api/stream?topics=live`)
    const text = response.text()
    await server.realtime.drain()
    await until(() => codes.length === 2, 'it is connecting again')
    expect(codes[1]).toBe(3001)
    expect(await text).toMatch(/retry: 10\d\d\n\n$/)
    client.disconnect()
  })
})
