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
import type { CollectionLimits } from '../limits/declare.ts'
import type { Priority } from '../overload/declare.ts'
import type { Where } from './where.ts'

export type Row<T extends SQLiteTable> = T['$inferSelect']
type Input<T extends SQLiteTable> = Partial<T['$inferInsert']>

/** What a write rule may answer: no (false, null, undefined), yes, or yes with these columns forced. */
export type WriteDecision<T extends SQLiteTable> = boolean | null | undefined | Input<T>

/** The type parameters after the table's are inferred, for typed clients: names that the options give. */
export interface CollectionOptions<
  T extends SQLiteTable,
  Live extends string = string,
  Filter extends keyof Row<T> & string = keyof Row<T> & string,
  OrderName extends string = string,
  Expand extends string = string,
  Asker extends User = User,
  Hide = unknown,
> {
  /**
   * How long a read may be served from cache, a tenth more or less, so that not all of them expire together. Writes
   * invalidate at once; this bounds everything else. Default `60s`. With `REDIS_URL`, `{ own: '5s', shared: '10m' }`
   * keeps it longer in the tier that nodes share.
   */
  readonly ttl?: Duration | { readonly own: Duration; readonly shared: Duration }
  /**
   * How much longer an expired read may be served if the store fails, or is asked too much (`X-Cache: stale`).
   * Default: not at all.
   */
  readonly stale?: Duration

  /**
   * Who may read. A function returns a boolean, or a `Where` that narrows what is seen: it becomes
   * part of the query, and a row outside it is 404. Absent: denied.
   */
  readonly read?:
    | Audience
    | ((context: { readonly user: Asker | null }) => boolean | Where | null | undefined)
  /** Who may insert. May return forced values (`user && { authorId: user.id }`), which win over the input. Absent: denied. */
  readonly create?:
    | Audience
    | ((context: { readonly user: Asker | null; readonly input: Input<T> }) => WriteDecision<T>)
  /** Who may change which row (as it is stored now). May force values. Absent: denied. */
  readonly update?:
    | Audience
    | ((context: {
        readonly user: Asker | null
        readonly row: Row<T>
        readonly input: Input<T>
      }) => WriteDecision<T>)
  /** Who may delete which row. Absent: denied. */
  readonly remove?:
    | Audience
    | ((context: {
        readonly user: Asker | null
        readonly row: Row<T>
      }) => boolean | null | undefined)

  /**
   * Columns that are left out of rows, name and value: `{ passwordHash: true }` of everybody's,
   * `{ email: { unless: 'signed-in' } }` of visitors', or unless a rule says otherwise: `{ unless: ({ user }) =>
   * eq(users.id, user?.id) }` shows each user his own. That holds for every answer, rows that others refer to
   * and live events; whoever may write may write them. The ETag is of what is shown. A rule that tells users or
   * rows apart keeps an answer in the cache for each outcome. They cannot be filters, orders, look-ups, expands or
   * keys. That a value is taken (`.unique()`) is told to who writes it. `belfry export`, `load` and the database
   * of routes have all columns. Default: none.
   */
  readonly hide?: Hide & HideOptions<T, Asker>

  /**
   * Lists that are loaded at start, before anybody asks, and after the cache was emptied:
   * `[{ order: 'newest', limit: 20, region: 'NSW1' }]`. Of public collections. Default: none.
   */
  readonly warm?: readonly Readonly<Record<string, string | number | boolean>>[]
  /** Columns a query may filter by (`?region=NSW1`). Any other parameter is a 400. Default: none. */
  readonly filters?: readonly Filter[]
  /**
   * Named orders (`?order=newest`); the first is the default. Every column NOT NULL, and text columns that
   * are no part of the key with a length, all of an order together at most 1,000: a place in the order
   * must fit a URL. Default: by primary key. At start, a filter and order without an index is a warning
   * that says which to add.
   */
  readonly orders?: Readonly<Record<OrderName, Order | readonly Order[]>>
  /**
   * The topic (or topics) on which a change of this row is published, or null for none. Publication data:
   * `{ collection, op: 'create' | 'update' | 'remove', id, row, seq }`. Where a row was and no longer is after a change,
   * that is `remove`, with the row as it was.
   * A topic's `subscribe` rule decides who hears it, and this collection's `read` and `hide`, asked when the change
   * goes out, what of it: each hearer is told of the rows that he may read, as he may see them; also from history.
   * They are asked once for all hearers who have the same in those fields of `user` that the rules look at. Where
   * that is `id`, each user costs 2 µs of each publication: beyond some thousands, give each its topic
   * (`` (row) => `tickets:${row.owner}` ``). Who may no longer read a row after a change is told `remove`, with the
   * key alone in `row`. Neither is told if the same change replaced a text of more than 256 characters, and where the
   * topic conflates, a later change may take its place.
   */
  readonly live?: (row: Row<T>) => Live | readonly Live[] | null | undefined

  /**
   * Unique columns by which a row may be asked for: `['slug']` serves `GET /api/posts/slug/:slug`, a row
   * or 404, under the same rule and TTL as by its key.
   */
  readonly lookup?: readonly (keyof Row<T> & string)[]
  /**
   * Lists of rows that belong to one of these: `{ comments: comments.postId }` serves
   * `GET /api/posts/:id/comments`. It is a list of the collection over the column's table (of several,
   * the one whose path is or ends in this name): that one's rule, filters, orders, expands and TTL,
   * narrowed to this row. 404 if the reader may not see this row. The column holds this table's key,
   * which must be a single column.
   */
  readonly children?: Readonly<Record<string, SQLiteColumn>>
  /**
   * Rows that these refer to, on request: with `{ author: posts.authorId }` and `?expand=author` every
   * item, and the single row too, has `author`: the row that the column `.references()`, or null if
   * there is none or the reader may not see it by the rule of the collection over that table (of
   * several, the one whose path is or ends in this name, or in the table's). One query for all of a page.
   */
  readonly expand?: Readonly<Record<Expand, SQLiteColumn>>

  /** Who is still served in an overload: see `src/overload/declare.ts`. Default `'normal'`. */
  readonly priority?: Priority
  /** How often: by the name of a policy, or a rate (`src/limits/declare.ts`). `{ create: 'strict', read: '100/min' }`. */
  readonly limits?: CollectionLimits
}

/** From whom a column is hidden: from everybody, or from all but those of whom the rule says so, in all or some rows. */
export type HideRule<Asker extends User = User> =
  | true
  | {
      readonly unless:
        | 'signed-in'
        | ((context: { readonly user: Asker | null }) => boolean | Where | null | undefined)
    }

export type HideOptions<T extends SQLiteTable, Asker extends User = User> = {
  readonly [Column in keyof Row<T> & string]?: HideRule<Asker>
}

type NeverShown<Hide> = {
  [Column in keyof Hide]: Hide[Column] extends true ? Column : never
}[keyof Hide] &
  string
type SometimesShown<Hide> = {
  [Column in keyof Hide]: Hide[Column] extends true ? never : Column
}[keyof Hide] &
  string

/** One column of an order; made by `asc` and `desc`. */
export interface Order {
  readonly column: SQLiteColumn
  readonly descending: boolean
}

export const asc = (column: SQLiteColumn): Order => ({ column, descending: false })
export const desc = (column: SQLiteColumn): Order => ({ column, descending: true })

export interface CollectionDeclaration<
  T extends SQLiteTable = SQLiteTable,
  Live extends string = string,
  Filter extends string = string,
  OrderName extends string = string,
  Expand extends string = string,
  Never extends string = string,
  Sometimes extends string = string,
> {
  readonly kind: 'collection'
  readonly table: T
  readonly options: CollectionOptions<SQLiteTable>
  /** Never there: types only, which clients read (`src/client/types.ts`). */
  readonly names?: {
    readonly live: Live
    readonly filter: Filter
    readonly order: OrderName
    readonly expand: Expand
    /** Columns that no client sees, and that some do. */
    readonly never: Never
    readonly sometimes: Sometimes
  }
}

/** `collection`, for users whose claims are declared. */
export type DeclareCollection<Asker extends User> = <
  T extends SQLiteTable,
  Live extends string = never,
  Filter extends keyof Row<T> & string = never,
  OrderName extends string = never,
  Expand extends string = never,
  const Hide = None,
>(
  table: T,
  options: CollectionOptions<T, Live, Filter, OrderName, Expand, Asker, Hide>,
) => CollectionDeclaration<
  T,
  Live,
  Filter,
  OrderName,
  Expand,
  NeverShown<Hide>,
  SometimesShown<Hide>
>

// oxlint-disable-next-line typescript/no-empty-object-type -- a collection that hides nothing
type None = {}

/**
 * Declares; opens nothing. The plan checks it, all mistakes at once.
 *
 * @example
 * import { app, collection, desc, eq, or } from 'belfry'
 * import { index, integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
 *
 * const users = sqliteTable('users', {
 *   id: integer().primaryKey(),
 *   handle: text({ length: 40 }).notNull().unique(),
 *   email: text({ length: 200 }).notNull().unique(),
 *   passwordHash: text().notNull(),
 * })
 * const posts = sqliteTable('posts', {
 *   id: integer().primaryKey(),
 *   slug: text({ length: 80 }).notNull().unique(),
 *   isPublic: integer({ mode: 'boolean' }).notNull().default(false),
 *   authorId: integer().notNull().references(() => users.id),
 * })
 * const comments = sqliteTable('comments', {
 *   id: integer().primaryKey(),
 *   postId: integer().notNull().references(() => posts.id),
 *   authorId: integer().notNull().references(() => users.id),
 *   text: text({ length: 2000 }).notNull(),
 * }, (t) => [index('comments_postId').on(t.postId)])
 *
 * export default app({
 *   name: 'blog',
 *   collections: {
 *     users: collection(users, {
 *       read: 'signed-in',
 *       lookup: ['handle'],
 *       hide: { passwordHash: true, email: { unless: ({ user }) => eq(users.id, Number(user?.id)) } },
 *     }),
 *     posts: collection(posts, {
 *       read: ({ user }) => or(eq(posts.isPublic, true), eq(posts.authorId, Number(user?.id))),
 *       lookup: ['slug'], // GET /api/posts/slug/hello
 *       children: { comments: comments.postId }, // GET /api/posts/1/comments?order=newest
 *       expand: { author: posts.authorId }, // GET /api/posts?expand=author&count=true
 *     }),
 *     comments: collection(comments, {
 *       read: 'public',
 *       orders: { newest: desc(comments.id) },
 *       expand: { author: comments.authorId },
 *     }),
 *   },
 * })
 */
export const collection: DeclareCollection<User> = (table, options) => ({
  kind: 'collection',
  table,
  // Rules are contravariant in the row: inside, every row is a plain record.
  options: options as unknown as CollectionOptions<SQLiteTable>,
})

/** The table among `Tables` that a column belongs to. */
type TableOf<Tables extends SQLiteTable, C extends SQLiteColumn> = Extract<
  Tables,
  { readonly _: { readonly name: C['_']['tableName'] } }
>

/** A row of the table that a column belongs to; a plain record if that is none of `Tables`. */
export type RowOf<Tables extends SQLiteTable, C extends SQLiteColumn> = [
  TableOf<Tables, C>,
] extends [never]
  ? Readonly<Record<string, unknown>>
  : Row<TableOf<Tables, C>>

/**
 * Rows by a column's value: all that one request asks for in one tick is one query per column. Nothing
 * is remembered between ticks, no rule is asked, and what is null is found by nobody.
 * `Tables`: those of the app, so that `load.one(users.id, 5)` is a `typeof users.$inferSelect`.
 */
export interface Load<Tables extends SQLiteTable = never> {
  /** For unique columns; of several rows, any. */
  one<C extends SQLiteColumn>(
    column: C,
    value: C['_']['data'] | null | undefined,
  ): Promise<RowOf<Tables, C> | undefined>
  /** In no order. Faults: `too_large` beyond 10,000 rows; that is what lists are for. */
  many<C extends SQLiteColumn>(
    column: C,
    value: C['_']['data'] | null | undefined,
  ): Promise<RowOf<Tables, C>[]>
}

/** Of a cached value: parts joined by `:`. What a client sent is a part of a list (`['a', x]`), and never of a text. */
export type CacheKey = string | readonly (string | number)[]

/** Who may be given the value: everybody, one user (all visitors together, for null), or one tenant. */
export type CacheScope = 'public' | { readonly user: User | null } | { readonly tenant: string }

/** A table: any change of it. A name: what `cache.invalidate` names. */
export type CacheTag = SQLiteTable | string

export interface CachedOptions {
  /** Default `60s`. */
  readonly ttl?: Duration
  /**
   * How much longer an expired value may be given if the load fails (whatever `Error` it throws, but for a `Fault` that
   * refuses; the log says `cache.load_failed`), takes more than 2 s, or in an overload. Default: not at all.
   */
  readonly stale?: Duration
  readonly tags?: readonly CacheTag[]
  readonly scope: CacheScope
}

/** The cache, for custom routes. Values are JSON, shared by all who ask and frozen: copy what you change. */
export interface RouteCache {
  /**
   * The value under this key and scope, loaded if need be, once for all who ask: a load that is under way for half a
   * minute is joined by nobody else. `undefined` (there is none) is remembered for ten seconds, a failure for a moment.
   */
  get<T>(key: CacheKey, options: CachedOptions, load: () => Promise<T> | T): Promise<T>
  /**
   * On every node: tags by name, tables, and keys by prefix (`'board:1:*'`). Resolves once this node obeys. A write of
   * its own: after a transaction, not within one.
   */
  invalidate(...tags: CacheTag[]): Promise<void>
}

export { and, eq, gt, gte, isNull, lt, lte, ne, not, oneOf, or, type Where } from './where.ts'
