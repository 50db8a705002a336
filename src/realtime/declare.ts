/**
 * `topic()`: a named stream of publications, heard over WebSocket and SSE.
 *
 * @example
 * import { app, topic } from 'belfry'
 *
 * export default app({
 *   name: 'live',
 *   topics: {
 *     'prices:{region}': topic({ subscribe: 'public', history: { size: 288, ttl: '24h' }, last: true }),
 *     'chat:{room}': topic({ subscribe: 'signed-in', publish: 'signed-in' }),
 *     'inbox:{user}': topic({ subscribe: ({ user, params }) => user?.id === params.user }),
 *   },
 * })
 */
import type { Audience, User } from '../auth/declare.ts'
import type { Duration } from '../lib/duration.ts'

export type TopicRule =
  | Audience
  | ((context: {
      readonly user: User | null
      readonly params: Readonly<Record<string, string>>
    }) => boolean | null | undefined)

export interface TopicOptions {
  /**
   * Who may subscribe, read history and see presence. Absent: denied. Besides: who has a token of its own
   * for this very topic (claim `channel`), whose token names it (claim `channels`: subscribed at once), and
   * whom the server API subscribes.
   */
  readonly subscribe?: TopicRule
  /** Who may publish as a client. The server (feeds, `live`, `POST /api/publish`) always may. Absent: denied. */
  readonly publish?: TopicRule
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

  /** Declared in the app file, not served yet: refused at start. */
  readonly limit?: unknown
  readonly message?: unknown
  readonly conflate?: unknown
  readonly persist?: unknown
}

export interface TopicDeclaration {
  readonly kind: 'topic'
  readonly options: TopicOptions
}

/** Declares; opens nothing. */
export function topic(options: TopicOptions): TopicDeclaration {
  return { kind: 'topic', options }
}
