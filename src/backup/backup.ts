/**
 * Backups: verified, compressed copies of a database that goes on being written to, made on a clock or
 * when asked, and put back by `restore`.
 *
 *   run ─► sweep ─► store.snapshot (a thread of its own) ─► packer (a worker: zstd, fsync, read back)
 *       ─► rename to its final name ─► retention
 *
 * Invariants: a file with a backup's name is whole, checked and on the disk; whatever fails or is killed
 * leaves only files that begin with a dot, which the next run sweeps; an older backup goes only once a
 * newer one is there; runs never overlap. The clock counts from the newest file's time, so a restart
 * neither brings a backup forward nor skips one.
 *
 * Limits: while a backup is made the folder holds the copy uncompressed as well, and the store's WAL
 * cannot start over for as long as `vacuum into` takes. Copying it to another machine is not done here.
 */
import { randomUUID } from 'node:crypto'
import { rename } from 'node:fs/promises'
import { dirname, isAbsolute, join, resolve } from 'node:path'
import { Fault } from '../fault.ts'
import type { Cancel, Clock } from '../lib/clock.ts'
import { detach, type Service } from '../lib/service.ts'
import type { Log } from '../observe/log.ts'
import type { Copy } from '../store/store.ts'
import {
  backupName,
  diskFault,
  listBackups,
  makeFolder,
  partPrefix,
  pruneBackups,
  sweepParts,
  syncFolder,
  type BackupFile,
} from './files.ts'
import { pack } from './pack.ts'

export { listBackups } from './files.ts'
export type { BackupFile } from './files.ts'
export { restore, type Restored } from './restore.ts'

/** `backup` of an app, checked. Made by the plan. */
export interface BackupPlan {
  readonly everyMs: number
  readonly keep: number
  readonly folder: string | undefined
}

export const everyDefaultMs = 24 * 3_600_000
/** A backup costs a pass over the whole database; more often than this is a mistake. */
export const everyMsMin = 60_000
export const keepDefault = 7
/** As many names are read and sorted after every backup. */
export const keepMax = 1_000

/** After a failure: soon enough to matter, rarely enough not to fill the log. */
const retryMs = 15 * 60_000

/** A stop waits so long for a copy under way; `vacuum into` cannot be told to end. */
const stopPatienceMs = 10_000

export interface BackupsDeps {
  /** `store.snapshot`. */
  readonly snapshot: (toFile: string) => Promise<Copy>
  readonly clock: Clock
  readonly log: Log
}

export interface BackupsOptions {
  readonly app: string
  /** Undefined for a database on a server: it has backups of its own. */
  readonly databaseFile: string | undefined
  /** Absent: backups are made when asked only. */
  readonly plan: BackupPlan | undefined
}

export interface RunOptions {
  /** Absolute. Default: the app's folder. */
  readonly folder?: string | undefined
  /** Default: as the app says for its own folder, everything in any other. */
  readonly keep?: number | undefined
}

export interface BackupMade extends BackupFile {
  /** Of the database in it. */
  readonly databaseBytes: number
  readonly tookMs: number
}

export interface BackupStats {
  /** Of the newest backup in the app's folder, made in this process or before. */
  readonly lastAtMs: number | undefined
  readonly lastBytes: number | undefined
  /** Of the newest made in this process. */
  readonly lastTookMs: number | undefined
  readonly failures: number
}

export interface Backups extends Service {
  start(): Promise<void>
  stop(): Promise<void>
  /** Makes one now; waits for one under way. Faults: `unavailable`: the disk, the database, a stop. */
  run(options?: RunOptions): Promise<BackupMade>
  stats(): BackupStats
}

function notHere(): Fault {
  return new Fault('not_allowed', 'the database is on a server: it is not backed up from here', {
    hint: "use the server's own backups, or belfry export and belfry import",
  })
}

/** Where an app's backups are, unless said otherwise. */
export function backupFolder(databaseFile: string, plan: BackupPlan | undefined): string {
  const folder = plan?.folder ?? 'backups'
  return isAbsolute(folder) ? folder : resolve(dirname(databaseFile), folder)
}

export function createBackups(deps: BackupsDeps, options: BackupsOptions): Backups {
  const { snapshot, clock, log } = deps
  const { app, plan } = options
  const databaseFile = options.databaseFile ?? ''
  const isHere = options.databaseFile !== undefined
  const ownFolder = backupFolder(databaseFile, plan)
  const prefix = partPrefix(app, databaseFile)
  let last: { readonly atMs: number; readonly bytes: number } | undefined
  let lastTookMs: number | undefined
  let failures = 0
  let cancel: Cancel | undefined
  let isStopped = false
  /** The end of the newest run, well or badly. */
  let tail: Promise<unknown> = Promise.resolve()

  const make = async (folder: string, keep: number | undefined): Promise<BackupMade> => {
    requireRunning()
    const [startedAt, atMs] = [clock.tick(), clock.now()]
    await makeFolder(folder)
    await sweepParts(folder, prefix)
    const part = join(folder, `${prefix}${randomUUID()}`)
    try {
      const copy = await snapshot(`${part}.db`)
      requireRunning()
      const bytes = await pack({ from: `${part}.db`, to: `${part}.zst` })
      requireRunning()
      const path = join(folder, backupName(app, { atMs, seq: copy.seq }))
      await rename(`${part}.zst`, path)
      await syncFolder(folder)
      const tookMs = clock.tick() - startedAt
      const made = { path, atMs, seq: copy.seq, bytes, databaseBytes: copy.bytes, tookMs }
      if (copy.orphans > 0) log.warn('backup.orphans', { rows: copy.orphans })
      log.info('backup.made', made)
      const pruned =
        keep === undefined ? [] : await pruneBackups(folder, app, { keep, latest: path })
      for (const gone of pruned) log.info('backup.removed', { path: gone })
      return made
    } catch (cause) {
      throw diskFault(cause, `the backup cannot be made in ${folder}`)
    } finally {
      await sweepParts(folder, prefix).catch((error: unknown) => {
        log.warn('backup.not_swept', { folder, error })
      })
    }
  }

  const requireRunning = (): void => {
    if (isStopped) throw new Fault('unavailable', 'the server stops: the backup was given up')
  }

  const run = async ({ folder = ownFolder, keep }: RunOptions = {}): Promise<BackupMade> => {
    if (!isHere) throw notHere()
    const isOwn = folder === ownFolder
    const mine = tail.then(() => make(folder, keep ?? (isOwn ? plan?.keep : undefined)))
    tail = mine.catch(() => {})
    try {
      const made = await mine
      if (isOwn) {
        last = made
        lastTookMs = made.tookMs
        schedule(made.atMs)
      }
      return made
    } catch (thrown) {
      failures++
      throw thrown
    }
  }

  /** `newestMs`: of the newest backup there is. */
  const schedule = (newestMs: number | undefined): void => {
    if (!plan) return
    const sinceMs = newestMs === undefined ? plan.everyMs : clock.now() - newestMs
    // A file from the future (a clock that was set back) must not put the next one off for long.
    wake(Math.min(Math.max(plan.everyMs - sinceMs, 0), plan.everyMs))
  }

  const wake = (inMs: number): void => {
    cancel?.()
    if (!isStopped) cancel = clock.after(inMs, () => detach(run(), onFailure))
  }

  const onFailure = (error: unknown): void => {
    if (isStopped || !plan) return
    const nextMs = Math.min(retryMs, plan.everyMs)
    log.error('backup.failed', { folder: ownFolder, failures, retryMs: nextMs, error })
    wake(nextMs)
  }

  return {
    run,
    async start() {
      if (!isHere) {
        if (plan) log.warn('backup.not_scheduled', { error: notHere() })
        return
      }
      try {
        await sweepParts(ownFolder, prefix)
        const [newest] = await listBackups(ownFolder, app)
        last = newest
        schedule(newest?.atMs)
      } catch (error) {
        // A folder that is not there today must not keep the server from serving.
        onFailure(error)
      }
    },
    async stop() {
      isStopped = true
      cancel?.()
      const patience = Promise.withResolvers<void>()
      const cancelPatience = clock.after(stopPatienceMs, patience.resolve)
      await Promise.race([tail, patience.promise])
      cancelPatience()
    },
    stats: () => ({ lastAtMs: last?.atMs, lastBytes: last?.bytes, lastTookMs, failures }),
  }
}
