import { describe, expect, test } from 'bun:test'
import { integer, real, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { createLoader } from '../../src/collections/collections.ts'
import { Fault } from '../../src/fault.ts'
import type { Query } from '../../src/store/store.ts'
import { faultOf, openStore, tempFolder } from '../harness.ts'

const users = sqliteTable('users', {
  id: integer().primaryKey(),
  name: text().notNull(),
  bornAt: integer('born_at', { mode: 'timestamp_ms' }),
  isAdmin: integer('is_admin', { mode: 'boolean' }).notNull().default(false),
})
const visits = sqliteTable('visits', {
  id: integer().primaryKey(),
  userId: integer('user_id').notNull(),
  share: real(),
})

type Tables = typeof users | typeof visits

async function openUsers(folder: ReturnType<typeof tempFolder>) {
  const store = await openStore(folder.file('a.db'), [users, visits])
  const insert = 'insert into users (id, name, born_at, is_admin) values (?, ?, ?, ?)'
  await store.write([
    { sql: insert, params: [1, 'Ann', 1_000, 1] },
    { sql: insert, params: [2, 'Ben', null, 0] },
    {
      sql: 'insert into visits (id, user_id, share) values (1, 1, 0.5), (2, 2, 5), (3, 1, null)',
      params: [],
    },
  ])
  const reads: Query[] = []
  let failure: Error | undefined
  const load = createLoader<Tables>({
    db: store.db,
    read: async (query) => {
      reads.push(query)
      if (failure) throw failure
      return await store.read(query)
    },
  })
  const fail = (thrown: Error | undefined) => (failure = thrown)
  return { load, reads, fail, [Symbol.asyncDispose]: async () => await store.stop() }
}

const ann = { id: 1, name: 'Ann', bornAt: new Date(1_000), isAdmin: true }
const ben = { id: 2, name: 'Ben', bornAt: null, isAdmin: false }

describe('load', () => {
  test('what is asked in one tick is one query per column, each value once', async () => {
    using folder = tempFolder()
    await using opened = await openUsers(folder)
    const { load, reads } = opened
    const found = await Promise.all([
      load.one(users.id, 1),
      load.one(users.id, 2),
      load.one(users.id, 1),
      load.one(users.id, 9),
      load.one(users.bornAt, new Date(1_000)),
      load.one(users.isAdmin, false),
      load.many(visits.userId, 1),
      load.many(visits.userId, 9),
      load.many(visits.share, 5),
    ])
    expect(found).toEqual([
      ann,
      ben,
      ann,
      undefined,
      ann,
      ben,
      [
        { id: 1, userId: 1, share: 0.5 },
        { id: 3, userId: 1, share: null },
      ],
      [],
      [{ id: 2, userId: 2, share: 5 }],
    ])
    expect(reads.length).toBe(5)
    // Rows of one's own.
    expect(found[0]).not.toBe(found[2] as never)
  })

  test('rows have their types', async () => {
    using folder = tempFolder()
    await using opened = await openUsers(folder)
    const user: typeof users.$inferSelect | undefined = await opened.load.one(users.id, 1)
    const name: string | undefined = user?.name
    const shares: (number | null)[] = (await opened.load.many(visits.userId, 1)).map(
      ({ share }) => share,
    )
    expect([name, shares]).toEqual(['Ann', [0.5, null]])
    // @ts-expect-error no text is an id
    expect(await opened.load.one(users.id, 'x')).toBeUndefined()
    // @ts-expect-error a user has no colour
    expect((await opened.load.one(users.id, 1))?.colour).toBeUndefined()
  })

  test('chains of promises share their steps, though some are longer', async () => {
    using folder = tempFolder()
    await using opened = await openUsers(folder)
    const { load, reads } = opened
    const visitOf = async (id: number) => await load.one(visits.id, id)
    const near = async (id: number) => {
      const visit = await load.one(visits.id, id)
      return await load.one(users.id, visit?.userId)
    }
    const far = async (id: number) => {
      const visit = await visitOf(id)
      return await load.one(users.id, visit?.userId)
    }
    const names = await Promise.all([near(1), far(2), near(3)])
    expect(names.map((one) => one?.name)).toEqual(['Ann', 'Ben', 'Ann'])
    expect(reads.length).toBe(2)
  })

  test('nothing is null, nothing is asked for it, and nothing is remembered', async () => {
    using folder = tempFolder()
    await using opened = await openUsers(folder)
    const { load, reads } = opened
    expect(await load.one(users.bornAt, null)).toBeUndefined()
    expect(await load.many(users.bornAt, undefined)).toEqual([])
    expect(reads).toEqual([])
    await load.one(users.id, 1)
    await load.one(users.id, 1)
    expect(reads.length).toBe(2)
  })

  test('1,200 values are three statements, and few distinct texts', async () => {
    using folder = tempFolder()
    await using opened = await openUsers(folder)
    const { load, reads } = opened
    const ids = Array.from({ length: 1_200 }, (_, id) => id)
    const found = await Promise.all(ids.map((id) => load.one(users.id, id)))
    expect(found.filter((one) => one !== undefined)).toEqual([ann, ben])
    expect(reads.map(({ params }) => params.length - 1)).toEqual([500, 500, 256])
    reads.length = 0
    for (const count of [5, 6, 7, 8]) {
      await Promise.all(ids.slice(0, count).map((id) => load.one(users.id, id)))
    }
    expect(new Set(reads.map(({ sql }) => sql)).size).toBe(1)
  })

  test('a failure reaches everybody who waits, and the next are served', async () => {
    using folder = tempFolder()
    await using opened = await openUsers(folder)
    const { load, fail } = opened
    fail(new Fault('unavailable', 'the store is away'))
    const asked = [load.one(users.id, 1), load.many(users.id, 1), load.one(users.id, 2)]
    const faults = await Promise.all(asked.map((one) => faultOf(() => one)))
    expect(faults.map(({ message }) => message)).toEqual(Array(3).fill('the store is away'))
    fail(undefined)
    expect(await load.one(users.id, 1)).toEqual(ann)
  })

  test('more than 10,000 rows are refused', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [visits])
    const rows =
      'with recursive n(i) as (select 1 union all select i + 1 from n where i < 10001) insert into visits (id, user_id) select i, 7 from n'
    await store.write([{ sql: rows, params: [] }])
    const load = createLoader<typeof visits>(store)
    expect((await faultOf(() => load.many(visits.userId, 7))).code).toBe('too_large')
  })
})
