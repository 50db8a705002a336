/** SQLite itself is asked what it would do for every list request of the app. */
import { beforeAll, describe, expect, test } from 'bun:test'
import { getTableConfig } from 'drizzle-orm/sqlite-core'
import exams from '../../src/apps/exams.ts'
import { compilePlan } from '../../src/plan/plan.ts'
import { openStore, tempFolder } from '../harness.ts'
import { sampleQueries } from './exams-queries.ts'
import { badQueries, plannerOf, readSchema, type Schema } from './index-planner.ts'

const plan = compilePlan(exams)
const queries = plan.collections.flatMap((one) => [...sampleQueries(one)])

let schema: Schema
beforeAll(async () => {
  using folder = tempFolder()
  const store = await openStore(folder.file('exams.db'), plan.tables, { readers: 1 })
  await store.stop()
  schema = readSchema(folder.file('exams.db'))
})

const planner = (except?: string) => plannerOf(schema, except)

describe('indexes', () => {
  test('serve every filter, order and direction of every collection', () => {
    using stepsOf = planner()
    expect(queries.length).toBeGreaterThan(100)
    expect(badQueries(queries, stepsOf)).toEqual([])
  })

  test('serve both children of a test', () => {
    using stepsOf = planner()
    const steps = (sql: string) => stepsOf({ sql, params: [] })
    expect([
      steps(`select * from test_questions where test_id = 'x' order by test_id, position`),
      steps(`select * from attempts where user_id = 'a' and test_id = 'x' order by id desc`),
    ]).toEqual([
      [expect.stringMatching(/^SEARCH test_questions USING INDEX sqlite_autoindex/)],
      [expect.stringMatching(/^SEARCH attempts USING INDEX attempts_test_newest/)],
    ])
  })

  // What is named here follows foreign keys, or keeps a row unique, instead of serving a list.
  const others = ['leaderboard_user', 'notifications_attempt', 'attempts_number']
  const names = plan.tables
    .flatMap((table) => getTableConfig(table).indexes.map(({ config }) => config.name))
    .filter((name) => !others.includes(name))

  test.each(names)('%s is needed: without it a list sorts or looks at too much', (name) => {
    using stepsOf = planner(name)
    expect(badQueries(queries, stepsOf)).not.toEqual([])
  })
})
