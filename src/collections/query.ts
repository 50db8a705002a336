/**
 * A list request as a canonical query: the same question in another spelling is the same cache key,
 * and what was not declared is refused instead of ignored.
 */
import { and, asc, desc, eq, gt, gte, lt, lte, or, sql, type SQL } from 'drizzle-orm'
import type { SQLiteColumn } from 'drizzle-orm/sqlite-core'
import { Fault, type FieldProblem } from '../fault.ts'
import { must } from '../lib/assert.ts'
import { parseTextValue, toDriver } from './columns.ts'
import type { Order } from './declare.ts'
import type { CollectionPlan } from './collections.ts'

export const limitDefault = 20
export const limitMax = 100

/** A cursor holds one value per order column; longer text is no cursor of ours. */
const cursorLengthMax = 4096

export interface Cursor {
  readonly direction: 'after' | 'before'
  /** Driver values of the order's columns in the row the page starts beyond. */
  readonly values: readonly (string | number)[]
}

export interface ListQuery {
  readonly order: string
  readonly limit: number
  /** By declared filter, in declared order; driver values. */
  readonly filters: readonly (readonly [column: SQLiteColumn, value: unknown])[]
  readonly cursor: Cursor | undefined
  /** Canonical text of all of the above. */
  readonly key: string
}

/** Reports every wrong parameter at once. */
export function parseListQuery(plan: CollectionPlan, search: string): ListQuery {
  const given = new URLSearchParams(search)
  const problems: FieldProblem[] = []
  const problem = (field: string, message: string): void => void problems.push({ field, message })
  const single = (field: string): string | undefined => {
    const values = given.getAll(field)
    if (values.length > 1) problem(field, 'may be given once')
    given.delete(field)
    return values[0]
  }

  const limitText = single('limit')
  const limit = limitText === undefined ? limitDefault : Number(limitText)
  if (limitText !== undefined && (!/^\d{1,4}$/.test(limitText) || limit < 1 || limit > limitMax)) {
    problem('limit', `must be 1 to ${limitMax}`)
  }

  const order = single('order') ?? plan.orderDefault
  if (!plan.orders.has(order)) {
    problem('order', `must be one of ${[...plan.orders.keys()].join(', ')}`)
  }

  const after = single('after')
  const before = single('before')
  if (after !== undefined && before !== undefined) problem('before', 'cannot be given with after')
  const cursorText = after ?? before
  let cursor: Cursor | undefined
  if (cursorText !== undefined) {
    const values = plan.orders.has(order) ? decodeCursor(plan, order, cursorText) : undefined
    if (values) cursor = { direction: after === undefined ? 'before' : 'after', values }
    else problem(after === undefined ? 'before' : 'after', 'is not a cursor of this list and order')
  }

  const filters: (readonly [SQLiteColumn, unknown])[] = []
  for (const name of plan.filters) {
    const text = single(name)
    if (text === undefined) continue
    const column = must(plan.columns.get(name), () => `filter ${name} is a column`)
    const parsed = parseTextValue(column, text)
    if (parsed.ok) filters.push([column, toDriver(column, parsed.value)])
    else problem(name, parsed.message)
  }

  for (const field of new Set(given.keys())) {
    problem(field, `is not a parameter of this list (${parameterNames(plan).join(', ')})`)
  }
  if (problems.length > 0)
    throw new Fault('invalid', 'the query is not valid', { fields: problems })

  const key = JSON.stringify([
    order,
    limit,
    filters.map(([column, value]) => [column.name, value]),
    cursor?.direction,
    cursor?.values,
  ])
  return { order, limit, filters, cursor, key }
}

function parameterNames(plan: CollectionPlan): string[] {
  return ['limit', 'after', 'before', 'order', ...plan.filters]
}

/** The one row with this primary key; driver values, in the key's order. */
export function keyIs(plan: CollectionPlan, key: readonly unknown[]): SQL | undefined {
  return and(...plan.key.map((column, at) => sql`${column} = ${key[at]}`))
}

export interface ListSql {
  readonly where: SQL | undefined
  readonly orderBy: SQL[]
}

/** `rule` narrows to what the reader may see. */
export function listSql(plan: CollectionPlan, query: ListQuery, rule: SQL | undefined): ListSql {
  const columns = orderOf(plan, query.order)
  const isBackwards = query.cursor?.direction === 'before'
  const filters = query.filters.map(([column, value]) => sql`${column} = ${value}`)
  return {
    where: and(rule, ...filters, query.cursor && beyond(columns, query.cursor)),
    orderBy: columns.map(({ column, descending }) =>
      descending === isBackwards ? asc(column) : desc(column),
    ),
  }
}

/**
 * Rows beyond the cursor in a lexicographic order: `a > x or (a = x and (b > y or …))`. The leading
 * `a >= x` is implied, and is there for the planner, which cannot use an index through the `or`.
 */
function beyond(columns: readonly Order[], { direction, values }: Cursor): SQL | undefined {
  const strictly = (at: number): SQL | undefined => {
    const order = columns[at]
    if (!order) return undefined
    const isUp = order.descending === (direction === 'before')
    const value = sql`${values[at]}`
    const past = isUp ? gt(order.column, value) : lt(order.column, value)
    const rest = strictly(at + 1)
    return rest ? or(past, and(eq(order.column, value), rest)) : past
  }
  const first = columns[0]
  if (!first || columns.length === 1) return strictly(0)
  const isUp = first.descending === (direction === 'before')
  const value = sql`${values[0]}`
  return and(isUp ? gte(first.column, value) : lte(first.column, value), strictly(0))
}

function orderOf(plan: CollectionPlan, name: string): readonly Order[] {
  return must(plan.orders.get(name), () => `order ${name} is declared`)
}

/** Opaque to clients; holds the order's name, so that a cursor of another order is refused. */
export function encodeCursor(plan: CollectionPlan, order: string, driverRow: DriverValues): string {
  const values = orderOf(plan, order).map(({ column }) => driverRow(column))
  return Buffer.from(JSON.stringify([order, ...values])).toString('base64url')
}

export type DriverValues = (column: SQLiteColumn) => unknown

function decodeCursor(
  plan: CollectionPlan,
  order: string,
  text: string,
): (string | number)[] | undefined {
  if (text.length > cursorLengthMax || !/^[\w-]+$/.test(text)) return undefined
  let parts: unknown
  try {
    parts = JSON.parse(Buffer.from(text, 'base64url').toString())
  } catch {
    return undefined
  }
  const columns = orderOf(plan, order)
  if (!Array.isArray(parts) || parts.length !== columns.length + 1 || parts[0] !== order) {
    return undefined
  }
  const values: unknown[] = parts.slice(1)
  const isOurs = values.every((value, at) => {
    // As the database holds it: dates and booleans are numbers there.
    const wanted = columns[at]?.column.dataType === 'string' ? 'string' : 'number'
    return typeof value === wanted
  })
  return isOurs ? (values as (string | number)[]) : undefined
}
