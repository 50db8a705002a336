/** What the main thread and a store thread say to each other. Plain data: it is structured-cloned. */

export type SqlValue = string | number | bigint | null | Uint8Array

/** A row as the engine gives it: driver values by column position. */
export type RawRow = readonly unknown[]

export interface Query {
  readonly sql: string
  readonly params: readonly unknown[]
}

/** One statement that changes at most a few rows of one table and logs each of them. */
export interface ChangeOp extends Query {
  /** Must end in `returning` with exactly these columns, by database name. */
  readonly columns: readonly string[]
  readonly table: string
  /** Positions of the primary key in `columns`. */
  readonly keyAt: readonly number[]
  /** `upsert` asks `probe` first which of create and update it is; safe, because there is one writer. */
  readonly op: 'create' | 'update' | 'remove' | 'upsert'
  readonly probe?: Query | undefined
  /** Tags of what the statement changes beside its rows: other tables' rows, by foreign-key actions. */
  readonly alsoTags?: readonly string[] | undefined
}

/** A logged change, as the log's `data` column holds it and as the rooms above receive it. */
export interface Change {
  readonly seq: number
  readonly atMs: number
  readonly table: string
  readonly op: 'create' | 'update' | 'remove'
  /** `keyOf` the primary key's driver values. */
  readonly key: string
  readonly row: RawRow
  readonly tags: readonly string[]
}

/** All of a write's ops happen, or none. */
export type Write = readonly ChangeOp[]

export interface StoreError {
  /** SQLite's extended code, e.g. `SQLITE_CONSTRAINT_UNIQUE`; `BELFRY_…` for our own. */
  readonly code: string
  readonly message: string
}

export type WriteOutcome = { readonly changes: readonly Change[] } | { readonly error: StoreError }

export interface ThreadOptions {
  readonly role: 'writer' | 'reader'
  readonly file: string
  /** Held exclusively by the writer for the life of the process. */
  readonly lockFile: string
}

export type Request =
  | { readonly kind: 'open'; readonly id: number; readonly options: ThreadOptions }
  | { readonly kind: 'read'; readonly id: number; readonly query: Query }
  | {
      readonly kind: 'write'
      readonly id: number
      readonly atMs: number
      readonly writes: readonly Write[]
    }
  /** Statements in one transaction, for migrations. */
  | { readonly kind: 'script'; readonly id: number; readonly statements: readonly string[] }
  | { readonly kind: 'close'; readonly id: number }

export type Answer =
  | { readonly id: number; readonly rows: readonly RawRow[] }
  | { readonly id: number; readonly outcomes: readonly WriteOutcome[] }
  | { readonly id: number; readonly error: StoreError }
  | { readonly id: number; readonly done: true }

/**
 * A primary key as one string, the same in tags, log entries and memory. Parts are escaped, so that
 * `('a,b', 'c')` and `('a', 'b,c')` stay apart.
 */
export function keyOf(parts: readonly unknown[]): string {
  return parts.map((part) => encodeURIComponent(String(part))).join(',')
}

/** Tags are by table, not by collection: two collections over one table must both notice. */
export function tableTag(table: string): string {
  return table
}

/** On every cached row of a table; named by changes that cannot say which rows they touched. */
export function anyRowTag(table: string): string {
  return `${table}::`
}

export function rowTag(table: string, key: string): string {
  return `${table}:${key}`
}
