/**
 * The four shapes of a database, each as the same three things: a thread that writes, a pool that reads
 * what is newest, and replicas that read what they have.
 *
 *                        writer            primary pool        replicas
 *   file                 file              readers of it       –
 *   file, replica URLs   file              readers of it       each URL, shipped to by us (ship.ts)
 *   remote               Hrana             Hrana               each URL, replicated by its own server
 *   remote, embedded     Hrana             Hrana               a file that libSQL syncs
 */
import { mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { Fault } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import type { Log } from '../observe/log.ts'
import { holdLock } from './libsql.ts'
import { selectSeq } from './engine.ts'
import type { RemoteTarget, ThreadOptions } from './messages.ts'
import { createPool, inTurnMax, type Pool } from './pool.ts'
import { createEmbeddedReplica } from './replica-embedded.ts'
import { createUrlReplica, type Replica } from './replica.ts'
import { createShipper, type Shipper } from './ship.ts'
import { startThread, type ThreadClient } from './thread-client.ts'

export type DatabaseOptions =
  | {
      readonly kind: 'file'
      /** Its folder is made if absent, and locked. */
      readonly file: string
      readonly replicas: readonly RemoteTarget[]
    }
  | {
      readonly kind: 'remote'
      readonly primary: RemoteTarget
      readonly replicas: readonly RemoteTarget[]
      /** Of an embedded replica; its folder is made if absent, and locked. */
      readonly replicaFile?: string | undefined
    }

/** Reader threads of a file. Two, so that one long query leaves the other for everybody else. */
const readersDefault = 2

/**
 * A server answers many at a time, but sqld at most 128 of all its nodes together, and 429 beyond: with this,
 * and the writer's and the poll's own, four nodes may all be at their most. Near by, more would bring nothing:
 * what a read costs the server is the same with 8 at a time and with 64 (1.6 ms of its CPU).
 */
const remoteSize = { threads: 1, atOnce: 24, isInTurn: false }

export interface Places {
  openWriter(onDeath: (error: Error) => void): Promise<ThreadClient>
  readonly primary: Pool
  readonly replicas: readonly Replica[]
  /** Whether others may write to the same primary. */
  readonly isShared: boolean
  /** Whether a replica follows the log for us; otherwise a shared primary is polled. */
  readonly isFollowed: boolean
  /** Entries of the log beyond this one are still to be shipped somewhere; `Infinity` if none are. */
  neededAfter(): number
}

export interface PlacesDeps {
  readonly clock: Clock
  readonly log: Log
  /** Called when an embedded replica has something newer. */
  readonly synced: (readLog: Pool['read']) => Promise<void>
}

export function createPlaces(
  deps: PlacesDeps,
  database: DatabaseOptions,
  readers = readersDefault,
): Places {
  const { clock, log } = deps
  const opener =
    (options: ThreadOptions) =>
    (onDeath: (error: Error) => void): Promise<ThreadClient> =>
      openThread(options, { clock, onDeath, isPatient: options.role === 'writer' })
  const remotePool = (target: RemoteTarget): Pool =>
    createPool({ clock, log, open: opener({ role: 'remote', ...target }) }, remoteSize)

  if (database.kind === 'file') {
    const { file } = database
    const primary = createPool(
      { clock, log, open: opener({ role: 'reader', file }) },
      { threads: readers, atOnce: inTurnMax, isInTurn: true },
    )
    const shippers: Shipper[] = []
    const replicas = database.replicas.map((target) => {
      const pool = remotePool(target)
      const open = opener({ role: 'remote', ...target })
      const shipper = createShipper({ log, name: hostOf(target), primary, open })
      shippers.push(shipper)
      return createUrlReplica(hostOf(target), { clock, log, pool, ...shipper })
    })
    const openWriter = opener({ role: 'writer', file })
    const neededAfter = (): number => Math.min(...shippers.map((one) => one.neededAfter()))
    return { openWriter, primary, replicas, isShared: false, isFollowed: false, neededAfter }
  }

  const { replicaFile } = database
  const primary = remotePool(database.primary)
  const seqOf = async (pool: Pool): Promise<number> =>
    Number((await pool.readFirst({ sql: selectSeq, params: [] })).rows[0]?.[0])
  const replicas = database.replicas.map((target) => {
    const pool = remotePool(target)
    return createUrlReplica(hostOf(target), { clock, log, pool, advance: () => seqOf(pool) })
  })
  if (replicaFile !== undefined) {
    const embedded = createEmbeddedReplica({
      clock,
      log,
      file: replicaFile,
      readers,
      openReplica: () =>
        opener({ role: 'replica', file: replicaFile, ...database.primary })(() => {}),
      openReader: opener({ role: 'reader', file: replicaFile }),
      primarySeq: () => seqOf(primary),
      synced: deps.synced,
    })
    replicas.unshift(embedded)
  }
  return {
    openWriter: opener({ role: 'remote', ...database.primary }),
    primary,
    replicas,
    isShared: true,
    isFollowed: replicaFile !== undefined,
    // Others copy pages, with the log in them.
    neededAfter: () => Infinity,
  }
}

/** Without user, password and path: it is logged. */
function hostOf({ url }: RemoteTarget): string {
  return new URL(url).host
}

/** Faults: `unavailable`, saying where. */
export async function openThread(
  options: ThreadOptions,
  deps: Parameters<typeof startThread>[0],
): Promise<ThreadClient> {
  let isOpen = false
  // One that dies before is told by the rejection alone: told twice, it would have two successors.
  const onDeath = (error: Error): void => {
    if (isOpen) deps.onDeath(error)
  }
  const thread = startThread({ ...deps, onDeath })
  try {
    await thread.ask({ kind: 'open', options })
    isOpen = true
  } catch (cause) {
    await thread.stop()
    const where = 'file' in options ? options.file : new URL(options.url).host
    const fault = cause as Fault
    throw new Fault(fault.code, `${fault.message}: ${where}`, { hint: fault.hint, cause })
  }
  return thread
}

/** The folder of the database's own files, if it has any: made, and this process's alone until released. */
export function takeFolder(database: DatabaseOptions): () => void {
  const file = database.kind === 'file' ? database.file : database.replicaFile
  if (file === undefined) return () => {}
  const folder = dirname(file)
  try {
    mkdirSync(folder, { recursive: true })
  } catch (cause) {
    throw new Fault('unavailable', `the data folder cannot be made: ${folder}`, {
      hint: 'check the path and its permissions, or set DATABASE_URL=file:/another/path.db',
      cause,
    })
  }
  try {
    return holdLock(join(folder, 'belfry.lock'))
  } catch (cause) {
    const fault = cause as Fault
    throw new Fault(fault.code, `${fault.message}: ${folder}`, { hint: fault.hint, cause })
  }
}
