/** What the data verbs begin with: the app's plan, and where its database is. */
import { readConfig, type Config } from '../config.ts'
import { Fault } from '../fault.ts'
import { compilePlan, type Plan } from '../plan/plan.ts'
import type { CollectionPlan } from '../collections/collections.ts'
import type { AppSource } from './args.ts'
import { loadApp } from './load.ts'

export interface Target {
  readonly plan: Plan
  readonly config: Config
}

/** Faults: `invalid`, `not_found`. */
export async function targetOf(source: AppSource): Promise<Target> {
  const plan = compilePlan(await loadApp(source))
  return { plan, config: readConfig(plan.name) }
}

/** Path of the database. Faults: `not_allowed` for one that is on a server. */
export function requireFile(verb: string, { database }: Config): string {
  if (database.kind === 'file') return database.file
  throw new Fault(
    'not_allowed',
    `${verb} is for a database file, and DATABASE_URL names a server`,
    {
      hint: "use the server's own backups, or belfry export and belfry import, which work with both",
    },
  )
}

/** Faults: `not_found`. */
export function collectionOf({ name, collections }: Plan, path: string): CollectionPlan {
  const found = collections.find((one) => one.path === path)
  if (found) return found
  const paths = collections.map((one) => one.path).join(', ')
  throw new Fault('not_found', `the app ${name} has no collection ${path} (it has: ${paths})`)
}

/** `1.5 MB`, for people. */
export function sizeOf(bytes: number): string {
  if (bytes < 1_000) return `${bytes} B`
  if (bytes < 1_000_000) return `${(bytes / 1_000).toFixed(1)} KB`
  if (bytes < 1_000_000_000) return `${(bytes / 1_000_000).toFixed(1)} MB`
  return `${(bytes / 1_000_000_000).toFixed(2)} GB`
}

/** Between two lines of progress: seldom enough for a log, often enough to see that it moves. */
const progressMs = 1_000

/** Says how many rows there are so far, on stderr: stdout is for what was asked. */
export function createProgress(tick: () => number): (what: string, rows: number) => void {
  let saidAt = tick()
  return (what, rows) => {
    if (tick() - saidAt < progressMs) return
    saidAt = tick()
    console.error(`${what}: ${rows.toLocaleString('en')} rows …`)
  }
}
