/**
 * What an answer depends on, exactly: so that a vote makes the pages stale that show the post, and no other.
 *
 *   a page of a list ─┬─ its rows, the one beyond it, and what they refer to: their tags
 *                     └─ its range: rows that would lie between its ends, by filters, scope and order
 *   one row          ─── its tag, and what it refers to; looked up and not there: any row with that value
 *
 * Invariant: a change that could alter the answer is in the tags or in the range. In doubt it is: a text that
 * another collation would take for the same, a value of another kind. A doubt costs a load, never an old answer.
 */
import type { SQLiteColumn } from 'drizzle-orm/sqlite-core'
import { anyRowTag, keyOf, rowTag, tableTag, type Change, type RawRow } from '../store/store.ts'
import type { CollectionPlan } from './collections.ts'
import { decodeRow } from './columns.ts'
import { orderOf, type CursorValue } from './cursor.ts'
import type { Order } from './declare.ts'
import type { ListQuery } from './query.ts'
import { compareAsSqlite, matches, type Where } from './where.ts'

/** Tags of an answer while it is made. */
export interface Tags {
  addRow(plan: CollectionPlan, raw: RawRow): void
  /** By one column's value, whether or not there is such a row. */
  addReferred(plan: CollectionPlan, column: SQLiteColumn, value: unknown, found?: RawRow): void
  /** Undefined: it cannot be said so exactly; the tables' tags have to do. */
  readonly all: readonly string[] | undefined
}

export function createTags(tables: readonly CollectionPlan[]): Tags {
  const tags = new Set(tables.map(({ tableName }) => anyRowTag(tableName)))
  let isExact = true
  const add = (plan: CollectionPlan, key: readonly unknown[]): void => {
    // A number that the log may have rounded names another row there.
    if (key.some((part) => typeof part === 'bigint')) isExact = false
    tags.add(rowTag(plan.tableName, keyOf(key)))
  }
  const addRow = (plan: CollectionPlan, raw: RawRow): void => {
    const positions = positionsOf(plan)
    add(
      plan,
      plan.key.map((column) => raw[positions.get(column) ?? -1]),
    )
  }
  return {
    addRow,
    addReferred(plan, column, value, found) {
      if (found) addRow(plan, found)
      else if (value === null || value === undefined) return
      else if (plan.key.length === 1 && plan.key[0] === column) add(plan, [value])
      else tags.add(tableTag(plan.tableName))
    },
    get all() {
      return isExact ? [...tags] : undefined
    },
  }
}

/** Both ends belong to it; null is no end. */
type Range = readonly [from: readonly CursorValue[] | null, to: readonly CursorValue[] | null]

/** Where a page begins and ends in its order: a row beyond a full page changes nothing in it. */
export function rangeOf(
  plan: CollectionPlan,
  { order, cursor }: ListQuery,
  rows: readonly RawRow[],
  isMore: boolean,
): string | undefined {
  const place = (raw: RawRow | undefined): CursorValue[] | null => {
    if (!raw || !isMore) return null
    const positions = positionsOf(plan)
    return orderOf(plan, order).map(({ column }) => raw[positions.get(column) ?? -1] as CursorValue)
  }
  const range: Range =
    cursor?.direction === 'before'
      ? [place(rows[0]), cursor.values]
      : [cursor?.values ?? null, place(rows.at(-1))]
  // An end that JSON would not give back as it was is no end.
  const isPlain = range.flat().every((one) => one === null || isPlainValue(one))
  return isPlain ? JSON.stringify(range) : undefined
}

function isPlainValue(value: unknown): boolean {
  return typeof value === 'string' || (typeof value === 'number' && Number.isFinite(value))
}

export interface ListOf {
  readonly plan: CollectionPlan
  readonly query: ListQuery
  readonly scope: Where
  /** Of one parent's children: the column that says whose, and the parent. */
  readonly within: Within | undefined
}

export interface Within {
  readonly column: SQLiteColumn
  readonly value: unknown
}

/** Whether the change may have brought a row into the page. */
export function entersPage({ plan, query, scope, within }: ListOf, change: Change, range: string) {
  if (change.op === 'remove') return false
  const { row } = change
  const positions = positionsOf(plan)
  const valueOf = (column: SQLiteColumn): unknown => row[positions.get(column) ?? -1]
  if (within && !maySame(valueOf(within.column), within.value)) return false
  for (const [column, value] of query.filters) if (!maySame(valueOf(column), value)) return false
  const [from, to] = JSON.parse(range) as Range
  const orders = orderOf(plan, query.order)
  if (from && (compare(orders, valueOf, from) ?? 0) < 0) return false
  if (to && (compare(orders, valueOf, to) ?? 0) > 0) return false
  return mayMatch(plan, scope, row)
}

/** Whether the change may have made a row that has this value. */
export function entersValue(
  plan: CollectionPlan,
  column: SQLiteColumn,
  value: unknown,
  { op, row }: Change,
): boolean {
  return op !== 'remove' && maySame(row[positionsOf(plan).get(column) ?? -1], value)
}

/** Undefined: of kinds that cannot be told apart here. */
function compare(
  orders: readonly Order[],
  valueOf: (column: SQLiteColumn) => unknown,
  place: readonly CursorValue[],
): number | undefined {
  for (const [at, { column, descending }] of orders.entries()) {
    const left = valueOf(column)
    const right = place[at]
    if (typeof left !== 'string' && typeof left !== 'number') return undefined
    if (right === undefined || typeof left !== typeof right) return undefined
    const order = compareAsSqlite(left, right)
    if (order !== 0) return descending ? -order : order
  }
  return 0
}

/** As `=` in SQL might see it, whatever the column's collation. */
function maySame(left: unknown, right: unknown): boolean {
  if (left === null || left === undefined || right === null) return false
  if (left === right || typeof left !== typeof right) return true
  return typeof left === 'string' && typeof right === 'string' && folded(left) === folded(right)
}

function folded(text: string): string {
  return text.toLowerCase().trimEnd()
}

function mayMatch(plan: CollectionPlan, scope: Where, row: RawRow): boolean {
  if (scope.kind === 'always') return true
  try {
    // The log has null for an endless number.
    for (const [column, at] of positionsOf(plan)) {
      if (row[at] === null && column.getSQLType().toLowerCase() === 'real') return true
    }
    return matches(scope, decodeRow(plan.columns, row))
  } catch {
    return true
  }
}

const known = new WeakMap<CollectionPlan, ReadonlyMap<SQLiteColumn, number>>()

/** Where each column stands in a raw row. */
export function positionsOf(plan: CollectionPlan): ReadonlyMap<SQLiteColumn, number> {
  let positions = known.get(plan)
  if (!positions) {
    positions = new Map([...plan.columns.values()].map((column, at) => [column, at]))
    known.set(plan, positions)
  }
  return positions
}
