/** `GET /api/topics/<topic>/last`, `feeds.read` in routes, and a feed's values on sockets and streams. */
import { describe, expect, test } from 'bun:test'
import { feed, topic } from '../../src/kit.ts'
import type { Duration } from '../../src/lib/duration.ts'
import { tempFolder, until } from '../harness.ts'
import { createPrices } from '../feeds/setup.ts'
import { RawClient } from '../realtime/serve.ts'
import { runServer, testApiKey } from '../server.ts'

async function start(
  values: Record<string, unknown>,
  every: Duration = '100ms',
  idle: Duration = '1s',
) {
  const upstream = createPrices(values)
  const folder = tempFolder()
  const server = await runServer({
    folder,
    app: {
      topics: {
        'price:{mint}': topic({ subscribe: 'public', last: true }),
        'own:{user}': topic({ subscribe: ({ user, params }) => user?.id === params.user }),
        said: topic({ subscribe: 'public', last: true }),
        count: topic({ subscribe: 'public' }),
      },
      feeds: {
        prices: feed({ every, keyed: 'price:{mint}', idle, load: upstream.load }),
        own: feed({
          every: '1h',
          keyed: 'own:{user}',
          load: ({ keys }) => new Map([[keys[0], 1]]),
        }),
        count: feed({ every: '1h', publish: 'count', load: () => ({ n: 1 }) }),
      },
      routes: (routes, { feeds }) =>
        routes.get('/api/two', async () =>
          Object.fromEntries(await feeds.read('prices', ['a', 'b'])),
        ),
    },
  })
  return {
    ...{ server, upstream },
    last: (name: string, init?: RequestInit) => server.get(`/api/topics/${name}/last`, init),
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]()
      folder[Symbol.dispose]()
    },
  }
}

describe('last values over HTTP', () => {
  test('a miss, a hit, and what caches are told', async () => {
    await using one = await start({ a: { usd: 1 } }, '100ms', '1m')
    const miss = await one.last('price:a')
    expect(miss.status).toBe(200)
    expect(await miss.json()).toEqual({ usd: 1 })
    expect(miss.headers.get('x-cache')).toBe('miss')
    expect(miss.headers.get('cache-control')).toBe('public, max-age=1')
    expect(miss.headers.get('age')).toBe('0')
    const hit = await one.last(encodeURIComponent('price:a'))
    expect(hit.headers.get('x-cache')).toBe('hit')
    const etag = hit.headers.get('etag') ?? ''
    const same = await one.last('price:a', { headers: { 'if-none-match': etag } })
    expect(same.status).toBe(304)
  })

  test('upstream fails: 200 with the last value, stale, and kept by nobody', async () => {
    await using one = await start({ a: { usd: 1 } })
    await one.last('price:a')
    one.upstream.failure = new Error('down')
    let answer = await one.last('price:a')
    await until(async () => {
      answer = await one.last('price:a')
      return answer.headers.get('x-cache') === 'stale'
    }, 'stale')
    expect(answer.status).toBe(200)
    const body = (await answer.json()) as { as_of: number }
    expect(body).toMatchObject({ usd: 1, stale: true })
    expect(body.as_of).toBeGreaterThan(Date.now() - 60_000)
    expect(answer.headers.get('cache-control')).toBe('public, no-cache')
    one.upstream.failure = undefined
    await until(
      async () => (await one.last('price:a')).headers.get('x-cache') === 'hit',
      'recovered',
    )
  })

  test('a key that upstream does not know is 404, one of which nothing is known 503', async () => {
    await using one = await start({})
    expect((await one.last('price:x')).status).toBe(404)
    one.upstream.failure = new Error('a secret in a URL')
    const failed = await one.last('price:y')
    expect(failed.status).toBe(503)
    expect(await failed.text()).not.toContain('secret')
    expect((await one.last('nothing:x')).status).toBe(404)
  })

  test('1,000 requests for a cold key are one call', async () => {
    await using one = await start({ a: 1 }, '1h')
    const open = Promise.withResolvers<void>()
    one.upstream.gate = open.promise
    const asking = Promise.all(Array.from({ length: 1_000 }, () => one.last('price:a')))
    await until(() => one.upstream.calls.length > 0, 'asked')
    open.resolve()
    const answers = await asking
    expect(answers.every(({ status }) => status === 200)).toBe(true)
    expect(one.upstream.calls).toEqual([['a']])
  })

  test('who may not subscribe may not read, and asks nobody upstream', async () => {
    await using one = await start({})
    expect((await one.last('own:ann')).status).toBe(403)
    const { rooms } = one.server
    expect(rooms.feeds.stats().find(({ name }) => name === 'own')?.ticks).toBe(0)
    const asOperator = await one.last('own:ann', { headers: { 'x-api-key': testApiKey } })
    expect(asOperator.status).toBe(200)
    expect(asOperator.headers.get('cache-control')).toBe('private, max-age=3600')
    expect(asOperator.headers.get('vary')).toContain('authorization')
  })

  test('topics of timed feeds, and of nobody but publishers', async () => {
    await using one = await start({})
    expect(await (await one.last('count')).json()).toEqual({ n: 1 })
    expect((await one.last('said')).status).toBe(404)
    one.server.rooms.realtime.publish('said', { hello: 1 })
    const said = await one.last('said')
    expect(await said.json()).toEqual({ hello: 1 })
    expect(said.headers.get('x-cache')).toBe('bypass')
  })

  test('routes read values too', async () => {
    await using one = await start({ a: 1, b: 2 })
    const answer = (await (await one.server.get('/api/two')).json()) as Record<string, object>
    expect(answer).toMatchObject({ a: { value: 1, isStale: false }, b: { value: 2 } })
  })
})

describe('who listens is known', () => {
  const keysOf = ({ server }: Awaited<ReturnType<typeof start>>) =>
    server.rooms.feeds.stats().find(({ name }) => name === 'prices')?.keys

  test('a socket: from its first subscription to its last', async () => {
    await using one = await start({ a: { usd: 1 } })
    const url = `${one.server.url.replace('http', 'ws')}/connection/websocket`
    const [first, second] = [await RawClient.connect(url), await RawClient.connect(url)]
    await first.call({ subscribe: { channel: 'price:a' } })
    await until(() => first.publications.length > 0, 'told')
    // Later ones have what is known with the reply.
    const { subscribe } = await second.call({ subscribe: { channel: 'price:a' } })
    expect(subscribe?.publications?.[0]?.data).toEqual({ usd: 1 })
    one.upstream.told.set('a', { usd: 2 })
    await until(() => second.publications.length > 0, 'told what changed')
    first.close()
    await second.call({ unsubscribe: { channel: 'price:a' } })
    await until(() => keysOf(one) === 0, 'forgotten')
    second.close()
  })

  test('a stream: while it is open', async () => {
    await using one = await start({ a: { usd: 1 }, b: { usd: 1 } })
    const abort = new AbortController()
    const response = await one.server.get('/api/stream?topics=price:a,price:b', {
      signal: abort.signal,
    })
    let text = ''
    const reading = (async () => {
      for await (const chunk of response.body ?? []) text += new TextDecoder().decode(chunk)
    })().catch(() => {})
    await until(() => text.includes('price:a') && text.includes('price:b'), 'told')
    expect(keysOf(one)).toBe(2)
    abort.abort()
    await reading
    await until(() => keysOf(one) === 0, 'forgotten')
  })
})
