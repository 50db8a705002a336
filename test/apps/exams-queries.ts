/** Every list request that a collection serves, as the SQL it becomes: filters, orders, first page and both directions. */
import { QueryBuilder, type SQLiteColumn } from 'drizzle-orm/sqlite-core'
import type { CollectionPlan } from '../../src/collections/collections.ts'
import { listSql, type ListQuery } from '../../src/collections/query.ts'
import { readScope } from '../../src/collections/rules.ts'
import { toSql } from '../../src/collections/where.ts'
import { toDriver } from '../../src/collections/columns.ts'

export interface SampleQuery {
  readonly name: string
  /** By a rule that shows a reader some rows only. */
  readonly isRuled: boolean
  /** Columns that must have one value: the filters', and the rule's. */
  readonly equalities: number
  readonly sql: string
  readonly params: readonly unknown[]
}

export function* sampleQueries(plan: CollectionPlan): Generator<SampleQuery> {
  if (plan.rules.read === undefined) return
  const scope = readScope(plan, { id: 'ann' })
  for (const order of plan.orders.keys()) {
    for (const filters of subsets(plan.filters)) {
      for (const direction of ['first', 'after', 'before'] as const) {
        const { pageWhere, orderBy } = listSql(
          plan,
          queryOf(plan, order, filters, direction),
          toSql(scope),
        )
        const select = new QueryBuilder()
          .select()
          .from(plan.table)
          .where(pageWhere)
          .orderBy(...orderBy)
        yield {
          name: `${plan.path} ${order} ${filters.join('+')} ${direction}`,
          isRuled: scope.kind !== 'always',
          equalities: filters.length + (scope.kind === 'always' ? 0 : 1),
          ...select.limit(21).toSQL(),
        }
      }
    }
  }
}

function queryOf(
  plan: CollectionPlan,
  order: string,
  filters: readonly string[],
  direction: 'first' | 'after' | 'before',
): Pick<ListQuery, 'order' | 'filters' | 'cursor'> {
  const columns = plan.orders.get(order) ?? []
  const values = columns.map(({ column }) => sampleOf(column))
  return {
    order,
    filters: filters.map((name) => {
      const column = plan.columns.get(name) as SQLiteColumn
      return [column, sampleOf(column)] as const
    }),
    cursor: direction === 'first' ? undefined : { direction, values, isInclusive: false },
  }
}

function sampleOf(column: SQLiteColumn): string | number {
  const samples = { string: 'x', number: 1, boolean: true, date: new Date(1) } as const
  const sample = samples[column.dataType as keyof typeof samples]
  return toDriver(column, sample) as string | number
}

function subsets(names: readonly string[]): string[][] {
  return names.reduce<string[][]>(
    (all, name) => [...all, ...all.map((some) => [...some, name])],
    [[]],
  )
}
