/**
 * `limits`: named policies, to be attached to collections, routes and topics. Each is one budget per caller, wherever
 * it is attached: so many in ANY window of that length, not from one full minute to the next.
 *
 * A caller is a user, or an API key with scopes; without either, an address (of IPv6 its /64; behind proxies see
 * `TRUSTED_PROXIES`). Holders of `API_KEY`, or of a key with the scope `admin`, are not limited. Beyond the limit: 429 with `Retry-After`, before the body is read; what is refused does
 * not count. Every answer says what is left (`RateLimit`). With `REDIS_URL` all nodes count together.
 *
 * Two names have a rate unless you say another: `writes` (600/min, of writes without a limit of their own), and
 * `credentials` (60/min: tokens and keys of an address that are refused, at doors and on sockets; beyond it no other
 * is looked at until the window is over).
 *
 * @example
 * import { app, collection } from 'belfry'
 * import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
 *
 * const notes = sqliteTable('notes', { id: integer().primaryKey(), text: text({ length: 500 }).notNull() })
 *
 * export default app({
 *   name: 'notes',
 *   limits: {
 *     api: '100/min',
 *     strict: '20/min',
 *     login: { rate: '5/15min', by: 'address' },
 *     soon: { rate: '10/s', shadow: true }, // counted in metrics, refuses nobody
 *   },
 *   collections: {
 *     notes: collection(notes, {
 *       read: 'public',
 *       create: 'signed-in',
 *       limits: { read: 'api', create: ['strict', '200/day'] }, // a name, a rate, or several: one of each, or none
 *     }),
 *   },
 *   routes: (server, { limits }) =>
 *     server
 *       .get('/api/dice', () => 4, { limit: 'api' })
 *       .post('/api/reset/:account', async ({ params }) => {
 *         await limits.take('login', params.account) // by what you choose, whoever asks
 *         return { sent: true }
 *       }, { limit: 'login' }),
 * })
 */
import type { Rate } from '../lib/rate.ts'

export interface RateLimit {
  /** So many in any window of that length: `'100/min'`, `'5/15min'`, `'1000/h'`. At most 100,000, and 7 days. */
  readonly rate: Rate
  /** Count, and say in the metrics what would have been refused. Default false. */
  readonly shadow?: boolean
  /** Count addresses, whoever asks. Default: users, API keys, and the addresses of visitors. */
  readonly by?: 'address'
}

/** A policy of the app's `limits` by its name, a rate of its own, or several of these. */
export type LimitUse = LimitOne | readonly LimitOne[]
type LimitOne = Rate | (string & {}) | RateLimit

/** Absent: reads are not limited; each write takes one of `writes`, 600/min unless `limits` says otherwise. */
export interface CollectionLimits {
  /** Lists, single rows, look-ups, and where these rows are another's children. */
  readonly read?: LimitUse
  readonly create?: LimitUse
  readonly update?: LimitUse
  readonly remove?: LimitUse
}
