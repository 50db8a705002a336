/** Pieces of SQLite's DDL for Drizzle's columns. Pure. */
import { is, SQL } from 'drizzle-orm'
import {
  getTableConfig,
  SQLiteSyncDialect,
  type ForeignKey,
  type Index,
  type SQLiteColumn,
  type SQLiteTable,
} from 'drizzle-orm/sqlite-core'

/** The columns of the primary key in order, whether declared on a column or on the table. */
export function primaryKey(table: SQLiteTable): readonly SQLiteColumn[] {
  const { columns, primaryKeys } = getTableConfig(table)
  const composite = primaryKeys[0]?.columns as SQLiteColumn[] | undefined
  return composite ?? columns.filter((column) => column.primary)
}

/** Whether it is the number SQLite keeps rows by: never null, and given out by itself. */
export function isRowid(table: SQLiteTable, column: SQLiteColumn): boolean {
  const [only, ...others] = primaryKey(table)
  return only === column && others.length === 0 && column.getSQLType().toLowerCase() === 'integer'
}

export function createTable(table: SQLiteTable, as?: string): string {
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

export function createIndex(table: string, index: Index): string {
  const { name, columns, unique, where } = index.config
  const parts = columns.map((column) => (is(column, SQL) ? render(column) : quote(column.name)))
  return [
    `create ${unique ? 'unique ' : ''}index ${quote(name)} on ${quote(table)} (${parts.join(', ')})`,
    where ? ` where ${render(where)}` : '',
  ].join('')
}

/** For `add column`: the foreign keys of this one column alone. */
export function referencesOf(table: SQLiteTable, column: SQLiteColumn): string {
  const keys = getTableConfig(table).foreignKeys.filter((key) => {
    const { columns } = key.reference()
    return columns.length === 1 && columns[0] === column
  })
  return keys.map((key) => ` ${referencesSql(key)}`).join('')
}

export function referencesSql(key: ForeignKey): string {
  const { foreignColumns, foreignTable } = key.reference()
  return [
    `references ${quote(getTableConfig(foreignTable).name)} (${list(foreignColumns)})`,
    key.onDelete ? ` on delete ${key.onDelete}` : '',
    key.onUpdate ? ` on update ${key.onUpdate}` : '',
  ].join('')
}

export function columnSql(column: SQLiteColumn): string {
  const fallback = defaultSql(column)
  return [
    `${quote(column.name)} ${column.getSQLType()}`,
    column.primary ? ` primary key${isAutoIncrement(column) ? ' autoincrement' : ''}` : '',
    column.notNull ? ' not null' : '',
    column.isUnique ? ' unique' : '',
    fallback === null ? '' : ` default ${fallback}`,
  ].join('')
}

export function isAutoIncrement(column: SQLiteColumn): boolean {
  return 'autoIncrement' in column && column.autoIncrement === true
}

export function defaultSql(column: SQLiteColumn): string | null {
  if (column.default === undefined) return null
  if (is(column.default, SQL)) return `(${bare(render(column.default)) ?? ''})`
  const value: unknown = column.mapToDriverValue(column.default as never)
  if (typeof value === 'string') return text(value)
  if (typeof value === 'boolean') return value ? '1' : '0'
  return String(value)
}

/** Without its outer brackets, as SQLite gives a default back; as many as are a matching pair. */
export function bare(text: string | null): string | null {
  if (text === null) return null
  const inner = text.trim()
  return isBracketed(inner) ? bare(inner.slice(1, -1)) : inner
}

/** Whether the first bracket is closed by the last character: not so in `(1) + (2)`. */
function isBracketed(text: string): boolean {
  if (!text.startsWith('(') || !text.endsWith(')')) return false
  let depth = 0
  let quoteOpen = ''
  for (let at = 0; at < text.length; at++) {
    const one = text[at] ?? ''
    if (quoteOpen !== '') quoteOpen = one === quoteOpen ? '' : quoteOpen
    else if (one === "'" || one === '"') quoteOpen = one
    else if (one === '(') depth++
    else if (one === ')' && --depth === 0) return at === text.length - 1
  }
  return false
}

export function render(value: SQL): string {
  // As for indexes: column names alone, which is all that index, check and default expressions allow.
  // A dialect remembers columns by the name of their table, and takes another table of that name for it.
  return new SQLiteSyncDialect().sqlToQuery(value.inlineParams(), 'indexes').sql
}

export function list(columns: readonly { readonly name: string }[]): string {
  return columns.map(({ name }) => quote(name)).join(', ')
}

export function quote(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}

/** A string literal. */
export function text(value: string): string {
  return `'${value.replaceAll("'", "''")}'`
}
