/**
 * The worker that owns one libSQL connection: the only code that ever waits for SQL. One process has
 * one writer thread and a few reader threads; they share nothing but the file.
 *
 *   store.ts ── open, read ──────► reader thread  (query_only)
 *            ── write: [w1 w2 …] ► writer thread  BEGIN · SAVEPOINT w1 · row + log · … · COMMIT
 *
 * Invariant: a row and its log entry are written in one transaction, or neither is.
 */
import { holdLock, openConnection, storeErrorOf, type Connection } from './libsql.ts'
import {
  keyOf,
  rowTag,
  tableTag,
  type Answer,
  type Change,
  type ChangeOp,
  type Request,
  type Write,
  type WriteOutcome,
} from './messages.ts'

declare const self: Worker

let connection: Connection | undefined
let releaseLock: (() => void) | undefined

self.onmessage = (event: MessageEvent<Request>) => {
  const request = event.data
  let answer: Answer
  try {
    answer = handle(request)
  } catch (thrown) {
    answer = { id: request.id, error: storeErrorOf(thrown) }
  }
  self.postMessage(answer)
}

function handle(request: Request): Answer {
  const { id } = request
  if (request.kind === 'open') {
    const { options } = request
    if (options.role === 'writer') releaseLock = lock(options.lockFile)
    connection = openConnection(options)
    return { id, done: true }
  }
  const db = connection
  if (!db) return { id, error: { code: 'BELFRY_CLOSED', message: 'the database is not open' } }
  switch (request.kind) {
    case 'read':
      return { id, rows: db.all(request.query) }
    case 'write':
      return { id, outcomes: commit(db, request.writes, request.atMs) }
    case 'script':
      transaction(db, () => request.statements.forEach((statement) => db.script(statement)))
      return { id, done: true }
    case 'close':
      connection = undefined
      // Only the writer holds the lock, and it is the last to be closed: the file is whole without
      // its WAL then, and can be copied.
      if (releaseLock) db.all({ sql: 'pragma wal_checkpoint(truncate)', params: [] })
      db.close()
      releaseLock?.()
      return { id, done: true }
  }
}

function lock(file: string): () => void {
  try {
    return holdLock(file)
  } catch (thrown) {
    const { code, message } = storeErrorOf(thrown)
    if (code === 'SQLITE_BUSY') throw Object.assign(new Error(message), { code: 'BELFRY_LOCKED' })
    throw thrown
  }
}

/**
 * Group commit: every write that waited meanwhile shares one transaction, each in its savepoint, so
 * that one bad write is undone alone. If the transaction itself cannot be committed, none happened.
 */
function commit(db: Connection, writes: readonly Write[], atMs: number): WriteOutcome[] {
  try {
    return transaction(db, () => {
      const outcomes = writes.map((write) => savepoint(db, write, atMs))
      pruneLog(db, outcomes)
      return outcomes
    })
  } catch (thrown) {
    const error = storeErrorOf(thrown)
    return writes.map(() => ({ error }))
  }
}

function transaction<T>(db: Connection, run: () => T): T {
  db.script('begin immediate')
  try {
    const result = run()
    db.script('commit')
    return result
  } catch (thrown) {
    // A full disk, say, has rolled back already; a second rollback would hide the reason.
    if (db.inTransaction) db.script('rollback')
    throw thrown
  }
}

function savepoint(db: Connection, write: Write, atMs: number): WriteOutcome {
  db.script('savepoint w')
  try {
    const changes = write.flatMap((op) => change(db, op, atMs))
    db.script('release w')
    return { changes }
  } catch (thrown) {
    // The engine may have ended the whole transaction: then earlier writes of the group are gone
    // too, and answering them with success would lose an acknowledged write.
    if (!db.inTransaction) throw thrown
    db.script('rollback to w')
    db.script('release w')
    return { error: storeErrorOf(thrown) }
  }
}

/** The log is what followers and replay read back; older entries than this are dropped. */
const logEntriesMax = 100_000

/** Pruning looks at the log once per so many entries. */
const pruneEveryEntries = 1_000

let prunedAtSeq = 0

function pruneLog(db: Connection, outcomes: readonly WriteOutcome[]): void {
  const last = outcomes.findLast((outcome) => 'changes' in outcome && outcome.changes.length > 0)
  const seq = last && 'changes' in last ? (last.changes.at(-1)?.seq ?? 0) : 0
  if (seq < prunedAtSeq + pruneEveryEntries) return
  prunedAtSeq = seq
  db.all({ sql: 'delete from log where seq <= ? returning seq', params: [seq - logEntriesMax] })
}

const insertLog =
  "insert into log (at, kind, subject, tags, data) values (?, 'row', ?, ?, ?) returning seq"

function change(db: Connection, { sql, params, ...spec }: ChangeOp, atMs: number): Change[] {
  const op =
    spec.op !== 'upsert'
      ? spec.op
      : spec.probe && db.all(spec.probe).length > 0
        ? 'update'
        : 'create'
  return db.all({ sql, params }).map((row) => {
    const key = keyOf(spec.keyAt.map((at) => row[at]))
    const tags = [tableTag(spec.table), rowTag(spec.table, key), ...(spec.alsoTags ?? [])]
    const data = JSON.stringify({
      op,
      key,
      row: Object.fromEntries(spec.columns.map((column, at) => [column, row[at]])),
    })
    const logged = db.all({
      sql: insertLog,
      params: [atMs, spec.table, JSON.stringify(tags), data],
    })
    return { seq: Number(logged[0]?.[0]), atMs, table: spec.table, op, key, row, tags }
  })
}
