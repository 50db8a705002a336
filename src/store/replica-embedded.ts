/**
 * An embedded replica: libSQL copies the primary's file, frame by frame, to this machine's disk. One thread
 * syncs (each `followMs`, and right after own writes); readers of the same file read meanwhile. The log
 * comes in the same frames as the rows, so the two never disagree.
 *
 *   primary ══ frames ══► [ replica thread ] ─► file ─► reader · reader
 *                                │
 *                                └─ synced ─► the store follows the log, read on this thread: no load is before it
 *
 * A replica that is broken (a damaged file, frames that do not fit) is left out, deleted, copied anew and
 * put back; while the primary cannot be reached it stays as it is, and is read for what it has.
 */
import { readdirSync, rmSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import type { Clock } from '../lib/clock.ts'
import { Fault } from '../fault.ts'
import { must } from '../lib/assert.ts'
import type { Log } from '../observe/log.ts'
import { createPool, inTurnMax, type Pool } from './pool.ts'
import { createStepper, out, type Replica } from './replica.ts'
import type { ThreadClient } from './thread-client.ts'

/** Syncs that may fail in a row, the primary being well, before the copy is held to be broken. */
const failuresMax = 8

export interface EmbeddedDeps {
  readonly clock: Clock
  readonly log: Log
  readonly file: string
  readonly readers: number
  readonly openReplica: () => Promise<ThreadClient>
  readonly openReader: (onDeath: (error: Error) => void) => Promise<ThreadClient>
  /** The primary's newest entry, asked over the network. Rejects while it cannot be reached. */
  readonly primarySeq: () => Promise<number>
  /** Called after each sync, with what reads the copy on the thread that synced it. */
  readonly synced: (readLog: Pool['read']) => Promise<void>
}

export function createEmbeddedReplica(deps: EmbeddedDeps): Replica {
  const { clock, log, file } = deps
  const name = 'embedded'
  let thread: ThreadClient | undefined
  let pool: Pool | undefined
  let seq = out
  let failures = 0
  let isBroken = false
  let isStopped = false

  const open = async (): Promise<void> => {
    thread = await deps.openReplica()
    const first = await sync()
    pool = createPool(
      { clock, log, open: deps.openReader },
      { threads: deps.readers, atOnce: inTurnMax, isInTurn: true },
    )
    await pool.start()
    // A primary that was restored to an earlier state would never catch up with this copy.
    if (first > (await deps.primarySeq())) throw new Fault('unavailable', 'the replica is ahead')
    seq = first
  }

  const sync = async (): Promise<number> => {
    const answer = await must(thread, () => 'open comes first').ask({ kind: 'sync' })
    return 'seq' in answer ? answer.seq : 0
  }

  const readLog: Pool['read'] = async (query) => {
    const answer = await must(thread, () => 'open comes first').ask({ kind: 'read', query })
    if ('rows' in answer) return answer
    throw new Fault('internal', 'the replica gave no rows')
  }

  const close = async (): Promise<void> => {
    seq = out
    // Readers first: the last connection to a file folds its WAL, which is the replica's alone to do.
    await pool?.stop()
    pool = undefined
    await thread?.stop()
    thread = undefined
  }

  const rebuild = async (cause: unknown): Promise<void> => {
    log.warn('store.replica_rebuild', { replica: name, error: cause })
    await close()
    removeFiles(file)
    await open()
    isBroken = false
    failures = 0
    log.info('store.replica_back', { replica: name, seq })
    await deps.synced(readLog)
  }

  const step = async (): Promise<void> => {
    try {
      if (isBroken || !thread || thread.isDead) return await rebuild('broken')
      const reached = await sync()
      failures = 0
      if (reached < seq) throw new Fault('unavailable', 'the replica went back')
      seq = reached
      // Each time: a failure on the way is made good, and the store knows that it has heard of everything.
      await deps.synced(readLog)
    } catch (error) {
      await failed(error)
    }
  }

  const failed = async (error: unknown): Promise<void> => {
    if (isStopped) return
    failures++
    if (failures % failuresMax !== 0) return
    log.warn('store.sync_failed', { replica: name, failures, error })
    isBroken = await deps.primarySeq().then(
      () => true,
      () => false,
    )
  }

  const stepper = createStepper({ clock, log, name }, step)

  return {
    name,
    get seq() {
      return seq
    },
    async read(query) {
      if (!pool) throw new Fault('unavailable', 'the replica is being rebuilt')
      return await pool.read(query)
    },
    waitMs: () => pool?.waitMs() ?? 0,
    hint: () => void stepper.now(),
    suspect(cause) {
      if (!isDamage(cause)) return
      log.warn('store.replica_damaged', { replica: name, error: cause })
      seq = out
      isBroken = true
      void stepper.now()
    },
    async start() {
      try {
        await open()
      } catch (cause) {
        await rebuild(cause)
      }
      stepper.start()
    },
    async stop() {
      isStopped = true
      await stepper.stop()
      await close()
    },
  }
}

/** What a read of a healthy copy never says. */
function isDamage(cause: unknown): boolean {
  const text = cause instanceof Fault && cause.cause instanceof Error ? cause.cause.message : ''
  return /SQLITE_(CORRUPT|NOTADB|IOERR|CANTOPEN)|malformed|not a database/.test(text)
}

/** The copy and what libSQL keeps beside it (`-wal`, `-shm`, `-info`, `-client_wal_index`). */
function removeFiles(file: string): void {
  const [folder, name] = [dirname(file), basename(file)]
  for (const one of readdirSync(folder)) {
    if (one === name || one.startsWith(`${name}-`)) rmSync(join(folder, one), { force: true })
  }
}
