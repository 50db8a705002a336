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
import type { AuthOptions } from '../auth/declare.ts'
import type { BackupOptions } from '../backup/declare.ts'
import type { CollectionDeclaration } from '../collections/declare.ts'
import type { FeedDeclaration } from '../feeds/declare.ts'
import type { RateLimit } from '../limits/declare.ts'
import type { Routes } from '../http/declare.ts'
import type { Rate } from '../lib/rate.ts'
import type { TopicDeclaration } from '../realtime/declare.ts'

/** Without the names that clients read: those are each declaration's own. */
export type CollectionsDeclared = Readonly<
  Record<string, Pick<CollectionDeclaration, 'kind' | 'table' | 'options'>>
>
export type TopicsDeclared = Readonly<Record<string, Pick<TopicDeclaration, 'kind' | 'options'>>>

export interface AppOptions<
  Collections extends CollectionsDeclared = CollectionsDeclared,
  Topics extends TopicsDeclared = TopicsDeclared,
> {
  /** Lower-case letters, digits and dashes; names the default data folder and log lines. */
  readonly name: string
  /** By path under `/api/`: `'prices/live'` is served at `/api/prices/live`. */
  readonly collections?: Collections
  /** By pattern: `{name}` stands for one or more characters other than `:`. */
  readonly topics?: Topics
  readonly feeds?: Readonly<Record<string, FeedDeclaration>>
  /** What is served at `/`: an HTML file imported by the app, or HTML text. Default: a line that names the app. */
  readonly page?: Bun.HTMLBundle | string
  /** Copies of the database on a clock. Default: none but those that `belfry backup` makes. */
  readonly backup?: BackupOptions

  /** Policies by name, for collections, routes and topics: see `src/limits/declare.ts`. */
  readonly limits?: Readonly<Record<string, Rate | RateLimit>>
  /** Your own HTTP routes: see `src/http/declare.ts`. Called once, at start. */
  readonly routes?: Routes

  /** Accounts of your own, by e-mail and password: see `src/auth/declare.ts`. */
  readonly auth?: AuthOptions

  /** Declared in the app file, not served yet: refused at start. */
  readonly jobs?: unknown
  readonly budgets?: unknown
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
