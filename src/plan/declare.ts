/**
 * `app()`: the whole backend as one plain object. Declaring has no side effect: importing an app file
 * opens no socket and reads no environment. `belfry plan ./app.ts` shows what it comes to.
 *
 * @example
 * import { app, collection } from 'belfry'
 * import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
 *
 * const notes = sqliteTable('notes', { id: integer().primaryKey(), text: text().notNull() })
 *
 * export default app({ name: 'notes', collections: { notes: collection(notes, { read: 'public' }) } })
 */
import type { TSchema } from 'elysia'
import type { AuthOptions, User, UserWith } from '../auth/declare.ts'
import type { BackupOptions } from '../backup/declare.ts'
import {
  collection,
  type CollectionDeclaration,
  type DeclareCollection,
} from '../collections/declare.ts'
import type { FeedDeclaration } from '../feeds/declare.ts'
import type { RateLimit } from '../limits/declare.ts'
import type { Routes } from '../http/declare.ts'
import type { Rate } from '../lib/rate.ts'
import { topic, type DeclareTopic, type TopicDeclaration } from '../realtime/declare.ts'
import type { BudgetDeclaration, ProxyDeclaration } from '../upstream/declare.ts'

/** Without the names that clients read: those are each declaration's own. */
export type CollectionsDeclared = Readonly<
  Record<string, Pick<CollectionDeclaration, 'kind' | 'table' | 'options'>>
>
export type TopicsDeclared = Readonly<Record<string, Pick<TopicDeclaration, 'kind' | 'options'>>>

export interface AppOptions<
  Collections extends CollectionsDeclared = CollectionsDeclared,
  Topics extends TopicsDeclared = TopicsDeclared,
  Asker extends User = User,
> {
  /** Lower-case letters, digits and dashes; names the default data folder and log lines. */
  readonly name: string
  /** By path under `/api/`: `'prices/live'` is served at `/api/prices/live`. */
  readonly collections?: Collections
  /** By pattern: `{name}` stands for one or more characters other than `:`. */
  readonly topics?: Topics
  readonly feeds?: Readonly<Record<string, FeedDeclaration>>
  /** How often others may be asked, by feeds and proxies: see `src/upstream/declare.ts`. */
  readonly budgets?: Readonly<Record<string, BudgetDeclaration>>
  /** By path, `'/api/jupiter'`: parts of somebody else's API, passed on. */
  readonly proxies?: Readonly<Record<string, ProxyDeclaration>>
  /**
   * What is served at `/`: an HTML file imported by the app, or HTML text. Default: a line that names the app. An imported
   * one is bundled, and runs the scripts of this server only; one that needs another host's, or its fonts, says so in a
   * `<meta http-equiv="Content-Security-Policy">` of its own, which then counts alone. No other site may frame either.
   */
  readonly page?: Bun.HTMLBundle | string
  /** Copies of the database on a clock. Default: none but those that `belfry backup` makes. */
  readonly backup?: BackupOptions

  /** Policies by name, for collections, routes and topics: see `src/limits/declare.ts`. */
  readonly limits?: Readonly<Record<string, Rate | RateLimit>>
  /** Your own HTTP routes: see `src/http/declare.ts`. Called once, at start. */
  readonly routes?: Routes<Asker>
  /** What tokens must say, and accounts of your own: see `src/auth/declare.ts`. */
  readonly auth?: AuthOptions

  /** Declared in the app file, not served yet: refused at start. */
  readonly jobs?: unknown
}

export interface AppDeclaration<
  Collections extends CollectionsDeclared = CollectionsDeclared,
  Topics extends TopicsDeclared = TopicsDeclared,
> {
  readonly kind: 'app'
  readonly options: AppOptions<Collections, Topics>
}

// oxlint-disable-next-line typescript/no-empty-object-type -- an app that declares none has none
type None = {}

/**
 * Declares; opens nothing. The app file default-exports what this returns; its type is what a client is
 * typed by: `createClient<typeof app>()` (`src/client/client.ts`).
 */
export function app<
  Collections extends CollectionsDeclared = None,
  Topics extends TopicsDeclared = None,
>(options: AppOptions<Collections, Topics>): AppDeclaration<Collections, Topics> {
  return { kind: 'app', options }
}

/** `app`, `collection` and `topic`, for users whose claims are declared. */
export interface DeclareWith<Asker extends User> {
  readonly app: <
    Collections extends CollectionsDeclared = None,
    Topics extends TopicsDeclared = None,
  >(
    options: AppOptions<Collections, Topics, Asker>,
  ) => AppDeclaration<Collections, Topics>
  readonly collection: DeclareCollection<Asker>
  readonly topic: DeclareTopic<Asker>
}

/**
 * Declares what the token of every user must say: the same `app`, `collection` and `topic`, whose rules know `user` by
 * it. In an app of several files, one of them exports these, and the others import them from there.
 *
 * @example
 * import { withClaims } from 'belfry'
 * import { t } from 'elysia'
 *
 * const { app, topic } = withClaims(t.Object({ rooms: t.Array(t.String()) }))
 *
 * export default app({
 *   name: 'rooms',
 *   topics: { 'room:{id}': topic({ subscribe: ({ user, params }) => user?.rooms.some((room) => room === params.id) }) },
 * })
 */
export function withClaims<Claims extends TSchema>(
  claims: Claims,
): DeclareWith<UserWith<Claims['static']>> {
  const declared = {
    app: (options: AppOptions) => app({ ...options, auth: { ...options.auth, claims } }),
    collection,
    topic,
  }
  // Rules are contravariant in the user; whoever comes to them has what is declared.
  return declared as unknown as DeclareWith<UserWith<Claims['static']>>
}
