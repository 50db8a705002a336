/**
 * Conditions on a row as plain data, so that one condition compiles to SQL (reads) and to a predicate
 * on a row (live events): fan-out never runs SQL per subscriber. Pure; used by rules and filters.
 */
import type { SQLiteColumn } from 'drizzle-orm/sqlite-core'
import {
  and as sqlAnd,
  getTableColumns,
  not as sqlNot,
  or as sqlOr,
  sql,
  type SQL,
} from 'drizzle-orm'

export type Comparison = 'eq' | 'ne' | 'gt' | 'gte' | 'lt' | 'lte'

/** `kind: 'always' | 'never'` are what an empty `and()` / `or()` mean. */
export type Where =
  | { readonly kind: 'always' }
  | { readonly kind: 'never' }
  | {
      readonly kind: Comparison
      readonly column: SQLiteColumn
      readonly value: unknown
    }
  | { readonly kind: 'oneOf'; readonly column: SQLiteColumn; readonly values: readonly unknown[] }
  | { readonly kind: 'isNull'; readonly column: SQLiteColumn }
  | { readonly kind: 'and' | 'or'; readonly parts: readonly Where[] }
  | { readonly kind: 'not'; readonly part: Where }

type Data<C extends SQLiteColumn> = C['_']['data']

/**
 * An operand that is `undefined`, `null` or NaN matches NO row (as in SQL, where `= NULL` is never
 * true): `eq(posts.authorId, user?.id)` is safe for a visitor. Ask for nulls with `isNull`.
 */
function compare(kind: Comparison) {
  return <C extends SQLiteColumn>(column: C, value: Data<C> | null | undefined): Where =>
    value === undefined || value === null || Number.isNaN(value)
      ? { kind: 'never' }
      : { kind, column, value }
}

export const eq = compare('eq')
export const ne = compare('ne')
export const gt = compare('gt')
export const gte = compare('gte')
export const lt = compare('lt')
export const lte = compare('lte')

export function oneOf<C extends SQLiteColumn>(column: C, values: readonly Data<C>[]): Where {
  return values.length === 0 ? { kind: 'never' } : { kind: 'oneOf', column, values }
}

export function isNull(column: SQLiteColumn): Where {
  return { kind: 'isNull', column }
}

export function and(...parts: readonly Where[]): Where {
  return parts.length === 0 ? { kind: 'always' } : { kind: 'and', parts }
}

export function or(...parts: readonly Where[]): Where {
  return parts.length === 0 ? { kind: 'never' } : { kind: 'or', parts }
}

export function not(part: Where): Where {
  return { kind: 'not', part }
}

export function isWhere(value: unknown): value is Where {
  return (
    typeof value === 'object' && value !== null && 'kind' in value && kinds.has(String(value.kind))
  )
}

const kinds = new Set([
  ...['always', 'never', 'eq', 'ne', 'gt', 'gte', 'lt', 'lte'],
  ...['oneOf', 'isNull', 'and', 'or', 'not'],
])

const operators: Record<Comparison, string> = {
  eq: '=',
  ne: '<>',
  gt: '>',
  gte: '>=',
  lt: '<',
  lte: '<=',
}

/** The SQL of a condition; undefined means "no restriction", so that no `where 1 = 1` is sent. */
export function toSql(where: Where): SQL | undefined {
  switch (where.kind) {
    case 'always':
      return undefined
    case 'never':
      return sql`0`
    case 'isNull':
      return sql`${where.column} is null`
    case 'oneOf': {
      const values = where.values.map((value) => sql`${sql.param(value, where.column)}`)
      return sql`${where.column} in (${sql.join(values, sql`, `)})`
    }
    case 'and':
      return sqlAnd(...where.parts.map(toSql))
    case 'or': {
      const parts = where.parts.map(toSql)
      return parts.includes(undefined) ? undefined : sqlOr(...parts)
    }
    case 'not': {
      // SQL's three values: a row for which the part is NULL must count as "not matched", and so
      // be let through by `not`, exactly as the predicate below does.
      const part = toSql(where.part)
      return part === undefined ? sql`0` : sqlNot(sql`coalesce(${part}, 0)`)
    }
    default:
      return sql`${where.column} ${sql.raw(operators[where.kind])} ${sql.param(where.value, where.column)}`
  }
}

/** The same condition on a row in hand (property names as in the Drizzle table). */
export function matches(where: Where, row: Readonly<Record<string, unknown>>): boolean {
  switch (where.kind) {
    case 'always':
      return true
    case 'never':
      return false
    case 'and':
      return where.parts.every((part) => matches(part, row))
    case 'or':
      return where.parts.some((part) => matches(part, row))
    case 'not':
      return !matches(where.part, row)
    case 'isNull':
      return field(where.column, row) === null
    case 'oneOf': {
      const left = field(where.column, row)
      return left !== null && where.values.some((value) => driver(where.column, value) === left)
    }
    default: {
      const left = field(where.column, row)
      if (left === null) return false
      return holds(where.kind, left, driver(where.column, where.value))
    }
  }
}

function holds(kind: Comparison, left: Comparable, right: Comparable): boolean {
  const order = compareAsSqlite(left, right)
  switch (kind) {
    case 'eq':
      return order === 0
    case 'ne':
      return order !== 0
    case 'gt':
      return order > 0
    case 'gte':
      return order >= 0
    case 'lt':
      return order < 0
    case 'lte':
      return order <= 0
  }
}

type Comparable = string | number | bigint

/** SQLite orders text by bytes of UTF-8; JavaScript's `<` orders by UTF-16 units and differs above U+D7FF. */
export function compareAsSqlite(left: Comparable, right: Comparable): number {
  if (typeof left === 'string' && typeof right === 'string') {
    return left === right ? 0 : Buffer.compare(Buffer.from(left), Buffer.from(right))
  }
  if (typeof left === 'string') return 1
  if (typeof right === 'string') return -1
  return left === right ? 0 : left < right ? -1 : 1
}

function field(column: SQLiteColumn, row: Readonly<Record<string, unknown>>): Comparable | null {
  const value = row[propertyOf(column)]
  return value === null || value === undefined ? null : driver(column, value)
}

/** What the database holds for a value, so that both compilations compare the same thing. */
function driver(column: SQLiteColumn, value: unknown): Comparable {
  const mapped: unknown = column.mapToDriverValue(value as never)
  if (typeof mapped === 'boolean') return mapped ? 1 : 0
  return mapped as Comparable
}

const properties = new WeakMap<SQLiteColumn, string>()

/** The name a column has as a property of its table: `authorId`, not `author_id`. */
export function propertyOf(column: SQLiteColumn): string {
  let property = properties.get(column)
  if (property === undefined) {
    for (const [name, one] of Object.entries(getTableColumns(column.table))) {
      properties.set(one as SQLiteColumn, name)
    }
    property = properties.get(column) ?? column.name
  }
  return property
}
