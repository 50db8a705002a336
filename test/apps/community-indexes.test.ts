/** SQLite itself is asked what it would do for every list request of the app, and the start check whether it warns. */
import { beforeAll, describe, expect, test } from 'bun:test'
import { getTableConfig } from 'drizzle-orm/sqlite-core'
import Database from 'libsql'
import community from '../../src/apps/community.ts'
import { checkIndexes } from '../../src/collections/collections.ts'
import { compilePlan } from '../../src/plan/plan.ts'
import { openStore, tempFolder } from '../harness.ts'
import { sampleQueries, type SampleQuery } from './exams-queries.ts'

const plan = compilePlan(community)
const queries = plan.collections.flatMap((one) => [...sampleQueries(one)])

/** What the store makes of the app's tables, statement by statement. */
let schema: readonly { readonly name: string; readonly sql: string }[]
let advice: Awaited<ReturnType<typeof checkIndexes>>
beforeAll(async () => {
  using folder = tempFolder()
  const store = await openStore(folder.file('community.db'), plan.tables, { readers: 1 })
  advice = await checkIndexes({ store }, plan.collections)
  await store.stop()
  const database = new Database(folder.file('community.db'))
  schema = database
    .prepare(
      `select name, sql from sqlite_schema where sql not null and type in ('table', 'index')`,
    )
    .all() as typeof schema
  database.close()
})

type Planner = (query: Pick<SampleQuery, 'sql' | 'params'>) => string[]

/** The planner of an empty database, all of the schema but one index. */
function planner(except = ''): Planner & Disposable {
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
function badQueries(stepsOf: Planner): string[] {
  return queries.flatMap((query) => {
    const steps = stepsOf(query)
    const isSorted = steps.some((step) => step.includes('USE TEMP B-TREE'))
    const equalities = steps.join().match(/\w=\?/g)?.length ?? 0
    const isLoose = equalities < Math.min(query.equalities, query.isRuled ? 2 : 1)
    return isSorted || isLoose ? [`${query.name}: ${steps.join('; ')}`] : []
  })
}

describe('indexes', () => {
  test('serve every filter, order and direction of every collection', () => {
    using stepsOf = planner()
    expect(queries.length).toBeGreaterThan(100)
    expect(badQueries(stepsOf)).toEqual([])
  })

  test('leave the check at start nothing to warn of', () => {
    expect(advice).toEqual([])
  })

  // What is named here follows a foreign key, or keeps a row unique beside serving a list.
  const others = ['votes_post']
  const names = plan.tables
    .flatMap((table) => getTableConfig(table).indexes.map(({ config }) => config.name))
    .filter((name) => !others.includes(name))

  test.each(names)('%s is needed: without it a list sorts or looks at too much', (name) => {
    using stepsOf = planner(name)
    expect(badQueries(stepsOf)).not.toEqual([])
  })

  test('find the rows that a row takes along', () => {
    using stepsOf = planner()
    const keys = [
      ['posts', 'author_id'],
      ['comments', 'author_id'],
      ['comments', 'post_id'],
      ['comments', 'parent_id'],
      ['votes', 'post_id'],
      ['votes', 'user_id'],
      ['memberships', 'user_id'],
    ]
    for (const [table, column] of keys) {
      const steps = stepsOf({ sql: `select 1 from ${table} where ${column} = ?`, params: [1] })
      expect([table, column, steps.join().startsWith('SEARCH')]).toEqual([table, column, true])
    }
  })
})
