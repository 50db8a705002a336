/**
 * What a store thread can do with its connection, near (a file) or far (Hrana over HTTP). A file's
 * engine answers at once; a remote one answers later, and takes many reads at a time.
 */
import type { Committed, LogEntry, Query, RawRow, Write } from './messages.ts'

export type Awaitable<T> = T | Promise<T>

export interface Engine {
  read(query: Query): Awaitable<readonly RawRow[]>
  commit(writes: readonly Write[], after: number, foreignKeys?: 'off'): Awaitable<Committed>
  begin(foreignKeys: 'on' | 'off'): Awaitable<void>
  /** Within `begin` and `end`. */
  run(query: Query): Awaitable<readonly RawRow[]>
  end(how: 'commit' | 'rollback', after: number): Awaitable<readonly LogEntry[]>
  close(): Awaitable<void>
}

export const selectEntries =
  'select seq, at, subject, data from log where seq > ? order by seq limit ?'
export const selectSeq = 'select coalesce(max(seq), 0) from log'
