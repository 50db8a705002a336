/**
 * Brings the database to what this binary needs: Belfry's own numbered migrations, then the app's tables,
 * then the triggers that write the log.
 *
 *   at start    additive changes are done and logged; anything else stops the start
 *   on request  `belfry migrate`: renames, rebuilds and drops too, each covered by an answer
 *
 * Invariants: reading, comparing and changing are ONE transaction on the writer, so that of two processes
 * that start at once one migrates and the other finds nothing to do; and whatever fails leaves the old
 * schema and every row. Foreign keys are off during a migration on request (a rebuild drops the old table,
 * which would take its children along) and all of them are checked before it is committed.
 */
import type { SQLiteTable } from 'drizzle-orm/sqlite-core'
import { systemMigrations } from '../../db/system.ts'
import { Fault, type FieldProblem } from '../fault.ts'
import type { Log } from '../observe/log.ts'
import type { MigrationAnswers } from './answers.ts'
import { quote } from './ddl.ts'
import type { MigrationDb, MigrationTx } from './migration-db.ts'
import type { Count } from './rebuild.ts'
import {
  compareSchema,
  phases,
  type Phase,
  type SchemaChange,
  type SchemaDifference,
  type Step,
} from './schema.ts'
import { readSchema, type StoredSchema } from './stored.ts'
import { dropLogTriggers, outOfStep, syncLogTriggers } from './trigger-sync.ts'

/** At start, before anybody reads. Faults: `unavailable`, with what stands in the way. */
export async function migrate(
  db: MigrationDb,
  tables: readonly SQLiteTable[],
  log: Log,
): Promise<void> {
  const { versions, statements, triggers } = await db.exclusively(async (tx) => {
    const applied = await migrateSystem(tx)
    const stored = await readSchema(tx)
    const { changes } = compareSchema(tables, stored)
    const isRefused = changes.some((one) => one.kind !== 'additive' || one.questions.length > 0)
    if (isRefused) throw startFault(changes, stored)
    const done = await run(tx, stored, changes, phases)
    return { versions: applied, statements: done, triggers: await syncLogTriggers(tx, tables) }
  })
  for (const version of versions) log.info('store.migrated', { version })
  for (const statement of statements) log.info('store.schema_applied', { statement })
  if (triggers > 0) log.info('store.log_triggers_made', { triggers })
}

export interface MigrationReport {
  /** Of Belfry's own tables: what is there, and what this binary brings. */
  readonly system: { readonly version: number; readonly newest: number }
  readonly changes: readonly PlannedChange[]
  readonly notes: readonly string[]
  /** What only the operator knows. */
  readonly questions: readonly string[]
  /** Rows that stand in the way. */
  readonly blocked: readonly string[]
  readonly unmatched: readonly string[]
  /** Log triggers that are missing, old or superfluous. */
  readonly triggers: number
  readonly isInStep: boolean
}

export interface PlannedChange {
  readonly kind: SchemaChange['kind']
  readonly table: string
  readonly problem: string
  readonly statements: readonly string[]
  readonly losses: readonly string[]
}

/** What `applyMigration` would do with these answers. Changes nothing. */
export async function planMigration(
  db: MigrationDb,
  tables: readonly SQLiteTable[],
  answers: MigrationAnswers = {},
): Promise<MigrationReport> {
  return await db.exclusively(async (tx) => {
    const stored = await readSchema(tx)
    const version = await systemVersion(tx)
    const difference = compareSchema(tables, stored, answers)
    const changes: PlannedChange[] = []
    for (const { kind, table, problem, steps, losses } of difference.changes) {
      const lost = await failing(tx, losses)
      changes.push({ kind, table, problem, statements: statementsOf(steps), losses: lost })
    }
    const newest = newestVersion()
    const triggers = outOfStep(tables, stored.logTriggers)
    return {
      ...(await obstacles(tx, difference)),
      system: { version, newest },
      changes,
      notes: difference.notes,
      triggers,
      isInStep: version === newest && changes.length === 0 && triggers === 0,
    }
  })
}

/**
 * Returns the statements that were run, log triggers aside.
 * Faults: `conflict` with everything that is unanswered or in the way, `invalid` for answers to what nobody
 * asked, `unavailable` if a statement or a check of the result fails. Nothing is changed then.
 */
export async function applyMigration(
  db: MigrationDb,
  tables: readonly SQLiteTable[],
  answers: MigrationAnswers = {},
): Promise<readonly string[]> {
  const exclusively = async (tx: MigrationTx): Promise<readonly string[]> => {
    const versions = await migrateSystem(tx)
    const done = versions.map((version) => `-- belfry's own tables: migration ${version}`)
    let stored = await readSchema(tx)
    let difference = compareSchema(tables, stored, answers)
    refuseObstacles(await obstacles(tx, difference))
    const moves = difference.changes.some(({ steps }) => steps.some(isMove))
    if (moves) {
      done.push(...(await run(tx, stored, difference.changes, movePhases)))
      // SQLite writes the new names into indexes, keys and checks itself: what is left is seen after.
      stored = await readSchema(tx)
      const rest = { ...answers, rename: [], renameTable: [], dropTable: [] }
      difference = compareSchema(tables, stored, rest)
      refuseObstacles(await obstacles(tx, difference))
    }
    done.push(...(await run(tx, stored, difference.changes, phases)))
    await syncLogTriggers(tx, tables)
    if (difference.changes.length > 0 || moves) {
      await checkForeignKeys(tx)
      await checkInStep(tx, tables)
    }
    return done
  }
  return await db.exclusively(exclusively, { foreignKeys: 'off' })
}

const movePhases: readonly Phase[] = ['drop', 'rename']

function isMove({ phase }: Step): boolean {
  return movePhases.includes(phase)
}

function newestVersion(): number {
  return systemMigrations.at(-1)?.version ?? 0
}

async function systemVersion(tx: MigrationTx): Promise<number> {
  const version = Number((await tx.rows('pragma user_version'))[0]?.[0])
  const newest = newestVersion()
  if (version <= newest) return version
  throw new Fault('unavailable', `the database is of a newer belfry (schema ${version})`, {
    hint: `this binary knows schema ${newest}: run the newer one, or restore a backup`,
  })
}

/** Returns the versions that were new. */
async function migrateSystem(tx: MigrationTx): Promise<readonly number[]> {
  const current = await systemVersion(tx)
  const wanted = systemMigrations.filter(({ version }) => version > current)
  for (const { version, sql } of wanted) {
    for (const statement of sql.split(/;\n\n|;\n$/).filter((one) => one.trim() !== '')) {
      await runStatement(tx, statement)
    }
    await runStatement(tx, `pragma user_version = ${version}`)
  }
  return wanted.map(({ version }) => version)
}

/** Runs all steps of these phases; returns the statements. */
async function run(
  tx: MigrationTx,
  stored: StoredSchema,
  changes: readonly SchemaChange[],
  wanted: readonly Phase[],
): Promise<string[]> {
  const touched = changes.flatMap(({ touches }) => touches)
  for (const statement of dropLogTriggers(stored, touched)) await runStatement(tx, statement)
  const done: string[] = []
  for (const phase of wanted) {
    const steps = changes.flatMap((one) => one.steps).filter((one) => one.phase === phase)
    for (const step of steps) {
      if (typeof step.run === 'string') {
        await runStatement(tx, step.run)
        done.push(step.run)
        continue
      }
      const [problem] = await failing(tx, [step.run])
      if (problem !== undefined) throw undoneFault(problem)
    }
  }
  return done
}

async function runStatement(tx: MigrationTx, statement: string): Promise<void> {
  try {
    await tx.run(statement)
  } catch (cause) {
    throw undoneFault(`${detailOf(cause)}, at: ${statement}`, cause)
  }
}

function undoneFault(problem: string, cause?: unknown): Fault {
  return new Fault('unavailable', `the tables cannot be migrated: ${problem}`, {
    hint: 'nothing was changed',
    cause,
  })
}

function detailOf(thrown: unknown): string {
  const reason = thrown instanceof Fault ? (thrown.cause ?? thrown) : thrown
  return reason instanceof Error ? reason.message : String(reason)
}

/** In words, those that do not come to 0. */
async function failing(tx: MigrationTx, counts: readonly Count[]): Promise<string[]> {
  const said: string[] = []
  for (const { sql, say } of counts) {
    const rows = Number((await tx.rows(sql))[0]?.[0])
    if (rows > 0) said.push(say(rows))
  }
  return said
}

type Obstacles = Pick<MigrationReport, 'questions' | 'blocked' | 'unmatched'>

async function obstacles(
  tx: MigrationTx,
  { changes, unmatched }: SchemaDifference,
): Promise<Obstacles> {
  const questions = changes.flatMap((one) => one.questions)
  const blocked: string[] = []
  for (const { checks } of changes) blocked.push(...(await failing(tx, checks)))
  return { questions, blocked, unmatched }
}

function refuseObstacles({ questions, blocked, unmatched }: Obstacles): void {
  const fields: FieldProblem[] = [
    ...unmatched.map((message) => ({ field: 'answer', message })),
    ...questions.map((message) => ({ field: 'asked', message })),
    ...blocked.map((message) => ({ field: 'in the way', message })),
  ]
  if (fields.length === 0) return
  const code = unmatched.length > 0 ? 'invalid' : 'conflict'
  throw new Fault(code, 'this cannot be applied as it is; nothing was changed', { fields })
}

async function checkForeignKeys(tx: MigrationTx): Promise<void> {
  const broken = await tx.rows(
    'select "table", parent, count(*) from pragma_foreign_key_check() group by 1, 2',
  )
  if (broken.length === 0) return
  const told = broken.map(
    ([table, parent, rows]) =>
      `${Number(rows)} rows of ${String(table)} refer to rows of ${String(parent)} that do not exist`,
  )
  throw undoneFault(told.join('; '))
}

/** Belt and braces: what we applied must be what we wanted. */
async function checkInStep(tx: MigrationTx, tables: readonly SQLiteTable[]): Promise<void> {
  const { changes } = compareSchema(tables, await readSchema(tx))
  if (changes.length === 0) return
  const left = changes.map(({ table, problem }) => `table ${table}: ${problem}`)
  throw undoneFault(`it would end in other tables than declared (${left.join('; ')})`)
}

export function statementsOf(steps: readonly Step[]): readonly string[] {
  return phases.flatMap((phase) =>
    steps
      .filter((one) => one.phase === phase)
      .flatMap((one) => (typeof one.run === 'string' ? [one.run] : [])),
  )
}

function startFault(changes: readonly SchemaChange[], stored: StoredSchema): Fault {
  const refused = changes.filter((one) => one.kind !== 'additive' || one.questions.length > 0)
  const questions = refused.flatMap((one) => one.questions)
  const text = [
    ...refused.flatMap(({ table, problem, steps, touches }) => {
      const statements = statementsOf(steps)
      // A table that is dropped takes its triggers along.
      const takesThem = statements.includes(`drop table ${quote(table)}`)
      const all = takesThem ? statements : [...dropLogTriggers(stored, touches), ...statements]
      return [`  table ${table}: ${problem}`, ...all.map((one) => `    ${one};`)]
    }),
    ...(questions.length > 0 ? ['asked:', ...questions.map((one) => `  ${one}`)] : []),
  ].join('\n')
  return new Fault(
    'unavailable',
    `the stored tables differ from the app's in a way that could lose data:\n${text}`,
    {
      hint: "nothing was changed; stop belfry, make a backup, look at 'belfry migrate plan <app>' and run 'belfry migrate apply <app>' with the answers it asks for",
    },
  )
}
