/** Streams that never end: what they say arrives in order, once, and whatever ends them, they are followed again. */
import { describe, expect, test } from 'bun:test'
import { systemClock } from '../../src/lib/clock.ts'
import type { StreamMessage } from '../../src/upstream/declare.ts'
import { createSseParser, type ServerSentEvent } from '../../src/upstream/sse.ts'
import { createFollower, type Follower, type StreamOptions } from '../../src/upstream/upstream.ts'
import { createTestClock, type TestClock } from '../clock.ts'
import { createTestLog, until } from '../harness.ts'
import { createRandom } from '../lib/random.ts'
import { rawServer } from './setup.ts'

/** Follows it, and keeps what it hears. */
function follow(
  kind: StreamOptions['kind'],
  url: string,
  changed: Partial<StreamOptions> = {},
  clock = systemClock,
) {
  const log = createTestLog()
  const heard: StreamMessage[] = []
  const states: boolean[] = []
  const follower = createFollower(
    { clock, log, random: () => 0 },
    {
      ...{ name: 's', kind, url, headers: {}, silenceMs: 60_000, lengthMax: 1_000 },
      subscribe: () => [],
      take: (messages) => {
        heard.push(...messages)
        return Promise.resolve()
      },
      onState: ({ isLive }) => void states.push(isLive),
      ...changed,
    },
  )
  follower.start()
  return {
    ...{ log, heard, states, follower },
    data: () => heard.map(({ data }) => data),
    [Symbol.asyncDispose]: async () => await follower.stop(),
  }
}

/** Time goes on until it tries again, and stands still while it does. */
const again = (follower: Follower, clock: TestClock) => {
  const { connects } = follower.stats()
  return until(() => {
    if (follower.stats().connects === connects) clock.advance(250)
    return follower.stats().connects > connects
  }, 'it tries again')
}

const eventHead = 'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n'

/** Says what it is told, to each connection in turn; each entry is one write, and `end` ends it. */
const saying = (...connections: readonly (readonly string[])[]) =>
  rawServer((socket, _, nth) => {
    const texts = connections[Math.min(nth, connections.length - 1)] ?? []
    socket.write(eventHead)
    for (const text of texts) {
      if (text === 'end') socket.end()
      else socket.write(text)
    }
  })

describe('server-sent events', () => {
  test('arrive in order, and again from where they were, with what the server said it wants', async () => {
    await using server = await saying(
      [
        ': hi\n\nid: 1\ndata: a\n\n',
        'event: tick\nid: 2\ndata: b\ndata: c\n\n',
        // An event that is cut off has not been told.
        'id: 3\ndata: cut\n',
        'end',
      ],
      ['id: 3\r\ndata: d\r\n\r\n'],
    )
    await using one = follow('sse', server.url, { headers: { authorization: 'Bearer t' } })
    await until(() => one.heard.length === 3, 'the third comes by another connection')
    expect(one.heard).toEqual([
      { data: 'a', event: 'message', id: '1' },
      { data: 'b\nc', event: 'tick', id: '2' },
      { data: 'd', event: 'message', id: '3' },
    ])
    const [first, second] = server.requests.map((head) => head.toLowerCase())
    expect(first).toContain('accept: text/event-stream')
    expect(first).not.toContain('last-event-id')
    expect(second).toContain('last-event-id: 2')
    expect(second).toContain('authorization: bearer t')
    expect(one.states).toEqual([true, false, true])
    expect(one.follower.stats()).toMatchObject({
      connects: 2,
      failures: 1,
      messages: 3,
      isLive: true,
    })
  })

  test.each([
    ['another status', 'HTTP/1.1 503 X\r\ncontent-type: text/event-stream\r\n\r\n'],
    ['a redirect', 'HTTP/1.1 302 X\r\nlocation: http://x.test/\r\ncontent-length: 0\r\n\r\n'],
    ['another type', 'HTTP/1.1 200 X\r\ncontent-type: text/html\r\n\r\n<p>'],
    ['no HTTP', 'hello\r\n\r\n'],
    ['nothing', ''],
    ['a line without end', `${eventHead}data: ${'x'.repeat(2_000)}`],
    ['an event without end', eventHead + 'data: 0123456789\n'.repeat(200)],
  ])('%s: is tried again', async (_, bytes) => {
    await using server = await rawServer((socket, __, nth) => {
      if (nth === 0) socket.end(bytes)
      else socket.write(`${eventHead}data: there\n\n`)
    })
    await using one = follow('sse', server.url)
    await until(() => one.heard.length === 1, 'it comes')
    expect(one.data()).toEqual(['there'])
    const lost = one.log.lines.filter(({ event }) => event === 'stream.lost')
    expect(lost.length).toBe(1)
  })

  test('when it is silent, it is connected anew; comments are no silence', async () => {
    const clock = createTestClock()
    await using server = await saying([])
    await using one = follow('sse', server.url, { silenceMs: 1_000 }, clock)
    await until(() => server.requests.length === 1, 'it is connected')
    clock.advance(999)
    expect(one.follower.stats().failures).toBe(0)
    clock.advance(1)
    await until(() => one.follower.stats().failures === 1, 'it is given up')
    await again(one.follower, clock)
    await until(() => server.requests.length === 2, 'it is connected anew')
  })

  test('the server says when to come again, but not for longer than a minute', async () => {
    const clock = createTestClock()
    await using server = await saying(
      ['retry: 5000\ndata: a\n\n', 'end'],
      ['retry: 999999999\n\n', 'end'],
    )
    await using one = follow('sse', server.url, {}, clock)
    await until(() => one.follower.stats().failures === 1, 'it ended')
    clock.advance(4_999)
    expect(server.requests.length).toBe(1)
    clock.advance(1)
    await until(() => one.follower.stats().failures === 2, 'it ended again')
    clock.advance(60_000)
    await until(() => server.requests.length === 3, 'it is asked all the same')
  })

  test('what waits is bounded: who takes slowly is not sent more', async () => {
    const event = `data: ${'x'.repeat(900)}\n\n`
    let written = 0
    await using server = await rawServer((socket) => {
      socket.write(eventHead)
      const more = (): void => {
        while (written < 200_000 && !socket.destroyed && socket.write(event)) written++
      }
      socket.on('drain', more)
      more()
    })
    let isOpen = false
    const gate = Promise.withResolvers<void>()
    let most = 0
    let taken = 0
    const take: StreamOptions['take'] = async (messages) => {
      most = Math.max(most, messages.length)
      taken += messages.length
      if (!isOpen) await gate.promise
    }
    await using one = follow('sse', server.url, { take })
    let before = -1
    await until(async () => {
      const isStill = before === written && written > 1_000
      before = written
      await Bun.sleep(20)
      return isStill
    }, 'it is not read any more')
    // 1,000 that wait, and what was read at once with the last of them; the rest is in the sockets' buffers.
    expect(one.follower.stats().messages).toBeLessThan(3_000)
    isOpen = true
    gate.resolve()
    const mark = taken
    await until(() => taken > mark + 5_000, 'it is read on')
    expect(most).toBeLessThan(3_000)
  })

  test('who cannot take them loses them, is told in the log, and hears what follows', async () => {
    await using server = await saying(['data: a\n\n'])
    let times = 0
    await using one = follow('sse', server.url, {
      take: () => (times++ === 0 ? Promise.reject(new Error('oh')) : Promise.resolve()),
    })
    await until(() => one.follower.stats().lost === 1, 'it is lost')
    expect(one.log.lines.map(({ event }) => event)).toContain('stream.not_taken')
    expect(one.follower.stats()).toMatchObject({ isLive: true, failures: 0 })
  })

  test('each connection begins by catching up, before anything that it says is taken', async () => {
    await using server = await saying(['data: a\n\n', 'end'], ['data: b\n\n'])
    const order: string[] = []
    const gates = [Promise.resolve(), Promise.withResolvers<void>()] as const
    let times = 0
    await using one = follow('sse', server.url, {
      async catchUp() {
        await (times++ === 0 ? gates[0] : gates[1].promise)
        order.push('caught up')
      },
      take: async (messages) => void order.push(...messages.map(({ data }) => String(data))),
    })
    await until(() => one.follower.stats().messages === 2, 'both are there')
    expect(order).toEqual(['caught up', 'a'])
    gates[1].resolve()
    await until(() => order.length === 4, 'both are taken')
    expect(order).toEqual(['caught up', 'a', 'caught up', 'b'])
  })

  test('catches up although nothing is said', async () => {
    await using server = await saying([])
    let times = 0
    await using one = follow('sse', server.url, { catchUp: async () => void times++ })
    await until(() => times === 1, 'it is caught up')
    expect(one.follower.stats().messages).toBe(0)
  })

  test('what fails to catch up is done again while the connection lasts, and the rest goes on', async () => {
    await using server = await saying(['data: a\n\n'], ['data: b\n\n'])
    let times = 0
    await using one = follow('sse', server.url, {
      async catchUp(signal) {
        times++
        if (times === 1) {
          await until(() => one.follower.stats().messages === 1, 'the first is there')
          throw new Error('oh')
        }
        if (times > 2) return
        // Cut off with its connection.
        await new Promise((_, reject) =>
          signal.addEventListener('abort', () => reject(new Error())),
        )
      },
    })
    await until(() => times === 2, 'again')
    expect(one.data()).toEqual(['a'])
    server.cut()
    await until(() => one.heard.length === 2, 'the next connection')
    expect([times, one.data()]).toEqual([3, ['a', 'b']])
    const told = one.log.lines.filter(({ event }) => event === 'stream.not_caught_up')
    expect(told).toHaveLength(1)
  })

  test('stopped, it may be begun again; what is being taken is waited for', async () => {
    await using server = await saying(['data: a\n\n'])
    const gate = Promise.withResolvers<void>()
    await using one = follow('sse', server.url, { take: async () => await gate.promise })
    await until(() => one.follower.stats().messages === 1, 'it comes')
    let isStopped = false
    const stopping = (async () => {
      await one.follower.stop()
      isStopped = true
    })()
    await Bun.sleep(0)
    expect(isStopped).toBe(false)
    gate.resolve()
    await stopping
    one.follower.start()
    await until(() => one.follower.stats().messages === 2, 'it comes again')
    expect(one.follower.stats().failures).toBe(0)
  })

  test('an URL’s secrets are in no line of the log', async () => {
    await using one = follow('sse', 'http://127.0.0.1:1/path?key=secret')
    await until(() => one.log.lines.length > 0, 'it is told')
    await using other = follow('websocket', 'ws://127.0.0.1:1/path?key=secret')
    await until(() => other.log.lines.length > 0, 'it is told')
    const lines = [...one.log.lines, ...other.log.lines].map(({ fields }) =>
      String(fields['error']),
    )
    expect(lines.join()).not.toMatch(/secret|path/)
    expect(lines.join()).toContain('127.0.0.1:1')
  })
})

test('the parser hears the same, however it is cut into pieces', () => {
  const text =
    'id: 1\r\ndata: ä\r\ndata: 2\r\n\r\n: c\n\ndata\ndata:  b\n\nretry: 5\revent: e\rdata: c\r\rdata: d\n\n'
  const bytes = new TextEncoder().encode(text)
  const whole = createSseParser(1_000, '').push(bytes)
  expect(whole).toEqual([
    { data: 'ä\n2', event: 'message', id: '1' },
    { data: '\n b', event: 'message', id: '1' },
    { data: 'c', event: 'e', id: '1' },
    { data: 'd', event: 'message', id: '1' },
  ])
  for (let seed = 1; seed <= 200; seed++) {
    const random = createRandom(seed)
    const parser = createSseParser(1_000, '')
    const events: ServerSentEvent[] = []
    for (let at = 0; at < bytes.length;) {
      const next = at + 1 + random.below(6)
      events.push(...(parser.push(bytes.subarray(at, next)) ?? []))
      at = next
    }
    expect(events, `seed ${seed}`).toEqual([...(whole ?? [])])
    expect(parser.retryMs).toBe(5)
  }
})

describe('a WebSocket', () => {
  /** Tells what it hears; `say` speaks to all who are connected. */
  function open(changed: Partial<Bun.WebSocketHandler<undefined>> = {}) {
    const heard: string[] = []
    const sockets = new Set<Bun.ServerWebSocket<undefined>>()
    const server = Bun.serve({
      hostname: '127.0.0.1',
      port: 0,
      fetch(request, { upgrade }) {
        heard.push(`open ${request.headers.get('x-key')}`)
        if (upgrade.call(server, request)) return undefined
        return new Response('no', { status: 400 })
      },
      websocket: {
        maxPayloadLength: 1e8,
        open: (socket) => void sockets.add(socket),
        close: (socket) => void sockets.delete(socket),
        message: (_, message) => void heard.push(String(message)),
        ...changed,
      },
    }) as Bun.Server<undefined>
    return {
      url: `ws://127.0.0.1:${server.port}/`,
      ...{ heard, sockets },
      say(message: string | Uint8Array) {
        for (const socket of sockets) socket.send(message)
      },
      [Symbol.asyncDispose]: async () => await server.stop(true),
    }
  }

  test('is subscribed again at each connection', async () => {
    await using server = open()
    await using one = follow('websocket', server.url, {
      headers: { 'x-key': 'k' },
      subscribe: () => ['hello', { op: 'subscribe', to: ['a'] }],
    })
    const subscribed = ['open k', 'hello', '{"op":"subscribe","to":["a"]}']
    await until(() => server.heard.length === 3, 'it is subscribed')
    server.say('a')
    await until(() => one.heard.length === 1, 'it is heard')
    for (const socket of server.sockets) socket.close()
    await until(() => server.heard.length === 6, 'it is subscribed again')
    expect(server.heard).toEqual([...subscribed, ...subscribed])
    server.say('b')
    await until(() => one.heard.length === 2, 'it is heard')
    expect([one.data(), one.states]).toEqual([
      ['a', 'b'],
      [true, false, true],
    ])
  })

  test('catches up once it is subscribed, although nothing is said', async () => {
    await using server = open()
    const heard: string[][] = []
    await using one = follow('websocket', server.url, {
      subscribe: () => ['hello'],
      catchUp: async () => void heard.push([...server.heard]),
    })
    await until(() => heard.length === 1, 'it is caught up')
    expect(heard).toEqual([['open null', 'hello']])
    expect(one.follower.stats()).toMatchObject({ isLive: true, messages: 0 })
  })

  test('bytes are bytes, and who takes may answer', async () => {
    await using server = open()
    await using one = follow('websocket', server.url, {
      take: (messages, send) => {
        for (const { data } of messages) send({ got: [...(data as Uint8Array)] })
        return Promise.resolve()
      },
    })
    await until(() => server.sockets.size === 1, 'it is connected')
    server.say(new Uint8Array([1, 2]))
    await until(() => server.heard.includes('{"got":[1,2]}'), 'it is answered')
    expect(one.follower.stats().messages).toBe(1)
  })

  test('a message that is too long ends it, and is not taken', async () => {
    await using server = open()
    await using one = follow('websocket', server.url)
    await until(() => server.sockets.size === 1, 'it is connected')
    server.say('x'.repeat(1_001))
    await until(() => one.follower.stats().connects === 2, 'it is connected anew')
    expect(one.heard).toEqual([])
    expect(String(one.log.lines[0]?.fields['error'])).toContain('sent more than 1000')
  })

  test('one that answers no ping is connected anew; one that does is not', async () => {
    const clock = createTestClock()
    // Its upgrade is all it ever does.
    await using dead = await rawServer((socket, head) => {
      const key = /sec-websocket-key: (\S+)/i.exec(head)?.[1] ?? ''
      const accept = new Bun.CryptoHasher('sha1')
        .update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
        .digest('base64')
      const lines = ['HTTP/1.1 101 X', 'upgrade: websocket', 'connection: upgrade']
      socket.write(`${[...lines, `sec-websocket-accept: ${accept}`].join('\r\n')}\r\n\r\n`)
    })
    await using one = follow(
      'websocket',
      dead.url.replace('http', 'ws'),
      { silenceMs: 1_000 },
      clock,
    )
    await until(() => dead.requests.length === 1, 'it is connected')
    clock.advance(1_000)
    await until(() => one.follower.stats().failures === 1, 'it is given up')
    await again(one.follower, clock)
    await until(() => dead.requests.length === 2, 'it is connected anew')

    const pings: unknown[] = []
    await using alive = open({ ping: (socket) => void pings.push(socket) })
    const time = createTestClock()
    await using other = follow(
      'websocket',
      alive.url,
      { silenceMs: 1_000, subscribe: () => ['ready'] },
      time,
    )
    await until(() => alive.heard.includes('ready'), 'it is connected, at both ends')
    for (let round = 1; round <= 6; round++) {
      await until(() => other.follower.stats().connects === 1, 'it stays')
      time.advance(500)
      // Once at the beginning, too.
      await until(() => pings.length > round, 'it is asked')
      // There and back, some times: what was on its way before, the pong, has arrived.
      for (let trip = 0; trip < 5; trip++) await fetch(alive.url.replace('ws', 'http'))
    }
    expect(other.follower.stats().failures).toBe(0)
  })

  test('who takes slowly pauses it', async () => {
    await using server = open()
    const gate = Promise.withResolvers<void>()
    let taken = 0
    await using one = follow('websocket', server.url, {
      take: async (messages) => {
        await gate.promise
        taken += messages.length
      },
    })
    await until(() => server.sockets.size === 1, 'it is connected')
    for (let n = 0; n < 20_000; n++) server.say('x'.repeat(900))
    await until(() => one.follower.stats().messages > 1_000, 'they come')
    await Bun.sleep(50)
    expect(one.follower.stats().messages).toBeLessThan(10_000)
    gate.resolve()
    await until(() => taken === 20_000, 'all of them are taken')
  })

  test('refused: tried again, further and further apart', async () => {
    const clock = createTestClock()
    await using server = await rawServer((socket) => void socket.end('HTTP/1.1 403 X\r\n\r\n'))
    const times: number[] = []
    const follower = createFollower(
      { clock, log: createTestLog(), random: () => 1 },
      {
        ...{ name: 's', kind: 'websocket', url: server.url.replace('http', 'ws'), headers: {} },
        ...{ silenceMs: 60_000, lengthMax: 1_000, subscribe: () => [] },
        take: () => Promise.resolve(),
        onState: () => void times.push(clock.tick()),
      },
    )
    follower.start()
    for (let failures = 1; failures <= 5; failures++) {
      await until(() => {
        if (follower.stats().connects < failures) clock.advance(250)
        return times.length >= failures
      }, 'it fails')
    }
    await follower.stop()
    const gaps = times.slice(1).map((at, n) => at - (times[n] ?? 0))
    // 0.75, 2.25, 6.75 and 20.25 s, and what the connection took.
    expect(gaps).toEqual(gaps.toSorted((a, b) => a - b))
    expect(gaps.at(-1)).toBeGreaterThanOrEqual(20_250)
  })
})
