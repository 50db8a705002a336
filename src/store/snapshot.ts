/**
 * What is done with a database file beside the running store: copied, verified, read as of one
 * moment, folded. Each in a thread of its own, never the writer nor a reader: nobody waits for it.
 *
 *   snapshotFile ─► `vacuum into` (a read transaction: writes go on) ─► the copy, opened and checked
 *
 * Invariants: a copy is one moment of the file, whatever is written meanwhile; a copy that is not whole
 * is thrown as a fault, never returned. Nothing here checkpoints while a writer is alive: autocheckpoint
 * is off, and SQLite folds at close only for the last connection.
 *
 * Cost: the WAL cannot start over while `vacuum into` runs, so it grows by what is written meanwhile.
 */
import { existsSync, statSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import { Fault } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import type { Query, RawRow, ThreadOptions } from './messages.ts'
import type { DatabaseOptions } from './places.ts'
import { startThread, type ThreadClient } from './thread-client.ts'

/** A verified copy. */
export interface Copy {
  /** Of its newest log entry: every change up to this one is in it, and none after. */
  readonly seq: number
  readonly bytes: number
  /** `PRAGMA user_version`: Belfry's own migrations that it has. */
  readonly schema: number
  /** Rows whose foreign key names a row that is not there: kept as they were found. */
  readonly orphans: number
}

interface SnapshotDeps {
  readonly clock: Clock
}

/** The verifying connection maps so much of the copy: half the time of reading it page by page. */
const mappedBytes = 256 * 1024 * 1024

/** Problems that a damaged copy is described by; `integrity_check` itself stops there. */
const problemsMax = 3

/** Faults: `conflict` if `to` exists, `unavailable`: the disk, or a copy that is not whole. */
export async function snapshotFile(
  deps: SnapshotDeps,
  { file, to }: { readonly file: string; readonly to: string },
): Promise<Copy> {
  // SQLite itself would take an empty file for its target.
  if (existsSync(to)) throw new Fault('conflict', `there is a file already: ${to}`)
  try {
    await withThread(deps, { role: 'snapshot', file }, (read) =>
      read({ sql: 'vacuum into ?', params: [to] }),
    )
  } catch (thrown) {
    throw named(thrown, `copying ${basename(file)} to ${dirname(to)}`)
  }
  return await inspectFile(deps, to)
}

/** Looks at every page. Faults: `unavailable` for what is damaged or not Belfry's, with the reason. */
export async function inspectFile(deps: SnapshotDeps, file: string): Promise<Copy> {
  const look = async (read: Read): Promise<Copy | string> => {
    const values = async (sql: string) => (await read({ sql, params: [] })).map(([value]) => value)
    await values(`pragma mmap_size = ${mappedBytes}`)
    const problems = await values(`pragma integrity_check(${problemsMax})`)
    if (problems.length !== 1 || problems[0] !== 'ok') return `is damaged: ${problems.join('; ')}`
    const isOurs = await values("select 1 from sqlite_schema where type = 'table' and name = 'log'")
    if (isOurs.length === 0) return 'is no belfry database'
    return {
      seq: Number((await values('select coalesce(max(seq), 0) from log'))[0]),
      bytes: statSync(file).size,
      schema: Number((await values('pragma user_version'))[0]),
      orphans: Number((await values('select count(*) from pragma_foreign_key_check'))[0]),
    }
  }
  let found: Copy | string
  try {
    found = await withThread(deps, { role: 'reader', file }, look)
  } catch (thrown) {
    throw named(thrown, basename(file))
  }
  if (typeof found === 'string') throw new Fault('unavailable', `${basename(file)} ${found}`)
  return found
}

/** Reads that all see the same moment, beside whoever else has the file. */
export interface Pinned {
  /** False for a database on a server. */
  readonly isOneMoment: boolean
  read(query: Query): Promise<readonly RawRow[]>
  close(): Promise<void>
}

/**
 * A database on a server is read as it is at each read: holding one moment there would hold its writers
 * back. Faults: `not_found`, `unavailable`.
 */
export async function openPinned(deps: SnapshotDeps, database: DatabaseOptions): Promise<Pinned> {
  if (database.kind === 'remote') {
    const far = await openThread(deps, { role: 'remote', ...database.primary })
    return { isOneMoment: false, read: readOf(far), close: () => far.stop() }
  }
  const thread = await openThread(deps, { role: 'reader', file: database.file })
  const read = readOf(thread)
  try {
    await read({ sql: 'begin', params: [] })
    // The moment is the first read's, not that of `begin`.
    await read({ sql: 'select 1 from sqlite_schema', params: [] })
  } catch (cause) {
    await thread.stop()
    throw cause
  }
  return { isOneMoment: true, read, close: () => thread.stop() }
}

/**
 * Folds the WAL into the file, for whoever holds the folder. `busy`: another program reads the file, so
 * it cannot be done. Faults: `unavailable` for a file that is damaged.
 */
export async function foldFile(deps: SnapshotDeps, file: string): Promise<'folded' | 'busy'> {
  return await withThread(deps, { role: 'snapshot', file }, async (read) => {
    const [row] = await read({ sql: 'pragma wal_checkpoint(truncate)', params: [] })
    return row?.[0] === 0 ? 'folded' : 'busy'
  })
}

type Read = Pinned['read']

async function withThread<T>(
  deps: SnapshotDeps,
  options: ThreadOptions,
  run: (read: Read) => Promise<T>,
): Promise<T> {
  const thread = await openThread(deps, options)
  try {
    return await run(readOf(thread))
  } finally {
    await thread.stop()
  }
}

function readOf(thread: ThreadClient): Read {
  return async (query) => {
    const answer = await thread.ask({ kind: 'read', query })
    return 'rows' in answer ? answer.rows : []
  }
}

async function openThread({ clock }: SnapshotDeps, options: ThreadOptions): Promise<ThreadClient> {
  // Opening would make it.
  if ('file' in options && !existsSync(options.file)) {
    throw new Fault('not_found', `there is no database at ${options.file}`)
  }
  // Whoever asks such a thread hears of its death by the answer.
  const thread = startThread({ clock, onDeath: () => {}, isPatient: true })
  try {
    await thread.ask({ kind: 'open', options })
  } catch (cause) {
    await thread.stop()
    throw cause
  }
  return thread
}

/** The same fault, saying of what: a full disk is a full disk, but which? */
function named(thrown: unknown, what: string): unknown {
  if (!(thrown instanceof Fault) || thrown.message.includes(what)) return thrown
  const { code, message, hint } = thrown
  return new Fault(code, `${message} (${what})`, { hint, cause: thrown.cause })
}
