/**
 * `feed()`: ask upstream once, on a clock; everybody hears what changed.
 *
 * When upstream fails, the last value stays: published once more with `stale: true` and `as_of` (ms since 1970), and
 * read so at `GET /api/topics/<topic>/last`. When it answers again, the value is published as it is.
 *
 * Several nodes: one of them asks, another within 10 s of its end. What is published reaches the others by Redis;
 * without Redis each node asks for what its own subscribers hear.
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
 *   topics: {
 *     rates: topic({ subscribe: 'public' }),
 *     stats: topic({ subscribe: 'public', last: true }),
 *     'price:{mint}': topic({ subscribe: 'public', last: true }),
 *   },
 *   feeds: {
 *     // Rows are upserted; only changed ones are written and published.
 *     rates: feed({
 *       every: '5m',
 *       aligned: true,
 *       load: async ({ fetch, env }) => (await fetch(env.RATES_URL ?? '')).json(),
 *       into: 'rates',
 *     }),
 *     stats: feed({ every: '2s', load: ({ stats }) => stats(), publish: 'stats' }),
 *     // Only what somebody subscribes to, or has read lately, is asked for: up to 100 in one call.
 *     prices: feed({
 *       every: '1s',
 *       keyed: 'price:{mint}',
 *       batch: 100,
 *       load: async ({ fetch, keys, env }) => (await fetch(`${env.PRICES_URL}?ids=${keys.map(encodeURIComponent).join(',')}`)).json(),
 *     }),
 *     // What an upstream says by itself; connected, and subscribed, again whenever it ends; `load` tells what was missed.
 *     trades: feed({
 *       stream: {
 *         url: 'wss://stream.example.com',
 *         subscribe: () => [{ op: 'subscribe', channel: 'rates' }],
 *         parse: ({ data }) => [JSON.parse(String(data))],
 *       },
 *       load: async ({ fetch }) => (await fetch('https://api.example.com/rates')).json(),
 *       into: 'rates',
 *     }),
 *   },
 * })
 */
import type { Duration } from '../lib/duration.ts'
import type { ReadDb } from '../store/declare.ts'
import type { StreamDeclaration, UpstreamInit } from '../upstream/declare.ts'

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

export interface FeedInit extends UpstreamInit {
  /** Of 400 and above: those that `load` wants to see. Default: none. */
  readonly statuses?: readonly number[]
}

export interface FeedContext {
  /**
   * `fetch` that ends when the tick's `timeout` does: bounded, tried again, asked once by all who ask the same; under
   * the feed's `budget` it waits for its turn. An answer of 400 and above is thrown, so that no error is published for
   * a value, unless `statuses` names it.
   */
  readonly fetch: (url: string | URL, init?: FeedInit) => Promise<Response>
  /** What to ask for, at most `batch`, if the feed is `keyed`. As clients wrote them: encode each for a URL. */
  readonly keys: readonly string[]
  readonly signal: AbortSignal
  readonly env: Env
  readonly db: ReadDb
  /** Ms since 1970. */
  readonly now: number
  readonly stats: () => ServerStats
}

/** Five fields: minute, hour, day of the month, month, weekday; or `@hourly` and its like. In UTC. */
export interface Cron {
  readonly cron: string
}

export interface FeedOptions {
  /**
   * Time from the start of one tick to the start of the next; a tick never overlaps itself. At least 100ms. Of a
   * keyed feed: how old a value gets before its key is asked for again, if the budget allows.
   */
  readonly every: Duration | Cron | ((env: Env) => Duration | Cron)
  /** Ticks on whole multiples of `every` since 1970 (UTC), `'5m'` at :00, :05, :10, and at start. Default false. */
  readonly aligned?: boolean
  /** Each tick comes later by a random time up to this, so that not all the world asks at the full hour. */
  readonly jitter?: Duration
  /** `every` to begin with; then faster while values change and the budget is not used up, slower while they don't. */
  readonly adaptive?: { readonly min: Duration; readonly max: Duration }
  /** After this a tick is given up and counted as failed. Default `30s`. */
  readonly timeout?: Duration
  /**
   * One upstream call for everyone. Returns rows for `into` (an array; for several collections an
   * object of arrays by collection path), or the value for `publish`. Null or undefined: nothing new.
   * Keyed: an object or a Map of values by key; a key that is not in it is one that upstream does not know.
   */
  readonly load: (context: FeedContext) => unknown
  /**
   * Collection path(s) the rows are upserted into, by primary key, in one transaction. Keyed: one; the values are
   * its rows.
   */
  readonly into?: string | readonly string[]
  /** Topic (without parameters) the value is published on when it differs from the last one. */
  readonly publish?: string

  /** One of the app's `budgets`: no call of this feed goes beyond it. Default: none. */
  readonly budget?: string
  /**
   * A declared topic with one parameter, the key: each key's value is published on its own topic, when it differs
   * from the last one. Only keys are asked for that somebody subscribes to or has read within `idle`; a new one at
   * once. At most 20,000 keys, of at most 48 KB each.
   */
  readonly keyed?: string
  /** Keys of one `load`, 1 to 1,000. Default 100. */
  readonly batch?: number
  /**
   * A key that nobody subscribes to is asked for so long after the last read or subscription; one that upstream does not know
   * for `every`. Default `60s`.
   */
  readonly idle?: Duration
}

/** Instead of asking on a clock: what an upstream says by itself, of which one node hears. */
export interface StreamFeedOptions {
  readonly stream: StreamDeclaration
  /**
   * For what was said while nobody was connected: called at the beginning of each connection, at start and after a take-over too;
   * what it returns is taken, as of a feed on a clock, before anything that the connection says. If it fails it is called
   * again while the connection lasts. Without it what was said between is missed, unless the server replays by `Last-Event-ID`.
   */
  readonly load?: FeedOptions['load']
  /** One of the app's `budgets`, of `load`'s calls. */
  readonly budget?: string
  /** As of a feed on a clock: rows by primary key, those of several messages in one transaction. */
  readonly into?: string | readonly string[]
  /** As of a feed on a clock: each message's value, when it differs from the last one. */
  readonly publish?: string
}

export interface FeedDeclaration {
  readonly kind: 'feed'
  readonly options: FeedOptions | StreamFeedOptions
}

/** Declares; opens nothing. */
export function feed(options: FeedOptions | StreamFeedOptions): FeedDeclaration {
  return { kind: 'feed', options }
}

/** The last value of a key. */
export interface FeedValue {
  /** A copy. */
  readonly value: unknown
  /** When upstream said so, or said it again. Ms since 1970. */
  readonly asOfMs: number
  /** Upstream has failed since. */
  readonly isStale: boolean
}

/** `feeds` of the routes' context. */
export interface FeedReads {
  /**
   * Last values of a keyed feed, by key; of a feed that publishes, by its topic. Waits for those that are asked
   * for the first time; what upstream does not know is not in it. Faults: `not_found` (no such feed),
   * `unavailable`, `timeout` (nothing is known of a key, and upstream fails).
   */
  read(feed: string, keys: readonly string[]): Promise<ReadonlyMap<string, FeedValue>>
}
