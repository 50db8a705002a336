/**
 * Puts a backup in the place of the database, or refuses and changes nothing.
 *
 *   hold the folder ─► unpack beside ─► every page checked ─► a store is started on it, as a server
 *   would ─► the old database gets a second name ─► the new one takes its place by one rename
 *
 * Invariants: until the rename the database is the old one, and whole; after it, the new one, and whole;
 * nothing that was there before is deleted. Killed in between, it leaves a folder that the next restore
 * sweeps.
 */
import { existsSync, statSync } from 'node:fs'
import { copyFile, link, mkdir, open, readdir, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import type { SQLiteTable } from 'drizzle-orm/sqlite-core'
import { Fault } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import type { Log } from '../observe/log.ts'
import { createStore, foldFile, inspectFile, takeFolder, type Copy } from '../store/store.ts'
import { diskFault, makeFolder, syncFolder } from './files.ts'
import { unpack } from './pack.ts'

export interface RestoreOptions {
  /** A backup, or a plain database file. */
  readonly from: string
  readonly databaseFile: string
  /** The app's: what is restored must start with them. */
  readonly tables: readonly SQLiteTable[]
}

export interface Restored extends Copy {
  /** Where the database is that was there before; undefined if there was none. */
  readonly keptAs: string | undefined
}

const workPrefix = '.restore-'

/**
 * Faults: `not_found`, `invalid` for no backup; `unavailable` while a server has the folder, for one that
 * is damaged, of a newer belfry or of other tables, or for a disk that refuses.
 */
export async function restore(
  deps: { readonly clock: Clock; readonly log: Log },
  { from, databaseFile, tables }: RestoreOptions,
): Promise<Restored> {
  const folder = dirname(databaseFile)
  await makeFolder(folder)
  const release = hold(databaseFile)
  const work = join(folder, `${workPrefix}${process.pid}`)
  try {
    await sweep(folder)
    await mkdir(work)
    const fresh = join(work, basename(databaseFile))
    await unpack(from, fresh)
    const copy = await inspectFile(deps, fresh)
    await rehearse(deps, fresh, tables)
    const keptAs = await keepOld(deps, databaseFile, work)
    await replace(fresh, databaseFile)
    return { ...copy, keptAs }
  } catch (cause) {
    throw diskFault(cause, `${basename(from)} cannot be restored to ${folder}`)
  } finally {
    await rm(work, { recursive: true, force: true })
    release()
  }
}

function hold(databaseFile: string): () => void {
  try {
    return takeFolder({ kind: 'file', file: databaseFile, replicas: [] })
  } catch (thrown) {
    if (!(thrown instanceof Fault)) throw thrown
    const hint = 'a restore replaces what a server serves: stop it first'
    throw new Fault(thrown.code, thrown.message, { hint, cause: thrown.cause })
  }
}

/** Of restores that were killed; the folder is ours, so none is under way. */
async function sweep(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (name.startsWith(workPrefix)) await rm(join(folder, name), { recursive: true, force: true })
  }
}

/**
 * Whatever would keep a server from starting on it is found now, and older schemas are brought forward. It
 * begins a new life, so that copies shipped to know that its log has gone back, and are made anew.
 */
async function rehearse(
  deps: { readonly clock: Clock; readonly log: Log },
  file: string,
  tables: readonly SQLiteTable[],
): Promise<void> {
  const store = createStore(deps, {
    database: { kind: 'file', file, replicas: [] },
    tables,
    readers: 1,
  })
  try {
    await store.start()
    const sql = "insert or replace into meta (name, value) values ('life', ?)"
    await store.write([{ sql, params: [crypto.randomUUID()] }])
  } finally {
    await store.stop()
  }
  for (const extra of ['-wal', '-shm']) await rm(file + extra, { force: true })
  const handle = await open(file, 'r+')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Gives the old database a second name beside, with its WAL folded in, or along if that cannot be done. */
async function keepOld(
  deps: { readonly clock: Clock },
  databaseFile: string,
  work: string,
): Promise<string | undefined> {
  const time = new Date(deps.clock.now()).toISOString().replaceAll(/[-:.]/g, '')
  const keptAs = `${databaseFile}.before-restore-${time}`
  const wal = `${databaseFile}-wal`
  const hasWal = existsSync(wal) && statSync(wal).size > 0
  if (!existsSync(databaseFile)) {
    if (hasWal) await rename(wal, `${keptAs}-wal`)
    return undefined
  }
  // SQLite drops a WAL that it cannot read, and a damaged database's may be all that is left.
  const walCopy = join(work, 'wal')
  if (hasWal) await copyFile(wal, walCopy)
  const outcome = await fold(deps, databaseFile)
  if (outcome === 'busy') {
    throw new Fault('unavailable', `another program reads ${basename(databaseFile)}`, {
      hint: 'wait for its end (an export, perhaps), then restore',
    })
  }
  await alsoName(databaseFile, keptAs)
  if (hasWal && outcome === 'damaged') await rename(walCopy, `${keptAs}-wal`)
  await syncFolder(dirname(databaseFile))
  return keptAs
}

/** A damaged database is a reason to restore, not one to refuse: it is kept as it is. */
async function fold(
  deps: { readonly clock: Clock },
  file: string,
): Promise<'folded' | 'busy' | 'damaged'> {
  try {
    return await foldFile(deps, file)
  } catch (thrown) {
    if (thrown instanceof Fault) return 'damaged'
    throw thrown
  }
}

async function alsoName(file: string, name: string): Promise<void> {
  try {
    await link(file, name)
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? cause.code : undefined
    // A file system without hard links: then the database is away for the moment until the next rename.
    if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'EOPNOTSUPP') throw cause
    await rename(file, name)
  }
}

/** The old WAL first: it would be read as the new file's. It is folded by now, or kept aside. */
async function replace(fresh: string, databaseFile: string): Promise<void> {
  for (const extra of ['-wal', '-shm']) await rm(databaseFile + extra, { force: true })
  await rename(fresh, databaseFile)
  await syncFolder(dirname(databaseFile))
}
