/**
 * What the token app asks when nobody gave it a JUPITER_URL: a provider of its own on this machine, in the shape of
 * Jupiter's Price API v3 (https://dev.jup.ag/docs/price/v3), and as stern: 50 requests in any second, 429 beyond.
 *
 *   GET /price/v3?ids=<mint>,…        { "<mint>": { usdPrice, blockId, decimals, priceChange24h } }, unknown ones absent
 *   GET /candles/v1?ids=…&after=<ms>  [ { mint, at, open, high, low, close, volume } ], closed after that time (ours alone)
 *   GET /tokens/v1                    [ { mint, symbol, name, decimals, logo } ]                               (likewise)
 */
import { systemClock, type Clock } from '../lib/clock.ts'
import { market } from './tokens-market.ts'

/** As the provider has it: in any second, whatever was refused. */
export const requestsPerSecondMax = 50
const windowMs = 1_000

/** Mints of one request, as the provider has it. */
const idsMax = 50

/** Solana makes a block so often. */
const blockMs = 400

export interface LocalUpstream {
  readonly url: string
  readonly stop: () => void
}

let running: LocalUpstream | undefined

/** One for the process, begun when it is first asked for; it does not keep the process alive. */
export function localUpstream(): LocalUpstream {
  return (running ??= startUpstream(systemClock))
}

export function startUpstream(clock: Pick<Clock, 'now' | 'tick'>): LocalUpstream {
  const served: number[] = []
  const isOver = (): boolean => {
    const now = clock.tick()
    while (served[0] !== undefined && served[0] <= now - windowMs) served.shift()
    if (served.length >= requestsPerSecondMax) return true
    served.push(now)
    return false
  }
  const server = Bun.serve({
    hostname: '127.0.0.1',
    port: 0,
    development: false,
    async fetch(request) {
      if (isOver()) {
        return Response.json(
          { error: 'too many requests' },
          { status: 429, headers: { 'retry-after': '1' } },
        )
      }
      const { pathname, searchParams } = new URL(request.url)
      const { tokens, price, candles } = await market()
      const now = clock.now()
      const ids = (searchParams.get('ids') ?? '').split(',').filter((id) => id !== '')
      if (ids.length > idsMax) {
        return Response.json({ error: `at most ${idsMax} ids` }, { status: 400 })
      }
      if (pathname === '/tokens/v1') return Response.json(tokens)
      if (pathname === '/candles/v1') {
        const after = Number(searchParams.get('after') ?? 0)
        return Response.json(ids.flatMap((mint) => candles(mint, after, now)))
      }
      if (pathname !== '/price/v3') return Response.json({ error: 'not found' }, { status: 404 })
      const blockId = Math.floor(now / blockMs)
      const known = ids.flatMap((mint) => {
        const found = price(mint, now)
        return found ? [[mint, { blockId, ...found }] as const] : []
      })
      return Response.json(Object.fromEntries(known))
    },
  })
  server.unref()
  return { url: `http://127.0.0.1:${server.port}`, stop: () => void server.stop(true) }
}
