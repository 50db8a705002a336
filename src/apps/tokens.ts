/**
 * Token prices, asked once for everybody: `belfry serve --app tokens`.
 *
 *   50 requests a second ◄── budget ◄── feed: only mints that somebody watches, 50 in a call, each second
 *                                         └─► price:{mint} ─► every board
 *
 * `price:{mint}` over WebSocket, SSE (`/api/stream?topics=price:…,price:…`) or `GET /api/topics/price:…/last`; the
 * provider's own answers, cached, at `/api/jupiter/price/v3?ids=…`. With JUPITER_URL and JUPITER_API_KEYS it asks
 * Jupiter; without, a provider on this machine replays a recorded week: db/samples/tokens/SOURCE.md.
 */
import { app, asc, budget, collection, desc, feed, proxy, topic } from '../kit.ts'
import page from '../page/tokens.html'
import { loadCandles, loadPrices, loadTokens, upstreamOf } from './tokens-feeds.ts'
import { candles, tokens } from './tokens-tables.ts'

export { candles, tokens }

export default app({
  name: 'tokens',

  collections: {
    tokens: collection(tokens, {
      ttl: '1h',
      stale: '1d',
      read: 'public',
      filters: ['symbol'],
      orders: { rank: [asc(tokens.rank), asc(tokens.mint)] },
    }),
    candles: collection(candles, {
      ttl: '60s',
      stale: '1h',
      read: 'public',
      filters: ['mint'],
      orders: { newest: desc(candles.at), oldest: asc(candles.at) },
      live: ({ mint }) => `candles:${mint}`,
    }),
  },

  topics: {
    'price:{mint}': topic({ subscribe: 'public', last: true, history: { size: 60, ttl: '10m' } }),
    'candles:{mint}': topic({ subscribe: 'public' }),
  },

  budgets: {
    // The provider takes 50 in any second, and bans who asks more.
    jupiter: budget({
      rate: '45/s',
      burst: 5,
      keys: (env) => env['JUPITER_API_KEYS'],
      header: 'x-api-key',
    }),
  },

  feeds: {
    prices: feed({
      every: '1s',
      budget: 'jupiter',
      keyed: 'price:{mint}',
      batch: 50,
      load: loadPrices,
    }),
    tokens: feed({ every: '1d', into: 'tokens', load: loadTokens }),
    candles: feed({ every: '5s', into: 'candles', budget: 'jupiter', load: loadCandles }),
  },

  proxies: {
    '/api/jupiter': proxy({
      upstream: upstreamOf,
      read: 'public',
      budget: 'jupiter',
      priority: 'low',
      allow: { path: 'price/v3', query: ['ids'] },
      ttl: '1s',
      stale: '10m',
      client: '5s',
      edge: '60s',
      // The operator's own, and on this machine without one.
      private: true,
    }),
  },

  page,
})
