/**
 * Backup files by name: `<app>-<UTC time>-<seq>.db.zst`, so that a folder sorted by name is sorted by time.
 * A file has such a name only when it is whole and on the disk; what is being made has another.
 */
import { createHash } from 'node:crypto'
import { mkdir, open, readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '../fault.ts'

export interface BackupFile {
  readonly path: string
  readonly atMs: number
  /** Newest log entry in it. */
  readonly seq: number
  readonly bytes: number
}

/** `20260131T120000000Z`: sorts as text, and every file system takes it. */
export function backupName(app: string, { atMs, seq }: Pick<BackupFile, 'atMs' | 'seq'>): string {
  const time = new Date(atMs).toISOString().replaceAll(/[-:.]/g, '')
  return `${app}-${time}-${seq}.db.zst`
}

function parseName(app: string, name: string): Pick<BackupFile, 'atMs' | 'seq'> | undefined {
  if (!name.startsWith(`${app}-`)) return undefined
  const match = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)(\d{3})Z-(\d{1,16})\.db\.zst$/.exec(
    name.slice(app.length + 1),
  )
  if (!match) return undefined
  const [year = 0, month = 0, day = 0, hour, minute, second, ms, seq = 0] = match
    .slice(1)
    .map(Number)
  return { atMs: Date.UTC(year, month - 1, day, hour, minute, second, ms), seq }
}

/** An app's backups, newest first; none if there is no such folder. */
export async function listBackups(folder: string, app: string): Promise<BackupFile[]> {
  const found: BackupFile[] = []
  for (const name of await namesIn(folder)) {
    const parsed = parseName(app, name)
    if (!parsed) continue
    const path = join(folder, name)
    const bytes = await stat(path).then(
      ({ size }) => size,
      () => undefined,
    )
    if (bytes !== undefined) found.push({ path, ...parsed, bytes })
  }
  return found.toSorted((a, b) => b.atMs - a.atMs || b.seq - a.seq)
}

/** All but the newest `keep`, and never `latest`: a clock that was set back must not cost the new one. */
export async function pruneBackups(
  folder: string,
  app: string,
  { keep, latest }: { readonly keep: number; readonly latest: string },
): Promise<string[]> {
  const others = (await listBackups(folder, app)).filter(({ path }) => path !== latest)
  const surplus = others.slice(keep - 1).map(({ path }) => path)
  for (const path of surplus) await rm(path, { force: true })
  return surplus
}

/**
 * What unfinished files of one database are called: by its path, because another server may be making
 * its own backup in the same folder. Whoever holds the database may sweep them.
 */
export function partPrefix(app: string, databaseFile: string): string {
  const hash = createHash('sha256').update(databaseFile).digest('hex').slice(0, 12)
  return `.${app}-${hash}-`
}

/** Removes what an interrupted run has left. */
export async function sweepParts(folder: string, prefix: string): Promise<void> {
  for (const name of await namesIn(folder)) {
    if (name.startsWith(prefix)) await rm(join(folder, name), { force: true })
  }
}

export async function makeFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true })
  } catch (cause) {
    throw diskFault(cause, `the folder cannot be made: ${folder}`)
  }
}

/** Else a power cut may forget a rename that was answered with success. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder)
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return []
    throw diskFault(cause, `the folder cannot be read: ${folder}`)
  }
}

/** What the file system refused, in words an operator can act on. */
export function diskFault(cause: unknown, what: string): Fault {
  if (cause instanceof Fault) return cause
  const code = codeOf(cause)
  if (code === '') return new Fault('internal', what, { cause })
  const reason = reasons[code]
  return new Fault('unavailable', `${what}: ${reason?.text ?? code}`, { hint: reason?.hint, cause })
}

const room = { text: 'the disk is full', hint: 'make room there, or choose another folder' }
const rights = { text: 'it may not be written to', hint: 'check its owner and its permissions' }
const reasons: Readonly<Record<string, { readonly text: string; readonly hint: string }>> = {
  ...{ ENOSPC: room, EDQUOT: room },
  ...{ EACCES: rights, EPERM: rights, EROFS: rights },
}

function codeOf(thrown: unknown): string {
  return thrown instanceof Error && 'code' in thrown ? String(thrown.code) : ''
}
