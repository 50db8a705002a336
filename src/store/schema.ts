/**
 * What distinguishes the stored tables from the declared ones, and the steps that bring the ones to the
 * other. Pure; `migrate.ts` asks the database and applies.
 *
 * Invariant: nothing is guessed. A change that could lose data, or that could as well be a renaming,
 * carries a question until an answer (a flag of `belfry migrate`) covers it.
 */
import { is, SQL } from 'drizzle-orm'
import {
  getTableConfig,
  type Index,
  type SQLiteColumn,
  type SQLiteTable,
} from 'drizzle-orm/sqlite-core'
import { createTaker, type MigrationAnswers, type Taker } from './answers.ts'
import { constraintChanges } from './constraints.ts'
import {
  bare,
  columnSql,
  createIndex,
  createTable,
  defaultSql,
  isRowid,
  primaryKey,
  quote,
  referencesOf,
} from './ddl.ts'
import { freshName, rebuildTable, type Count } from './rebuild.ts'
import {
  isAppTable,
  withColumnRenamed,
  withoutTable,
  withTableRenamed,
  type StoredColumn,
  type StoredProgram,
  type StoredSchema,
  type StoredTable,
} from './stored.ts'

/** What all tables' steps run in, one after the other. */
export const phases = ['drop', 'rename', 'clear', 'shape', 'index', 'after'] as const

export type Phase = (typeof phases)[number]

export interface Step {
  readonly phase: Phase
  /** A statement; or a number that must be 0 now, or all is undone. */
  readonly run: string | Count
}

export interface SchemaChange {
  /** By the name it is declared with, or stored with if it is not. */
  readonly table: string
  /** The names whose log triggers are in the way. */
  readonly touches: readonly string[]
  /** `additive` is done at every start; the others only when somebody asks. */
  readonly kind: 'additive' | 'rename' | 'rebuild' | 'losing'
  readonly problem: string
  readonly steps: readonly Step[]
  /** Must come to 0, or nothing is done. */
  readonly checks: readonly Count[]
  /** What would be lost. */
  readonly losses: readonly Count[]
  /** Must be answered first: what is asked, and the flags that answer. */
  readonly questions: readonly string[]
}

export interface SchemaDifference {
  readonly changes: readonly SchemaChange[]
  /** Stored, not declared, and left as it is. */
  readonly notes: readonly string[]
  /** Answers to what nobody asked. */
  readonly unmatched: readonly string[]
}

interface Context {
  readonly tables: readonly SQLiteTable[]
  stored: StoredSchema
  readonly take: Taker
  readonly changes: SchemaChange[]
  readonly notes: string[]
}

export function compareSchema(
  tables: readonly SQLiteTable[],
  stored: StoredSchema,
  answers: MigrationAnswers = {},
): SchemaDifference {
  const { take, unmatched } = createTaker(answers)
  const context: Context = { tables, stored, take, changes: [], notes: [] }
  moveTables(context)
  for (const table of tables) {
    const { name, indexes } = getTableConfig(table)
    const existing = context.stored.tables.get(name)
    if (existing) compareTable(context, table)
    else {
      addTable(context, table)
      for (const index of indexes) compareIndex(context, name, index)
    }
  }
  noteTables(context)
  return { changes: context.changes, notes: context.notes, unmatched: unmatched() }
}

function change(
  table: string,
  kind: SchemaChange['kind'],
  problem: string,
  steps: readonly Step[],
  more: Partial<Pick<SchemaChange, 'touches' | 'checks' | 'losses' | 'questions'>> = {},
): SchemaChange {
  return {
    ...{ table, kind, problem, steps },
    ...{ touches: [table], checks: [], losses: [], questions: [] },
    ...more,
  }
}

const rowsOf = (table: string): Count => ({
  sql: `select count(*) from ${quote(table)}`,
  say: (rows) => `${rows} rows of ${table}`,
})

const step = (phase: Phase, run: string | Count): Step => ({ phase, run })

/** Whole tables: what was answered to be dropped or renamed. */
function moveTables(context: Context): void {
  const { take, changes } = context
  const declared = new Set(context.tables.map((table) => getTableConfig(table).name))
  const goneTables = (): string[] =>
    [...context.stored.tables.keys()].filter((name) => isAppTable(name) && !declared.has(name))
  for (const name of context.stored.tables.keys()) {
    const isLeftOver = name.startsWith(freshName(''))
    // A declared table may go only to make room: it was made empty before anybody said "renamed".
    const isInTheWay =
      declared.has(name) && goneTables().some((gone) => take.peek('renameTable', `${gone}=${name}`))
    const isOffered = isLeftOver || isInTheWay || (isAppTable(name) && !declared.has(name))
    if (!isOffered || !take('dropTable', name)) continue
    const steps = [step('drop', `drop table ${quote(name)}`)]
    changes.push(change(name, 'losing', 'is dropped', steps, { losses: [rowsOf(name)] }))
    context.stored = withoutTable(context.stored, name)
  }
  for (const to of declared) {
    if (context.stored.tables.has(to)) continue
    const leftOver = [freshName(to)].filter((name) => context.stored.tables.has(name))
    const from = [...goneTables(), ...leftOver].find((gone) => take('renameTable', `${gone}=${to}`))
    if (from === undefined) continue
    const steps = [step('rename', `alter table ${quote(from)} rename to ${quote(to)}`)]
    const problem = `is stored as ${from}`
    changes.push(change(to, 'rename', problem, steps, { touches: [from, to] }))
    context.stored = withTableRenamed(context.stored, from, to)
  }
}

/** Made empty, unless it may be one that is stored under another name. */
function addTable({ stored, tables, take, changes }: Context, table: SQLiteTable): void {
  const { name, columns } = getTableConfig(table)
  const declared = new Set(tables.map((one) => getTableConfig(one).name))
  const alike = [...stored.tables]
    .filter(([gone]) => (isAppTable(gone) && !declared.has(gone)) || gone === freshName(name))
    .filter(([gone, existing]) => gone === freshName(name) || isAlike(columns, existing))
    .map(([gone]) => gone)
  const isAsked = alike.length > 0 && !take('newTable', name)
  const questions = alike.map(
    (gone) =>
      `table ${gone} is stored and not declared, table ${name} is declared and not stored: ` +
      `if it was renamed: --rename-table ${gone}=${name}; if not: --new-table ${name}`,
  )
  const steps = [step('shape', createTable(table))]
  changes.push(
    change(name, 'additive', 'is new', steps, { touches: [], questions: isAsked ? questions : [] }),
  )
}

/** More than half of the declared columns are there. */
function isAlike(columns: readonly SQLiteColumn[], stored: StoredTable): boolean {
  const names = new Set(stored.columns.map(({ name }) => name))
  return columns.filter(({ name }) => names.has(name)).length * 2 > columns.length
}

function noteTables({ stored, tables, notes }: Context): void {
  const declared = new Set(tables.map((table) => getTableConfig(table).name))
  for (const name of stored.tables.keys()) {
    if (declared.has(name) || !isAppTable(name)) continue
    notes.push(
      `table ${name} is stored and not declared: it stays; --drop-table ${name} removes it`,
    )
  }
}

function compareTable(context: Context, table: SQLiteTable): void {
  const { name, columns, indexes } = getTableConfig(table)
  const missing = renameColumns(context, table)
  const stored = context.stored.tables.get(name)
  if (!stored) return
  const byName = new Map(stored.columns.map((column) => [column.name, column]))
  const declared = new Set(columns.map((column) => column.name))
  const gone = stored.columns.filter((column) => !declared.has(column.name))
  const rebuildReasons: string[] = []
  const added: SQLiteColumn[] = []
  for (const column of columns) {
    const existing = byName.get(column.name)
    if (!existing && canAdd(table, column)) added.push(column)
    else if (!existing) {
      rebuildReasons.push(
        `column ${column.name} is new and the rows that exist have no value for it`,
      )
    } else {
      const changed = changesOf(table, column, existing)
      if (changed) rebuildReasons.push(`column ${column.name}: ${changed}`)
    }
  }
  rebuildReasons.push(...constraintChanges(table, stored, added))
  const losing = loseColumns(context, name, gone, missing)
  if (rebuildReasons.length > 0) {
    rebuild(context, table, stored, [...rebuildReasons, ...losing.problems], losing)
    return
  }
  for (const column of added) {
    const definition = columnSql(column) + referencesOf(table, column)
    const sql = `alter table ${quote(name)} add column ${definition}`
    context.changes.push(
      change(name, 'additive', `column ${column.name} is new`, [step('shape', sql)]),
    )
  }
  const stale = dropColumns(context, name, gone, losing)
  for (const index of indexes) compareIndex(context, name, index)
  dropIndexes(context, name, stale)
}

/** Returns the declared columns that are still not stored. */
function renameColumns(context: Context, table: SQLiteTable): readonly string[] {
  const { name, columns } = getTableConfig(table)
  const declared = columns.map((column) => column.name)
  const names = (): string[] => (context.stored.tables.get(name)?.columns ?? []).map((c) => c.name)
  for (const to of declared.filter((one) => !names().includes(one))) {
    const gone = names().filter((one) => !declared.includes(one))
    const from = gone.find((one) => context.take('rename', `${name}.${one}=${to}`))
    if (from === undefined) continue
    const sql = `alter table ${quote(name)} rename column ${quote(from)} to ${quote(to)}`
    const problem = `column ${to} is stored as ${from}`
    context.changes.push(change(name, 'rename', problem, [step('rename', sql)]))
    context.stored = withColumnRenamed(context.stored, name, from, to)
  }
  return declared.filter((one) => !names().includes(one))
}

interface Losing extends Pick<SchemaChange, 'losses' | 'questions'> {
  readonly problems: readonly string[]
}

function loseColumns(
  { stored, take }: Context,
  table: string,
  gone: readonly StoredColumn[],
  missing: readonly string[],
): Losing {
  const storedAs = stored.tables.get(table)?.storedAs ?? table
  return {
    problems: gone.map(({ name }) => `column ${name} is stored but no longer declared`),
    losses: gone.map((column) => ({
      sql: `select count(*) from ${quote(storedAs)} where ${quote(column.storedAs)} is not null`,
      say: (rows) => `${rows} values of ${table}.${column.name}`,
    })),
    questions: gone
      .filter(({ name }) => !take('drop', `${table}.${name}`))
      .map(({ name }) => columnQuestion(table, name, missing)),
  }
}

function columnQuestion(table: string, gone: string, missing: readonly string[]): string {
  const stored = `column ${table}.${gone} is stored and not declared`
  if (missing.length === 0) return `${stored}: --drop ${table}.${gone} removes it with its values`
  const fresh = missing.map((name) => `${table}.${name}`).join(', ')
  const renames = missing.map((name) => `--rename ${table}.${gone}=${name}`).join(' or ')
  const are = missing.length === 1 ? 'is' : 'are'
  return `${stored}, ${fresh} ${are} declared and not stored: if it was renamed: ${renames}; if not: --drop ${table}.${gone}`
}

/** Returns the indexes that go with the columns. */
function dropColumns(
  { stored, tables, changes }: Context,
  table: string,
  gone: readonly StoredColumn[],
  losing: Losing,
): readonly string[] {
  if (gone.length === 0) return []
  const stale = undeclaredIndexes(stored, tables, table)
    .filter(([, sql]) => gone.some(({ name }) => mentions(sql, name)))
    .map(([name]) => name)
  const steps = [
    ...stale.map((index) => step('clear', `drop index ${quote(index)}`)),
    ...gone.map(({ name }) =>
      step('shape', `alter table ${quote(table)} drop column ${quote(name)}`),
    ),
  ]
  changes.push(change(table, 'losing', losing.problems.join('; '), steps, losing))
  return stale
}

function rebuild(
  { stored, tables, take, changes }: Context,
  table: SQLiteTable,
  existing: StoredTable,
  reasons: readonly string[],
  losing: Losing,
): void {
  const { name, columns, indexes } = getTableConfig(table)
  const { steps, checks } = rebuildTable(table, existing)
  const declared = new Set(columns.map((column) => column.name))
  const gone = existing.columns.filter((column) => !declared.has(column.name))
  const others = undeclaredIndexes(stored, tables, name)
    .filter(([index]) => !take('dropIndex', index))
    .filter(([, sql]) => !gone.some((column) => mentions(sql, column.name)))
  const leftOver = freshName(name)
  const inTheWay = `table ${leftOver} is in the way of a rebuild of ${name}; somebody left it there: look at it, then --drop-table ${leftOver}`
  const isLosing = losing.problems.length > 0
  // Once for all rebuilds: what would be checked, and found broken, while a table is away.
  const isFirst = !changes.some(({ steps: before }) =>
    before.some(({ phase }) => phase === 'after'),
  )
  const programs = isFirst ? stored.programs : []
  changes.push(
    change(
      name,
      isLosing ? 'losing' : 'rebuild',
      reasons.join('; '),
      [
        ...programs.toReversed().map((one) => step('clear', dropProgram(one))),
        ...moved(stored, name, indexes),
        ...steps.map((one) => step('shape', one)),
        ...indexes.map((index) => step('index', createIndex(name, index))),
        ...others.map(([, sql]) => step('index', sql)),
        ...programs.map(({ sql }) => step('after', sql)),
      ],
      {
        checks,
        losses: losing.losses,
        questions: [...losing.questions, ...(stored.tables.has(leftOver) ? [inTheWay] : [])],
      },
    ),
  )
}

/** Indexes of these names on other tables would be in the way. */
function moved(stored: StoredSchema, table: string, indexes: readonly Index[]): Step[] {
  return indexes
    .map(({ config }) => config.name)
    .filter((name) => (stored.indexes.get(name)?.table ?? table) !== table)
    .map((name) => step('clear', `drop index ${quote(name)}`))
}

function dropProgram({ kind, name }: StoredProgram): string {
  return `drop ${kind} if exists ${quote(name)}`
}

/** In words, or undefined if the stored column is the declared one. */
function changesOf(
  table: SQLiteTable,
  column: SQLiteColumn,
  stored: StoredColumn,
): string | undefined {
  const type = column.getSQLType()
  const storedType = stored.type.toLowerCase()
  if (type.toLowerCase() !== storedType) return `is ${storedType}, declared ${type}`
  const keyAt = primaryKey(table).findIndex(({ name }) => name === column.name) + 1
  if (keyAt !== stored.keyAt) return 'its part in the primary key differs'
  if (column.notNull !== stored.isNotNull && !isRowid(table, column)) {
    return stored.isNotNull ? 'is not null, declared nullable' : 'is nullable, declared not null'
  }
  const declared = defaultSql(column)
  if (bare(declared) !== bare(stored.defaultSql)) {
    return `its default is ${stored.defaultSql ?? 'none'}, declared ${declared ?? 'none'}`
  }
  return undefined
}

function compareIndex({ stored, changes }: Context, table: string, index: Index): void {
  const { name } = index.config
  const declared = createIndex(table, index)
  const existing = stored.indexes.get(name)
  if (existing === undefined) {
    const steps = [step('index', declared)]
    changes.push(change(table, 'additive', `index ${name} is new`, steps, { touches: [] }))
  } else if (existing.sql !== declared) {
    const steps = [step('clear', `drop index ${quote(name)}`), step('index', declared)]
    const problem = `index ${name} is stored with another definition`
    changes.push(change(table, 'rebuild', problem, steps, { touches: [] }))
  }
}

/** Those that nobody declares may be an operator's own: they go only when asked. */
function dropIndexes(context: Context, table: string, stale: readonly string[]): void {
  const { stored, tables, take, changes, notes } = context
  for (const [name] of undeclaredIndexes(stored, tables, table)) {
    if (stale.includes(name)) continue
    if (take('dropIndex', name)) {
      const steps = [step('clear', `drop index ${quote(name)}`)]
      changes.push(change(table, 'rebuild', `index ${name} is dropped`, steps, { touches: [] }))
    } else {
      notes.push(
        `index ${name} on ${table} is stored and not declared: it stays; --drop-index ${name} removes it`,
      )
    }
  }
}

/** Name and text. */
function undeclaredIndexes(
  { indexes }: StoredSchema,
  tables: readonly SQLiteTable[],
  at: string,
): [string, string][] {
  const declared = new Set(
    tables.flatMap((table) => getTableConfig(table).indexes.map(({ config }) => config.name)),
  )
  return [...indexes]
    .filter(([name, { table }]) => table === at && !declared.has(name))
    .map(([name, { sql }]) => [name, sql])
}

/** As a word, after the index's own name. */
function mentions(sql: string, column: string): boolean {
  const words = sql.slice(sql.search(/\son\s/i)).match(/"(?:[^"]|"")*"|\w+/g) ?? []
  return words.some((word) => word === quote(column) || word.toLowerCase() === column.toLowerCase())
}

/**
 * What `alter table … add column` takes: for the rows that exist null or a constant, which cannot be
 * a reference to a row that may not be there.
 */
function canAdd(table: SQLiteTable, column: SQLiteColumn): boolean {
  const { default: value, notNull } = column
  if (column.primary || column.isUnique || is(value, SQL)) return false
  if (primaryKey(table).includes(column)) return false
  const hasConstant = value !== undefined && value !== null
  return hasConstant ? referencesOf(table, column) === '' : !notNull
}
