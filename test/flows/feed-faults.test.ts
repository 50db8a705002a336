/**
 * All that a provider does wrong, one after the other: nobody is told an error of a value that was ever known, it is
 * stale meanwhile, and well again soon after the provider is.
 */
import { expect, test } from 'bun:test'
import { feed, topic } from '../../src/kit.ts'
import { tempFolder, until } from '../harness.ts'
import { startFakeUpstream, type FakeUpstream, type UpstreamFault } from '../lib/upstream.ts'
import { RawClient } from '../realtime/serve.ts'
import { runServer } from '../server.ts'

async function start() {
  const upstream = startFakeUpstream({ changeMs: 0, limit: 100_000 })
  const folder = tempFolder()
  const server = await runServer({
    folder,
    env: { PRICES_URL: upstream.url },
    app: {
      topics: { 'price:{mint}': topic({ subscribe: 'public', last: true }) },
      feeds: {
        prices: feed({
          ...{ every: '200ms', keyed: 'price:{mint}', timeout: '400ms' },
          load: async ({ fetch, keys, env }) => {
            const url = `${env['PRICES_URL']}/price/v3?ids=${keys.join(',')}`
            const response = await fetch(url, { retries: 0, bytesMax: 100_000 })
            if (!response.ok) throw new Error(`upstream answered ${response.status}`)
            return await response.json()
          },
        }),
      },
    },
  })
  const client = await RawClient.connect(`${server.url.replace('http', 'ws')}/connection/websocket`)
  await client.call({ subscribe: { channel: 'price:a' } })
  await until(() => client.publications.length > 0, 'known')
  return {
    ...{ upstream, server, client },
    async [Symbol.asyncDispose]() {
      client.close()
      await server[Symbol.asyncDispose]()
      await upstream[Symbol.asyncDispose]()
      folder[Symbol.dispose]()
    },
  }
}

const faults: Record<string, (upstream: FakeUpstream) => UpstreamFault | Promise<void>> = {
  down: (upstream) => upstream.down(),
  slow: () => ({ kind: 'slow', ms: 1_000 }),
  silent: () => ({ kind: 'silent' }),
  'answers 500': () => ({ kind: 'status', status: 500 }),
  'answers 429': () => ({ kind: 'limited' }),
  'answers 429 with Retry-After': () => ({ kind: 'limited', retryAfter: '1' }),
  'is cut off': () => ({ kind: 'truncated' }),
  'says HTML': () => ({ kind: 'not json' }),
  'says 100 MB': () => ({ kind: 'huge' }),
  'redirects for ever': () => ({ kind: 'redirect' }),
  flaps: () => ({ kind: 'flapping', calls: 3, fault: { kind: 'status', status: 503 } }),
}

for (const [name, breakIt] of Object.entries(faults)) {
  test(`upstream ${name}: the last value, stale, and well again`, async () => {
    await using one = await start()
    const { upstream, server, client } = one
    const states: (string | null)[] = []
    const read = async (): Promise<string | null> => {
      const answer = await server.get('/api/topics/price:a/last')
      expect(answer.status).toBe(200)
      expect(await answer.json()).toMatchObject({ usdPrice: expect.any(Number) as number })
      states.push(answer.headers.get('x-cache'))
      return answer.headers.get('x-cache')
    }
    await until(async () => (await read()) === 'hit', 'fresh')
    const fault = breakIt(upstream)
    if (fault instanceof Promise) await fault
    else upstream.fault = fault
    await until(async () => (await read()) === 'stale', 'stale')
    const stale = () => client.publications.findLast(({ data }) => (data as { stale?: true }).stale)
    await until(() => stale() !== undefined, 'told that it is stale')
    expect(stale()?.data).toMatchObject({ stale: true, as_of: expect.any(Number) as number })

    if (name === 'down') upstream.up()
    upstream.fault = undefined
    upstream.set('a', 4.2)
    await until(
      () =>
        (client.publications.at(-1)?.data as { usdPrice?: number } | undefined)?.usdPrice === 4.2,
      'told what is new',
    )
    // A machine that is busy may be late for one more call.
    await until(async () => (await read()) === 'hit', 'fresh again')
    await until(
      () => !(client.publications.at(-1)?.data as { stale?: true } | undefined)?.stale,
      'told that it is not stale any more',
    )
    const metricsNow = async () => await (await server.get('/api/metrics')).text()
    const isFresh = async () => (await metricsNow()).includes('belfry_feed_stale{feed="prices"} 0')
    await until(isFresh, 'not stale in the metrics')
    const metrics = await metricsNow()
    expect(metrics).toContain('belfry_upstream_breaker_open{')
  })
}
