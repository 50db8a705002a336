/**
 * A list request as a canonical query: the same question in another spelling is the same cache key,
 * and what was not declared is refused instead of ignored.
 */
import { and, asc, desc, eq, gt, gte, lt, lte, or, sql, type SQL } from 'drizzle-orm'
import type { SQLiteColumn } from 'drizzle-orm/sqlite-core'
import { Fault, type FieldProblem } from '../fault.ts'
import { must } from '../lib/assert.ts'
import { tableTag, type Query } from '../store/store.ts'
import type { CollectionPlan, ExpandPlan } from './collections.ts'
import { parseTextValue, toDriver } from './columns.ts'
import { orderOf, type Cursors, type Position } from './cursor.ts'
import type { Order } from './declare.ts'

export const limitDefault = 20
export const limitMax = 100

export interface Cursor extends Position {
  readonly direction: 'after' | 'before'
}

const none: readonly ExpandPlan[] = []

export interface ListQuery {
  readonly order: string
  readonly limit: number
  /** By declared filter, in declared order; driver values. */
  readonly filters: readonly (readonly [column: SQLiteColumn, value: unknown])[]
  readonly cursor: Cursor | undefined
  /** Whether the answer says how many rows there are without limit and cursor. */
  readonly isCounted: boolean
  readonly expands: readonly ExpandPlan[]
  /** Canonical text of all of the above. */
  readonly key: string
  /** The same with the collection: the list's name in the cache, ready made. */
  readonly listKey: string
  /** Of the tables that the answer is made from. */
  readonly tags: readonly string[]
}

/** What may be asked about one row. */
export interface RowQuery {
  readonly expands: readonly ExpandPlan[]
  /** Of the tables beside the row's own. */
  readonly tags: readonly string[]
}

/** Parameters of one request, taken one by one; what is left in the end was not declared. */
function createParameters(search: string) {
  const given = new URLSearchParams(search)
  const problems: FieldProblem[] = []
  const problem = (field: string, message: string): void => void problems.push({ field, message })
  return {
    problem,
    single(field: string): string | undefined {
      const values = given.getAll(field)
      if (values.length > 1) problem(field, 'may be given once')
      given.delete(field)
      return values[0]
    },
    /** Faults: `invalid`, with everything that is wrong. */
    finish(what: string, known: readonly string[]): void {
      const all = known.length === 0 ? 'it has none' : known.join(', ')
      for (const field of new Set(given.keys())) {
        problem(field, `is not a parameter of this ${what} (${all})`)
      }
      if (problems.length === 0) return
      throw new Fault('invalid', 'the query is not valid', { fields: problems })
    },
  }
}

type Parameters = ReturnType<typeof createParameters>

/** Reports every wrong parameter at once. */
export function parseListQuery(plan: CollectionPlan, search: string, cursors: Cursors): ListQuery {
  const parameters = createParameters(search)
  const { single, problem } = parameters

  const limitText = single('limit')
  const limit = limitText === undefined ? limitDefault : Number(limitText)
  if (limitText !== undefined && (!/^\d{1,4}$/.test(limitText) || limit < 1 || limit > limitMax)) {
    problem('limit', `must be 1 to ${limitMax}`)
  }

  const order = single('order') ?? plan.orderDefault
  if (!plan.orders.has(order)) {
    problem('order', `must be one of ${[...plan.orders.keys()].join(', ')}`)
  }

  const count = single('count')
  if (count !== undefined && count !== 'true' && count !== 'false') {
    problem('count', 'must be true or false')
  }
  const isCounted = count === 'true'
  const cursor = parseCursor(plan, order, parameters, cursors)
  const expands = parseExpand(plan, parameters)
  const filters = parseFilters(plan, parameters)
  parameters.finish('list', [
    ...['limit', 'after', 'before', 'order', 'count'],
    ...(plan.expand.size > 0 ? ['expand'] : []),
    ...plan.filters,
  ])

  const key = JSON.stringify([
    order,
    limit,
    filters.map(([column, value]) => [column.name, value]),
    isCounted,
    expands.map(({ name }) => name),
    ...(cursor ? [cursor.direction, cursor.isInclusive, cursor.values.map(String)] : []),
  ])
  const tags = [tableTag(plan.tableName), ...tagsOf(expands)]
  return {
    order,
    limit,
    filters,
    cursor,
    isCounted,
    expands,
    key,
    listKey: `${plan.path}?${key}`,
    tags,
  }
}

export function parseRowQuery(plan: CollectionPlan, search: string): RowQuery {
  const parameters = createParameters(search)
  const expands = parseExpand(plan, parameters)
  parameters.finish('row', plan.expand.size > 0 ? ['expand'] : [])
  return { expands, tags: tagsOf(expands) }
}

function parseCursor(
  plan: CollectionPlan,
  order: string,
  { single, problem }: Parameters,
  cursors: Cursors,
): Cursor | undefined {
  const after = single('after')
  const before = single('before')
  if (after !== undefined && before !== undefined) problem('before', 'cannot be given with after')
  const text = after ?? before
  if (text === undefined) return undefined
  const direction = after === undefined ? 'before' : 'after'
  const position = plan.orders.has(order) ? cursors.decode(plan, order, text) : undefined
  if (position) return { direction, ...position }
  problem(direction, 'is not a cursor of this list and order')
  return undefined
}

/** Sorted and each once: another spelling of the same set is the same question. */
function parseExpand(plan: CollectionPlan, { single, problem }: Parameters): readonly ExpandPlan[] {
  if (plan.expand.size === 0) return none
  const text = single('expand')
  if (text === undefined) return none
  const expands: ExpandPlan[] = []
  for (const name of [...new Set(text.split(','))].toSorted()) {
    const expand = plan.expand.get(name)
    if (expand) expands.push(expand)
    else problem('expand', `${name} is none of ${[...plan.expand.keys()].join(', ')}`)
  }
  return expands
}

function parseFilters(plan: CollectionPlan, { single, problem }: Parameters): ListQuery['filters'] {
  const filters: (readonly [SQLiteColumn, unknown])[] = []
  for (const name of plan.filters) {
    const text = single(name)
    if (text === undefined) continue
    const column = must(plan.columns.get(name), () => `filter ${name} is a column`)
    const parsed = parseTextValue(column, text)
    if (parsed.ok) filters.push([column, toDriver(column, parsed.value)])
    else problem(name, parsed.message)
  }
  return filters
}

function tagsOf(expands: readonly ExpandPlan[]): string[] {
  return [...new Set(expands.map(({ target }) => tableTag(target.tableName)))]
}

/** The one row with this primary key; driver values, in the key's order. */
export function keyIs(plan: CollectionPlan, key: readonly unknown[]): SQL | undefined {
  return rowIs(plan.key, key)
}

export function rowIs(
  columns: readonly SQLiteColumn[],
  values: readonly unknown[],
): SQL | undefined {
  return and(...columns.map((column, at) => sql`${column} = ${values[at]}`))
}

export interface ListSql {
  /** Of all pages together. */
  readonly where: SQL | undefined
  /** Of this page: `where`, and beyond the cursor. */
  readonly pageWhere: SQL | undefined
  readonly orderBy: SQL[]
}

/** `narrowed`: to what the reader may see, and to what the list is of. */
export function listSql(
  plan: CollectionPlan,
  query: Pick<ListQuery, 'order' | 'filters' | 'cursor'>,
  ...narrowed: readonly (SQL | undefined)[]
): ListSql {
  const columns = orderOf(plan, query.order)
  const isBackwards = query.cursor?.direction === 'before'
  const filters = query.filters.map(([column, value]) => sql`${column} = ${value}`)
  const where = and(...narrowed, ...filters)
  return {
    where,
    pageWhere: and(where, query.cursor && beyond(columns, query.cursor)),
    orderBy: columns.map(({ column, descending }) =>
      descending === isBackwards ? asc(column) : desc(column),
    ),
  }
}

/**
 * Rows beyond the cursor in a lexicographic order: `a > x or (a = x and (b > y or …))`. The leading
 * `a >= x` is implied, and is there for the planner, which cannot use an index through the `or`. An
 * inclusive cursor takes the very place too.
 */
function beyond(
  columns: readonly Order[],
  { direction, values, isInclusive }: Cursor,
): SQL | undefined {
  const strictly = (at: number): SQL | undefined => {
    const order = columns[at]
    if (!order) return undefined
    const isUp = order.descending === (direction === 'before')
    const value = sql`${values[at]}`
    const rest = strictly(at + 1)
    if (!rest && isInclusive) return isUp ? gte(order.column, value) : lte(order.column, value)
    const past = isUp ? gt(order.column, value) : lt(order.column, value)
    return rest ? or(past, and(eq(order.column, value), rest)) : past
  }
  const first = columns[0]
  if (!first || columns.length === 1) return strictly(0)
  const isUp = first.descending === (direction === 'before')
  const value = sql`${values[0]}`
  return and(isUp ? gte(first.column, value) : lte(first.column, value), strictly(0))
}

/** A statement with a name, for metrics and the slow log. */
export function named(
  name: string,
  statement: { toSQL(): Query },
): Query & { readonly name: string } {
  return { ...statement.toSQL(), name }
}
