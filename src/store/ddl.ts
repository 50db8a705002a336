/** Pieces of SQLite's DDL for Drizzle's columns. Pure. */
import { is, SQL } from 'drizzle-orm'
import {
  getTableConfig,
  SQLiteSyncDialect,
  type SQLiteColumn,
  type SQLiteTable,
} from 'drizzle-orm/sqlite-core'

const dialect = new SQLiteSyncDialect()

/** The columns of the primary key in order, whether declared on a column or on the table. */
export function primaryKey(table: SQLiteTable): readonly SQLiteColumn[] {
  const { columns, primaryKeys } = getTableConfig(table)
  const composite = primaryKeys[0]?.columns as SQLiteColumn[] | undefined
  return composite ?? columns.filter((column) => column.primary)
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
  return dialect.sqlToQuery(value.inlineParams(), 'indexes').sql
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
