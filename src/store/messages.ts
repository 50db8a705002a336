/** What the main thread and a store thread say to each other. Plain data: it is structured-cloned. */

/** A row as the engine gives it: driver values by column position. */
export type RawRow = readonly unknown[]

export interface Query {
  readonly sql: string
  readonly params: readonly unknown[]
  /** A constant that names the statement in metrics and in the log of slow ones, as `list posts`. */
  readonly name?: string | undefined
}

/** All of a write's statements happen, or none. What they change is logged by triggers (`triggers.ts`). */
export type Write = readonly Query[]

/** A row of the log. `data` is `{"op":…,"row":{…}}`, as the triggers write it. */
export type LogEntry = readonly [seq: number, atMs: number, table: string, data: string]

export interface StoreError {
  /** SQLite's extended code, e.g. `SQLITE_CONSTRAINT_UNIQUE`; `BELFRY_…` for our own. */
  readonly code: string
  readonly message: string
}

/** The write's log entries are those above `from` up to `upTo`. */
export type WriteOutcome =
  | { readonly from: number; readonly upTo: number }
  | { readonly error: StoreError }

/** What is in the log beyond the asked seq: own entries, and other nodes' in between. */
export interface Logged {
  /** In order, without holes; not up to the newest if there are too many for one answer. */
  readonly entries: readonly LogEntry[]
  /** The newest seq. */
  readonly upTo: number
}

export interface Committed extends Logged {
  readonly outcomes: readonly WriteOutcome[]
}

/** Log entries one answer carries; more come by asking again. To hand out 2,000 takes about 10 ms. */
export const entriesMax = 2_000

export interface RemoteTarget {
  readonly url: string
  readonly authToken?: string | undefined
}

/** What a thread opens, once. */
export type ThreadOptions =
  /** The one connection that writes and checkpoints. */
  | { readonly role: 'writer'; readonly file: string }
  | { readonly role: 'reader'; readonly file: string }
  /** Reads and writes over the network, many requests at a time. */
  | ({ readonly role: 'remote' } & RemoteTarget)
  /** An embedded replica: its file follows the primary whenever it is told to sync. */
  | ({ readonly role: 'replica'; readonly file: string } & RemoteTarget)
  /** A connection of its own for an online copy: `vacuum into` counts as writing. */
  | { readonly role: 'snapshot'; readonly file: string }

type Numbered<T> = { readonly id: number } & T

export type Request = Numbered<
  | { readonly kind: 'open'; readonly options: ThreadOptions }
  | { readonly kind: 'read'; readonly query: Query }
  /** A group: one transaction, each write in its savepoint. */
  | {
      readonly kind: 'commit'
      readonly writes: readonly Write[]
      readonly after: number
      readonly foreignKeys?: 'off'
    }
  /** An interactive transaction; one at a time on a thread. */
  | {
      readonly kind: 'begin'
      readonly foreignKeys: 'on' | 'off'
      readonly isUnbounded: boolean
    }
  | { readonly kind: 'run'; readonly query: Query }
  | { readonly kind: 'end'; readonly how: 'commit' | 'rollback'; readonly after: number }
  | { readonly kind: 'sync' }
  | { readonly kind: 'close' }
>

export interface ReadRows {
  readonly rows: readonly RawRow[]
  readonly ms: number
  /** Of a slow query: what the engine meant to do. */
  readonly plan?: string | undefined
}

export type Answer = Numbered<
  | ReadRows
  | Committed
  | Logged
  /** The newest log entry that a sync brought. */
  | { readonly seq: number }
  | { readonly error: StoreError }
  | { readonly done: true }
>

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
