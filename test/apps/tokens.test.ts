/** The token app: what it keeps, what it asks its provider, and what a provider that fails or refuses does to it. */
import { describe, expect, test } from 'bun:test'
import tokensApp from '../../src/apps/tokens.ts'
import { loadPrices } from '../../src/apps/tokens-feeds.ts'
import { market } from '../../src/apps/tokens-market.ts'
import type { FeedContext } from '../../src/kit.ts'
import { checkIndexes } from '../../src/collections/collections.ts'
import { compilePlan } from '../../src/plan/plan.ts'
import { openStore, tempFolder, until } from '../harness.ts'
import { startFakeUpstream } from '../lib/upstream.ts'
import { hear, stockClient } from '../realtime/stock.ts'
import { runServer } from '../server.ts'

const { page: _, ...named } = tokensApp.options
const { name: __, ...app } = named

const sol = 'So11111111111111111111111111111111111111112'
const jup = 'JUPyiwrYJFskUPiHa7hkeR8VUtAeFoSYbKedZNsDvCN'

interface Price {
  readonly usdPrice: number
  readonly priceChange24h: number
  readonly stale?: boolean
  readonly as_of?: number
}

async function runTokens(env: Readonly<Record<string, string>> = {}) {
  const folder = tempFolder()
  const server = await runServer({ app, folder, env })
  const json = async (path: string) => {
    const answer = await server.get(path)
    return {
      status: answer.status,
      headers: answer.headers,
      body: (await answer.json()) as unknown,
    }
  }
  return {
    ...{ server, json },
    async [Symbol.asyncDispose]() {
      await server.stop()
      folder[Symbol.dispose]()
    },
  }
}

test('every list that can be asked for has its index', async () => {
  using folder = tempFolder()
  const plan = compilePlan({ kind: 'app', options: named })
  const store = await openStore(folder.file('tokens.db'), plan.tables, { readers: 1 })
  expect(await checkIndexes({ store }, plan.collections)).toEqual([])
  await store.stop()
})

describe('without a provider', () => {
  test('the list, a day of candles and prices come from the one on this machine', async () => {
    await using it = await runTokens()
    const list = async (path: string) =>
      ((await it.json(path)).body as { items: Record<string, unknown>[] }).items
    await until(async () => (await list('/api/tokens')).length > 0, 'the list is there')
    const top = await list('/api/tokens?limit=5')
    expect(top.map(({ symbol }) => symbol)).toEqual(['SOL', 'WBTC', 'ETH', 'BNB', 'JUP'])
    await until(async () => {
      await it.server.rooms.feeds.tick('candles')
      return (await list(`/api/candles?mint=${sol}`)).length === 20
    }, 'candles are there')
    const [newest] = await list(`/api/candles?mint=${sol}&limit=1`)
    expect(Date.parse(String(newest?.['at']))).toBeGreaterThan(Date.now() - 15 * 60_000)

    const { price } = await market()
    const { status, body, headers } = await it.json(`/api/topics/price:${sol}/last`)
    expect(status).toBe(200)
    expect(headers.get('x-cache')).toBe('miss')
    const { usdPrice } = body as Price
    expect(Math.abs(usdPrice / (price(sol, Date.now())?.usdPrice ?? 0) - 1)).toBeLessThan(0.01)
    expect((await it.json('/api/topics/price:nobody/last')).status).toBe(404)
  })
})

test('the provider is asked for mints only, whatever is subscribed to', async () => {
  await using upstream = startFakeUpstream({ changeMs: 0 })
  const ask = async (keys: readonly string[]) => {
    const env = { JUPITER_URL: upstream.url }
    return await loadPrices({ keys, env, fetch } as unknown as FeedContext)
  }
  const strange = ['nobody', `${sol}&ids=${jup}`, `${sol}#`, '%', sol.replace('S', '0')]
  expect(Object.keys(await ask([...strange, sol]))).toEqual([sol])
  expect(await ask(strange)).toEqual({})
  expect(upstream.arrivals.map(({ ids }) => ids)).toEqual([[sol]])
})

describe('with a provider', () => {
  test('asks for what is watched, with each key in turn, and passes on what it says and when it is silent', async () => {
    await using upstream = startFakeUpstream({ keys: ['one', 'two'], changeMs: 0 })
    await using it = await runTokens({ JUPITER_URL: upstream.url, JUPITER_API_KEYS: 'one,two' })
    upstream.set(sol, 150)
    upstream.set(jup, 0.5)
    const client = stockClient(it.server, 'websocket')
    const heard = hear(client, `price:${sol}`)
    client.connect()
    const last = () => heard.publications.at(-1)?.data as Price | undefined
    await until(() => last()?.usdPrice === 150, 'the price is heard')
    upstream.set(sol, 151)
    await until(() => last()?.usdPrice === 151, 'the next one, too')
    // Nobody looks at the other one, so nobody asks.
    expect(upstream.arrivals.some(({ ids }) => ids.includes(jup))).toBe(false)

    upstream.fault = { kind: 'status', status: 500 }
    await until(() => last()?.stale === true, 'it is said to be old', 20_000)
    expect(last()?.usdPrice).toBe(151)
    expect(last()?.as_of).toBeLessThanOrEqual(Date.now())
    const stale = await it.json(`/api/topics/price:${sol}/last`)
    expect(stale.status).toBe(200)
    expect(stale.headers.get('x-cache')).toBe('stale')
    upstream.fault = undefined
    upstream.set(sol, 152)
    await until(() => last()?.usdPrice === 152 && last()?.stale === undefined, 'it is back', 30_000)
    expect(new Set(upstream.arrivals.map(({ key }) => key))).toEqual(new Set(['one', 'two']))
    expect(upstream.bans).toBe(0)
    client.disconnect()
  }, 60_000)

  test('passes the price API on: asked once, for so long, with what is allowed and nothing else', async () => {
    await using upstream = startFakeUpstream({ changeMs: 0 })
    await using it = await runTokens({ JUPITER_URL: upstream.url })
    upstream.set(sol, 150)
    const path = `/api/jupiter/price/v3?ids=${sol}`
    const answers = await Promise.all(Array.from({ length: 50 }, () => it.json(path)))
    for (const { status, body } of answers) {
      expect(status).toBe(200)
      expect(body).toMatchObject({ [sol]: { usdPrice: 150 } })
    }
    expect(upstream.arrivals).toHaveLength(1)
    const [{ headers }] = answers as [(typeof answers)[number]]
    expect(headers.get('cache-control')).toBe('public, max-age=5')
    expect(headers.get('cdn-cache-control')).toContain('max-age=60')
    expect((await it.json(`${path}&callback=x`)).status).toBe(400)
    expect((await it.json('/api/jupiter/swap/v1')).status).toBe(404)
    expect((await it.json('/api/jupiter')).status).toBe(404)
    expect(upstream.arrivals).toHaveLength(1)
  })
})
