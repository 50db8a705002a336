/** Entries of the log as the rooms above receive them. */
import { getTableConfig, type SQLiteTable } from 'drizzle-orm/sqlite-core'
import { primaryKey } from './ddl.ts'
import { anyRowTag, keyOf, rowTag, tableTag, type LogEntry, type RawRow } from './messages.ts'

/** A logged change of one row. */
export interface Change {
  readonly seq: number
  readonly atMs: number
  readonly table: string
  readonly op: 'create' | 'update' | 'remove'
  /** `keyOf` the primary key's driver values. */
  readonly key: string
  /** In the order of the table's columns. */
  readonly row: RawRow
  /** Of an update: the row as it was. Undefined: that is not known, or it was the same. */
  readonly was?: RawRow | undefined
  readonly tags: readonly string[]
  /** Not of a row: what `Store.note` was given. */
  readonly notice?: Notice
}

/** News of Belfry's own for every node: `kind` says whose, who knows what it says. */
export interface Notice {
  readonly kind: string
  readonly data: unknown
}

/** On every change of a row of it. */
export function tableTagOf(table: SQLiteTable): string {
  return tableTag(getTableConfig(table).name)
}

/** What is needed to read a table's entries: its columns in order, and which of them are the key. */
export type ReadEntry = (entry: LogEntry) => Change

export function createEntryReader(tables: readonly SQLiteTable[]): ReadEntry {
  const shapes = new Map(tables.map((table) => [getTableConfig(table).name, shapeOf(table)]))
  return ([seq, atMs, table, data]) => {
    const { op, row, was, tags, notice } = JSON.parse(data) as Logged
    if (notice) return { seq, atMs, table, op: 'update', key: '', row: [], tags: [], notice }
    // Not of a row: somebody invalidates by name.
    if (tags) return { seq, atMs, table, op: 'update', key: '', row: [], tags }
    const shape = shapes.get(table)
    // Of a table that this app does not declare, a newer node's perhaps: known is only that it changed.
    if (!shape) {
      return { seq, atMs, table, op, key: '', row: [], tags: [tableTag(table), anyRowTag(table)] }
    }
    const key = keyOf(shape.key.map((column) => row[column]))
    return {
      seq,
      atMs,
      table,
      op,
      key,
      row: shape.columns.map((column) => row[column] ?? null),
      was: was && rowBefore(shape, row, was),
      tags: [tableTag(table), rowTag(table, key)],
    }
  }
}

interface Logged {
  readonly tags?: readonly string[]
  readonly notice?: Notice
  readonly op: Change['op']
  readonly row: Readonly<Record<string, unknown>>
  /** Columns that changed; without a value where that is not kept. */
  readonly was?: readonly (readonly [column: string, value?: unknown] | 0)[]
}

function rowBefore(
  { columns }: Shape,
  row: Logged['row'],
  was: NonNullable<Logged['was']>,
): RawRow | undefined {
  const before: Record<string, unknown> = { ...row }
  let isOther = false
  for (const pair of was) {
    if (pair === 0) continue
    if (pair.length < 2) return undefined
    before[pair[0]] = pair[1]
    isOther = true
  }
  return isOther ? columns.map((column) => before[column] ?? null) : undefined
}

interface Shape {
  readonly columns: readonly string[]
  readonly key: readonly string[]
}

function shapeOf(table: SQLiteTable): Shape {
  return {
    columns: getTableConfig(table).columns.map(({ name }) => name),
    key: primaryKey(table).map(({ name }) => name),
  }
}
