/**
 * The store: libSQL behind worker threads, and the log that everything which must follow a write
 * follows. The event loop never waits for SQL.
 *
 *   read(query) ──► the reader with the least to do ──► rows
 *   write(ops)  ──► queue ──► writer: all queued writes, one transaction ──► changes
 *                                                     │
 *                         onChange listeners, in seq order, BEFORE the write is answered
 *
 * Invariants: a row and its log entry are one transaction; changes are handed out strictly by `seq`,
 * once each; whoever awaits `write` finds every listener already told, so that the writer's next read
 * sees its write.
 *
 * Limits: reads and writes waiting are bounded (`unavailable` beyond); a commit group is bounded, so
 * that one transaction never holds the log back for long.
 */
import { mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { drizzle, type SqliteRemoteDatabase } from 'drizzle-orm/sqlite-proxy'
import type { SQLiteTable } from 'drizzle-orm/sqlite-core'
import { Fault, toFault } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import { detach, type Service } from '../lib/service.ts'
import { must } from '../lib/assert.ts'
import type { Log } from '../observe/log.ts'
import { faultOf } from './errors.ts'
import { migrate } from './migrate.ts'
import type { Change, ChangeOp, Query, RawRow, Write, WriteOutcome } from './messages.ts'
import { startThread, type ThreadClient, type ThreadClientDeps } from './thread-client.ts'

export { anyRowTag, keyOf, rowTag, tableTag } from './messages.ts'
export { isAutoIncrement, primaryKey } from './ddl.ts'
export type { Change, ChangeOp, Query, RawRow, Write } from './messages.ts'

/** Reader threads. Two, so that one long query leaves the other for everybody else. */
const readersDefault = 2

/** Reads that may wait at once; each holds a request open. */
const readsWaitingMax = 10_000

/** Between the death of a reader and its successor: a cause that lasts must not become a busy loop. */
const respawnMs = 500

/** Writes that may wait at once, and writes in one transaction (~5 ms of work at 100 µs or less each). */
const writesWaitingMax = 10_000
const writesPerCommitMax = 512

export interface StoreOptions {
  /** Path of the database file. Its folder is made if absent, and locked. */
  readonly file: string
  /** The app's tables: made or extended at start (additive changes only). */
  readonly tables: readonly SQLiteTable[]
  readonly readers?: number
}

export interface StoreStats {
  readonly reads: number
  readonly writes: number
  readonly commits: number
  /** Newest log entry handed to the listeners. */
  readonly seq: number
  /** False once the writer thread has died: reads go on, and only a new process writes again. */
  readonly isWritable: boolean
}

export type ChangeListener = (change: Change) => void

export interface Store extends Service {
  start(): Promise<void>
  /** Faults: `unavailable` if too many wait or the database cannot be read. */
  read(query: Query): Promise<readonly RawRow[]>
  /** All ops or none. Faults: `conflict`, `invalid` (constraints), `unavailable`. */
  write(ops: Write): Promise<readonly Change[]>
  /** Called for every change in `seq` order, before its write is answered. Must not throw. */
  onChange(listener: ChangeListener): void
  stats(): StoreStats
  /** Drizzle over the readers, for the app's own selects. Its writes are refused by the engine. */
  readonly db: SqliteRemoteDatabase
}

interface WaitingWrite {
  readonly ops: readonly ChangeOp[]
  readonly resolve: (changes: readonly Change[]) => void
  readonly reject: (fault: Fault) => void
}

export function createStore(
  deps: { readonly clock: Clock; readonly log: Log },
  options: StoreOptions,
): Store {
  const { clock, log } = deps
  const listeners: ChangeListener[] = []
  const queue: WaitingWrite[] = []
  let writer: ThreadClient | undefined
  let readers: ThreadClient[] = []
  let isCommitting = false
  let isStopped = false
  const counts = { reads: 0, writes: 0, commits: 0, seq: 0 }

  const start = async (): Promise<void> => {
    makeFolder(options.file)
    writer = await openThread('writer', options.file, {
      clock,
      onDeath: (error) => log.error('store.writer_died', { error }),
      isPatient: true,
    })
    await migrate(writer, options.tables, log)
    await Promise.all(Array.from({ length: options.readers ?? readersDefault }, addReader))
    const newest = await read({ sql: 'select coalesce(max(seq), 0) from log', params: [] })
    counts.seq = Number(newest[0]?.[0])
    counts.reads = 0
  }

  const addReader = async (): Promise<void> => {
    const reader = await openThread('reader', options.file, {
      clock,
      onDeath: (error) => {
        log.error('store.reader_died', { error })
        replaceReader()
      },
      isPatient: false,
    })
    if (isStopped) await reader.stop()
    else readers.push(reader)
  }

  /** A reader has nothing of its own: another takes its place. The writer's death is for an operator. */
  const replaceReader = (): void => {
    readers = readers.filter(({ isDead }) => !isDead)
    clock.after(respawnMs, () => {
      if (isStopped) return
      detach(addReader(), (error) => {
        log.error('store.reader_not_replaced', { error })
        replaceReader()
      })
    })
  }

  const read = async (query: Query): Promise<readonly RawRow[]> => {
    const reader = leastBusy(readers)
    if (reader.pending >= readsWaitingMax / readers.length) {
      throw new Fault('unavailable', 'too many reads are waiting for the database')
    }
    counts.reads++
    const answer = await reader.ask({ kind: 'read', query })
    return 'rows' in answer ? answer.rows : []
  }

  const write = (ops: Write): Promise<readonly Change[]> => {
    if (queue.length >= writesWaitingMax) {
      return Promise.reject(new Fault('unavailable', 'too many writes are waiting'))
    }
    return new Promise((resolve, reject) => {
      queue.push({ ops, resolve, reject })
      if (!isCommitting)
        detach(commitQueued(), (cause) => log.error('store.commit_failed', { cause }))
    })
  }

  /** One group after the other: what arrives while one commits is the next. */
  const commitQueued = async (): Promise<void> => {
    isCommitting = true
    try {
      while (queue.length > 0) await commitGroup(queue.splice(0, writesPerCommitMax))
    } finally {
      isCommitting = false
    }
  }

  const commitGroup = async (group: readonly WaitingWrite[]): Promise<void> => {
    const thread = must(writer, () => 'the store is started before it is written to')
    try {
      const answer = await thread.ask({
        kind: 'write',
        atMs: clock.now(),
        writes: group.map(({ ops }) => ops),
      })
      counts.commits++
      if ('outcomes' in answer) group.forEach((one, at) => settle(one, answer.outcomes[at]))
    } catch (thrown) {
      const fault = toFault(thrown)
      for (const one of group) one.reject(fault)
    }
  }

  const settle = ({ resolve, reject }: WaitingWrite, outcome: WriteOutcome | undefined): void => {
    if (!outcome) return reject(new Fault('internal', 'the writer gave no answer'))
    if ('error' in outcome) return reject(faultOf(outcome.error))
    counts.writes++
    for (const change of outcome.changes) {
      counts.seq = change.seq
      for (const listener of listeners) tell(listener, change)
    }
    resolve(outcome.changes)
  }

  /** A listener that throws is a bug in a room; the write has happened all the same and must be answered. */
  const tell = (listener: ChangeListener, change: Change): void => {
    try {
      listener(change)
    } catch (error) {
      log.error('store.listener_failed', { seq: change.seq, table: change.table, error })
    }
  }

  return {
    start,
    read,
    write,
    onChange: (listener) => void listeners.push(listener),
    stats: () => ({ ...counts, isWritable: writer !== undefined && !writer.isDead }),
    db: drizzle(async (sql, params, method) => {
      const rows = await read({ sql, params })
      return {
        rows: method === 'get' ? ((rows[0] as unknown[]) ?? undefined) : (rows as unknown[][]),
      }
    }),
    async stop() {
      isStopped = true
      while (isCommitting) await new Promise<void>((resolve) => clock.soon(resolve))
      await Promise.all(readers.map((reader) => reader.stop()))
      await writer?.stop()
    },
  }
}

function leastBusy(readers: readonly ThreadClient[]): ThreadClient {
  let [best] = readers
  if (!best) throw new Fault('unavailable', 'no reader of the database is alive')
  for (const reader of readers) if (reader.pending < best.pending) best = reader
  return best
}

async function openThread(
  role: 'writer' | 'reader',
  file: string,
  deps: ThreadClientDeps,
): Promise<ThreadClient> {
  const thread = startThread(deps)
  const lockFile = join(dirname(file), 'belfry.lock')
  try {
    await thread.ask({ kind: 'open', options: { role, file, lockFile } })
  } catch (cause) {
    await thread.stop()
    const fault = cause as Fault
    throw new Fault(fault.code, `${fault.message}: ${file}`, { hint: fault.hint, cause })
  }
  return thread
}

function makeFolder(file: string): void {
  const folder = dirname(file)
  try {
    mkdirSync(folder, { recursive: true })
  } catch (cause) {
    throw new Fault('unavailable', `the data folder cannot be made: ${folder}`, {
      hint: 'check the path and its permissions, or set DATABASE_URL=file:/another/path.db',
      cause,
    })
  }
}
