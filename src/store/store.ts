/**
 * The store: libSQL behind worker threads, near or far, and the log that everything which must follow a
 * write follows. The event loop never waits for SQL, nor for a primary's network.
 *
 *   read(query) ──► a replica that is far enough in the log, else the primary ──► rows
 *   write(ops)  ──► queue ──► writer: all queued writes, one transaction ──► log entries
 *                                                                    │
 *                          onChange listeners, in seq order, BEFORE the write is answered
 *
 * Invariants: a row and its log entry are one transaction (triggers write the log); changes are handed out
 * strictly by `seq`, once each, other nodes' writes among them; whoever awaits `write` finds every listener
 * already told; a read sees at least what listeners were told (or `minSeq`), wherever it is answered.
 *
 * Limits: reads and writes waiting are bounded (`unavailable` beyond); a commit group is bounded, so that
 * one transaction never holds the log back for long; an interactive transaction ends after 2 s.
 */
import { drizzle, type SqliteRemoteDatabase } from 'drizzle-orm/sqlite-proxy'
import type { SQLiteTable } from 'drizzle-orm/sqlite-core'
import { Fault } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import type { Service } from '../lib/service.ts'
import { must } from '../lib/assert.ts'
import type { Log } from '../observe/log.ts'
import { createEntryReader, type Change, type Notice } from './change.ts'
import { entriesAfter, selectSeq } from './engine.ts'
import { createFollower, type ChangeListener, type GapListener } from './follower.ts'
import { checkInTransaction, checkReads } from './guard.ts'
import type { LogEntry, Query, RawRow, Write } from './messages.ts'
import { migrate } from './migrate.ts'
import type { MigrationDb } from './migration-db.ts'
import { checkKey, claim, firstResult, isTaken, keep, keepLogged, type Once } from './once.ts'
import { createPlaces, takeFolder, type DatabaseOptions, type Places } from './places.ts'
import { followMs, type Replica } from './replica.ts'
import { createRetention, type LogBounds } from './retention.ts'
import { snapshotFile, type Copy } from './snapshot.ts'
import { createWriter, type Execute, type Writer } from './writer.ts'

export { tableTagOf } from './change.ts'
export { anyRowTag, keyOf, rowTag, tableTag } from './messages.ts'
export { isAutoIncrement, primaryKey } from './ddl.ts'
export { answerFlags, type AnswerKind, type MigrationAnswers } from './answers.ts'
export { applyMigration, planMigration, type MigrationReport } from './migrate.ts'
export { openMigrationDb } from './migration-db.ts'
export { takeFolder } from './places.ts'
export { createRedis, scriptOf } from './redis.ts'
export { foldFile, inspectFile, openPinned, snapshotFile } from './snapshot.ts'
export type { Copy, Pinned } from './snapshot.ts'
export type { Change, Notice } from './change.ts'
export type { DatabaseOptions } from './places.ts'
export type { Once } from './once.ts'
export { noticesOf, onlyIf, writeIfMet } from './ops.ts'
export { createPublications, loadBytesMax, tellingKey } from './publications.ts'
export type { Publications, StoredPublication, Telling } from './publications.ts'
export { createAllowances } from './allowances.ts'
export type { Allowances } from './allowances.ts'
export { createShares, createSharesAlone, takeOverMsMax } from './shares.ts'
export type { Share, ShareOptions, Shares } from './shares.ts'
export type { Redis, RedisStats, RedisTarget, Script } from './redis.ts'
export type { Query, RawRow, Write } from './messages.ts'
export { transactionMsMax } from './writer.ts'

export interface StoreOptions {
  readonly database: DatabaseOptions
  /** The app's tables: made or extended at start (additive changes only). */
  readonly tables: readonly SQLiteTable[]
  /** Threads that read a file. */
  readonly readers?: number
  /** How much of the log is kept. */
  readonly retention?: Partial<LogBounds>
}

export interface StoreDeps {
  readonly clock: Clock
  readonly log: Log
  /** Told of every read. */
  readonly observe?: (name: string, ms: number) => void
  /** Called after own commits, for other nodes to be told. */
  readonly announce?: () => void
}

export interface StoreStats {
  readonly reads: number
  /** Of `reads`, those a replica answered. */
  readonly replicaReads: number
  readonly writes: number
  readonly commits: number
  readonly waiting: number
  /** Newest log entry handed to the listeners. */
  readonly seq: number
  /** False while nobody can write: the thread is being replaced, or the primary cannot be reached. */
  readonly isWritable: boolean
  readonly replicas: readonly { readonly name: string; readonly seq: number }[]
}

export interface ReadOptions {
  /** Decisions about a write are made on the newest there is, and not on a replica. */
  readonly from?: 'primary'
  /** The log entry this read must see; by default all that listeners were told. */
  readonly minSeq?: number | undefined
}

export interface OnceChange {
  readonly seq: number
  /** By database column. */
  readonly row: Readonly<Record<string, unknown>>
  readonly isRepeated: boolean
}

/** Drizzle, without its own notion of a transaction. */
export type Drizzle = Omit<SqliteRemoteDatabase, 'transaction' | 'batch'>

export interface Store extends Service {
  start(): Promise<void>
  /** Faults: `unavailable` if too many wait or the database cannot be read. */
  read(query: Query, options?: ReadOptions): Promise<readonly RawRow[]>
  /** All statements or none. Faults: `conflict`, `invalid` (constraints), `unavailable`. */
  write(ops: Write): Promise<readonly Change[]>
  /**
   * One logged statement, once: under a key that is taken nothing happens, and the first one's change is
   * given. Faults: also `reused` (the key was for another request), `invalid` (it is no key).
   */
  writeOnce(op: Query, once: Once): Promise<OnceChange>
  /**
   * `run` reads and writes in one transaction on the primary; it is committed when `run` resolves, rolled
   * back when it throws or takes over 2 s (`timeout`). Other writers wait meanwhile.
   */
  transaction<T>(run: (tx: Drizzle) => Promise<T>, once?: Once): Promise<T>
  /** Called for every change in `seq` order, before its write is answered. Must not throw. */
  onChange(listener: ChangeListener): void
  /** Called when entries are gone that nobody was told of: anything up to `seq` may have changed. */
  onGap(listener: GapListener): void
  stats(): StoreStats
  /** Of whoever comes now, until a thread reads for him. */
  readsWaitMs(): number
  /** Of whoever is next, until the writer takes it. */
  writesWaitMs(): number
  /**
   * A verified copy of this moment; nobody waits for it. Faults: `unavailable`, `conflict` if `toFile`
   * exists, `not_allowed` for a database that is no file of this machine.
   */
  snapshot(toFile: string): Promise<Copy>
  /** Of Belfry's own tables that no log tells of: no other node is woken. */
  writeAside(ops: Write): Promise<void>
  /** An entry of the log that names these tags: listeners hear of it as of any other change, on every node. */
  invalidate(tags: readonly string[]): Promise<void>
  /** An entry of the log that is of no row, and what is stored with it: listeners hear of it on every node. */
  note(notice: Notice, alongside: Write): Promise<void>
  /** What changed last, oldest first, not told to listeners: for whoever knows something from before. */
  recent(max: number): Promise<readonly Change[]>
  /** A small text that outlives the process, by name. */
  remember(name: string, text: string): Promise<void>
  recall(name: string): Promise<string | undefined>
  /** Ms since this node last knew that it had heard of everything; 0 where nobody else writes. */
  followedMsAgo(): number
  /** Somebody says that the log has grown: look now, if others may write to it at all. */
  wake(): void
  /** Which database this is, and which life of it: another's `seq` says nothing about this one's. After `start`. */
  identity(): string
  /** Of this database, whichever node asks: signs what only Belfry may have written. After `start`. */
  secret(): Uint8Array
  /** Drizzle over the readers, for the app's own selects. Its writes are refused. */
  readonly db: Drizzle
}

export function createStore(deps: StoreDeps, options: StoreOptions): Store {
  const { clock, log, observe, announce } = deps
  const readEntry = createEntryReader(options.tables)
  const follower = createFollower({
    log,
    read(entry) {
      retention.note(entry)
      return readEntry(entry)
    },
  })
  const counts = { reads: 0, replicaReads: 0 }
  let isStopped = false
  let release = (): void => {}
  let cancelPoll = (): void => {}
  let polling: Promise<void> | undefined
  let secret: Uint8Array | undefined
  let identity = ''
  let followedAt = clock.tick()
  let atStart = { writes: 0, commits: 0 }
  let next = 0

  const places: Places = createPlaces(
    { clock, log, synced: (readLog) => follow(readLog) },
    options.database,
    options.readers,
  )
  const writer = createWriter({ clock, log, follower, open: places.openWriter })
  const retention = createRetention(
    {
      ...{ clock, log, read: places.primary.read, write: writer.write },
      ...{ isWritable: () => writer.isUp, neededAfter: places.neededAfter },
    },
    options.retention,
  )

  const start = async (): Promise<void> => {
    release = takeFolder(options.database)
    // What is in the log already is for nobody: a start is no change.
    follower.begin(Number.MAX_SAFE_INTEGER)
    await writer.start()
    await migrate(migrationPort(writer), options.tables, log)
    await places.primary.start()
    secret = await readSecret()
    identity = await readIdentity()
    const newest = await places.primary.read({ sql: selectSeq, params: [] })
    follower.begin(Number(newest.rows[0]?.[0]))
    retention.start(follower.applied)
    await Promise.all(places.replicas.map((replica) => replica.start()))
    atStart = writer.stats()
    if (places.isShared) cancelPoll = clock.every(followMs, poll)
  }

  /** Made once by whoever is first; its `id` tells one database from another. */
  const readSecret = async (): Promise<Uint8Array> => {
    const select = { sql: "select value from meta where name = 'secret'", params: [] }
    const stored = (await places.primary.read(select)).rows[0]
    if (stored) return Buffer.from(String(stored[0]), 'hex')
    const make = "insert or ignore into meta (name, value) values ('secret', ?), ('id', ?)"
    const fresh = Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString('hex')
    await writer.write([{ sql: make, params: [fresh, crypto.randomUUID()] }])
    return await readSecret()
  }

  const readIdentity = async (): Promise<string> => {
    const { rows } = await places.primary.read({
      sql: "select value from meta where name in ('id', 'life') order by name",
      params: [],
    })
    return rows.map(([value]) => String(value)).join('.')
  }

  const read = async (query: Query, asked: ReadOptions = {}): Promise<readonly RawRow[]> => {
    counts.reads++
    const replica =
      asked.from === 'primary' ? undefined : replicaAt(asked.minSeq ?? follower.applied)
    const { rows, ms, plan } = replica
      ? await readReplica(replica, query)
      : await places.primary.read(query)
    observe?.(query.name ?? 'app', ms)
    if (plan !== undefined) {
      log.warn('store.slow_query', { query: query.name, sql: query.sql, ms: Math.round(ms), plan })
    }
    return rows
  }

  /** In turn, of those that are far enough. */
  const replicaAt = (minSeq: number): Replica | undefined => {
    const { replicas } = places
    for (let tried = 0; tried < replicas.length; tried++) {
      const replica = replicas[next++ % replicas.length]
      if (replica && replica.seq >= minSeq) return replica
    }
    return undefined
  }

  const readReplica = async (replica: Replica, query: Query) => {
    try {
      const answer = await replica.read(query)
      counts.replicaReads++
      return answer
    } catch (cause) {
      const answer = await places.primary.read(query)
      // The primary can do it: it was not the query.
      replica.suspect(cause)
      return answer
    }
  }

  /** Hands out what the log has beyond what listeners know. */
  const follow = async (readFrom: Places['primary']['read']): Promise<void> => {
    for (;;) {
      const { rows } = await readFrom(entriesAfter(follower.applied))
      if (rows.length === 0) {
        followedAt = clock.tick()
        return
      }
      follower.accept(rows as unknown as LogEntry[])
    }
  }

  let isPollReported = false
  const poll = (): void => {
    // The embedded one, first of them, follows for us while it is in.
    const isFollowed = places.isFollowed && (places.replicas[0]?.seq ?? -1) >= 0
    if (polling || isStopped || isFollowed) return
    polling = follow(places.primary.readFirst)
      .then(
        () => (isPollReported = false),
        (error: unknown) => {
          if (!isPollReported) log.warn('store.poll_failed', { error })
          isPollReported = true
        },
      )
      .then(() => (polling = undefined))
  }

  /** Without what the start itself wrote. */
  const statsSince = (start_: { readonly writes: number; readonly commits: number }) => {
    const { writes, commits, waiting } = writer.stats()
    return { writes: writes - start_.writes, commits: commits - start_.commits, waiting }
  }

  const hint = (): void => {
    for (const replica of places.replicas) replica.hint()
    if (places.isShared) announce?.()
  }

  const guarded =
    (execute: Execute) =>
    async (sql: string, params: unknown[], method: string): Promise<DrizzleRows> => {
      checkInTransaction(sql)
      return drizzleRows(await execute({ sql, params }), method)
    }

  return {
    start,
    read,
    async write(ops) {
      const changes = await writer.write(ops)
      hint()
      return changes
    },
    async writeOnce(op, once) {
      checkKey(once.key)
      const select = (query: Query) => read(query, { from: 'primary' })
      try {
        await writer.write([...claim(once, clock.now()), op, keepLogged(once)])
        hint()
        return onceChange(await firstResult(select, once, clock.now()), false)
      } catch (thrown) {
        if (!isTaken(thrown)) throw thrown
        return onceChange(await firstResult(select, once, clock.now()), true)
      }
    },
    async transaction<T>(run: (tx: Drizzle) => Promise<T>, once?: Once): Promise<T> {
      if (once) checkKey(once.key)
      const result = await writer.transaction(async (execute) => {
        const tx = drizzle(guarded(execute))
        if (!once) return await run(tx)
        const first = await firstResult(execute, once, clock.now())
        if (first) return first.data as T
        for (const query of claim(once, clock.now())) await execute(query)
        const own = await run(tx)
        await execute(keep(once, own))
        return own
      })
      hint()
      return result
    },
    onChange: follower.onChange,
    onGap: follower.onGap,
    stats: () => ({
      ...counts,
      ...statsSince(atStart),
      seq: follower.applied,
      isWritable: writer.isUp,
      replicas: places.replicas.map(({ name, seq }) => ({ name, seq })),
    }),
    readsWaitMs: () =>
      places.replicas.reduce((most, one) => Math.max(most, one.waitMs()), places.primary.waitMs()),
    writesWaitMs: () => writer.waitMs(),
    async snapshot(toFile) {
      const { database } = options
      if (database.kind === 'file')
        return await snapshotFile({ clock }, { ...database, to: toFile })
      throw new Fault('not_allowed', 'a database on a server is not copied from here')
    },
    async writeAside(ops) {
      await writer.write(ops)
    },
    async invalidate(tags) {
      await writer.write([{ sql: insertTags, params: [JSON.stringify(tags)] }])
      hint()
    },
    async note(notice, alongside) {
      const data = JSON.stringify({ notice })
      await writer.write([...alongside, { sql: insertNotice, params: [notice.kind, data] }])
      hint()
    },
    async recent(max) {
      const from = Math.max(0, follower.applied - max)
      const sql = 'select seq, at, subject, data from log where seq > ? and seq <= ? order by seq'
      const { rows } = await places.primary.read({ sql, params: [from, follower.applied] })
      return (rows as unknown as LogEntry[]).map(readEntry)
    },
    async remember(name, text) {
      const sql = 'insert or replace into meta (name, value) values (?, ?)'
      await writer.write([{ sql, params: [`kept:${name}`, text] }])
    },
    async recall(name) {
      const sql = 'select value from meta where name = ?'
      const { rows } = await places.primary.read({ sql, params: [`kept:${name}`] })
      return rows[0] === undefined ? undefined : String(rows[0][0])
    },
    followedMsAgo: () => (places.isShared ? clock.tick() - followedAt : 0),
    wake() {
      if (places.isFollowed) for (const replica of places.replicas) replica.hint()
      else if (places.isShared) poll()
    },
    identity: () => identity,
    secret: () => must(secret, () => 'the store is started before anything is signed'),
    db: drizzle(async (sql, params, method) => {
      checkReads(sql)
      return drizzleRows(await read({ sql, params }), method)
    }),
    async stop() {
      isStopped = true
      cancelPoll()
      await polling
      await retention.stop()
      await Promise.all(places.replicas.map((replica) => replica.stop()))
      await places.primary.stop()
      await writer.stop()
      release()
    },
  }
}

function onceChange(
  first: { readonly data: unknown } | undefined,
  isRepeated: boolean,
): OnceChange {
  const { seq, entry } = must(first, () => 'what was kept is there').data as {
    readonly seq: number
    readonly entry: { readonly row: OnceChange['row'] }
  }
  return { seq, row: entry.row, isRepeated }
}

function migrationPort(writer: Writer): MigrationDb {
  return {
    exclusively: (run, options) =>
      writer.transaction(
        async (execute) =>
          await run({
            rows: (sql) => execute({ sql, params: [] }),
            run: async (sql) => void (await execute({ sql, params: [] })),
          }),
        { ...options, isUnbounded: true },
      ),
  }
}

/** `subject` is empty: it is of no table. */
const insertTags = `insert into log (at, kind, subject, tags, data) select
  cast(unixepoch('subsec') * 1000 as integer), 'tags', '', tags, '{"tags":' || tags || '}' from (select ? as tags)`

const insertNotice = `insert into log (at, kind, subject, tags, data) values
  (cast(unixepoch('subsec') * 1000 as integer), ?, '', '[]', ?)`

interface DrizzleRows {
  // Drizzle's proxy wants no row to be no rows, against its own type.
  rows: never
}

function drizzleRows(rows: readonly RawRow[], method: string): DrizzleRows {
  return { rows: (method === 'get' ? rows[0] : rows) as never }
}
