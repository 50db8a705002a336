/**
 * `feed()`: ask upstream once, on a clock; everybody hears what changed.
 *
 * @example
 * import { app, collection, feed, topic } from 'belfry'
 * import { real, sqliteTable, text } from 'drizzle-orm/sqlite-core'
 *
 * const rates = sqliteTable('rates', { currency: text().primaryKey(), rate: real().notNull() })
 *
 * export default app({
 *   name: 'rates',
 *   collections: { rates: collection(rates, { read: 'public', live: () => 'rates' }) },
 *   topics: { rates: topic({ subscribe: 'public' }), stats: topic({ subscribe: 'public', last: true }) },
 *   feeds: {
 *     // Rows are upserted; only changed ones are written and published.
 *     rates: feed({
 *       every: '5m',
 *       load: async ({ fetch, env }) => (await fetch(env.RATES_URL ?? '')).json(),
 *       into: 'rates',
 *     }),
 *     stats: feed({ every: '2s', load: ({ stats }) => stats(), publish: 'stats' }),
 *   },
 * })
 */
import type { Duration } from '../lib/duration.ts'
import type { ReadDb } from '../store/declare.ts'
import type { UpstreamInit } from '../upstream/declare.ts'

/** The environment as it was at start; declared code reads no `process.env` of its own. */
export type Env = Readonly<Record<string, string | undefined>>

/** What the server knows of itself at this moment. */
export interface ServerStats {
  /** Open WebSocket connections and SSE streams. */
  readonly connections: number
  readonly subscriptions: number
  /** Share of cached reads answered without the database since start, 0 to 1. */
  readonly cacheHitShare: number
  /** Newest entry of the log. */
  readonly seq: number
}

export interface FeedContext {
  /** `fetch` that ends when the tick's `timeout` does: bounded, tried again, asked once by all who ask the same. */
  readonly fetch: (url: string | URL, init?: UpstreamInit) => Promise<Response>
  readonly signal: AbortSignal
  readonly env: Env
  readonly db: ReadDb
  /** Ms since 1970. */
  readonly now: number
  readonly stats: () => ServerStats
}

export interface FeedOptions {
  /** Time from the start of one tick to the start of the next; a tick never overlaps itself. At least 100ms. */
  readonly every: Duration | ((env: Env) => Duration)
  /** After this a tick is given up and counted as failed. Default `30s`. */
  readonly timeout?: Duration
  /**
   * One upstream call for everyone. Returns rows for `into` (an array; for several collections an
   * object of arrays by collection path), or the value for `publish`. Null or undefined: nothing new.
   */
  readonly load: (context: FeedContext) => unknown
  /** Collection path(s) the rows are upserted into, by primary key, in one transaction. */
  readonly into?: string | readonly string[]
  /** Topic (without parameters) the value is published on when it differs from the last one. */
  readonly publish?: string

  /** Declared in the app file, not served yet: refused at start. */
  readonly budget?: unknown
  readonly keyed?: unknown
  readonly batch?: unknown
}

export interface FeedDeclaration {
  readonly kind: 'feed'
  readonly options: FeedOptions
}

/** Declares; opens nothing. */
export function feed(options: FeedOptions): FeedDeclaration {
  return { kind: 'feed', options }
}
