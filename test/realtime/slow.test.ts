/** Readers that do not keep up, and what is left behind when everybody is gone. */
import { expect, test } from 'bun:test'
import { createTestClock } from '../clock.ts'
import { RawClient, serve, until, type TestServer } from './serve.ts'

const topics = { 'feed:{name}': { subscribe: 'public', historySize: 100 } } as const

interface Tcp {
  readonly received: Buffer[]
  isClosed: boolean
  readonly pause: () => void
  readonly resume: () => void
  readonly write: (bytes: string | Uint8Array) => void
}

async function tcp(server: TestServer, request: string): Promise<Tcp> {
  const received: Buffer[] = []
  const connection = await Bun.connect({
    hostname: '127.0.0.1',
    port: Number(new URL(server.url).port),
    socket: {
      data: (_, bytes) => void received.push(Buffer.from(bytes)),
      close: () => {
        tcp.isClosed = true
      },
      error: () => {},
    },
  })
  const tcp: Tcp = {
    received,
    isClosed: false,
    pause: () => connection.pause(),
    resume: () => connection.resume(),
    write: (bytes) => void connection.write(bytes),
  }
  tcp.write(`${request}\r\nHost: localhost\r\n`)
  return tcp
}

/** A client's text frame, masked with zeros. */
function frame(text: string): Uint8Array {
  const bytes = Buffer.from(text)
  return Buffer.concat([Buffer.from([0x81, 0x80 | bytes.length, 0, 0, 0, 0]), bytes])
}

test('a slow socket is closed with 3008 before anything is dropped; others hear all', async () => {
  await using server = serve(topics)
  const healthy = await RawClient.connect(server.wsUrl)
  await healthy.call({ subscribe: { channel: 'feed:a' } })
  const slow = await tcp(server, 'GET /connection/websocket HTTP/1.1')
  slow.write(
    'Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n' +
      'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
  )
  await until(() => server.realtime.stats().sockets === 2, 'open')
  slow.write(frame('{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"feed:a"}}'))
  await until(() => server.realtime.stats().subscriptions === 2, 'subscribed')
  await until(() => slow.received.length >= 2, 'answered')
  slow.pause()

  let published = 0
  while (server.realtime.stats().slow === 0 && published < 5_000) {
    server.realtime.publish('feed:a', `${published}:${'x'.repeat(published % 2 ? 9_000 : 90)}`)
    published += 1
    if (published % 4 === 0) await new Promise((resolve) => setImmediate(resolve))
  }
  expect(server.realtime.stats()).toMatchObject({ slow: 1, sockets: 1, subscriptions: 1 })
  for (let n = 0; n < 10; n += 1) server.realtime.publish('feed:a', n)
  await until(() => healthy.publications.length === published + 10, 'the healthy one has all')

  slow.resume()
  await until(() => slow.isClosed, 'the slow one is closed')
  const bytes = Buffer.concat(slow.received)
  // What it did get has no hole in it, and ends with the close frame 3008.
  const offsets = [...bytes.toString('latin1').matchAll(/"offset":(\d+)}}}/g)].map(([, n]) =>
    Number(n),
  )
  expect(offsets).toEqual(offsets.map((_, index) => index + 1))
  expect(bytes.subarray(-8).toString('hex')).toBe('88060bc0736c6f77')
  healthy.close()
})

test('a process that stands still costs bounded memory, gets 3008, and disturbs nobody', async () => {
  await using server = serve(topics)
  const healthy = await RawClient.connect(server.wsUrl)
  await healthy.call({ subscribe: { channel: 'feed:a' } })
  const paused = 5
  let said: unknown
  const fixture = `${import.meta.dir}/paused-fixture.ts`
  const child = Bun.spawn([process.execPath, fixture, server.wsUrl, 'feed:a', String(paused)], {
    stdio: ['ignore', 'inherit', 'inherit'],
    ipc: (message) => {
      said = message
    },
  })
  await until(() => said === 'ready', 'they listen')
  const connections = server.realtime.connectionsOf('ann')
  expect(connections).toHaveLength(paused)
  child.kill('SIGSTOP')

  let published = 0
  let waiting = 0
  // What the kernel takes for them is a few MB each; then as much again.
  let left = 1_000
  while (left > 0 && published < 20_000) {
    server.realtime.publish('feed:a', `${published}:${'x'.repeat(8_000)}`)
    published += 1
    if (server.realtime.stats().slow === paused) left -= 1
    await new Promise((resolve) => setImmediate(resolve))
    for (const { socket } of connections) {
      waiting = Math.max(waiting, socket?.getBufferedAmount() ?? 0)
    }
    await until(() => healthy.publications.length > published - 32, 'the healthy one keeps up')
  }
  expect(server.realtime.stats()).toMatchObject({ slow: paused, sockets: 1 })
  expect(waiting).toBeGreaterThan(64 * 1024)
  expect(waiting).toBeLessThan(160 * 1024)
  await until(() => healthy.publications.length === published, 'the healthy one has all')

  child.kill('SIGCONT')
  await until(() => Array.isArray(said), 'they are told')
  expect(said).toEqual(Array.from({ length: paused }, () => 3008))
  await child.exited
  healthy.close()
})

test('who is sent much and answers no ping is slow, and is told within 17 s', async () => {
  const clock = createTestClock()
  await using server = serve(topics, { clock })
  const [healthy, silent] = [
    await RawClient.connect(server.wsUrl),
    await RawClient.connect(server.wsUrl),
  ]
  // Past the first ping of both: the next one in turn is 25 s away.
  for (let second = 0; second < 3; second += 1) {
    clock.advance(1_000)
    for (const client of [healthy, silent]) await client.call({ ping: {} })
    for (const client of [healthy, silent]) await client.call({ ping: {} })
  }
  silent.answersPings = false
  for (const client of [healthy, silent]) await client.call({ subscribe: { channel: 'feed:a' } })
  let n = 0
  for (; n < 40; n += 1) server.realtime.publish('feed:a', 'x'.repeat(8_000))
  const isHeard = (client: RawClient) => client.publications.length === n
  await until(() => isHeard(healthy) && isHeard(silent), 'heard')
  for (let second = 0; second < 17; second += 1) {
    clock.advance(1_000)
    await healthy.call({ ping: {} })
    await healthy.call({ ping: {} })
  }
  await until(() => silent.closed !== undefined, 'closed')
  expect(silent.closed).toEqual({ code: 3008, reason: 'slow' })
  expect(healthy.closed).toBeUndefined()
  healthy.close()
})

test('a slow stream is cut, and the rest of its group goes on', async () => {
  await using server = serve(topics)
  const slow = await tcp(server, 'GET /api/stream?topics=feed:a HTTP/1.1')
  slow.write('\r\n')
  const healthy = await tcp(server, 'GET /api/stream?topics=feed:a HTTP/1.1')
  healthy.write('\r\n')
  await until(() => server.realtime.stats().streams === 2, 'open')
  await until(() => slow.received.length > 0, 'the opening')
  slow.pause()
  let published = 0
  while (server.realtime.stats().slow === 0 && published < 5_000) {
    server.realtime.publish('feed:a', 'x'.repeat(9_000))
    published += 1
    if (published % 4 === 0) await new Promise((resolve) => setImmediate(resolve))
  }
  expect(server.realtime.stats()).toMatchObject({ slow: 1, streams: 1, subscriptions: 1 })
  server.realtime.publish('feed:a', 'the end')
  await until(() => healthy.received.at(-1)?.includes('the end') ?? false, 'the healthy one has it')
  slow.resume()
  await until(() => slow.isClosed, 'the slow one is closed')
  expect(server.errors).toEqual([])
})

test('counters return to zero when everybody is gone, however they went', async () => {
  await using server = serve(topics)
  for (let round = 0; round < 5; round += 1) {
    const clients = await Promise.all(
      Array.from({ length: 20 }, () => RawClient.connect(server.wsUrl)),
    )
    await Promise.all(
      clients.flatMap((client, n) => [
        client.call({ subscribe: { channel: `feed:${n % 3}` } }),
        client.call({ subscribe: { channel: `feed:${n}x` } }),
      ]),
    )
    const abort = new AbortController()
    await Promise.all(
      Array.from({ length: 10 }, (_, n) =>
        fetch(`${server.url}/api/stream?topics=feed:${n % 2},feed:x`, { signal: abort.signal }),
      ),
    )
    expect(server.realtime.stats()).toMatchObject({ sockets: 20, streams: 10, subscriptions: 60 })
    for (const [n, client] of clients.entries()) {
      if (n % 3 === 0) client.socket.terminate()
      else if (n % 3 === 1) client.send('broken')
      else client.close()
    }
    abort.abort()
    await until(() => server.realtime.stats().connections === 0, 'everybody is gone')
    expect(server.realtime.stats()).toMatchObject({ sockets: 0, streams: 0, subscriptions: 0 })
  }
})
