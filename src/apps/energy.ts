/**
 * The National Electricity Market of Australia, live: `belfry serve --app energy`.
 *
 * Without `NEM_URL` it replays recorded real days, one at once and then a five-minute interval every
 * two seconds; with it
 * (`NEM_URL=http://nemweb.com.au/Reports/Current/DispatchIS_Reports/`) it follows the market.
 * Source: AEMO (Australian Energy Market Operator).
 */
import { app, asc, collection, desc, feed, topic } from '../kit.ts'
import type { User } from '../kit.ts'
import page from '../page/index.html'
import { loadForecast } from './energy-forecast.ts'
import { loadNem } from './energy-nem.ts'
import { loadReplay } from './energy-replay.ts'
import { fcas, forecast, forward, spot } from './energy-tables.ts'

export { fcas, forecast, forward, spot }

const isScraper = ({ user }: { readonly user: User | null }): boolean => user?.role === 'scraper'

/** A market day of five-minute intervals. */
const day = { size: 288, ttl: '24h' } as const

export default app({
  name: 'energy',

  collections: {
    'prices/live': collection(spot, {
      ttl: '60s',
      stale: '10m',
      read: 'public',
      filters: ['region'],
      orders: { newest: desc(spot.at), oldest: asc(spot.at) },
      live: (row) => `prices:${row.region}`,
    }),
    'prices/fcas': collection(fcas, {
      ttl: '60s',
      stale: '10m',
      read: 'public',
      filters: ['region'],
      orders: { newest: desc(fcas.at), oldest: asc(fcas.at) },
      live: (row) => `fcas:${row.region}`,
    }),
    // Empty until a scraper posts: there is no public forward curve that may be shipped.
    'prices/forward': collection(forward, {
      ttl: '1h',
      read: 'public',
      create: isScraper,
      update: isScraper,
      remove: isScraper,
      filters: ['region', 'period', 'product'],
    }),
    'demand/forecast': collection(forecast, {
      ttl: '5m',
      read: 'public',
      filters: ['region'],
      orders: { newest: desc(forecast.at), oldest: asc(forecast.at) },
    }),
  },

  topics: {
    'prices:{region}': topic({ subscribe: 'public', history: day, last: true }),
    'fcas:{region}': topic({ subscribe: 'public', history: day, last: true }),
    stats: topic({ subscribe: 'public', last: true }),
  },

  feeds: {
    dispatch: feed({
      every: (env) => (env.NEM_URL ? '30s' : '2s'),
      into: ['prices/live', 'prices/fcas'],
      load: (context) =>
        context.env.NEM_URL ? loadNem(context, context.env.NEM_URL) : loadReplay(context),
    }),
    // AEMO's forecast files are not fetched: with a live market there is only what was recorded before.
    forecast: feed({
      every: '5s',
      into: 'demand/forecast',
      load: (context) => (context.env.NEM_URL ? null : loadForecast(context)),
    }),
    stats: feed({ every: '2s', publish: 'stats', load: ({ stats }) => stats() }),
  },

  page,
})
