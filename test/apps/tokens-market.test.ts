/** The recorded week as if it were this one, and the provider that tells it. */
import { describe, expect, test } from 'bun:test'
import { candleMs, market } from '../../src/apps/tokens-market.ts'
import { requestsPerSecondMax, startUpstream } from '../../src/apps/tokens-upstream.ts'
import { createTestClock } from '../clock.ts'

const sol = 'So11111111111111111111111111111111111111112'
const jup = 'JUPyiwrYJFskUPiHa7hkeR8VUtAeFoSYbKedZNsDvCN'
const usdc = 'EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v'
const now = Date.UTC(2026, 10, 21, 20, 0, 30)

describe('the market', () => {
  test('has the whole list, and a price for each of it', async () => {
    const { tokens, price } = await market()
    expect(tokens).toHaveLength(781)
    expect(new Set(tokens.map(({ mint }) => mint)).size).toBe(781)
    for (const { mint } of tokens) expect(price(mint, now)?.usdPrice).toBeGreaterThan(0)
    expect(price('nobody', now)).toBeUndefined()
    expect(price(usdc, now)).toEqual({ usdPrice: 1, decimals: 6, priceChange24h: 0 })
    expect(tokens.some(({ symbol }) => symbol.startsWith('$'))).toBe(false)
  })

  test('a price is where its candle says: begins, ends, and never leaves it', async () => {
    const { candles, price } = await market()
    for (const mint of [sol, jup]) {
      const day = candles(mint, 0, now)
      expect(day.length).toBeGreaterThanOrEqual(287)
      for (const [index, candle] of day.entries()) {
        expect(candle.at).toBe((day[0]?.at ?? 0) + index * candleMs)
        expect(candle.low).toBeLessThanOrEqual(Math.min(candle.open, candle.close))
        expect(candle.high).toBeGreaterThanOrEqual(Math.max(candle.open, candle.close))
        expect(price(mint, candle.at)?.usdPrice).toBe(candle.open)
        for (let ms = 0; ms < candleMs; ms += 7_000) {
          const { usdPrice = 0 } = price(mint, candle.at + ms) ?? {}
          expect(usdPrice).toBeGreaterThanOrEqual(candle.low)
          expect(usdPrice).toBeLessThanOrEqual(candle.high)
        }
      }
      const [last] = day.slice(-1)
      const after = candles(mint, (last?.at ?? 0) + candleMs, now)
      expect(after).toEqual([])
      expect(candles(mint, (last?.at ?? 0) + 1, now)).toEqual(last ? [last] : [])
    }
    // What SOL truly was, on a Saturday at this time.
    expect(price(sol, now)?.usdPrice).toBeGreaterThan(100)
    expect(price(sol, now)?.usdPrice).toBeLessThan(200)
    // The same a week later, and the day before tells the change.
    expect(price(sol, now + 7 * 24 * 3_600_000)).toEqual(price(sol, now))
  })
})

describe('the provider on this machine', () => {
  test('answers in the shape of Jupiter, of those it knows', async () => {
    const clock = createTestClock()
    const { url, stop } = startUpstream(clock)
    const answer = await fetch(`${url}/price/v3?ids=${sol},nobody,${jup}`)
    const prices = (await answer.json()) as Record<string, unknown>
    expect(Object.keys(prices)).toEqual([sol, jup])
    const shape = {
      [jup]: { usdPrice: 0.4056, blockId: 348004026, decimals: 6, priceChange24h: 0.5293 },
    }
    const keysOf = (value: object) => Object.keys(Object.values(value)[0] as object).toSorted()
    expect(keysOf(prices)).toEqual(keysOf(shape))
    const ids = Array.from({ length: 51 }, () => sol).join(',')
    expect((await fetch(`${url}/price/v3?ids=${ids}`)).status).toBe(400)
    expect((await fetch(`${url}/nothing`)).status).toBe(404)
    stop()
  })

  test('takes 50 requests in any second, and says 429 beyond', async () => {
    const clock = createTestClock()
    const { url, stop } = startUpstream(clock)
    const ask = async () => (await fetch(`${url}/price/v3?ids=${sol}`)).status
    const times = async (count: number) => {
      const answers = new Map<number, number>()
      for (let n = 0; n < count; n += 1) {
        const status = await ask()
        answers.set(status, (answers.get(status) ?? 0) + 1)
      }
      return Object.fromEntries(answers)
    }
    expect(await times(30)).toEqual({ 200: 30 })
    clock.advance(900)
    expect(await times(30)).toEqual({ 200: requestsPerSecondMax - 30, 429: 10 })
    clock.advance(101)
    expect(await times(31)).toEqual({ 200: 30, 429: 1 })
    stop()
  })
})
