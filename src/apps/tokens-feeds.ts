/**
 * What the token app asks its provider, Jupiter's Price API v3 at JUPITER_URL (`https://api.jup.ag`, with
 * JUPITER_API_KEYS) or without it the provider on this machine, which has the list and candles, too.
 */
import { desc, eq } from 'drizzle-orm'
import type { Env, FeedContext } from '../kit.ts'
import { market, candleMs } from './tokens-market.ts'
import { candles, tokens } from './tokens-tables.ts'
import { localUpstream } from './tokens-upstream.ts'

/** What `price:{mint}` says. */
export interface TokenPrice {
  readonly usdPrice: number
  readonly priceChange24h: number | null
}

/** First on the board, and those whose candles are kept: 30 a day are 8,640 rows. */
const first = [
  'SOL',
  'WBTC',
  'ETH',
  'BNB',
  'JUP',
  'Bonk',
  'WIF',
  'PYTH',
  'JTO',
  'RAY',
  'USDC',
] as const
const chartedMax = 30

/** A public key of Solana, in base 58. */
const mintPattern = /^[1-9A-HJ-NP-Za-km-z]{32,44}$/

export function upstreamOf(env: Env): string {
  return env['JUPITER_URL'] ?? localUpstream().url
}

export async function loadPrices({
  fetch,
  keys,
  env,
}: FeedContext): Promise<Record<string, TokenPrice>> {
  // Keys are what anybody subscribes to: one that is no mint could spoil the answer for all that are asked for with it.
  const ids = keys.filter((key) => mintPattern.test(key)).join(',')
  if (ids === '') return {}
  const answer = await (await fetch(`${upstreamOf(env)}/price/v3?ids=${ids}`)).json()
  const prices: Record<string, TokenPrice> = {}
  // What has a block's number in it would differ each time.
  for (const [mint, found] of Object.entries(
    answer as Record<string, Partial<TokenPrice> | null>,
  )) {
    if (typeof found?.usdPrice !== 'number') continue
    prices[mint] = { usdPrice: found.usdPrice, priceChange24h: found.priceChange24h ?? null }
  }
  return prices
}

type TokenRow = typeof tokens.$inferInsert
type CandleRow = typeof candles.$inferInsert

/** The list that ships with the app: it changes with the app. */
export async function loadTokens(): Promise<TokenRow[]> {
  const { tokens: all } = await market()
  const rankOf = (symbol: string, index: number): number => {
    const place = (first as readonly string[]).indexOf(symbol)
    return place === -1 ? first.length + index : place
  }
  return all.map((token, index) => ({ ...token, rank: rankOf(token.symbol, index) }))
}

/** Those that closed since. Of the provider on this machine alone: Jupiter's free API has none. */
export async function loadCandles({ fetch, db, env }: FeedContext): Promise<CandleRow[]> {
  if (env['JUPITER_URL'] !== undefined) return []
  const charted = await db
    .select({ mint: tokens.mint })
    .from(tokens)
    .orderBy(tokens.rank, tokens.mint)
    .limit(chartedMax)
  const [lead] = charted
  if (!lead) return []
  const [newest] = await db
    .select({ at: candles.at })
    .from(candles)
    .where(eq(candles.mint, lead.mint))
    .orderBy(desc(candles.at))
    .limit(1)
  const after = newest ? newest.at.getTime() + candleMs : 0
  const ids = charted.map(({ mint }) => mint).join(',')
  const url = `${upstreamOf(env)}/candles/v1?ids=${ids}&after=${after}`
  const found = (await (await fetch(url)).json()) as (Omit<CandleRow, 'at'> & { at: number })[]
  return found.map((candle) => ({ ...candle, at: new Date(candle.at) }))
}
