/** SQLite itself is asked what it would do for every list request of the app, and the start check whether it warns. */
import { expect, test } from 'bun:test'
import Database from 'libsql'
import { getTableConfig } from 'drizzle-orm/sqlite-core'
import radio from '../../src/apps/radio.ts'
import { checkIndexes } from '../../src/collections/collections.ts'
import { compilePlan } from '../../src/plan/plan.ts'
import { openStore, tempFolder } from '../harness.ts'
import { sampleQueries } from './exams-queries.ts'

const { page: _, ...options } = radio.options
const plan = compilePlan({ kind: 'app', options })
const queries = plan.collections.flatMap((one) => [...sampleQueries(one)])

async function schemaOf() {
  using folder = tempFolder()
  const store = await openStore(folder.file('radio.db'), plan.tables, { readers: 1 })
  const advice = await checkIndexes({ store }, plan.collections)
  await store.stop()
  const database = new Database(folder.file('radio.db'))
  const schema = database
    .prepare(
      `select name, sql from sqlite_schema where sql not null and type in ('table', 'index')`,
    )
    .all() as { readonly name: string; readonly sql: string }[]
  database.close()
  return { advice, schema }
}

const { advice, schema } = await schemaOf()

/** Requests that sort, or look at rows which their filters leave out, in a database without one index. */
function badQueries(except = ''): string[] {
  const database = new Database(':memory:')
  for (const { name, sql } of schema) {
    if (name !== except && !name.startsWith('sqlite_')) database.exec(sql)
  }
  const bad = queries.flatMap(({ name, sql, params, equalities }) => {
    const steps = (
      database.prepare(`explain query plan ${sql}`).all(...params) as { detail: string }[]
    ).map(({ detail }) => detail)
    const isSorted = steps.some((step) => step.includes('USE TEMP B-TREE'))
    const found = steps.join().match(/\w=\?/g)?.length ?? 0
    return isSorted || found < Math.min(equalities, 1) ? [`${name}: ${steps.join('; ')}`] : []
  })
  database.close()
  return bad
}

test('every filter, order and direction of every collection has an index', () => {
  expect(queries.length).toBeGreaterThan(50)
  expect(badQueries()).toEqual([])
  expect(advice).toEqual([])
})

// Two filters at once may use the index of one of them, but sort by none.
const names = plan.tables.flatMap((table) =>
  getTableConfig(table).indexes.map(({ config }) => config.name),
)

test.each(names)('%s is needed', (name) => {
  expect(badQueries(name)).not.toEqual([])
})
