/** SQLite itself is asked what it would do for every list request of the app, and the start check whether it warns. */
import { beforeAll, describe, expect, test } from 'bun:test'
import { getTableConfig } from 'drizzle-orm/sqlite-core'
import community from '../../src/apps/community.ts'
import { checkIndexes } from '../../src/collections/collections.ts'
import { compilePlan } from '../../src/plan/plan.ts'
import { openStore, tempFolder } from '../harness.ts'
import { sampleQueries } from './exams-queries.ts'
import { badQueries, plannerOf, readSchema, type Schema } from './index-planner.ts'

const plan = compilePlan(community)
const queries = plan.collections.flatMap((one) => [...sampleQueries(one)])

let schema: Schema
let advice: Awaited<ReturnType<typeof checkIndexes>>
beforeAll(async () => {
  using folder = tempFolder()
  const store = await openStore(folder.file('community.db'), plan.tables, { readers: 1 })
  advice = await checkIndexes({ store }, plan.collections)
  await store.stop()
  schema = readSchema(folder.file('community.db'))
})

const planner = (except?: string) => plannerOf(schema, except)

describe('indexes', () => {
  test('serve every filter, order and direction of every collection', () => {
    using stepsOf = planner()
    expect(queries.length).toBeGreaterThan(100)
    expect(badQueries(queries, stepsOf)).toEqual([])
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
    expect(badQueries(queries, stepsOf)).not.toEqual([])
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
