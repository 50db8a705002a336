/**
 * What a client knows of an app, read from `typeof app` by mapped types: no code is generated, and nothing of
 * the app itself is imported.
 */
import type { SQLiteTable } from 'drizzle-orm/sqlite-core'
import type { CollectionDeclaration } from '../collections/declare.ts'
import type { AppDeclaration } from '../plan/declare.ts'
import type { TopicOptions } from '../realtime/declare.ts'

/** Any app: names are strings and rows are records. */
export type AnyApp = AppDeclaration

type CollectionsOf<App> = App extends AppDeclaration<infer Collections> ? Collections : never
type TopicsOf<App> = App extends AppDeclaration<infer _, infer Topics> ? Topics : never

/** Paths under `/api/`: `'prices/live'`. */
export type CollectionName<App> = keyof CollectionsOf<App> & string

/** As it comes over the wire: dates are ISO texts. */
export type Wire<T> = T extends Date
  ? string
  : T extends readonly (infer Item)[]
    ? readonly Wire<Item>[]
    : T extends object
      ? { readonly [Key in keyof T]: Wire<T[Key]> }
      : T

/** As it may be sent: a date also as ms since 1970. */
export type Sent<T> = T extends Date
  ? Date | string | number
  : T extends readonly (infer Item)[]
    ? readonly Sent<Item>[]
    : T extends object
      ? { readonly [Key in keyof T]: Sent<T[Key]> }
      : T

type TableOf<App, Name> = Name extends keyof CollectionsOf<App>
  ? CollectionsOf<App>[Name] extends CollectionDeclaration<infer Table>
    ? Table
    : SQLiteTable
  : SQLiteTable

type Kind = Exclude<keyof NonNullable<CollectionDeclaration['names']>, 'never' | 'sometimes'>

/** Names of columns that clients never see, or some clients. */
type HiddenOf<App, Name, K extends 'never' | 'sometimes'> = Name extends keyof CollectionsOf<App>
  ? CollectionsOf<App>[Name] extends {
      readonly names?: infer Names extends Record<'never' | 'sometimes', string>
    }
    ? Names[K]
    : never
  : never

type Shown<All, Never, Sometimes> = [Never | Sometimes] extends [never]
  ? All
  : string extends Never | Sometimes
    ? All
    : { readonly [Column in Exclude<keyof All, Never | Sometimes>]: All[Column] } & {
        readonly [Column in Sometimes & keyof All]?: All[Column]
      }

type NameOf<App, Name, K extends Kind> = Name extends keyof CollectionsOf<App>
  ? CollectionsOf<App>[Name] extends { readonly names?: infer Names extends Record<Kind, string> }
    ? Names[K]
    : string
  : string

/** A row of the collection as a client sees it: without what is hidden; what is hidden from some may be missing. */
export type Row<App, Name> = Shown<
  Wire<TableOf<App, Name>['$inferSelect']>,
  HiddenOf<App, Name, 'never'>,
  HiddenOf<App, Name, 'sometimes'>
>

/** Columns to write. All are optional: rules may force some, and the database may make others. */
export type Input<App, Name> = Partial<Sent<TableOf<App, Name>['$inferInsert']>>

/** What a list may be asked for: declared filters by column, a declared order, and a place in it. */
export type ListQuery<App, Name> = {
  readonly [Column in NameOf<App, Name, 'filter'> & keyof Row<App, Name>]?: Exclude<
    Sent<Row<App, Name>[Column]>,
    null
  >
} & {
  readonly order?: NameOf<App, Name, 'order'>
  /** At most 100. */
  readonly limit?: number
  /** `next` of the page before. */
  readonly after?: string | undefined
  /** `prev` of the page after. */
  readonly before?: string | undefined
  readonly count?: boolean
  readonly expand?: NameOf<App, Name, 'expand'> | readonly NameOf<App, Name, 'expand'>[]
}

/** A row, and what was expanded in it. */
export type Item<App, Name> = Row<App, Name> & {
  readonly [Expand in NameOf<App, Name, 'expand'>]?: Readonly<Record<string, unknown>> | null
}

export interface Page<T> {
  readonly items: readonly T[]
  readonly next: string | null
  readonly prev: string | null
  /** With `count: true`. */
  readonly count?: number
}

/**
 * What `live` publishes: the row after it was made or changed, or as it was when it went. Of one that is there and may
 * no longer be read here, `remove` has the key alone.
 */
export interface Change<Collection extends string, T> {
  readonly collection: Collection
  readonly op: 'create' | 'update' | 'remove'
  readonly id: string
  readonly row: T
  readonly seq: number
}

/** `'chat:{room}'` → `chat:${string}`. */
export type Template<Pattern extends string> =
  Pattern extends `${infer Before}{${string}}${infer After}`
    ? `${Before}${string}${Template<After>}`
    : Pattern

/** Names of declared topics. */
export type TopicName<App> = Template<keyof TopicsOf<App> & string>

/** Whether two sets of names have one in common, as far as their types say. */
type Meets<A, B> = [A] extends [never]
  ? false
  : [A] extends [B]
    ? true
    : [B] extends [A]
      ? true
      : false

type MessageIn<Declared> = Declared extends { readonly options: TopicOptions<infer Data> }
  ? unknown extends Data
    ? never
    : Wire<Data>
  : never

/** What goes `through` a route is not heard as it was published. */
type IsHeard<Declared> = Declared extends { readonly names?: { readonly through: infer Through } }
  ? [Through] extends [never]
    ? true
    : false
  : true

/** What the topic's `message` or `topic<Data>(…)` says is published there. */
type MessageOf<App, Name> = {
  [Pattern in keyof TopicsOf<App> & string]: Meets<Name, Template<Pattern>> extends true
    ? MessageIn<TopicsOf<App>[Pattern]>
    : never
}[keyof TopicsOf<App> & string]

type HeardMessageOf<App, Name> = {
  [Pattern in keyof TopicsOf<App> & string]: IsHeard<TopicsOf<App>[Pattern]> extends true
    ? Meets<Name, Template<Pattern>> extends true
      ? MessageIn<TopicsOf<App>[Pattern]>
      : never
    : never
}[keyof TopicsOf<App> & string]

/** What a client may publish on a topic. */
export type Published<App, Name> =
  string extends CollectionName<App>
    ? unknown
    : [MessageOf<App, Name>] extends [never]
      ? unknown
      : MessageOf<App, Name>

/** Changes of the collections that are `live` there. */
type ChangesOf<App, Name> = {
  [Path in CollectionName<App>]: Meets<NameOf<App, Path, 'live'>, Name> extends true
    ? Change<Path, Row<App, Path>>
    : never
}[CollectionName<App>]

type Known<App, Name> = HeardMessageOf<App, Name> | ChangesOf<App, Name>

/** What is heard on a topic; unknown where neither `message` nor `live` tells, and of an app without a type. */
export type DataOf<App, Name> =
  string extends CollectionName<App>
    ? unknown
    : [Known<App, Name>] extends [never]
      ? unknown
      : Known<App, Name>
