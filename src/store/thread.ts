/**
 * The worker that owns one connection: the only code that ever waits for SQL or for a primary's network.
 * One process has one writer thread and a few reader threads; they share nothing but the file.
 *
 *   store.ts ── open, read ────────► reader   (query_only)
 *            ── commit: [w1 w2 …] ─► writer   BEGIN · SAVEPOINT w1 · ops · … · COMMIT   (triggers write the log)
 *            ── sync ──────────────► replica  (libSQL's own replication)
 *
 * Invariant: a row and its log entry are written in one transaction, or neither is.
 */
import { systemClock } from '../lib/clock.ts'
import type { Awaitable, Engine } from './engine.ts'
import { createFileEngine } from './engine-file.ts'
import { createRemoteEngine, remoteErrorOf } from './engine-remote.ts'
import {
  letGo,
  openConnection,
  openReplica,
  storeErrorOf,
  type ReplicaConnection,
} from './libsql.ts'
import type { Answer, Query, Request, StoreError, ThreadOptions } from './messages.ts'

declare const self: Worker

/** A read that takes longer, the way there aside, is told with its plan: to ask for that is a second read. */
const slowMs = 100

/** One statement is told once in so long: a link that has become slow must not become twice as slow. */
const slowEveryMs = 60_000

/** Statements remembered as told. */
const slowMax = 1_000

/** By SQL, when. */
const toldSlow = new Map<string, number>()

/** About what the way to the database and back takes: none to a file. */
let fastestMs = 0

let engine: Engine | undefined
let replica: ReplicaConnection | undefined
let errorOf: (thrown: unknown) => StoreError = storeErrorOf

/** `Answer` without its number. */
type Reply = Answer extends infer A ? (A extends Answer ? Omit<A, 'id'> : never) : never

self.onmessage = ({ data: { id, ...request } }: MessageEvent<Request>) => {
  const answer = (reply: Reply): void => self.postMessage({ id, ...reply })
  const fail = (thrown: unknown): void => answer({ error: errorOf(thrown) })
  try {
    const reply = handle(request as Request)
    if (reply instanceof Promise) reply.then(answer, fail)
    else answer(reply)
  } catch (thrown) {
    fail(thrown)
  }
}

function handle(request: Request): Awaitable<Reply> {
  if (request.kind === 'open') {
    open(request.options)
    return { done: true }
  }
  if (request.kind === 'sync') {
    if (!replica) return closed
    return { seq: replica.sync() }
  }
  const db = engine
  if (!db) return closed
  switch (request.kind) {
    case 'read':
      return read(db, request.query)
    case 'commit':
      return db.commit(request.writes, request.after, request.foreignKeys)
    case 'begin':
      return map(db.begin(request), () => ({ done: true }))
    case 'run':
      return map(db.run(request.query), (rows) => ({ rows, ms: 0 }))
    case 'end':
      return db.end(request.how, request.after)
    case 'close':
      engine = undefined
      return map(db.close(), () => letGo().then(() => ({ done: true })))
  }
}

const closed: Reply = { error: { code: 'BELFRY_CLOSED', message: 'the database is not open' } }

function open(options: ThreadOptions): void {
  if (options.role === 'remote') {
    errorOf = remoteErrorOf
    fastestMs = Infinity
    engine = createRemoteEngine(options)
    return
  }
  if (options.role === 'replica') {
    const opened = openReplica(options)
    replica = opened
    engine = createFileEngine(opened, false)
    return
  }
  engine = createFileEngine(openConnection(options), options.role === 'writer')
}

function read(db: Engine, query: Query): Awaitable<Reply> {
  const startedAt = systemClock.tick()
  return map(db.read(query), (rows): Awaitable<Reply> => {
    const ms = systemClock.tick() - startedAt
    fastestMs = Math.min(fastestMs, ms)
    if (ms - fastestMs < slowMs || !isToldNow(query.sql)) return { rows, ms }
    return map(
      db.read({ sql: `explain query plan ${query.sql}`, params: query.params }),
      (steps) => ({
        rows,
        ms,
        plan: steps.map((step) => String(step[3])).join('; '),
      }),
    )
  })
}

function isToldNow(sql: string): boolean {
  if (!/^\s*(select|with)\b/i.test(sql)) return false
  const now = systemClock.tick()
  if (now < (toldSlow.get(sql) ?? -Infinity) + slowEveryMs) return false
  if (toldSlow.size >= slowMax) toldSlow.clear()
  toldSlow.set(sql, now)
  return true
}

/** What is there already is answered at once: a file's engine makes no promise. */
function map<T, R>(value: Awaitable<T>, use: (value: T) => Awaitable<R>): Awaitable<R> {
  return value instanceof Promise ? value.then(use) : use(value)
}
