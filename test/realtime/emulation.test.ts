/** The fallbacks' own edges: sessions, requests that are none, readers that stop reading or go away. */
import { describe, expect, test } from 'bun:test'
import { Centrifuge } from 'centrifuge'
import { createTestClock } from '../clock.ts'
import { RawClient, serve, until, type plansOf, type TestServer } from './serve.ts'
import { stockClient, stockOptions, subscribed } from './stock.ts'

const topics = {
  'feed:{name}': { subscribe: 'public', historySize: 100 },
} as const satisfies Parameters<typeof plansOf>[0]

const connectLine = '{"id":1,"connect":{}}'
const subscribeLine = '{"id":2,"subscribe":{"channel":"feed:a"}}'

function emulate(server: TestServer, body: unknown, type = 'application/json'): Promise<Response> {
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  const headers = { 'content-type': type }
  return fetch(`${server.url}/emulation`, { method: 'POST', headers, body: text })
}

/** A stream by hand: its lines as they come. */
async function open(server: TestServer, data: string) {
  const abort = new AbortController()
  const response = await fetch(`${server.url}/connection/http_stream`, {
    method: 'POST',
    body: data,
    signal: abort.signal,
  })
  const lines: string[] = []
  let isOver = false
  const reading = (async () => {
    const decoder = new TextDecoder()
    let text = ''
    try {
      for await (const chunk of response.body ?? []) {
        text += decoder.decode(chunk, { stream: true })
        const parts = text.split('\n')
        text = parts.pop() ?? ''
        lines.push(...parts)
      }
    } catch {
      // Aborted.
    }
    isOver = true
  })()
  await until(() => lines.length > 0 || isOver, 'an answer')
  const first = lines[0] === undefined ? {} : (JSON.parse(lines[0]) as Record<string, unknown>)
  const { session = '', node = '' } = (first['connect'] ?? {}) as {
    session?: string
    node?: string
  }
  return { response, lines, session, node, reading, abort, isOver: () => isOver }
}

describe('a session', () => {
  test('takes commands from whoever knows it, in frames of several, answered on the stream', async () => {
    await using server = serve(topics)
    const stream = await open(server, `${connectLine}\n${subscribeLine}`)
    expect(stream.response.headers.get('content-type')).toBe('application/x-ndjson; charset=utf-8')
    expect(stream.response.headers.get('cache-control')).toBe('no-store')
    await until(() => stream.lines.length === 2, 'both answers')
    const { session, node } = stream
    const taken = await emulate(server, {
      session,
      node,
      data: '{"id":3,"ping":{}}\n{"id":4,"x":{}}',
    })
    expect(taken.status).toBe(204)
    await until(() => stream.lines.length === 4, 'both answered')
    expect(stream.lines[2]).toBe('{"id":3,"ping":{}}')
    expect(JSON.parse(stream.lines[3] ?? '')).toMatchObject({ id: 4, error: { code: 104 } })
    stream.abort.abort()
    await until(() => server.realtime.stats().connections === 0, 'gone')
    expect(server.realtime.stats().subscriptions).toBe(0)
    expect((await emulate(server, { session, node, data: '{}' })).status).toBe(204)
    expect(server.realtime.receive(session, node, '{}')).toBe('gone')
    server.realtime.publish('feed:a', 'nobody there')
  })

  test('that is of another process is a 404, at which the stock client connects anew', async () => {
    const first = serve(topics)
    const port = Number(new URL(first.url).port)
    const stream = await open(first, connectLine)
    const { session, node } = stream
    await first.stop()
    await using second = serve(topics, { port })
    expect((await emulate(second, { session, node, data: '{}' })).status).toBe(404)
    const unknown = await emulate(second, { session: 'x', node: 'x', data: '{}' })
    expect(unknown.status).toBe(404)
  })

  test('bad commands end it as they end a socket: with a push, as there is no close frame', async () => {
    await using server = serve(topics)
    for (const data of ['{"id":', subscribeLine, '{"id":1,"connect":{"token":"x"}}', '\n']) {
      const stream = await open(server, data)
      await stream.reading
      const code = data.includes('token') ? 3500 : 3501
      expect(stream.lines).toHaveLength(1)
      expect(JSON.parse(stream.lines[0] ?? '')).toMatchObject({ push: { disconnect: { code } } })
    }
    const stream = await open(server, connectLine)
    const { session, node } = stream
    await emulate(server, { session, node, data: connectLine })
    await stream.reading
    expect(stream.lines[1]).toBe('{"push":{"disconnect":{"code":3501,"reason":"bad request"}}}')
    expect(server.realtime.stats().connections).toBe(0)
  })
})

test('requests that are none are refused, and end nothing', async () => {
  await using server = serve(topics)
  const stream = await open(server, connectLine)
  const { session, node } = stream
  const status = async (body: unknown, type?: string) => (await emulate(server, body, type)).status
  expect(await status('{"session":')).toBe(400)
  expect(await status('null')).toBe(400)
  expect(await status({ session, node })).toBe(400)
  expect(await status({ session, data: '{}' })).toBe(400)
  expect(await status({ node, data: '{}' })).toBe(400)
  expect(await status({ session, node, data: { id: 1 } })).toBe(400)
  expect(await status({ session, node, data: '{}' }, 'text/plain')).toBe(400)
  expect(await status({ session, node, data: 'x'.repeat(300_000) })).toBe(413)
  expect((await fetch(`${server.url}/connection/sse`)).status).toBe(400)
  const post = (body: Uint8Array<ArrayBuffer>) =>
    fetch(`${server.url}/connection/http_stream`, { method: 'POST', body })
  expect((await post(new Uint8Array([0x7b, 0xff]))).status).toBe(400)
  expect((await post(new Uint8Array(70_000))).status).toBe(413)
  expect(server.realtime.stats().connections).toBe(1)
  expect(stream.isOver()).toBe(false)
  // A frame beyond a socket's size ends it, as there.
  await status({ session, node, data: ' '.repeat(66_000) })
  await stream.reading
  expect(server.realtime.stats().connections).toBe(0)
})

test('a reader that stops reading is cut, holds a bounded buffer, and disturbs nobody', async () => {
  // Its clock stands: it is the write that notices, not the sweep.
  await using server = serve(topics, { clock: createTestClock() })
  const healthy = await RawClient.connect(server.wsUrl)
  await healthy.call({ subscribe: { channel: 'feed:a' } })
  const url = `/connection/sse?cf_connect=${encodeURIComponent(`${connectLine}\n${subscribeLine}`)}`
  const slow = await Bun.connect({
    hostname: '127.0.0.1',
    port: Number(new URL(server.url).port),
    socket: { data() {}, error() {} },
  })
  slow.write(`GET ${url} HTTP/1.1\r\nHost: localhost\r\n\r\n`)
  await until(() => server.realtime.stats().subscriptions === 2, 'subscribed')
  slow.pause()
  let published = 0
  while (server.realtime.stats().slow === 0 && published < 5_000) {
    server.realtime.publish('feed:a', `${published}:${'x'.repeat(9_000)}`)
    published += 1
    if (published % 4 === 0) await new Promise((resolve) => setImmediate(resolve))
  }
  expect(server.realtime.stats()).toMatchObject({ slow: 1, sockets: 1, subscriptions: 1 })
  await until(() => healthy.publications.length === published, 'the healthy one has all')
  slow.end()
  healthy.close()
})

test('readers that come and go leave nothing behind', async () => {
  await using server = serve(topics)
  for (let round = 0; round < 5; round += 1) {
    const streams = await Promise.all(
      Array.from({ length: 20 }, () => open(server, `${connectLine}\n${subscribeLine}`)),
    )
    await until(() => server.realtime.stats().subscriptions === 20, 'all there')
    for (const { abort } of streams) abort.abort()
    await until(() => server.realtime.stats().connections === 0, 'all gone')
  }
  expect(server.realtime.stats()).toMatchObject({ sockets: 0, subscriptions: 0 })
})

test('one topic, heard over a socket and both fallbacks: the same offsets to each', async () => {
  await using server = serve(topics)
  const clients = [
    stockClient(server, 'websocket'),
    stockClient(server, 'sse'),
    stockClient(server, 'http_stream'),
  ]
  const heard = await Promise.all(clients.map((client) => subscribed(client, 'feed:a')))
  for (let n = 1; n <= 300; n += 1) {
    server.realtime.publish('feed:a', n)
    if (n % 50 === 0) await new Promise((resolve) => setImmediate(resolve))
  }
  for (const { publications } of heard) {
    await until(() => publications.length === 300, 'all')
    expect(publications.map(({ data }) => data as unknown)).toEqual(
      Array.from({ length: 300 }, (_, at) => at + 1),
    )
  }
  for (const client of clients) client.disconnect()
})

test('where no WebSocket gets through, the stock client falls back by itself', async () => {
  await using server = serve(topics)
  const base = server.url
  for (const transport of ['sse', 'http_stream'] as const) {
    const client = new Centrifuge(
      [
        { transport: 'websocket', endpoint: `${base.replace('http', 'ws')}/blocked` },
        { transport, endpoint: `${base}/connection/${transport}` },
      ],
      { ...stockOptions(server), minReconnectDelay: 1, maxReconnectDelay: 20 },
    )
    const used: string[] = []
    client.on('connected', (context) => void used.push(context.transport))
    const heard = await subscribed(client, 'feed:a')
    expect(used).toEqual([transport])
    // It stays with what has worked, and recovers over it.
    server.realtime.publish('feed:a', transport)
    await until(() => heard.publications.length === 1, 'live')
    client.disconnect()
    await until(() => server.realtime.stats().connections === 0, 'away')
    server.realtime.publish('feed:a', 'missed')
    client.connect()
    await until(() => heard.publications.length === 2, 'recovered')
    expect(used).toEqual([transport, transport])
    client.disconnect()
    await until(() => server.realtime.stats().connections === 0, 'gone')
  }
})
