/**
 * What a table promises beyond its columns, as lines of text that can be compared: unique, foreign key,
 * check, autoincrement. A constraint that is declared and not stored would be believed and not kept.
 */
import {
  getTableConfig,
  type ForeignKey,
  type SQLiteColumn,
  type SQLiteTable,
} from 'drizzle-orm/sqlite-core'
import { isAutoIncrement, render } from './ddl.ts'

/** Of a stored table, as the pragmas and its own text tell. */
export interface StoredConstraints {
  /** Column lists of unique constraints, not of unique indexes. */
  readonly uniques: readonly (readonly string[])[]
  readonly foreignKeys: readonly StoredForeignKey[]
  /** The `create table` text. */
  readonly sql: string
}

export interface StoredForeignKey {
  readonly columns: readonly string[]
  readonly table: string
  readonly foreignColumns: readonly string[]
  readonly onUpdate: string
  readonly onDelete: string
}

/** In words, what differs; empty if nothing does. `added` are columns that are about to come, with their references. */
export function constraintChanges(
  table: SQLiteTable,
  stored: StoredConstraints,
  added: readonly SQLiteColumn[],
): string[] {
  const declared = new Set(declaredLines(table, added))
  const kept = new Set(storedLines(stored))
  return [
    ...[...declared].filter((line) => !kept.has(line)).map((line) => `${line} is not stored`),
    ...[...kept].filter((line) => !declared.has(line)).map((line) => `${line} is not declared`),
  ]
}

function declaredLines(table: SQLiteTable, added: readonly SQLiteColumn[]): string[] {
  const { columns, uniqueConstraints, foreignKeys, checks } = getTableConfig(table)
  return [
    ...columns.filter((column) => column.isUnique).map((column) => uniqueLine([column.name])),
    ...uniqueConstraints.map((one) => uniqueLine(one.columns.map(({ name }) => name))),
    ...foreignKeys
      .filter((key) => !key.reference().columns.some((column) => added.includes(column)))
      .map((key) => foreignKeyLine(declaredForeignKey(key))),
    ...checks.map(({ name, value }) => checkLine(name, render(value))),
    ...(columns.some(isAutoIncrement) ? ['autoincrement'] : []),
  ]
}

function storedLines({ uniques, foreignKeys, sql }: StoredConstraints): string[] {
  return [
    ...uniques.map(uniqueLine),
    ...foreignKeys.map(foreignKeyLine),
    ...[...sql.matchAll(checkPattern)].map(([, name = '', text = '']) =>
      checkLine(name.replaceAll('""', '"'), text),
    ),
    ...(/\bautoincrement\b/i.test(sql) ? ['autoincrement'] : []),
  ]
}

/** As `createTable` writes it: one a line, and SQLite keeps the text. */
const checkPattern = /^ {2}constraint "((?:[^"]|"")+)" check \((.*?)\),?$/gms

function uniqueLine(columns: readonly string[]): string {
  return `unique (${columns.join(', ')})`
}

function checkLine(name: string, text: string): string {
  return `check ${name} (${text})`
}

function foreignKeyLine(key: StoredForeignKey): string {
  const { columns, table, foreignColumns, onDelete, onUpdate } = key
  return `foreign key (${columns.join(', ')}) references ${table} (${foreignColumns.join(', ')}) on delete ${onDelete} on update ${onUpdate}`
}

function declaredForeignKey(key: ForeignKey): StoredForeignKey {
  const { columns, foreignColumns, foreignTable } = key.reference()
  return {
    columns: columns.map(({ name }) => name),
    table: getTableConfig(foreignTable).name,
    foreignColumns: foreignColumns.map(({ name }) => name),
    onDelete: key.onDelete ?? 'no action',
    onUpdate: key.onUpdate ?? 'no action',
  }
}
