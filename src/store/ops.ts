/**
 * Statements for writes of Belfry's own. What else is in the same write happens with them or not at all.
 *
 *   write([onlyIf('exists (select 1 from …)'), …])   a condition, without a transaction that others wait for
 *   write([…, noticesOf('revoked', { sql: 'select json_object(…) …' })])   news of rows that only the database knows
 */
import { Fault } from '../fault.ts'
import type { Query } from './messages.ts'

/** Fails, and the whole write with it, unless the condition holds: a value that must be there is not. */
export function onlyIf(condition: string, params: readonly unknown[]): Query {
  return {
    sql: `insert into meta (name, value) select 'unmet', null where not (${condition})`,
    params,
  }
}

/** False: a condition in it does not hold, and nothing was written. */
export async function writeIfMet(
  store: { write(ops: readonly Query[]): Promise<unknown> },
  ops: readonly Query[],
): Promise<boolean> {
  try {
    await store.write(ops)
    return true
  } catch (thrown) {
    if (isUnmet(thrown)) return false
    throw thrown
  }
}

function isUnmet(thrown: unknown): boolean {
  return (
    thrown instanceof Fault &&
    thrown.cause instanceof Error &&
    thrown.cause.message.includes('meta.value')
  )
}

/** An entry of the log, heard as a notice of this kind on every node, for each row: its one column is the data, as JSON. */
export function noticesOf(kind: string, { sql, params }: Query): Query {
  return {
    sql: `insert into log (at, kind, subject, tags, data)
      select cast(unixepoch('subsec') * 1000 as integer), ?, '', '[]',
        json_object('notice', json_object('kind', ?, 'data', json(data)))
      from (select null as data where false union all select * from (${sql}))`,
    params: [kind, kind, ...params],
  }
}
