/**
 * How much of the log is kept. The oldest entries are dropped by the writer, in steps so small that no commit
 * group is held up by one (at most 500 entries or a megabyte each); any node of several may do it.
 *
 *   oldest │ dropped ──►│ kept until one is true: 24 h old · 100,000 newer ones · 256 MB of newer ones │ newest
 *
 * Invariants: the newest entry stays, so whoever was away longer finds a hole and is told (`onGap`), and no
 * number is given out twice; what was dropped once could be dropped by every node, so two that do it at the same
 * time do it once. Age is by the database's clock, which wrote it: a node whose clock is wrong drops nothing.
 *
 * Entries of the last minute, and those that a copy under way still needs, are kept beyond these limits, up to
 * four times as much: a change of 200,000 rows is heard of row by row, and a copy is not begun again and again.
 */
import type { Clock } from '../lib/clock.ts'
import { detach } from '../lib/service.ts'
import type { Log } from '../observe/log.ts'
import type { LogEntry, Query, ReadRows, Write } from './messages.ts'
import { forgetOld, oldBefore } from './once.ts'

export interface LogBounds {
  readonly keptMs: number
  readonly entriesMax: number
  /** Of `data`, which is nearly all there is to an entry. */
  readonly bytesMax: number
}

/**
 * A day, as idempotency keys: a node or a copy that was away for a night comes back entry by entry. A quarter of
 * a gigabyte: entries of 2.5 KB fill it before there are 100,000, and a small disk does not notice it.
 */
export const logBounds: LogBounds = {
  keptMs: 24 * 60 * 60 * 1000,
  entriesMax: 100_000,
  bytesMax: 256 * 1024 * 1024,
}

/** Age alone leaves so many: they cost nothing, and a start looks back at what changed last. */
const entriesMin = 1_000

/** A follower polls four times a second: what is older has been heard of by all who are there. */
const quietMs = 60_000
const graceFactor = 4

/** Of one step: a few milliseconds of the writer. */
const stepEntries = 500
const stepBytes = 1_000_000

/** Looked at so often, and after so many entries. */
const everyMs = 60_000
const everyEntries = 1_000

/** How finely the log's size is known: drops begin where a mark is. */
const markEntries = 100
const markBytes = 1_000_000

/** Entries whose size is asked for at a time, of those that were there at the start. */
const countAtOnce = 5_000

export interface Retention {
  /** From here on entries are noted. */
  start(seq: number): void
  /** One that the node hears of, in order; again does no harm. */
  note(entry: LogEntry): void
  stop(): Promise<void>
}

export interface RetentionDeps {
  readonly clock: Clock
  readonly log: Log
  /** On the primary. */
  readonly read: (query: Query) => Promise<ReadRows>
  readonly write: (ops: Write) => Promise<unknown>
  readonly isWritable: () => boolean
  /** Entries beyond this seq are still to be copied; `Infinity` if none are. */
  readonly neededAfter: () => number
}

interface Mark {
  readonly seq: number
  /** Of all entries up to this one, counted from the start; of earlier ones less than 0. */
  readonly bytes: number
}

export function createRetention(
  { clock, log, read, write, isWritable, neededAfter }: RetentionDeps,
  bounds: Partial<LogBounds> = {},
): Retention {
  const { keptMs, entriesMax, bytesMax } = { ...logBounds, ...bounds }
  let marks: Mark[] = []
  let newest: Mark = { seq: 0, bytes: 0 }
  let startedAt = 0
  let isCounted = false
  let tidiedAt = 0
  let running: Promise<void> | undefined
  let isWanted = false
  let isStopped = false
  let isReported = false
  let cancel = (): void => {}

  /** What was there before, newest first: once, bit by bit, and no further than anything is kept. */
  const countOld = async (): Promise<void> => {
    const older: Mark[] = []
    let oldest: Mark = { seq: startedAt, bytes: 0 }
    for (;;) {
      const { rows } = await read({ sql: sizesSql, params: [oldest.seq, countAtOnce] })
      for (const [first, bytes] of rows) {
        older.push(oldest)
        oldest = { seq: Number(first) - 1, bytes: oldest.bytes - Number(bytes) }
      }
      if (rows.length === 0 || oldest.bytes < -graceFactor * bytesMax) break
    }
    older.push(oldest)
    marks = [...older.reverse(), ...marks]
    isCounted = true
  }

  /** The newest mark behind which there are so many bytes; 0 if there are fewer. */
  const beyondBytes = (max: number): number =>
    marks.findLast(({ bytes }) => newest.bytes - bytes >= max)?.seq ?? 0

  const droppable = (factor: number): number =>
    Math.max(newest.seq - factor * entriesMax, beyondBytes(factor * bytesMax))

  const tidy = async (): Promise<void> => {
    if (!isCounted) await countOld()
    for (let dropped = 0; !isStopped;) {
      const last = newest.seq - 1
      const needed = Math.min(last, neededAfter())
      const { rows } = await read({
        sql: oldestSql,
        params: [
          oldBefore(clock.now()),
          ...[Math.min(last, droppable(graceFactor))],
          ...[Math.min(needed, droppable(1)), quietMs],
          ...[Math.min(needed, newest.seq - entriesMin), keptMs],
        ],
      })
      const [upTo, hasOldKeys] = rows[0] ?? []
      const isMore = typeof upTo === 'number' && upTo > dropped
      const drop = { sql: 'delete from log where seq <= ?', params: [upTo] }
      const ops = [...(isMore ? [drop] : []), ...(hasOldKeys === 1 ? [forgetOld(clock.now())] : [])]
      if (ops.length === 0) break
      await write(ops)
      if (isMore) dropped = upTo
    }
    const kept = droppable(graceFactor)
    marks = marks.filter(({ seq }) => seq >= kept)
  }

  const run = (): void => {
    isWanted = running !== undefined
    if (running || isStopped || !isWritable()) return
    tidiedAt = newest.seq
    running = tidy()
      .then(
        () => (isReported = false),
        (error: unknown) => {
          if (!isReported && !isStopped) log.warn('store.tidy_failed', { error })
          isReported = true
        },
      )
      .then(() => {
        running = undefined
        // What came meanwhile may have been too late to be looked at.
        if (isWanted) run()
      })
    detach(running, (error) => log.error('store.tidy_failed', { error }))
  }

  return {
    start(seq) {
      startedAt = tidiedAt = seq
      newest = { seq, bytes: 0 }
      marks = []
      cancel = clock.every(everyMs, run)
    },
    note([seq, , , data]) {
      if (seq <= newest.seq) return
      newest = { seq, bytes: newest.bytes + Buffer.byteLength(data) }
      const last = marks.at(-1)
      if (
        seq >= (last?.seq ?? startedAt) + markEntries ||
        newest.bytes >= (last?.bytes ?? 0) + markBytes
      ) {
        marks.push(newest)
      }
      if (seq >= tidiedAt + everyEntries) run()
    },
    async stop() {
      isStopped = true
      cancel()
      await running
    },
  }
}

/** By groups, newest first: the first seq of each, and what they take. */
const sizesSql = `select min(seq), sum(bytes) from (
  select seq, octet_length(data) as bytes from log where seq <= ? order by seq desc limit ?
) group by seq / ${markEntries} order by 1 desc`

/** Of the oldest few: up to where they may go, or null; and whether idempotency keys are old. */
const oldestSql = `select max(seq), exists (select 1 from idempotency where at < ?) from (
  select seq, age, sum(bytes) over (order by seq) - bytes as before from (
    select seq, octet_length(data) as bytes, cast(unixepoch('subsec') * 1000 as integer) - at as age
    from log order by seq limit ${stepEntries}
  )
) where before < ${stepBytes}
  and (seq <= ? or (seq <= ? and age >= ?) or (seq <= ? and age >= ?))`
