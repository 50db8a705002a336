import { describe, expect, test } from 'bun:test'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { createRowWriter, exportRows, importLines } from '../../src/collections/collections.ts'
import { collection } from '../../src/collections/declare.ts'
import { must } from '../../src/lib/assert.ts'
import { app } from '../../src/plan/declare.ts'
import { compilePlan } from '../../src/plan/plan.ts'
import { openStore, tempFolder } from '../harness.ts'

const people = sqliteTable('people', {
  id: integer().primaryKey(),
  name: text({ length: 10 }).notNull(),
  email: text().unique(),
})

async function setUp(file: string) {
  const plans = compilePlan(app({ name: 'test', collections: { people: collection(people, {}) } }))
  const store = await openStore(file, plans.tables)
  const collections = createRowWriter(store)
  const plan = must(plans.collections[0], () => 'people')
  const run = (lines: readonly (string | object)[], skipInvalid = false, firstLine = 1) => {
    const body = lines.map((line) => (typeof line === 'string' ? line : JSON.stringify(line)))
    const bytes = new TextEncoder().encode(body.join('\n'))
    return importLines(collections, plan, bytes, { firstLine, skipInvalid })
  }
  const ids = async () =>
    (await store.read({ sql: 'select id from people order by id', params: [] })).flat()
  return { store, plan, run, ids, collections }
}

const row = (id: number) => ({ id, name: `n${id}` })

describe('import', () => {
  test('checks lines as bodies are checked, and names the wrong ones', async () => {
    using folder = tempFolder()
    const { store, run, ids } = await setUp(folder.file('a.db'))
    await using _ = store
    const lines = [
      row(1),
      '{"id":2',
      { id: 3, name: 'much too long for this' },
      { id: 4 },
      '',
      { id: 5, name: 'e', nick: 'x' },
      { name: 'no key' },
      '[1]',
      row(9),
    ]
    const problems = [
      { line: 102, message: 'is not valid JSON' },
      { line: 103, message: 'name must be at most 10 characters' },
      { line: 104, message: 'name is required' },
      { line: 106, message: 'nick is not a column' },
      { line: 107, message: 'id is required: it is part of the key' },
      { line: 108, message: 'is no JSON object' },
    ]
    expect(await run(lines, false, 101)).toEqual({
      ...{ rows: 0, changed: 0, wrong: 6 },
      problems,
      stoppedAt: 101,
    })
    expect(await ids()).toEqual([])
    expect(await run(lines, true, 101)).toEqual({
      ...{ rows: 2, changed: 2, wrong: 6 },
      problems,
      stoppedAt: undefined,
    })
    expect(await ids()).toEqual([1, 9])
  })

  test('stops before the batch with the wrong line; the batches before it are in', async () => {
    using folder = tempFolder()
    const { store, run, ids } = await setUp(folder.file('a.db'))
    await using _ = store
    const lines = Array.from({ length: 1_200 }, (_, at) => row(at + 1))
    expect(await run([...lines.slice(0, 700), '!', ...lines.slice(700)])).toMatchObject({
      ...{ rows: 500, changed: 500, wrong: 1, stoppedAt: 501 },
      problems: [{ line: 701, message: 'is not valid JSON' }],
    })
    expect((await ids()).length).toBe(500)
    // The same again, mended: what is there already changes nothing.
    expect(await run(lines)).toMatchObject({ rows: 1_200, changed: 700, stoppedAt: undefined })
  })

  test('what only the database can refuse: the batch is undone, or the one line found', async () => {
    using folder = tempFolder()
    const { store, run, ids } = await setUp(folder.file('a.db'))
    await using _ = store
    const lines = Array.from({ length: 20 }, (_, at) => ({ ...row(at + 1), email: `${at % 19}@x` }))
    expect(await run(lines)).toMatchObject({
      ...{ rows: 0, wrong: 1, stoppedAt: 1 },
      problems: [
        {
          line: 1,
          message: 'such a row exists already: email is taken (in one of the lines 1 to 20)',
        },
      ],
    })
    expect(await ids()).toEqual([])
    expect(await run(lines, true)).toMatchObject({
      ...{ rows: 19, changed: 19, wrong: 1, stoppedAt: undefined },
      problems: [{ line: 20, message: 'such a row exists already: email is taken' }],
    })
    expect((await ids()).length).toBe(19)
  })

  test('counts wrong lines and names the first twenty; bytes that are no text are a wrong line', async () => {
    using folder = tempFolder()
    const { store, run, plan, collections } = await setUp(folder.file('a.db'))
    await using _ = store
    const { wrong, problems } = await run(
      Array.from({ length: 50 }, () => '{}'),
      true,
    )
    expect([wrong, problems.length]).toEqual([50, 20])
    const bytes = Buffer.from('{"id":1,"name":"\xff"}\n', 'latin1')
    const found = await importLines(collections, plan, bytes, { firstLine: 1, skipInvalid: true })
    expect(found.problems).toEqual([{ line: 1, message: 'is not valid UTF-8' }])
  })
})

test('export goes by the key over pages, each row once', async () => {
  using folder = tempFolder()
  const { store, plan, run } = await setUp(folder.file('a.db'))
  await using _ = store
  await run(Array.from({ length: 2_000 }, (_, at) => row(2 * at)))
  let text = ''
  for await (const page of exportRows(store.read, plan)) text += page.text
  const ids = text
    .trimEnd()
    .split('\n')
    .map((line) => (JSON.parse(line) as { id: number }).id)
  expect(ids).toEqual(Array.from({ length: 2_000 }, (_, at) => 2 * at))
})
