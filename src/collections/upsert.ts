/**
 * The server's own rows (feeds): inserted or, by primary key, updated where a given column differs. A
 * row that differs in nothing changes nothing, and so is neither logged nor published.
 *
 * A feed brings the same columns again and again, and building a statement costs 80 µs: its text is
 * built once for each set of columns, and only the values are filled in.
 */
import { or, sql, type SQL } from 'drizzle-orm'
import type { SQLiteColumn } from 'drizzle-orm/sqlite-core'
import { Fault, type FieldProblem } from '../fault.ts'
import { must } from '../lib/assert.ts'
import type { Query, Store } from '../store/store.ts'
import type { CollectionPlan } from './collections.ts'
import { insertProblems, parseOwnValue, type RowData } from './columns.ts'
import { filled } from './statement.ts'

/** Sets of columns remembered per collection; a feed has one or a few. */
const shapesMax = 64

export function createUpserts(db: Store['db']): (plan: CollectionPlan, row: RowData) => Query {
  const shapes = new WeakMap<CollectionPlan, Map<string, Query>>()

  const shapeOf = (plan: CollectionPlan, { given, made }: OwnRow): Query => {
    let known = shapes.get(plan)
    if (!known || known.size >= shapesMax) shapes.set(plan, (known = new Map()))
    const key = JSON.stringify([Object.keys(given), Object.keys(made)])
    let shape = known.get(key)
    if (!shape)
      known.set(key, (shape = buildShape(db, plan, Object.keys(given), Object.keys(made))))
    return shape
  }

  return (plan, row) => {
    const own = checkedRow(plan, row)
    const input = { ...own.made, ...own.given }
    const shape = shapeOf(plan, own)
    return {
      sql: shape.sql,
      params: shape.params.map((param) => filled(plan.columns, param, input)),
    }
  }
}

/** What was made up counts as no difference, and overwrites only where `$onUpdate` says so. */
function buildShape(
  db: Store['db'],
  plan: CollectionPlan,
  given: readonly string[],
  made: readonly string[],
): Query {
  const columnOf = (property: string): SQLiteColumn =>
    must(plan.columns.get(property), () => `${property} was checked`)
  const rest = given.filter((property) => !plan.key.includes(columnOf(property)))
  const touched = made.filter((property) => columnOf(property).onUpdateFn !== undefined)
  const placeholders = [...given, ...made].map((property) => [property, sql.placeholder(property)])
  const insert = db.insert(plan.table).values(Object.fromEntries(placeholders) as never)
  const isOther = rest.map(columnOf).map((column) => sql`${column} is not ${excluded(column)}`)
  const set = [...rest, ...touched].map((property) => [property, excluded(columnOf(property))])
  const statement =
    rest.length === 0
      ? insert.onConflictDoNothing()
      : insert.onConflictDoUpdate({
          target: [...plan.key],
          set: Object.fromEntries(set),
          setWhere: must(or(...isOther), () => 'there is a column beside the key'),
        })
  return statement.toSQL()
}

function excluded(column: SQLiteColumn): SQL {
  return sql`excluded.${sql.identifier(column.name)}`
}

interface OwnRow {
  readonly given: RowData
  /** By `$defaultFn` and `$onUpdate`, for columns not given. */
  readonly made: RowData
}

function checkedRow(plan: CollectionPlan, row: RowData): OwnRow {
  const given: Record<string, unknown> = {}
  const made: Record<string, unknown> = {}
  const problems: FieldProblem[] = []
  for (const [field, value] of Object.entries(row)) {
    if (value === undefined) continue
    const column = plan.columns.get(field)
    const parsed = column && parseOwnValue(column, value)
    if (parsed?.ok) given[field] = parsed.value
    else problems.push({ field, message: parsed?.message ?? 'is not a column' })
  }
  for (const [property, column] of plan.columns) {
    const value: unknown = Object.hasOwn(given, property)
      ? undefined
      : (column.defaultFn ?? column.onUpdateFn)?.()
    if (value !== undefined) made[property] = value
  }
  const fields = insertProblems(plan.columns, problems, { ...made, ...given })
  if (fields.length > 0) {
    const text = fields.map(({ field, message }) => `${field} ${message}`).join(', ')
    throw new Fault('invalid', `a row for ${plan.path} is not valid: ${text}`, { fields })
  }
  return { given, made }
}
