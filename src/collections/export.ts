/**
 * A collection's rows as JSON lines, as the REST API gives them: all columns, in key order, whatever the
 * rules say. For operators; `importLines` is the way back.
 */
import { sql, type SQL } from 'drizzle-orm'
import { QueryBuilder } from 'drizzle-orm/sqlite-core'
import type { Query, RawRow } from '../store/store.ts'
import type { CollectionPlan } from './collections.ts'
import { decodeRow } from './columns.ts'

/** Rows read, decoded and written at once: with 64 KB of text in each, 64 MB. */
const pageRows = 1_000

/** Many lines at a time, each with its end. `read` should see one moment throughout. */
export async function* exportRows(
  read: (query: Query) => Promise<readonly RawRow[]>,
  plan: CollectionPlan,
): AsyncGenerator<{ readonly text: string; readonly rows: number }> {
  const columns = [...plan.columns.values()]
  const keyAt = plan.key.map((column) => columns.indexOf(column))
  for (let last: RawRow | undefined; ;) {
    const rows = await read(pageSql(plan, last && keyAt.map((at) => last?.[at])))
    if (rows.length > 0) {
      const lines = rows.map((raw) => `${JSON.stringify(decodeRow(plan.columns, raw))}\n`)
      yield { text: lines.join(''), rows: rows.length }
    }
    if (rows.length < pageRows) return
    last = rows.at(-1)
  }
}

/** After a key rather than by offset: the last page costs what the first does. */
function pageSql(plan: CollectionPlan, after: readonly unknown[] | undefined): Query {
  const key = sql.join([...plan.key], sql`, `)
  const values =
    after &&
    sql.join(
      after.map((value): SQL => sql`${value}`),
      sql`, `,
    )
  return new QueryBuilder()
    .select()
    .from(plan.table)
    .where(values && sql`(${key}) > (${values})`)
    .orderBy(...plan.key)
    .limit(pageRows)
    .toSQL()
}
