/** What tests of backups share: a fake database that copies in no time, and looks into folders and copies. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createBackups, type BackupPlan } from '../../src/backup/backup.ts'
import type { Clock } from '../../src/lib/clock.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { openPinned, type Copy, type RawRow } from '../../src/store/store.ts'
import { createTestLog } from '../harness.ts'

/** Backups of a database whose copy is a line of text. `snapshot.run` may be replaced to fail. */
export function fakeBackups(options: {
  readonly databaseFile: string
  readonly clock: Clock
  readonly plan?: Partial<BackupPlan>
  readonly seq?: number
}) {
  const { databaseFile, clock, plan, seq = 0 } = options
  const log = createTestLog()
  const snapshot = {
    seq,
    run: async (to: string): Promise<Copy> => {
      snapshot.seq++
      const bytes = await Bun.write(to, `copy ${snapshot.seq}`)
      return { seq: snapshot.seq, bytes, schema: 1, orphans: 0 }
    },
  }
  const backups = createBackups(
    { snapshot: (to) => snapshot.run(to), clock, log },
    {
      app: 'notes',
      databaseFile,
      plan: plan && { everyMs: 24 * 3_600_000, keep: 7, folder: undefined, ...plan },
    },
  )
  const count = (event: string) => log.lines.filter((line) => line.event === event).length
  return { backups, log, snapshot, count }
}

/** Names in a folder, sorted, those beginning with a dot too. */
export function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder).toSorted()
  } catch {
    return []
  }
}

/** Every file below a folder with its bytes: equal means that nothing was touched. */
export function contentsOf(folder: string): Record<string, string> {
  const found: Record<string, string> = {}
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name)
    if (entry.isFile()) found[path] = String(Bun.hash(readFileSync(path)))
  }
  return found
}

/** Rows of a database file that nobody serves. */
export async function rowsOf(file: string, ...queries: string[]): Promise<readonly RawRow[][]> {
  const pinned = await openPinned({ clock: systemClock }, { kind: 'file', file, replicas: [] })
  try {
    const answers: RawRow[][] = []
    for (const sql of queries) answers.push([...(await pinned.read({ sql, params: [] }))])
    return answers
  } finally {
    await pinned.close()
  }
}
