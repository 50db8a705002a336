/** Asks SQLite what it would do for the list requests of an app, over its schema alone. */
import Database from 'libsql'
import type { SampleQuery } from './exams-queries.ts'

/** What the store makes of an app's tables, statement by statement. */
export type Schema = readonly { readonly name: string; readonly sql: string }[]

export function readSchema(file: string): Schema {
  const database = new Database(file)
  const schema = database
    .prepare(
      `select name, sql from sqlite_schema where sql not null and type in ('table', 'index')`,
    )
    .all() as unknown as Schema
  database.close()
  return schema
}

export type Planner = (query: Pick<SampleQuery, 'sql' | 'params'>) => string[]

/** The planner of an empty database, all of the schema but one index. */
export function plannerOf(schema: Schema, except = ''): Planner & Disposable {
  const database = new Database(':memory:')
  for (const { name, sql } of schema) {
    if (name !== except && !name.startsWith('sqlite_')) database.exec(sql)
  }
  const stepsOf: Planner = ({ sql, params }) =>
    (database.prepare(`explain query plan ${sql}`).all(...params) as { detail: string }[]).map(
      ({ detail }) => detail,
    )
  return Object.assign(stepsOf, { [Symbol.dispose]: () => void database.close() })
}

/**
 * Requests that would sort, look at rows of others, or, with one filter, at rows which that filter leaves
 * out. Two filters at once may use the index of one of them.
 */
export function badQueries(queries: readonly SampleQuery[], stepsOf: Planner): string[] {
  return queries.flatMap((query) => {
    const steps = stepsOf(query)
    const isSorted = steps.some((step) => step.includes('USE TEMP B-TREE'))
    const equalities = steps.join().match(/\w=\?/g)?.length ?? 0
    const isLoose = equalities < Math.min(query.equalities, query.isRuled ? 2 : 1)
    return isSorted || isLoose ? [`${query.name}: ${steps.join('; ')}`] : []
  })
}
