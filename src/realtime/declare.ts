/**
 * `topic()`: a named stream of publications, heard over WebSocket and SSE.
 *
 * @example
 * import { app, topic } from 'belfry'
 * import { t } from 'elysia'
 *
 * export default app({
 *   name: 'live',
 *   topics: {
 *     'prices:{region}': topic({ subscribe: 'public', history: { size: 288, ttl: '24h' }, last: true }),
 *     'chat:{room}': topic({
 *       subscribe: 'signed-in',
 *       publish: 'signed-in',
 *       message: t.Object({ text: t.String({ minLength: 1, maxLength: 500 }) }),
 *       limit: '5/10s',
 *       history: { size: 200, ttl: '7d' },
 *       persist: { ttl: '90d' },
 *     }),
 *     'ticker:{market}': topic({
 *       subscribe: 'public',
 *       conflate: { every: '1s', key: (data: { token: string }) => data.token },
 *     }),
 *     'inbox:{user}': topic({ subscribe: ({ user, params }) => user?.id === params.user }),
 *   },
 * })
 */
import type { TSchema } from 'elysia'
import type { Audience, User } from '../auth/declare.ts'
import type { Duration } from '../lib/duration.ts'
import type { Rate } from '../lib/rate.ts'

export type TopicRule<Asker extends User = User> =
  | Audience
  | ((context: {
      readonly user: Asker | null
      readonly params: Readonly<Record<string, string>>
    }) => boolean | null | undefined)

export interface ConflateOptions<Data> {
  /** From 10ms to 1h. */
  readonly every: Duration
  /**
   * What a publication is about, as the token of a price: each key has an interval of its own. Default: all of
   * the topic's publications are about the same. One that throws refuses the publication.
   */
  key?(data: Data): string | number
}

/** `'5/10s'`, or the name of one of the app's `limits`: its rate, counted apart from requests, and in each process. */
type RateOrName = Rate | (string & {})

export interface LimitOptions {
  /** For all connections of a user, over all topics of the pattern; for visitors, of an address. */
  readonly user?: RateOrName
  /** For each connection. */
  readonly connection?: RateOrName
}

export interface PersistOptions {
  /** Not fewer than in `history`. */
  readonly size?: number
  /** Not shorter than that of `history`, which it is by default. */
  readonly ttl?: Duration
}

/** `Data`: what is published, as `message` says. */
export interface TopicOptions<
  Data = unknown,
  Through extends string = string,
  Asker extends User = User,
> {
  /**
   * Who may subscribe, read history and see presence; of a collection's rows (`live`) each hears what its own rules
   * give. Absent: denied. Besides: who has a token of its own
   * for this very topic (claim `channel`), whose token names it (claim `channels`: subscribed at once), and
   * whom the server API subscribes.
   */
  readonly subscribe?: TopicRule<Asker>
  /** Who may publish as a client. The server (feeds, `live`, `POST /api/publish`) always may. Absent: denied. */
  readonly publish?: TopicRule<Asker>
  /**
   * How much is kept, in memory, for whoever was away: at most `size` publications (1 to 10,000),
   * none older than `ttl`. Subscribers recover by offset from it. Default: nothing.
   */
  readonly history?: { readonly size: number; readonly ttl: Duration }
  /** Give a new subscriber the latest publication with the reply to `subscribe`. Default false. */
  readonly last?: boolean

  /**
   * Keep who hears the topic, for whoever may subscribe to it (`presence`, `presence_stats`), and tell
   * those who come and go to subscribers who ask for it (`joinLeave`; at most 1,000 of a topic). Default false.
   */
  readonly presence?: boolean

  /**
   * What clients and the server API may publish, in Elysia's `t`. Anything else is refused, naming the field
   * (error 107, or a problem). As in routes, nested fields that it does not name are left out. What `live`, feeds
   * and your routes publish is not asked. Default: any JSON.
   */
  readonly message?: TSchema & { readonly static: Data }
  /**
   * How often a client may publish: so many in any window of that length, as `'5/10s'` or `'100/min'`. A string
   * is the limit of a user; above it error 111, and what was refused does not count. The server is not limited.
   */
  readonly limit?: RateOrName | LimitOptions
  /**
   * A client's publication is a call of this route or collection, in the client's own name, through the same
   * gates: `'POST /api/chat/{room}'` with the data as its body, and the topic's own parameters. Nothing is sent
   * out but what that publishes (`live`, `topics.publish`); the publisher is answered once it is done, or gets
   * its refusal, with the HTTP status as the code. `publish`, `message` and `limit` are asked before; what the
   * server publishes goes out as ever. Default: publications go to subscribers as they are.
   */
  readonly through?: Through
  /**
   * At most one publication per interval, the latest: the first goes at once; of those that come within the
   * interval the last one goes at its end. `'1s'`: the topic has one interval. What is replaced was never
   * published: it has no offset, and history does not know it.
   */
  readonly conflate?: Duration | ConflateOptions<Data>

  /**
   * Keep it in the database: a publication is committed before anybody hears it, and offsets, epoch and `history`
   * (which it needs) outlive the process. `true` keeps as much as `history` says; `{ ttl: '90d' }` more, for
   * `GET /api/topics/<topic>/history?since=…`, at most `size` publications (default 100,000, most 1,000,000).
   * It costs what a write costs; those that come at the same time share a commit. Default false.
   */
  readonly persist?: boolean | PersistOptions
}

export interface TopicDeclaration<Data = unknown, Through extends string = string> {
  readonly kind: 'topic'
  readonly options: TopicOptions<Data>
  /** Never there: types only, which clients read (`src/client/types.ts`). */
  readonly names?: { readonly through: Through }
}

/** `topic`, for users whose claims are declared. */
export type DeclareTopic<Asker extends User> = <Data = unknown, Through extends string = never>(
  options: TopicOptions<Data, Through, Asker>,
) => TopicDeclaration<Data, Through>

/** Declares; opens nothing. */
export const topic: DeclareTopic<User> = (options) => ({ kind: 'topic', options })
