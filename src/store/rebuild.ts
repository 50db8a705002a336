/**
 * The table rebuild that SQLite's documentation asks for where `alter table` cannot do it: a new table,
 * every row copied, the old one dropped, the new one renamed. Pure: the steps, and what must be true of
 * the rows first.
 *
 * Invariant: no value is changed without a word. A value that is not the same in its column's new type,
 * or that is null where null is no longer allowed, is counted by a check and stops everything.
 */
import { getTableConfig, type SQLiteColumn, type SQLiteTable } from 'drizzle-orm/sqlite-core'
import { createTable, defaultSql, isAutoIncrement, isRowid, list, quote, text } from './ddl.ts'
import type { StoredColumn, StoredTable } from './stored.ts'

/** Asked of the database: a query of one number, and what it means. */
export interface Count {
  readonly sql: string
  /** In words, of a number above 0. */
  readonly say: (rows: number) => string
}

export interface Rebuild {
  /** Run in this order; a `Count` must come to 0, or all is undone. */
  readonly steps: readonly (string | Count)[]
  /** Must come to 0 before anything is done, with names as they are stored. */
  readonly checks: readonly Count[]
}

export function rebuildTable(table: SQLiteTable, stored: StoredTable): Rebuild {
  const { name, columns } = getTableConfig(table)
  const fresh = freshName(name)
  const byName = new Map(stored.columns.map((column) => [column.name, column]))
  const kept = columns.flatMap((column) => {
    const existing = byName.get(column.name)
    return existing ? [{ column, existing }] : []
  })
  const values = kept.map(({ column, existing }) => copied(table, column, existing))
  const keepsSequence = columns.some(isAutoIncrement) && /\bautoincrement\b/i.test(stored.sql)
  return {
    steps: [
      createTable(table, fresh),
      `insert into ${quote(fresh)} (${list(kept.map(({ column }) => column))}) select ${values.join(', ')} from ${quote(name)}`,
      {
        sql: `select abs((select count(*) from ${quote(name)}) - (select count(*) from ${quote(fresh)}))`,
        say: (rows) => `table ${name}: ${rows} rows were not copied`,
      },
      ...(keepsSequence ? sequenceSteps(name, fresh) : []),
      `drop table ${quote(name)}`,
      `alter table ${quote(fresh)} rename to ${quote(name)}`,
    ],
    checks: [
      ...kept.flatMap(({ column, existing }) => valueChecks(table, column, existing, stored)),
      ...columns
        .filter((column) => !byName.has(column.name) && needsValue(table, column))
        .map((column) => ({
          sql: `select count(*) from ${quote(stored.storedAs)}`,
          say: (rows: number) =>
            `column ${name}.${column.name} is new, not null and has no default: ${counted(rows, 'row has', 'rows have')} no value for it`,
        })),
    ],
  }
}

/** Not a name that an app may give to a table. */
export function freshName(name: string): string {
  return `__new_${name}`
}

/** So that an autoincrement number of a deleted row is never given out again. */
function sequenceSteps(name: string, fresh: string): string[] {
  return [
    `delete from sqlite_sequence where name = ${text(fresh)}`,
    `insert into sqlite_sequence (name, seq) select ${text(fresh)}, seq from sqlite_sequence where name = ${text(name)}`,
  ]
}

function copied(table: SQLiteTable, column: SQLiteColumn, stored: StoredColumn): string {
  const affinity = affinityOf(column.getSQLType())
  const name = quote(column.name)
  const value = affinity === affinityOf(stored.type) ? name : `cast(${name} as ${affinity})`
  const fallback = defaultSql(column)
  const fills = becomesNotNull(table, column, stored) && hasDefault(column)
  return fills ? `ifnull(${value}, ${fallback})` : value
}

function valueChecks(
  table: SQLiteTable,
  column: SQLiteColumn,
  stored: StoredColumn,
  { storedAs }: StoredTable,
): Count[] {
  const checks: Count[] = []
  const value = quote(stored.storedAs)
  const named = `${getTableConfig(table).name}.${column.name}`
  const affinity = affinityOf(column.getSQLType())
  if (becomesNotNull(table, column, stored) && !hasDefault(column)) {
    checks.push({
      sql: `select count(*) from ${quote(storedAs)} where ${value} is null`,
      say: (rows) =>
        `column ${named} becomes not null and has no default: ${counted(rows, 'row has', 'rows have')} null in it`,
    })
  }
  if (affinity !== affinityOf(stored.type)) {
    checks.push({
      sql: `select count(*) from ${quote(storedAs)} where ${value} is not null and not (${survives(value, affinity)})`,
      say: (rows) =>
        `column ${named} becomes ${affinity}: ${counted(rows, 'value', 'values')} would not survive that`,
    })
  }
  return checks
}

function becomesNotNull(table: SQLiteTable, column: SQLiteColumn, stored: StoredColumn): boolean {
  const staysRowid = isRowid(table, column) && stored.keyAt === 1
  return column.notNull && !stored.isNotNull && !staysRowid
}

function needsValue(table: SQLiteTable, column: SQLiteColumn): boolean {
  return column.notNull && !hasDefault(column) && !isRowid(table, column)
}

function hasDefault({ default: value }: SQLiteColumn): boolean {
  return value !== undefined && value !== null
}

function counted(rows: number, one: string, many: string): string {
  return `${rows} ${rows === 1 ? one : many}`
}

type Affinity = 'integer' | 'text' | 'blob' | 'real' | 'numeric'

/** SQLite's own rules, in their order (https://sqlite.org/datatype3.html#determination_of_column_affinity). */
function affinityOf(type: string): Affinity {
  if (/int/i.test(type)) return 'integer'
  if (/char|clob|text/i.test(type)) return 'text'
  if (/blob/i.test(type) || type === '') return 'blob'
  if (/real|floa|doub/i.test(type)) return 'real'
  return 'numeric'
}

/**
 * Whether the cast value is still the same: compared as numbers, so that '1.50' survives as 1.5 and 'abc'
 * does not survive as 0; a number as text must keep all its digits (SQLite writes 15 of 17).
 */
function survives(value: string, affinity: Affinity): string {
  switch (affinity) {
    case 'blob':
      return `typeof(${value}) in ('text', 'blob')`
    case 'text':
      return `typeof(${value}) = 'text' or (typeof(${value}) <> 'blob' and cast(${value} as text) + 0 = ${value})`
    case 'integer':
    case 'real':
    case 'numeric':
      return `typeof(${value}) <> 'blob' and cast(${value} as ${affinity}) = ${value}`
  }
}
