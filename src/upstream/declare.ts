/**
 * Other people's servers: `budget()`, how often they may be asked by all nodes together, and `proxy()`, what of them is
 * passed on. Feeds and proxies name the budget their calls are made under.
 *
 * In ANY window of the rate's length, at the provider, there are never more calls than `rate` and `burst` together: for
 * a provider with 50 a second, `45/s` and 5. Calls wait their turn; what cannot be done in time is refused at once,
 * with how long to wait (`too_many`). A provider that says 429, `Retry-After` or `RateLimit` is obeyed, for that key, by
 * all nodes within 5 s; 429 and 5xx halve the pace, which recovers by 5 % a second.
 *
 * A call is counted from its sending until a window after its answer: with answers that take 200 ms, 50 slots are at most 41
 * calls a second. Several nodes on one primary share all this by lease; of a node that dies, the rest have its part after
 * `timeout`, the window and 7 seconds. A primary that is away stops calls within 5 seconds.
 *
 * @example
 * import { app, budget, proxy } from 'belfry'
 *
 * export default app({
 *   name: 'prices',
 *   budgets: {
 *     jupiter: budget({
 *       rate: '45/s',
 *       burst: 5,
 *       keys: (env) => env.JUPITER_API_KEYS, // 'key1,key2': each has the rate of its own
 *       header: 'x-api-key',
 *       quota: '1000000/month',
 *     }),
 *   },
 *   proxies: {
 *     // GET /api/jupiter/price/v3?ids=…: asked for once a second at most, however many ask.
 *     '/api/jupiter': proxy({
 *       upstream: (env) => env.JUPITER_URL ?? 'https://api.jup.ag',
 *       read: 'public',
 *       budget: 'jupiter',
 *       allow: { path: 'price/v3', query: ['ids'] },
 *       ttl: '1s',
 *       stale: '10m',
 *       client: '5s',
 *       edge: '60s',
 *     }),
 *   },
 * })
 */
import type { User } from '../auth/declare.ts'
import type { Env } from '../feeds/declare.ts'
import type { Duration } from '../lib/duration.ts'
import type { Rate } from '../lib/rate.ts'
import type { LimitUse } from '../limits/declare.ts'

/** API keys: a list, or one text with commas between them. None: calls carry none. Never in the app file itself. */
export type KeysOf = (env: Env) => readonly string[] | string | undefined

/** The header that carries the key, or what puts it into a call. */
export type KeyHeader = string | ((key: string, init: RequestInit) => RequestInit)

export interface BudgetOptions {
  /** Calls of one key in any window of that length: `'45/s'`, `'300/min'`. */
  readonly rate: Rate
  /** So many more, and so many at once. Default 0: one after another, evenly. */
  readonly burst?: number
  /** Each key has the rate, the burst and the quota of its own. */
  readonly keys?: KeysOf
  /** Default `authorization`, as `Bearer …`. */
  readonly header?: KeyHeader
  /** Calls that may wait; beyond, the least urgent is refused. Default 500. */
  readonly queue?: number
  /** Of one key, by the calendar in UTC: `'5000/day'`, `'1000000/month'`. Kept in the database. Default: no end. */
  readonly quota?: `${number}/${'day' | 'month'}`
  /** A call that has no answer by then is given up. Default `5s`, at most `60s`. */
  readonly timeout?: Duration
}

export interface BudgetDeclaration {
  readonly kind: 'budget'
  readonly options: BudgetOptions
}

/** Declares; opens nothing. */
export function budget(options: BudgetOptions): BudgetDeclaration {
  return { kind: 'budget', options }
}

/** Of `fetch`'s own, and beyond. Answers come whole. */
export interface UpstreamInit extends Pick<RequestInit, 'method' | 'headers' | 'body' | 'signal'> {
  /** Default `follow`: at most 5. */
  readonly redirect?: 'follow' | 'manual'
  /** Name of a declared budget. A feed's calls have the feed's. */
  readonly budget?: string | undefined
  /** Among those who wait for the budget. Default `normal`. */
  readonly priority?: 'high' | 'normal' | 'low'
  /** Waiting, trying again and all. Default: none. */
  readonly deadlineMs?: number | undefined
  /** Of one try. Default 10000. */
  readonly timeoutMs?: number
  /** A longer answer fails. Default 8 MiB. */
  readonly bytesMax?: number
  /** Of calls that may be made twice (GET, HEAD, PUT, DELETE), after the first. Default 2. */
  readonly retries?: number
  /** May go to addresses that are not public. A feed's calls may. */
  readonly allowPrivate?: boolean
}

export type ProxyRule = 'public' | 'signed-in' | ((who: { readonly user: User | null }) => boolean)

/** What a proxy's headers are made of. */
export interface ProxyContext {
  readonly env: Env
  /** Null unless `vary` names `user`: what one user is answered must not be another's. */
  readonly user: User | null
}

/**
 * GET and HEAD of a part of somebody else's API: cached, asked once for all who wait, within a budget. Nothing of the
 * request goes there but what is named here, nothing of the answer comes back but its body and its content type.
 */
export interface ProxyOptions {
  /** `https://api.example.com/v1`, with a query that is always sent, if it has one. */
  readonly upstream: string | ((env: Env) => string)
  /** Who may ask; without it nobody may. */
  readonly read: ProxyRule
  readonly budget?: string
  /** Among those who wait for the budget, and in an overload. Default `normal`. */
  readonly priority?: 'high' | 'normal' | 'low'
  readonly allow?: {
    /** Parameters; any other is refused. With a pattern, which a value must match as a whole. */
    readonly query?: readonly string[] | Readonly<Record<string, RegExp>>
    /** Below the upstream's path; `{name}` is any one part. Without it, only the upstream itself. */
    readonly path?: string | readonly string[]
  }
  /** Request headers that go there and that the answer depends on, and `user`. */
  readonly vary?: readonly string[]
  /** Request headers of our own. */
  readonly headers?:
    | Readonly<Record<string, string>>
    | ((context: ProxyContext) => Readonly<Record<string, string>>)
  /** How long an answer is good. Default `60s`. */
  readonly ttl?: Duration
  /** … and how much longer if the upstream fails. Default `1h`. */
  readonly stale?: Duration
  /** How long browsers may keep it. Default: they ask each time. */
  readonly client?: Duration
  /** How long a CDN may keep it, if everybody may read it. Default: as `client` says. */
  readonly edge?: Duration
  /** Content types that are passed on. Default: JSON, plain text, CSV and pictures, but no SVG; never HTML unless named. */
  readonly types?: readonly string[]
  /** The upstream may be in a private network, and nothing is checked. */
  readonly private?: boolean
  /** Of one try. Default `10s`. */
  readonly timeout?: Duration
  /** A longer answer fails. Default 8 MiB. */
  readonly bytesMax?: number
  /** How often one may ask; see `src/limits/declare.ts`. */
  readonly limit?: LimitUse
}

export interface ProxyDeclaration {
  readonly kind: 'proxy'
  readonly options: ProxyOptions
}

/** Declares; opens nothing. */
export function proxy(options: ProxyOptions): ProxyDeclaration {
  return { kind: 'proxy', options }
}

/** What a stream said. */
export interface StreamMessage {
  /** Bytes: of a binary message of a WebSocket. */
  readonly data: string | Uint8Array
  /** Of server-sent events; `message` for WebSockets. */
  readonly event: string
  readonly id: string
}

/**
 * An upstream that says by itself what is new: `feed({ stream: { … }, into })` follows it on one node, and connects,
 * and subscribes, again whenever it ends. `load` of the feed tells what was said between.
 */
export interface StreamDeclaration {
  /** `https://…` of server-sent events, `wss://…` of a WebSocket. */
  readonly url: string | ((env: Env) => string)
  readonly headers?: (env: Env) => Readonly<Record<string, string>>
  /** What is sent at the beginning of each connection of a WebSocket: text as it is, anything else as JSON. */
  readonly subscribe?: (env: Env) => readonly unknown[]
  /**
   * What a message comes to: as `load` returns it. Null or undefined: nothing new. `send` answers, over a WebSocket.
   */
  readonly parse: (message: StreamMessage, send: (message: unknown) => void) => unknown
  /** Nothing heard for so long, not even a ping: it is connected anew. Default `60s`. */
  readonly silence?: Duration
  /** A longer message ends the connection. In characters; default 1,000,000. */
  readonly lengthMax?: number
}
