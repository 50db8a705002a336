/**
 * Reader threads of one place. Reads are handed out in advance, because a thread that must be told of each
 * next one does a quarter of the work (12,000 a second against 45,000); and they are taken back from a
 * thread that is at one query for long, so that none waits behind it while another could answer.
 *
 *   thread 1   [ query of 13 s | a b c ]  ── a b c are taken back after 10 ms ─┐
 *   thread 2   [ d e ]                    ◄────────────────────────────────────┘
 *
 * What follows the log goes past all of them (`readFirst`): how old others' answers may be is bounded by it.
 *
 * A thread that dies is replaced: a reader has nothing of its own. Used for the file, for an embedded
 * replica's file, and (one thread, many requests at a time) for what is read over the network.
 */
import { Fault } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import { detach } from '../lib/service.ts'
import type { Log } from '../observe/log.ts'
import type { Query, ReadRows } from './messages.ts'
import type { ThreadClient } from './thread-client.ts'

/** Reads that may wait at once in one place; each holds a request open. */
const readsWaitingMax = 10_000

/** Of the time between two answers: what the last one weighs, and the most that it counts for, as after a pause. */
const paceWeight = 0.05
const paceMsMax = 50

/** Between the death of a reader and its successor: a cause that lasts must not become a busy loop. */
const respawnMs = 500

export interface Pool {
  start(): Promise<void>
  /** Faults: `unavailable` if too many wait or nobody is there to read. */
  read(query: Query): Promise<ReadRows>
  /**
   * Waits for no other read, and counts for none: beyond `atOnce`, whatever waits. For the few reads that
   * follow the log, one at a time. Faults: `unavailable` if nobody is there to read.
   */
  readFirst(query: Query): Promise<ReadRows>
  /** How long whoever comes now waits until a thread has his read, as things go: 0 while some have room. */
  waitMs(): number
  stop(): Promise<void>
}

export interface PoolDeps {
  readonly clock: Clock
  readonly log: Log
  readonly open: (onDeath: (error: Error) => void) => Promise<ThreadClient>
}

/** At one query for longer, a thread gets nothing more, and what it was given waits elsewhere. */
const stuckMs = 10

/** What a thread that reads a file is given in advance: about half a millisecond of work. */
export const inTurnMax = 32

export interface PoolSize {
  readonly threads: number
  /** Reads a thread is given at a time: of a file they are done in turn, of a server all together. */
  readonly atOnce: number
  readonly isInTurn: boolean
}

interface Job {
  readonly query: Query
  /** `clock.tick()` when it began to wait. */
  since: number
  readonly resolve: (answer: ReadRows) => void
  readonly reject: (cause: unknown) => void
  /** Whose failure counts. Any answer does. */
  reader: Reader | undefined
}

interface Reader {
  readonly thread: ThreadClient
  /** In the order they were given; the first is the one under way, if it works in turn. */
  readonly jobs: Job[]
  /** `clock.tick()` when the first one became it. */
  firstSince: number
}

export function createPool({ clock, log, open }: PoolDeps, size: PoolSize): Pool {
  let readers: Reader[] = []
  let waiting: Job[] = []
  let isStopped = false
  let isWatching = false
  /** While some wait: the time between two answers, on average, and when the last one came. */
  let paceMs = 0
  let answeredAt = 0

  const add = async (): Promise<void> => {
    const thread = await open((error) => {
      log.error('store.reader_died', { error })
      replace()
    })
    if (isStopped) return await thread.stop()
    readers.push({ thread, jobs: [], firstSince: 0 })
    dispatch()
  }

  const replace = (): void => {
    readers = readers.filter(({ thread }) => !thread.isDead)
    // Nobody is left to answer these, and they may have waited long enough.
    if (readers.length === 0) for (const one of waiting.splice(0)) one.reject(nobody())
    clock.after(respawnMs, () => {
      if (isStopped) return
      detach(add(), (error) => {
        log.error('store.reader_not_replaced', { error })
        replace()
      })
    })
  }

  const isStuck = ({ jobs, firstSince }: Reader): boolean =>
    size.isInTurn && jobs.length > 0 && clock.tick() - firstSince > stuckMs

  const freeReader = (atOnce = size.atOnce): Reader | undefined => {
    let best: Reader | undefined
    for (const reader of readers) {
      const least = best?.jobs.length ?? atOnce
      if (reader.jobs.length < least && !isStuck(reader)) best = reader
    }
    return best
  }

  const send = (reader: Reader, job: Job): void => {
    job.reader = reader
    if (reader.jobs.length === 0) reader.firstSince = clock.tick()
    reader.jobs.push(job)
    reader.thread.ask({ kind: 'read', query: job.query }).then(
      (answer) => {
        if ('rows' in answer) job.resolve(answer)
        else job.reject(new Fault('internal', 'a reader gave no rows'))
        finished(reader, job)
      },
      (cause: unknown) => {
        if (job.reader === reader) job.reject(cause)
        finished(reader, job)
      },
    )
    watch()
  }

  const finished = (reader: Reader, job: Job): void => {
    const at = reader.jobs.indexOf(job)
    if (at >= 0) reader.jobs.splice(at, 1)
    const now = clock.tick()
    reader.firstSince = now
    if (waiting.length === 0) return
    paceMs += (Math.min(now - answeredAt, paceMsMax) - paceMs) * paceWeight
    answeredAt = now
    dispatch()
  }

  const dispatch = (): void => {
    let sent = 0
    for (const job of waiting) {
      const reader = freeReader()
      if (!reader) break
      sent++
      send(reader, job)
    }
    if (sent > 0) waiting = waiting.slice(sent)
  }

  /** While reads are under way: takes back what waits behind a long one. */
  const watch = (): void => {
    if (isWatching || !size.isInTurn) return
    isWatching = true
    clock.after(stuckMs, () => {
      isWatching = false
      for (const reader of readers) {
        if (!isStuck(reader) || reader.jobs.length < 2) continue
        const back = reader.jobs.splice(1)
        for (const job of back) {
          job.reader = undefined
          job.since = clock.tick()
        }
        if (waiting.length === 0) answeredAt = clock.tick()
        waiting = [...back, ...waiting]
      }
      if (waiting.length > 0) dispatch()
      if (readers.some(({ jobs }) => jobs.length > 0)) watch()
    })
  }

  return {
    async start() {
      await Promise.all(Array.from({ length: size.threads }, add))
    },
    read(query) {
      if (readers.length === 0) return Promise.reject(nobody())
      const reader = waiting.length === 0 ? freeReader() : undefined
      if (!reader && waiting.length >= readsWaitingMax) {
        const text = 'too many reads are waiting for the database'
        return Promise.reject(new Fault('unavailable', text))
      }
      return new Promise((resolve, reject) => {
        const job: Job = { query, since: 0, resolve, reject, reader: undefined }
        if (reader) return send(reader, job)
        job.since = clock.tick()
        if (waiting.length === 0) answeredAt = job.since
        waiting.push(job)
      })
    },
    readFirst(query) {
      const reader = freeReader(Infinity) ?? readers[0]
      if (!reader) return Promise.reject(nobody())
      return new Promise((resolve, reject) => {
        send(reader, { query, since: 0, resolve, reject, reader })
      })
    },
    waitMs() {
      const [first] = waiting
      if (!first) return 0
      // Where nobody is answered, the one in front says how long that has been so.
      return Math.max(waiting.length * paceMs, clock.tick() - first.since)
    },
    async stop() {
      isStopped = true
      for (const one of waiting.splice(0)) one.reject(nobody())
      await Promise.all(readers.map(({ thread }) => thread.stop()))
    },
  }
}

function nobody(): Fault {
  return new Fault('unavailable', 'no reader of the database is alive')
}
