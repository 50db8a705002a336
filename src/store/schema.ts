/**
 * Drizzle tables as SQL: the statements that make them, and what distinguishes a stored table from a
 * declared one. Pure; `migrate.ts` asks the database and applies.
 *
 * Additive differences become statements to apply. Everything else could lose data and becomes a
 * refusal that carries the exact statements an operator may run.
 */
import { is, SQL } from 'drizzle-orm'
import {
  getTableConfig,
  type Index,
  type SQLiteColumn,
  type SQLiteTable,
} from 'drizzle-orm/sqlite-core'
import {
  constraintChanges,
  referencesOf,
  referencesSql,
  type StoredConstraints,
} from './constraints.ts'
import { bare, columnSql, defaultSql, list, primaryKey, quote, render } from './ddl.ts'

export interface StoredColumn {
  readonly name: string
  readonly type: string
  readonly isNotNull: boolean
  readonly defaultSql: string | null
  /** 1-based position in the primary key, 0 if none. */
  readonly keyAt: number
}

export interface StoredTable extends StoredConstraints {
  readonly columns: readonly StoredColumn[]
}

/** What the database has now. */
export interface StoredSchema {
  readonly tables: ReadonlyMap<string, StoredTable>
  /** `create index` text by index name. */
  readonly indexes: ReadonlyMap<string, string>
}

export interface Refusal {
  readonly table: string
  readonly problem: string
  readonly statements: readonly string[]
}

export interface SchemaDifference {
  readonly apply: readonly string[]
  readonly refuse: readonly Refusal[]
}

export function compareSchema(
  tables: readonly SQLiteTable[],
  stored: StoredSchema,
): SchemaDifference {
  const apply: string[] = []
  const refuse: Refusal[] = []
  for (const table of tables) {
    const config = getTableConfig(table)
    const existing = stored.tables.get(config.name)
    if (existing) compareTable(table, existing, apply, refuse)
    else apply.push(createTable(table))
    for (const index of config.indexes) compareIndex(config.name, index, stored, apply, refuse)
  }
  return { apply, refuse }
}

function compareTable(
  table: SQLiteTable,
  stored: StoredTable,
  apply: string[],
  refuse: Refusal[],
): void {
  const { name, columns } = getTableConfig(table)
  const byName = new Map(stored.columns.map((column) => [column.name, column]))
  const kept = columns.filter((column) => byName.has(column.name))
  const rebuildReasons: string[] = []
  const added: SQLiteColumn[] = []

  for (const column of columns) {
    const existing = byName.get(column.name)
    byName.delete(column.name)
    if (existing) {
      const changed = changesOf(table, column, existing)
      if (changed) rebuildReasons.push(`column ${column.name}: ${changed}`)
      continue
    }
    const canAdd = !column.primary && !column.isUnique && hasValueFor(column)
    if (canAdd) {
      added.push(column)
      const definition = columnSql(column) + referencesOf(table, column)
      apply.push(`alter table ${quote(name)} add column ${definition}`)
    } else {
      const problem = 'is new and the rows that exist have no value for it'
      rebuildReasons.push(`column ${column.name} ${problem}`)
    }
  }
  rebuildReasons.push(...constraintChanges(table, stored, added))
  const gone = [...byName.keys()]
  const goneReasons = gone.map((column) => `column ${column} is stored but no longer declared`)
  if (rebuildReasons.length > 0) {
    const problem = [...rebuildReasons, ...goneReasons].join('; ')
    refuse.push({ table: name, problem, statements: rebuildTable(table, kept) })
  } else if (gone.length > 0) {
    const statements = gone.map(
      (column) => `alter table ${quote(name)} drop column ${quote(column)}`,
    )
    refuse.push({ table: name, problem: goneReasons.join('; '), statements })
  }
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
  const isRowid = keyAt === 1 && primaryKey(table).length === 1
  if (column.notNull !== stored.isNotNull && !isRowid) {
    return stored.isNotNull ? 'is not null, declared nullable' : 'is nullable, declared not null'
  }
  const declared = defaultSql(column)
  if (bare(declared) !== bare(stored.defaultSql)) {
    return `its default is ${stored.defaultSql ?? 'none'}, declared ${declared ?? 'none'}`
  }
  return undefined
}

function compareIndex(
  table: string,
  index: Index,
  stored: StoredSchema,
  apply: string[],
  refuse: Refusal[],
): void {
  const declared = createIndex(table, index)
  const existing = stored.indexes.get(index.config.name)
  if (existing === undefined) apply.push(declared)
  else if (existing !== declared) {
    refuse.push({
      table,
      problem: `index ${index.config.name} is stored with another definition`,
      statements: [`drop index ${quote(index.config.name)}`, declared],
    })
  }
}

function createTable(table: SQLiteTable, as?: string): string {
  const { name, columns, primaryKeys, uniqueConstraints, foreignKeys, checks } =
    getTableConfig(table)
  const parts = columns.map(columnSql)
  for (const key of primaryKeys) parts.push(`primary key (${list(key.columns)})`)
  for (const unique of uniqueConstraints) parts.push(`unique (${list(unique.columns)})`)
  for (const key of foreignKeys) {
    parts.push(`foreign key (${list(key.reference().columns)}) ${referencesSql(key)}`)
  }
  for (const check of checks)
    parts.push(`constraint ${quote(check.name)} check (${render(check.value)})`)
  return `create table ${quote(as ?? name)} (\n  ${parts.join(',\n  ')}\n)`
}

/** What SQLite's documentation asks for where `alter table` cannot do it. Printed, never run by us. */
function rebuildTable(table: SQLiteTable, kept: readonly SQLiteColumn[]): string[] {
  const { name } = getTableConfig(table)
  const fresh = `__new_${name}`
  return [
    createTable(table, fresh),
    `insert into ${quote(fresh)} (${list(kept)}) select ${list(kept)} from ${quote(name)}`,
    `drop table ${quote(name)}`,
    `alter table ${quote(fresh)} rename to ${quote(name)}`,
  ]
}

function createIndex(table: string, index: Index): string {
  const { name, columns, unique, where } = index.config
  const parts = columns.map((column) => (is(column, SQL) ? render(column) : quote(column.name)))
  return [
    `create ${unique ? 'unique ' : ''}index ${quote(name)} on ${quote(table)} (${parts.join(', ')})`,
    where ? ` where ${render(where)}` : '',
  ].join('')
}

/** For the rows that exist: null, or a constant, which is all that `alter table … add column` takes. */
function hasValueFor({ default: value, notNull }: SQLiteColumn): boolean {
  if (is(value, SQL)) return false
  return !notNull || (value !== undefined && value !== null)
}
