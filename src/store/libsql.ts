/**
 * One libSQL connection with its statement cache. Every call blocks the calling thread, so this
 * is used in store threads only.
 *
 * Pragmas are set here, at open, because a pooled client has no place to set them. Only the writer
 * checkpoints: SQLite 3.45.1 can corrupt a WAL that two connections write and checkpoint at once
 * (the WAL-reset bug, fixed in 3.51.3).
 */
import Database from 'libsql'
import { systemClock } from '../lib/clock.ts'
import { selectSeq } from './engine.ts'
import { faultOf } from './errors.ts'
import type { Query, RawRow, RemoteTarget, StoreError, ThreadOptions } from './messages.ts'

/** Distinct statements kept prepared: a few per collection and filter set. Preparing costs twice the reading. */
const statementsMax = 256

/** Pages of cache per connection: 8 MiB each (negative: KiB). */
const cacheSizeKiB = 8 * 1024

/** The writer folds the WAL into the file each so many pages (4 MiB of 4-KiB pages). */
const checkpointPages = 1000

export interface Connection {
  all(query: Query): RawRow[]
  readonly inTransaction: boolean
  close(): void
}

export interface ReplicaConnection extends Connection {
  /** Brings what the primary has newer; answers with the newest log entry that is here then. */
  sync(): number
}

export type FileOptions = Extract<ThreadOptions, { role: 'writer' | 'reader' | 'snapshot' }>

export function openConnection(options: FileOptions): Connection {
  const db = new Database(options.file)
  const isWriter = options.role === 'writer'
  db.exec(`
    pragma busy_timeout = ${isWriter ? 0 : 1000};
    pragma cache_size = -${cacheSizeKiB};
    pragma temp_store = memory;
    pragma foreign_keys = on;
  `)
  if (isWriter) {
    db.exec(`
      pragma journal_mode = wal;
      pragma synchronous = normal;
      pragma wal_autocheckpoint = ${checkpointPages};
      pragma recursive_triggers = on;
    `)
  } else if (options.role === 'snapshot') {
    // `vacuum into` counts as writing, so query_only would refuse it.
    db.exec('pragma synchronous = normal; pragma wal_autocheckpoint = 0;')
  } else {
    db.exec('pragma wal_autocheckpoint = 0;')
    if (options.role === 'reader') db.exec('pragma query_only = on;')
  }
  return connectionOn(db)
}

/** A garbage collection may find a statement still on the stack; so many turns, and it is gone. */
const turnsToLetGo = 3

/**
 * Awaited after `close`: libSQL keeps its file open until the last prepared statement is collected, and a
 * file that is open keeps its disk space although it was deleted. A thread that ends collects nothing.
 */
export async function letGo(): Promise<void> {
  for (let turn = 0; turn < turnsToLetGo; turn++) {
    await new Promise<void>((resolve) => systemClock.soon(resolve))
    Bun.gc(true)
  }
  await new Promise<void>((resolve) => systemClock.soon(resolve))
}

/**
 * libSQL's own replica of a primary. The file is its alone to write: readers of the same file are opened
 * with `query_only` and never checkpoint, and are closed before it.
 */
export function openReplica({ file, url, authToken }: { file: string } & RemoteTarget) {
  const db = new Database(file, {
    syncUrl: url,
    ...(authToken === undefined ? {} : { authToken }),
  } as never)
  // libSQL 0.5 gives a statement of such a connection the first parameters it had, for ever.
  const connection = connectionOn(db, 0)
  return {
    ...connection,
    get inTransaction() {
      return connection.inTransaction
    },
    sync(): number {
      ;(db as unknown as { sync(): unknown }).sync()
      const isMade = connection.all({ sql: hasLog, params: [] }).length > 0
      return isMade ? Number(connection.all({ sql: selectSeq, params: [] })[0]?.[0]) : 0
    },
  } satisfies ReplicaConnection
}

const hasLog = "select 1 from sqlite_schema where type = 'table' and name = 'log'"

/**
 * Takes the data folder for this process: an exclusive SQLite lock is given back by the kernel even
 * after SIGKILL, which a file with a process number in it is not.
 */
export function holdLock(file: string): () => void {
  const db = new Database(file)
  try {
    db.exec('pragma busy_timeout = 0; pragma locking_mode = exclusive; begin exclusive')
  } catch (thrown) {
    db.close()
    const { code, message } = storeErrorOf(thrown)
    throw faultOf({ code: code === 'SQLITE_BUSY' ? 'BELFRY_LOCKED' : code, message })
  }
  return () => db.close()
}

function connectionOn(db: Database.Database, keptMax = statementsMax): Connection {
  const statements = new Map<string, Database.Statement>()

  const prepare = (sql: string): Database.Statement => {
    let statement = statements.get(sql)
    if (statement) {
      statements.delete(sql)
    } else {
      const prepared = db.prepare(sql)
      statement = prepared.reader ? prepared.raw(true) : prepared
      if (keptMax === 0) return statement
      if (statements.size >= keptMax) {
        const oldest = statements.keys().next()
        if (!oldest.done) statements.delete(oldest.value)
      }
    }
    statements.set(sql, statement)
    return statement
  }

  return {
    all({ sql, params }) {
      const statement = prepare(sql)
      const bound = params.map(bindable)
      if (statement.reader) {
        const rows = statement.all(bound) as RawRow[]
        // An EXPLAIN that has given its last row is not over for SQLite: while it waits to be reset, this
        // connection's snapshot stays, and every later read is of the past. `get` resets.
        if (/^explain\b/i.test(sql)) statement.get(bound)
        return rows
      }
      statement.run(bound)
      return []
    },
    get inTransaction() {
      return db.inTransaction
    },
    close() {
      statements.clear()
      db.close()
    },
  }
}

/** The binding sends every JavaScript number as REAL; in a TEXT column 5 would become '5.0'. */
export function bindable(value: unknown): unknown {
  if (typeof value === 'number') return Number.isSafeInteger(value) ? BigInt(value) : value
  if (typeof value === 'boolean') return value ? 1n : 0n
  return value ?? null
}

export function storeErrorOf(thrown: unknown): StoreError {
  if (thrown instanceof Error) {
    return { code: codeOf(thrown), message: thrown.message }
  }
  return { code: 'BELFRY_THREAD', message: String(thrown) }
}

function codeOf(error: Error): string {
  if ('code' in error && typeof error.code === 'string' && error.code !== '') return error.code
  // Opening fails outside SQLite's own errors: the result code is in the text only.
  const result = /ConnectionFailed\(.*: (\d+)"\)/.exec(error.message)?.[1]
  if (result === undefined) return 'BELFRY_THREAD'
  return result === '14' ? 'SQLITE_CANTOPEN' : 'SQLITE_IOERR'
}
