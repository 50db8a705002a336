/**
 * One libSQL connection with its statement cache. Every call blocks the calling thread, so this
 * is used in store threads only.
 *
 * Pragmas are set here, at open, because a pooled client has no place to set them. Only the writer
 * checkpoints: SQLite 3.45.1 can corrupt a WAL that two connections write and checkpoint at once
 * (the WAL-reset bug, fixed in 3.51.3).
 */
import Database from 'libsql'
import type { Query, RawRow, StoreError, ThreadOptions } from './messages.ts'

/** Distinct statements kept prepared: a few per collection and filter set. Preparing costs twice the reading. */
const statementsMax = 256

/** Pages of cache per connection: 8 MiB each (negative: KiB). */
const cacheSizeKiB = 8 * 1024

/** The writer folds the WAL into the file each so many pages (4 MiB of 4-KiB pages). */
const checkpointPages = 1000

export interface Connection {
  all(query: Query): RawRow[]
  /** Several statements, no parameters, no rows. */
  script(sql: string): void
  readonly inTransaction: boolean
  close(): void
}

export function openConnection(options: ThreadOptions): Connection {
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
    `)
  } else {
    db.exec('pragma query_only = on; pragma wal_autocheckpoint = 0;')
  }
  return connectionOn(db)
}

/**
 * Takes the data folder for this process: an exclusive SQLite lock is given back by the kernel even
 * after SIGKILL, which a file with a process number in it is not.
 */
export function holdLock(file: string): () => void {
  const db = new Database(file)
  db.exec('pragma busy_timeout = 0; pragma locking_mode = exclusive; begin exclusive')
  return () => db.close()
}

function connectionOn(db: Database.Database): Connection {
  const statements = new Map<string, Database.Statement>()

  const prepare = (sql: string): Database.Statement => {
    let statement = statements.get(sql)
    if (statement) {
      statements.delete(sql)
    } else {
      const prepared = db.prepare(sql)
      statement = prepared.reader ? prepared.raw(true) : prepared
      if (statements.size >= statementsMax) {
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
      if (statement.reader) return statement.all(bound) as RawRow[]
      statement.run(bound)
      return []
    },
    script(sql) {
      db.exec(sql)
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
function bindable(value: unknown): unknown {
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
