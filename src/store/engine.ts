/**
 * What a store thread can do with its connection, near (a file) or far (Hrana over HTTP). A file's
 * engine answers at once; a remote one answers later, and takes many reads at a time.
 */
import {
  entriesMax,
  type Committed,
  type Logged,
  type Query,
  type RawRow,
  type Write,
} from './messages.ts'

export type Awaitable<T> = T | Promise<T>

export interface Begin {
  readonly foreignKeys: 'on' | 'off'
  /** A migration's statement takes as long as it takes. */
  readonly isUnbounded: boolean
}

export interface Engine {
  read(query: Query): Awaitable<readonly RawRow[]>
  commit(writes: readonly Write[], after: number, foreignKeys?: 'off'): Awaitable<Committed>
  begin(options: Begin): Awaitable<void>
  /** Within `begin` and `end`. */
  run(query: Query): Awaitable<readonly RawRow[]>
  end(how: 'commit' | 'rollback', after: number): Awaitable<Logged>
  close(): Awaitable<void>
}

/**
 * A sqld refuses to answer with 10 MB, and a row of more than 5. Bytes: `length` of a text is characters, of
 * up to four each.
 */
const entriesBytesMax = 4_000_000

/** What one answer can hold of the log beyond a seq, in order; at least one, if there is one. */
export function entriesAfter(seq: number): Query {
  return { sql: selectEntries, params: [seq, entriesMax] }
}

const selectEntries = `select seq, at, subject, data from (
  select *, sum(bytes) over (order by seq) - bytes as before from (
    select seq, at, subject, data, length(cast(data as blob)) as bytes
    from log where seq > ? order by seq limit ?
  )
) where before < ${entriesBytesMax}`

export const selectSeq = 'select coalesce(max(seq), 0) from log'

/** Of a transaction that the database itself has rolled back. */
export function ended(): Error {
  return Object.assign(new Error('the transaction was ended'), { code: 'SQLITE_ABORT' })
}
