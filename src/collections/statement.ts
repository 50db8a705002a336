/**
 * Statements as text, for what is asked on every miss and every create. Conditions are Drizzle's trees and
 * stay so; only the writing out is done here, because Drizzle's builder takes half of such a request: 33 µs
 * for a row and 70 for a page alone, and more within a server, with all that it leaves to the collector.
 *
 * Invariant: the text and the values are those that Drizzle would give. What this file does not know, a
 * kind of tree that no rule of ours makes, Drizzle writes.
 */
import { is, Param, Placeholder, SQL, sql, StringChunk } from 'drizzle-orm'
import { QueryBuilder, SQLiteColumn, SQLiteSyncDialect } from 'drizzle-orm/sqlite-core'
import type { SQLiteTable } from 'drizzle-orm/sqlite-core'
import type { Query, Store } from '../store/store.ts'
import { toDriver, type Columns, type RowData } from './columns.ts'

/**
 * A new one each time, which is seldom: it remembers columns by their table's name, and does not know the
 * columns of a second table of that name (two apps in one process).
 */
const written = (tree: SQL) => new SQLiteSyncDialect().sqlToQuery(tree)

export interface Select {
  readonly table: SQLiteTable
  readonly where: SQL | undefined
  readonly orderBy?: readonly SQL[]
  readonly limit: number
}

/** All columns in the table's order. `name` is a constant, for metrics and the slow log. */
export function selectQuery(name: string, { table, where, orderBy = [], limit }: Select): Query {
  const params: unknown[] = []
  let text = headOf(table)
  if (where) text += ` where ${write(where, params)}`
  for (const [at, order] of orderBy.entries()) {
    text += `${at === 0 ? ' order by ' : ', '}${write(order, params)}`
  }
  params.push(limit)
  return { sql: `${text} limit ?`, params, name }
}

const heads = new WeakMap<SQLiteTable, string>()

function headOf(table: SQLiteTable): string {
  let head = heads.get(table)
  if (head === undefined) {
    head = new QueryBuilder().select().from(table).toSQL().sql
    heads.set(table, head)
  }
  return head
}

function write(tree: SQL, params: unknown[]): string {
  const own: unknown[] = []
  const text = writeChunks(tree, own)
  if (text !== undefined) {
    params.push(...own)
    return text
  }
  const whole = written(tree)
  params.push(...whole.params)
  return whole.sql
}

/** Private to Drizzle's types, and decides whether values become part of the text. */
interface Inlined {
  readonly shouldInlineParams: boolean
}

/** Undefined: something is in it that is not known here. */
function writeChunks(tree: SQL, params: unknown[]): string | undefined {
  if ((tree as unknown as Inlined).shouldInlineParams) return undefined
  let text = ''
  for (const chunk of tree.queryChunks as readonly unknown[]) {
    const part = writeChunk(chunk, params)
    if (part === undefined) return undefined
    text += part
  }
  return text
}

function writeChunk(chunk: unknown, params: unknown[]): string | undefined {
  if (chunk === undefined) return ''
  if (chunk instanceof StringChunk) return chunk.value.join('')
  if (chunk instanceof SQLiteColumn) return columnText(chunk)
  if (chunk instanceof SQL) return writeChunks(chunk, params)
  let value: unknown = chunk
  if (chunk instanceof Param) {
    value = chunk.value
    if (typeof value === 'object' && value !== null && is(value, Placeholder)) return undefined
    if (value !== null) value = chunk.encoder.mapToDriverValue(chunk.value)
    if (value instanceof SQL) return undefined
  } else if (typeof value === 'object' && value !== null) return undefined
  params.push(value)
  return '?'
}

const columnTexts = new WeakMap<SQLiteColumn, string>()

function columnText(column: SQLiteColumn): string {
  let text = columnTexts.get(column)
  if (text === undefined) {
    text = written(sql`${column}`).sql
    columnTexts.set(column, text)
  }
  return text
}

/** Sets of columns remembered per table; bodies leave out what they may, so there are a few. */
const shapesMax = 64

/** One row, with what its columns make up where nothing is given. */
export function createInserts(db: Store['db']) {
  const shapes = new WeakMap<SQLiteTable, Map<string, Query>>()

  return (table: SQLiteTable, columns: Columns, input: RowData): Query => {
    const values: Record<string, unknown> = { ...input }
    for (const [property, column] of columns) {
      if (Object.hasOwn(input, property) || (column.default ?? null) !== null) continue
      const made = (column.defaultFn ?? column.onUpdateFn)?.()
      if (made === undefined) continue
      // An expression has no place in a text that others share.
      if (made instanceof SQL)
        return db
          .insert(table)
          .values(input as never)
          .toSQL()
      values[property] = made
    }
    let known = shapes.get(table)
    if (!known || known.size >= shapesMax) shapes.set(table, (known = new Map()))
    const properties = Object.keys(values)
    const key = JSON.stringify(properties)
    let shape = known.get(key)
    if (!shape) {
      const slots = properties.map((property) => [property, sql.placeholder(property)])
      shape = db
        .insert(table)
        .values(Object.fromEntries(slots) as never)
        .toSQL()
      known.set(key, shape)
    }
    return { sql: shape.sql, params: shape.params.map((param) => filled(columns, param, values)) }
  }
}

/** A value in its placeholder's place; what is no placeholder stays as it is. */
export function filled(columns: Columns, param: unknown, input: RowData): unknown {
  const slot = param instanceof Param ? (param.value as unknown) : param
  if (!(slot instanceof Placeholder)) return param
  const column = columns.get(slot.name as string)
  return column ? toDriver(column, input[slot.name as string]) : null
}
