/** Whatever is wrong with an upstream, nobody sees an error for a value that was known; and it is back when it is. */
import { describe, expect, test } from 'bun:test'
import { budget, proxy, type AppOptions, type ProxyOptions } from '../../src/kit.ts'
import { faultOf, tempFolder, until } from '../harness.ts'
import { startFakeUpstream, type FakeUpstream, type UpstreamFault } from '../lib/upstream.ts'
import { runServer, type TestServer } from '../server.ts'
import { openUpstream, rawServer, wire } from './setup.ts'

const path = '/api/prices?ids=SOL'

/** The server, with a proxy of the provider whose answers are old at once and good for an hour when it fails. */
async function open(
  where: () => string,
  options: Partial<ProxyOptions> = {},
  rest: Partial<AppOptions> = {},
) {
  const folder = tempFolder()
  const prices = proxy({
    upstream: () => `${where()}/price/v3`,
    private: true,
    read: 'public',
    allow: { query: ['ids'] },
    ttl: '1ms',
    timeout: '500ms',
    ...options,
  })
  const server = await runServer({ app: { ...rest, proxies: { '/api/prices': prices } }, folder })
  return {
    ...server,
    async [Symbol.asyncDispose]() {
      await server.stop()
      folder[Symbol.dispose]()
    },
  }
}

const startProvider = () => startFakeUpstream({ limit: 1_000_000, changeMs: 0 })

interface Price {
  readonly SOL: { readonly usdPrice: number }
}

async function priceOf(response: Response): Promise<number> {
  const text = await response.text()
  if (!response.ok) throw new Error(`${response.status}: ${text}`)
  return (JSON.parse(text) as Price).SOL.usdPrice
}

/** On a machine that is busy it takes another try. */
const isKnown = (server: TestServer) =>
  until(async () => (await server.get(path)).ok, 'the value is known')

async function isOpen(server: TestServer, { url }: FakeUpstream): Promise<boolean> {
  const text = await (await server.get('/api/metrics')).text()
  return text.includes(`belfry_upstream_breaker_open{origin="${url}"} 1\n`)
}

type Trouble = {
  readonly start: (one: FakeUpstream) => unknown
  readonly end?: (one: FakeUpstream) => void
}

const by = (fault: UpstreamFault): Trouble => ({
  start: (one) => void (one.fault = fault),
  end: (one) => void (one.fault = undefined),
})

const troubles: Readonly<Record<string, Trouble>> = {
  down: { start: (one) => one.down(), end: (one) => one.up() },
  slow: by({ kind: 'slow', ms: 5_000 }),
  silent: by({ kind: 'silent' }),
  '500s': by({ kind: 'status', status: 500 }),
  '503s': by({ kind: 'status', status: 503 }),
  '401, for a key that is no good any more': by({ kind: 'status', status: 401 }),
  '429 with Retry-After': by({ kind: 'limited', retryAfter: '1' }),
  '429 without Retry-After': by({ kind: 'limited' }),
  'a truncated body': by({ kind: 'truncated' }),
  'another content type': by({ kind: 'not json' }),
  'a body of 100 MB': by({ kind: 'huge' }),
  'a redirect loop': by({ kind: 'redirect' }),
  flapping: by({ kind: 'flapping', calls: 3, fault: { kind: 'status', status: 502 } }),
}

describe('a value that is known', () => {
  test.each(Object.entries(troubles))('%s', async (name, { start, end }) => {
    await using provider = startProvider()
    await using server = await open(() => provider.url)
    provider.set('SOL', 1)
    await isKnown(server)
    await start(provider)
    const states = new Set<string | null>()
    let rounds = 0
    await until(async () => {
      const response = await server.get(path)
      expect([response.status, await priceOf(response)]).toEqual([200, 1])
      expect(response.headers.get('age')).toMatch(/^\d+$/)
      states.add(response.headers.get('x-cache'))
      return ++rounds >= 4 && (states.has('stale') || name === 'flapping')
    }, 'the old one stands in')
    end?.(provider)
    provider.set('SOL', 2)
    await until(async () => (await priceOf(await server.get(path))) === 2, 'it is fresh again')
  })

  test('a name that does not resolve any more, a certificate that is none', async () => {
    await using provider = startProvider()
    let where = provider.url
    await using server = await open(() => where)
    provider.set('SOL', 1)
    await isKnown(server)
    for (where of ['http://nowhere.invalid', provider.tlsUrl]) {
      await until(async () => {
        const response = await server.get(path)
        expect(await priceOf(response)).toBe(1)
        return response.headers.get('x-cache') === 'stale'
      }, 'the old one stands in')
    }
  })
})

test('what was never known is a problem, with the time to wait, and says nothing of where it was sought', async () => {
  await using provider = startProvider()
  provider.fault = { kind: 'limited', retryAfter: '40' }
  await using server = await open(() => provider.url, { timeout: '10s' })
  const response = await server.get(path)
  expect([response.status, response.headers.get('retry-after')]).toEqual([503, '40'])
  expect(await response.json()).toMatchObject({ detail: 'the upstream answered 429' })
  await using hasty = await open(() => provider.url)
  for (const fault of [{ kind: 'silent' }, { kind: 'huge' }, { kind: 'truncated' }] as const) {
    provider.fault = fault
    const asked = fault.kind === 'silent' ? hasty : server
    const answered = await asked.get(`/api/prices?ids=${fault.kind}`)
    expect([answered.status, await answered.text()]).toEqual([
      fault.kind === 'silent' ? 504 : 503,
      expect.not.stringContaining('127.0.0.1'),
    ])
  }
  // Who runs it is told.
  const told = server.log.lines.flatMap(({ fields }) => {
    const error = fields['error']
    return error instanceof Error ? [String(error.cause)] : []
  })
  expect(told.join()).toContain(new URL(provider.url).host)
})

test('the breaker is seen in the metrics: open while it is down, and nobody asks; closed when it is back', async () => {
  await using provider = startProvider()
  await using server = await open(() => provider.url)
  await server.get(path)
  expect(await isOpen(server, provider)).toBe(false)
  provider.fault = { kind: 'status', status: 500 }
  await until(async () => {
    await server.get(path)
    return await isOpen(server, provider)
  }, 'it opens')
  const { calls } = server.rooms.upstream.stats().origins[0] ?? { calls: 0 }
  expect(calls).toBe(provider.arrivals.length)
  expect(server.log.lines.map(({ event }) => event)).toContain('upstream.away')
  provider.fault = undefined
  await until(async () => {
    await server.get(path)
    return !(await isOpen(server, provider))
  }, 'it closes')
  expect(server.log.lines.map(({ event }) => event)).toContain('upstream.back')
})

test('a budget that is used up: the old answer, or how long to wait', async () => {
  await using provider = startProvider()
  await using server = await open(
    () => provider.url,
    { budget: 'b', timeout: '10s' },
    {
      budgets: { b: budget({ rate: '1/min' }) },
    },
  )
  provider.set('SOL', 1)
  await server.get(path)
  provider.set('SOL', 2)
  await until(async () => {
    const response = await server.get(path)
    expect(await priceOf(response)).toBe(1)
    return response.headers.get('x-cache') === 'stale'
  }, 'the old one stands in')
  const other = await server.get('/api/prices?ids=BTC')
  expect(other.status).toBe(503)
  expect(Number(other.headers.get('retry-after'))).toBeGreaterThan(30)
  expect(provider.arrivals.length).toBe(1)
  const metrics = await (await server.get('/api/metrics')).text()
  expect(metrics).toContain('belfry_budget_calls_total{budget="b",key="0"} 1\n')
})

test('all who ask at once are one call', async () => {
  await using provider = startProvider()
  await using server = await open(() => provider.url, { ttl: '1m', timeout: '10s' })
  // Bun has 256 requests under way in one process, ours to the server and the server's own.
  const prices = Array.from({ length: 200 }, async () => await priceOf(await server.get(path)))
  expect(new Set(await Promise.all(prices)).size).toBe(1)
  expect(provider.arrivals.length).toBe(1)
})

describe('of one call', () => {
  test('a body without end is cut while it comes', async () => {
    const piece = 'x'.repeat(64 * 1024)
    let sentBytes = 0
    await using server = await rawServer((socket) => {
      socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n')
      const more = (): void => {
        let isRoom = true
        while (isRoom && !socket.destroyed && sentBytes < 1e9) {
          sentBytes += piece.length
          isRoom = socket.write(`10000\r\n${piece}\r\n`)
        }
      }
      socket.on('drain', more)
      more()
    })
    await using upstream = openUpstream()
    const fault = await faultOf(() => upstream.ask(server.url, { bytesMax: 1_000_000 }))
    expect([fault.code, server.requests.length]).toEqual(['too_large', 1])
    // What the sockets' buffers held, beside what was read.
    expect(sentBytes).toBeLessThan(32 * 1024 * 1024)
  })

  test('a packed body counts as what it is unpacked', async () => {
    const packed = Bun.gzipSync(new Uint8Array(50_000_000))
    using server = Bun.serve({
      port: 0,
      fetch: () => new Response(packed, { headers: { 'content-encoding': 'gzip' } }),
    })
    await using upstream = openUpstream()
    const fault = await faultOf(() => upstream.ask(server.url, { bytesMax: 1_000_000 }))
    expect(fault.code).toBe('too_large')
  })

  test('a body that stalls is given up', async () => {
    await using server = await rawServer((socket) => {
      socket.write('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf')
    })
    await using upstream = openUpstream()
    const fault = await faultOf(() => upstream.ask(server.url, { timeoutMs: 50, retries: 0 }))
    expect(fault.code).toBe('timeout')
  })

  test.each([
    ['no HTTP', 'hello there\r\n\r\n'],
    ['nothing', ''],
    ['headers without end', `HTTP/1.1 200 OK\r\n${'a: b\r\n'.repeat(100_000)}\r\n`],
    ['half a body', 'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf'],
  ])('what comes is %s', async (_, bytes) => {
    await using server = await rawServer((socket) => void socket.end(bytes))
    await using upstream = openUpstream()
    const fault = await faultOf(() => upstream.ask(server.url, { retries: 0 }))
    expect([fault.code, fault.message.split(': ')[0]]).toEqual([
      'unavailable',
      `127.0.0.1:${server.port} cannot be reached`,
    ])
  })

  test('an URL’s secrets are in no message', async () => {
    await using upstream = openUpstream()
    const url = 'http://ann:pw@127.0.0.1:1/path?key=secret'
    const fault = await faultOf(() => upstream.ask(url, { retries: 0 }))
    expect(JSON.stringify([fault.message, String(fault.cause)])).not.toMatch(/secret|pw|path/)
  })

  test('cookies and what is of the connection are not passed on', async () => {
    await using server = await rawServer(
      (socket) =>
        void socket.write(
          wire('200 OK', { 'set-cookie': 'a=1', 'keep-alive': 'timeout=5', 'x-own': '1' }, 'ok'),
        ),
    )
    await using upstream = openUpstream()
    const { headers } = await upstream.ask(server.url)
    expect(['keep-alive', 'x-own'].map((name) => headers.get(name))).toEqual([null, '1'])
  })
})
