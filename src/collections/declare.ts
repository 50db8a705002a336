/**
 * `collection()`: a Drizzle table as REST routes with rules, cache policy and live events.
 *
 * @example
 * import { app, collection, desc, topic } from 'belfry'
 * import { integer, primaryKey, real, sqliteTable, text } from 'drizzle-orm/sqlite-core'
 *
 * export const spot = sqliteTable('spot', {
 *   region: text().notNull(),
 *   at: integer({ mode: 'timestamp_ms' }).notNull(),
 *   price: real().notNull(),
 * }, (t) => [primaryKey({ columns: [t.region, t.at] })])
 *
 * export default app({
 *   name: 'energy',
 *   collections: {
 *     'prices/live': collection(spot, {
 *       ttl: '60s',
 *       read: 'public',
 *       create: ({ user }) => user?.role === 'scraper',
 *       filters: ['region'],
 *       orders: { newest: desc(spot.at) },
 *       live: (row) => `prices:${row.region}`,
 *     }),
 *   },
 *   topics: { 'prices:{region}': topic({ subscribe: 'public' }) },
 * })
 */
import type { SQLiteColumn, SQLiteTable } from 'drizzle-orm/sqlite-core'
import type { Audience, User } from '../auth/declare.ts'
import type { Duration } from '../lib/duration.ts'
import type { Where } from './where.ts'

export type Row<T extends SQLiteTable> = T['$inferSelect']
type Input<T extends SQLiteTable> = Partial<T['$inferInsert']>

/** What a write rule may answer: no (false, null, undefined), yes, or yes with these columns forced. */
export type WriteDecision<T extends SQLiteTable> = boolean | null | undefined | Input<T>

export interface CollectionOptions<T extends SQLiteTable> {
  /** How long a read may be served from cache. Writes invalidate at once; this bounds everything else. Default `60s`. */
  readonly ttl?: Duration
  /** How much longer an expired read may be served if the store fails (`X-Cache: stale`). Default: not at all. */
  readonly stale?: Duration

  /**
   * Who may read. A function returns a boolean, or a `Where` that narrows what is seen: it becomes
   * part of the query, and a row outside it is 404. Absent: denied.
   */
  readonly read?:
    | Audience
    | ((context: { readonly user: User | null }) => boolean | Where | null | undefined)
  /** Who may insert. May return forced values (`user && { authorId: user.id }`), which win over the input. Absent: denied. */
  readonly create?:
    | Audience
    | ((context: { readonly user: User | null; readonly input: Input<T> }) => WriteDecision<T>)
  /** Who may change which row (as it is stored now). May force values. Absent: denied. */
  readonly update?:
    | Audience
    | ((context: {
        readonly user: User | null
        readonly row: Row<T>
        readonly input: Input<T>
      }) => WriteDecision<T>)
  /** Who may delete which row. Absent: denied. */
  readonly remove?:
    | Audience
    | ((context: {
        readonly user: User | null
        readonly row: Row<T>
      }) => boolean | null | undefined)

  /** Columns a query may filter by (`?region=NSW1`). Any other parameter is a 400. Default: none. */
  readonly filters?: readonly (keyof Row<T> & string)[]
  /** Named orders (`?order=newest`); the first is the default. Every column NOT NULL. Default: by primary key. */
  readonly orders?: Readonly<Record<string, Order | readonly Order[]>>
  /**
   * The topic on which a change of this row is published, or null for none. Publication data:
   * `{ collection, op: 'create' | 'update' | 'remove', id, row, seq }`.
   * The topic's `subscribe` rule decides who hears it. If that is `'public'` or `'signed-in'`, a row
   * which this collection's `read` rule hides from such a reader is not published there.
   */
  readonly live?: (row: Row<T>) => string | null | undefined

  /** Declared in the app file, not served yet: refused at start. */
  readonly warm?: unknown
  readonly lookup?: unknown
  readonly children?: unknown
  readonly expand?: unknown
  readonly limits?: unknown
}

/** One column of an order; made by `asc` and `desc`. */
export interface Order {
  readonly column: SQLiteColumn
  readonly descending: boolean
}

export const asc = (column: SQLiteColumn): Order => ({ column, descending: false })
export const desc = (column: SQLiteColumn): Order => ({ column, descending: true })

export interface CollectionDeclaration<T extends SQLiteTable = SQLiteTable> {
  readonly kind: 'collection'
  readonly table: T
  readonly options: CollectionOptions<SQLiteTable>
}

/** Declares; opens nothing. The plan checks it, all mistakes at once. */
export function collection<T extends SQLiteTable>(
  table: T,
  options: CollectionOptions<T>,
): CollectionDeclaration<T> {
  // Rules are contravariant in the row: inside, every row is a plain record.
  return {
    kind: 'collection',
    table,
    options: options as unknown as CollectionOptions<SQLiteTable>,
  }
}

export { and, eq, gt, gte, isNull, lt, lte, ne, not, oneOf, or, type Where } from './where.ts'
