/**
 * A recorded week of eight pairs as if it were this one: the candle that was open at this five-minute interval of
 * the week is open now, and within it the price goes where the candle says.
 *
 *   open ── low ── high ── close      (a falling one: open, high, low, close)
 *
 * Everything is told by the clock alone: a restart, or another node, has the same prices. Tokens without candles
 * of their own follow one of the pairs in a proportion of their own: made up, so that there is something to watch.
 */
import { Fault } from '../fault.ts'
import candlesFile from '../../db/samples/tokens/crypto_candles_5m_8pairs_2025-06.csv.gz' with { type: 'file' }
import tokensFile from '../../db/samples/tokens/solana_validated_tokens.csv.gz' with { type: 'file' }

export interface Token {
  readonly mint: string
  readonly symbol: string
  readonly name: string
  readonly decimals: number
  readonly logo: string
}

export interface Candle {
  readonly mint: string
  /** When it opened, ms since 1970. */
  readonly at: number
  readonly open: number
  readonly high: number
  readonly low: number
  readonly close: number
  /** Of the pair, in base units. */
  readonly volume: number
}

export interface Price {
  readonly usdPrice: number
  readonly decimals: number
  /** In percent. */
  readonly priceChange24h: number
}

export interface Market {
  /** As the list has them. */
  readonly tokens: readonly Token[]
  /** Undefined for a mint that is not on the list. */
  price(mint: string, nowMs: number): Price | undefined
  /** Candles that closed after `afterMs`, oldest first, of the last day at most. */
  candles(mint: string, afterMs: number, nowMs: number): readonly Candle[]
}

export const candleMs = 5 * 60_000
const dayMs = 24 * 60 * 60_000

/** Those whose candles are recorded. */
const recorded: Readonly<Record<string, string>> = {
  So11111111111111111111111111111111111111112: 'SOLUSDT',
  '7vfCXTUXx5WJV5JADk17DUJ4ksgau7utNKj4b963voxs': 'ETHUSDT',
  '9gP2kCy3wA1ctvYWQk75guqXuHfrEomqydHLtcTCqiLa': 'BNBUSDT',
  '3NZ9JMVBmGAqocybic2c7LQCJScmgsAZ6vQqTDzcqmJh': 'BTCUSDT',
}

/** Worth what they are named after, whatever the market does. */
const stable: ReadonlySet<string> = new Set(['USDC', 'USDT'])

/** Significant digits of a price. */
const digits = 7

/** What a made-up token is worth at most and at least, of its pair's first price, in powers of ten. */
const scale = { most: -1, least: -6 } as const

interface Pair {
  readonly name: string
  /** One for each interval of the week. */
  readonly candles: readonly (readonly [
    open: number,
    high: number,
    low: number,
    close: number,
    volume: number,
  ])[]
}

/** What moves a token. */
interface Follow {
  readonly pair: Pair
  /** Of the pair's price. */
  readonly factor: number
}

let loaded: Promise<Market> | undefined

/** Unpacked once and kept: 1 MB. */
export function market(): Promise<Market> {
  return (loaded ??= read())
}

async function read(): Promise<Market> {
  const pairs = pairsOf(await rowsOf(candlesFile))
  const tokens = (await rowsOf(tokensFile)).map(
    ([name = '', symbol = '', mint = '', decimals, logo = '']): Token => ({
      ...{ mint, name, logo },
      // Some of the list's have a dollar before them.
      symbol: symbol.replace(/^\$/, ''),
      decimals: Number(decimals),
    }),
  )
  const byMint = new Map(
    tokens.map((token) => [token.mint, { token, follow: followOf(token, pairs) }]),
  )

  const at = (found: Follow | undefined, ms: number): number => {
    if (!found) return 1
    const { pair, factor } = found
    return round(factor * within(candleAt(pair, ms), (ms % candleMs) / candleMs))
  }

  return {
    tokens,
    price(mint, nowMs) {
      const found = byMint.get(mint)
      if (!found) return undefined
      const usdPrice = at(found.follow, nowMs)
      const before = at(found.follow, nowMs - dayMs)
      const priceChange24h = Math.round((usdPrice / before - 1) * 1e4) / 100
      return { usdPrice, decimals: found.token.decimals, priceChange24h }
    },
    candles(mint, afterMs, nowMs) {
      const found = byMint.get(mint)?.follow
      if (!found) return []
      const candles: Candle[] = []
      const first = Math.max(afterMs, nowMs - dayMs) / candleMs
      for (let n = Math.floor(first); (n + 1) * candleMs <= nowMs; n += 1) {
        if ((n + 1) * candleMs <= afterMs) continue
        const [open, high, low, close, volume] = candleAt(found.pair, n * candleMs)
        const [o, h, l, c] = [open, high, low, close].map((price) => round(price * found.factor))
        candles.push({
          mint,
          at: n * candleMs,
          open: o ?? 0,
          high: h ?? 0,
          low: l ?? 0,
          close: c ?? 0,
          volume,
        })
      }
      return candles
    },
  }
}

type PairCandle = Pair['candles'][number]

function candleAt({ name, candles }: Pair, ms: number): PairCandle {
  const candle = candles[Math.floor(ms / candleMs) % candles.length]
  if (!candle) throw new Fault('internal', `the recording of ${name} is empty`)
  return candle
}

/** `part`: of the interval, 0 to 1. */
function within([open, high, low, close]: PairCandle, part: number): number {
  const way = close >= open ? [open, low, high, close] : [open, high, low, close]
  const leg = Math.min(2, Math.floor(part * 3))
  const from = way[leg] ?? open
  const to = way[leg + 1] ?? close
  return from + (to - from) * (part * 3 - leg)
}

function round(price: number): number {
  return Number(price.toPrecision(digits))
}

function pairsOf(rows: readonly (readonly string[])[]): ReadonlyMap<string, Pair> {
  const byName = new Map<string, [number, PairCandle][]>()
  for (const [ts = '', name = '', ...values] of rows) {
    const ms = Date.parse(ts)
    const [open = 0, high = 0, low = 0, close = 0, volume = 0] = values.map(Number)
    if (Number.isNaN(ms) || !(low > 0)) throw new Fault('internal', `not a candle: ${ts} ${name}`)
    const candles = byName.get(name) ?? []
    byName.set(name, candles)
    candles.push([ms, [open, high, low, close, volume]])
  }
  // By the interval of the week that they were, so that hours and weekdays stay true.
  const placed = (candles: [number, PairCandle][]): PairCandle[] => {
    const week: PairCandle[] = []
    for (const [ms, candle] of candles) week[(ms / candleMs) % candles.length] = candle
    return week
  }
  return new Map(
    Array.from(byName, ([name, candles]) => [name, { name, candles: placed(candles) }]),
  )
}

/** Undefined: it does not move. */
function followOf({ mint, symbol }: Token, pairs: ReadonlyMap<string, Pair>): Follow | undefined {
  if (stable.has(symbol)) return undefined
  const own = pairs.get(recorded[mint] ?? '')
  if (own) return { pair: own, factor: 1 }
  const all = [...pairs.values()]
  const drawn = Number(BigInt.asUintN(48, BigInt(Bun.hash(mint)))) / 2 ** 48
  const pair = all[Math.floor(drawn * all.length)]
  if (!pair) throw new Fault('internal', 'no pair was recorded')
  const rest = (drawn * all.length) % 1
  return { pair, factor: 10 ** (scale.least + (scale.most - scale.least) * rest) }
}

/** Without the head. No field of either has a comma or a quote. */
async function rowsOf(path: string): Promise<string[][]> {
  const text = new TextDecoder().decode(Bun.gunzipSync(await Bun.file(path).bytes()))
  return text
    .trimEnd()
    .split('\n')
    .slice(1)
    .map((line) => line.split(','))
}
