/** Server-sent events, read by hand the way an EventSource does. */
import { describe, expect, test } from 'bun:test'
import { createTestClock } from '../clock.ts'
import { Reader } from './event-reader.ts'
import { serve, until, type TestServer } from './serve.ts'

const topics = {
  'prices:{region}': { subscribe: 'public', historySize: 1_000 },
  'short:{region}': { subscribe: 'public', historySize: 3, last: true },
  live: { subscribe: 'public' },
  last: { subscribe: 'public', last: true },
  members: { subscribe: 'signed-in' },
} as const

const range = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, i) => from + i)
const offsets = ({ messages }: Reader) => messages.map(({ offset }) => offset)

function publish(server: TestServer, topic: string, count: number): void {
  for (let n = 0; n < count; n += 1) server.realtime.publish(topic, { n })
}

describe('a stream', () => {
  test('misses 50 publications, comes back, and gets exactly those 50 in order', async () => {
    await using server = serve(topics)
    const first = await Reader.open(server, 'prices:NSW1')
    publish(server, 'prices:NSW1', 5)
    await until(() => first.messages.length === 5, 'five')
    expect(first.messages[4]).toEqual({ channel: 'prices:NSW1', data: { n: 4 }, offset: 5 })
    await first.close()
    await until(() => server.realtime.stats().connections === 0, 'gone')

    publish(server, 'prices:NSW1', 50)
    await using second = await Reader.open(server, 'prices:NSW1', first.lastEventId)
    publish(server, 'prices:NSW1', 1)
    await until(() => second.messages.length >= 51, 'all')
    expect(offsets(second)).toEqual(range(6, 56))
    expect(second.events.every(({ type }) => type === 'message')).toBeTrue()
  })

  test('that heard nothing yet still knows where it was', async () => {
    await using server = serve(topics)
    publish(server, 'prices:A', 3)
    const first = await Reader.open(server, 'prices:A')
    expect(first.events).toEqual([])
    await first.close()
    publish(server, 'prices:A', 2)
    await using second = await Reader.open(server, 'prices:A', first.lastEventId)
    expect(offsets(second)).toEqual([4, 5])
  })

  test('of several topics is replayed in the order things were published', async () => {
    await using server = serve(topics)
    const first = await Reader.open(server, 'prices:A,prices:B,prices:C')
    await first.close()
    const names = ['A', 'B', 'C', 'B', 'A', 'A', 'C', 'B']
    names.forEach((name, n) => server.realtime.publish(`prices:${name}`, n))
    server.realtime.publish('prices:D', 'not for it')
    await using second = await Reader.open(server, 'prices:C,prices:A,prices:B', first.lastEventId)
    names.forEach((name, n) => server.realtime.publish(`prices:${name}`, 8 + n))
    await until(() => second.messages.length >= 16, 'all')
    expect(second.messages.map(({ data }) => data)).toEqual(range(0, 15))
    expect(second.messages.map(({ channel }) => channel.slice(-1))).toEqual([...names, ...names])
  })

  test('is told of a gap, by topic, and gets the latest where that is declared', async () => {
    await using server = serve(topics)
    const first = await Reader.open(server, 'short:A,prices:A')
    publish(server, 'short:A', 1)
    await until(() => first.messages.length === 1, 'one')
    await first.close()
    publish(server, 'short:A', 4)
    publish(server, 'prices:A', 2)
    await using second = await Reader.open(server, 'short:A,prices:A', first.lastEventId)
    expect(second.events[0]).toMatchObject({ type: 'gap', data: { topics: ['short:A'] } })
    expect(second.messages.map(({ channel, offset }) => [channel, offset])).toEqual([
      ['short:A', 5],
      ['prices:A', 1],
      ['prices:A', 2],
    ])
  })

  test('a topic without history has a gap exactly when something was published', async () => {
    await using server = serve(topics)
    const first = await Reader.open(server, 'live')
    await first.close()
    await using second = await Reader.open(server, 'live', first.lastEventId)
    expect(second.events).toEqual([])
    await second.close()
    publish(server, 'live', 1)
    await using third = await Reader.open(server, 'live', second.lastEventId)
    expect(third.events).toMatchObject([{ type: 'gap', data: { topics: ['live'] } }])
  })

  test('an id of another process is a gap in everything', async () => {
    await using server = serve(topics)
    publish(server, 'prices:A', 3)
    for (const id of ['00000000:2', 'nonsense', `${'9'.repeat(40)}:1`]) {
      await using reader = await Reader.open(server, 'prices:A', id)
      expect(reader.events).toMatchObject([{ type: 'gap', data: { topics: ['prices:A'] } }])
    }
  })

  test('a topic that was dropped meanwhile is a gap', async () => {
    const clock = createTestClock()
    await using server = serve(
      { aged: { subscribe: 'public', historySize: 9, historyTtlMs: 1_000 } },
      { clock },
    )
    const first = await Reader.open(server, 'aged')
    await first.close()
    await until(() => server.realtime.stats().streams === 0, 'gone')
    publish(server, 'aged', 1)
    clock.advance(120_000)
    expect(server.realtime.stats().topics).toBe(0)
    await using second = await Reader.open(server, 'aged', first.lastEventId)
    expect(second.events).toMatchObject([{ type: 'gap', data: { topics: ['aged'] } }])
  })

  test('gets the latest of `last` topics on a first visit', async () => {
    await using server = serve(topics)
    publish(server, 'last', 3)
    await using reader = await Reader.open(server, 'last,live')
    expect(offsets(reader)).toEqual([3])
  })

  test('what one turn publishes is one chunk, the same for the whole group', async () => {
    await using server = serve(topics)
    await using one = await Reader.open(server, 'prices:A,prices:B')
    await using two = await Reader.open(server, 'prices:B,prices:A')
    const before = [one.chunks.length, two.chunks.length]
    for (let n = 0; n < 16; n += 1) server.realtime.publish(n % 2 ? 'prices:A' : 'prices:B', n)
    await until(() => one.messages.length === 16 && two.messages.length === 16, 'all')
    expect([one.chunks.length, two.chunks.length]).toEqual(before.map((count) => count + 1))
    expect(one.chunks.at(-1)).toBe(two.chunks.at(-1) ?? '')
    expect(server.realtime.stats()).toMatchObject({ streams: 2, subscriptions: 4 })
  })

  test('a publication in the turn of the opening is neither lost nor doubled', async () => {
    await using server = serve(topics)
    await using first = await Reader.open(server, 'prices:A')
    const opening = Reader.open(server, 'prices:A', first.lastEventId)
    for (let n = 0; n < 200; n += 1) {
      server.realtime.publish('prices:A', n)
      if (n % 3 === 0) await new Promise((resolve) => setImmediate(resolve))
    }
    await using second = await opening
    await until(() => first.messages.length >= 200 && second.messages.length >= 200, 'all')
    expect(offsets(first)).toEqual(range(1, 200))
    expect(offsets(second)).toEqual(range(1, 200))
  })

  test('has a comment every 25 s, a jittered retry, and ends with its token', async () => {
    const clock = createTestClock()
    await using server = serve(topics, { clock })
    const response = await fetch(`${server.url}/api/stream?topics=members`, {
      headers: { authorization: 'Bearer user:ann:60000' },
    })
    const reader = new Reader(response.body as ReadableStream<Uint8Array>)
    await until(() => reader.lastEventId !== '', 'the opening')
    expect(reader.retryMs).toBeWithin(1_000, 5_001)
    clock.advance(50_000)
    await until(() => reader.comments.length === 2, 'two comments')
    clock.advance(45_000)
    await until(() => reader.isDone, 'the end')
    expect(server.realtime.stats()).toMatchObject({ connections: 0, subscriptions: 0 })
  })

  test.each([
    ['', 400],
    ['topics=', 400],
    ['topics=live&room=1', 400],
    ['topics=live&topics=last', 400],
    ['topics=nothing', 404],
    ['topics=members', 403],
  ])('%s is refused with %i', async (query, status) => {
    await using server = serve(topics)
    const response = await fetch(`${server.url}/api/stream?${query}`)
    expect(response.status).toBe(status)
    expect(await response.json()).toMatchObject({ status })
    expect(server.realtime.stats().topics).toBe(0)
  })
})

describe('the server API', () => {
  const post = async (server: TestServer, path: string, body: unknown, key = 'key') => {
    const response = await fetch(`${server.url}/api/${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-api-key': key },
      body: JSON.stringify(body),
    })
    return { status: response.status, body: (await response.json()) as Record<string, unknown> }
  }

  test('publishes, broadcasts and reads history in the shapes of Centrifugo', async () => {
    await using server = serve(topics)
    const { status, body } = await post(server, 'publish', { channel: 'prices:A', data: { n: 1 } })
    expect(status).toBe(200)
    const epoch = (body as { result: { epoch: string } }).result.epoch
    expect(body).toEqual({ result: { offset: 1, epoch } })
    const broadcast = await post(server, 'broadcast', {
      channels: ['prices:A', 'nothing'],
      data: 2,
    })
    expect(broadcast.body).toEqual({
      result: {
        responses: [
          { result: { offset: 2, epoch } },
          { error: { code: 102, message: 'no declared topic matches nothing' } },
        ],
      },
    })
    expect((await post(server, 'history', { channel: 'prices:A', limit: 10 })).body).toEqual({
      result: {
        publications: [
          { data: { n: 1 }, offset: 1 },
          { data: 2, offset: 2 },
        ],
        offset: 2,
        epoch,
      },
    })
  })

  test.each([
    ['publish', { channel: 'prices:A', data: 1 }, 'wrong', 401],
    ['publish', { channel: 'nothing', data: 1 }, 'key', 404],
    ['publish', { channel: 'prices:A' }, 'key', 400],
    ['publish', { channel: 'prices:A', data: 1, tags: {} }, 'key', 400],
    ['publish', { channel: 'prices:A', data: 'x'.repeat(70_000) }, 'key', 413],
    ['broadcast', { channels: [], data: 1 }, 'key', 400],
    ['history', { channel: 'prices:A', limit: 'all' }, 'key', 400],
    ['history', { channel: 'prices:A', limit: 1, since: { offset: 9, epoch: 'x' } }, 'key', 409],
  ])('%s %j with key "%s" is refused with %i', async (path, body, key, status) => {
    await using server = serve(topics)
    expect((await post(server, path, body, key)).status).toBe(status)
  })
})
