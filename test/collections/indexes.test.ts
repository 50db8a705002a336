import { describe, expect, test } from 'bun:test'
import { sql } from 'drizzle-orm'
import {
  index,
  integer,
  primaryKey,
  sqliteTable,
  text,
  type SQLiteColumn,
} from 'drizzle-orm/sqlite-core'
import energy from '../../src/apps/energy.ts'
import exams from '../../src/apps/exams.ts'
import { checkIndexes } from '../../src/collections/collections.ts'
import {
  and,
  asc,
  collection,
  desc,
  eq,
  gt,
  or,
  type CollectionDeclaration,
} from '../../src/collections/declare.ts'
import { app } from '../../src/plan/declare.ts'
import { compilePlan } from '../../src/plan/plan.ts'
import { openStore, tempFolder, until } from '../harness.ts'
import { createRandom } from '../lib/random.ts'
import { runServer } from '../server.ts'

const read = { read: 'public' } as const

async function adviceFor(collections: Readonly<Record<string, CollectionDeclaration>>) {
  using folder = tempFolder()
  const plan = compilePlan(app({ name: 'test', collections }))
  await using store = await openStore(folder.file('a.db'), plan.tables)
  return await checkIndexes({ store }, plan.collections)
}

const columns = {
  id: integer().primaryKey(),
  board: integer('board_id').notNull(),
  author: text({ length: 9 }).notNull(),
  at: integer({ mode: 'timestamp_ms' }).notNull(),
}

describe('an index that is missing is advised', () => {
  const posts = sqliteTable('posts', columns)

  test('for an order, and for each filter with it; one index for several sets of filters', async () => {
    const advice = await adviceFor({
      posts: collection(posts, {
        ...read,
        filters: ['board', 'author'],
        orders: { newest: desc(posts.at) },
      }),
    })
    expect(advice).toEqual([
      { table: 'posts', add: "index('posts_at').on(t.at)", serves: ['posts: order newest'] },
      {
        table: 'posts',
        add: "index('posts_board_id_at').on(t.board, t.at)",
        serves: [
          'posts: order newest, filtered by board',
          'posts: order newest, filtered by board, author',
        ],
      },
      {
        table: 'posts',
        add: "index('posts_author_at').on(t.author, t.at)",
        serves: ['posts: order newest, filtered by author'],
      },
    ])
  })

  test('not where there is one, in either direction, or where the key is one', async () => {
    const served = sqliteTable('posts', columns, (t) => [
      index('a').on(t.at),
      index('b').on(t.board, t.at),
      index('c').on(t.author, t.at),
    ])
    const keyed = sqliteTable(
      'keyed',
      { region: text().notNull(), at: integer().notNull() },
      (t) => [primaryKey({ columns: [t.region, t.at] }), index('keyed_at').on(t.at, t.region)],
    )
    const advice = await adviceFor({
      posts: collection(served, {
        ...read,
        filters: ['board', 'author'],
        orders: { newest: desc(served.at), oldest: asc(served.at) },
      }),
      plain: collection(served, read),
      keyed: collection(keyed, {
        ...read,
        filters: ['region'],
        orders: { newest: desc(keyed.at), key: [asc(keyed.region), asc(keyed.at)] },
      }),
    })
    expect(advice).toEqual([])
  })

  test('once for two collections and two orders that it serves, and says so', async () => {
    const advice = await adviceFor({
      one: collection(posts, {
        ...read,
        orders: { newest: desc(posts.at), oldest: asc(posts.at) },
      }),
      two: collection(posts, { ...read, orders: { all: asc(posts.at) } }),
    })
    expect(advice.map(({ add, serves }) => [add, serves])).toEqual([
      ["index('posts_at').on(t.at)", ['one: order newest', 'one: order oldest', 'two: order all']],
    ])
  })

  test('for children: the column that holds the parent is a filter of theirs', async () => {
    const boards = sqliteTable('boards', { id: integer().primaryKey() })
    const advice = await adviceFor({
      boards: collection(boards, { ...read, children: { posts: posts.board } }),
      posts: collection(posts, { ...read, filters: ['author'] }),
    })
    expect(advice.map(({ add, serves }) => [add, serves])).toEqual([
      [
        "index('posts_author').on(t.author)",
        ['posts: order key, filtered by author', 'posts: order key, filtered by board, author'],
      ],
      ["index('posts_board_id').on(t.board)", ['posts: order key, filtered by board']],
    ])
  })

  test('with directions where they differ, and under a name that is free', async () => {
    const taken = sqliteTable('posts', columns, (t) => [index('posts_at_author').on(t.board)])
    const advice = await adviceFor({
      posts: collection(taken, { ...read, orders: { mixed: [desc(taken.at), asc(taken.author)] } }),
    })
    expect(advice.map(({ add }) => add)).toEqual([
      "index('posts_at_author_2').on(sql`${t.at} desc`, t.author)",
    ])
  })
})

/** The line that is advised, as what it says. */
function indexOf(line: string, t: Readonly<Record<string, SQLiteColumn>>) {
  const name = /^index\('(\w+)'\)/.exec(line)?.[1] ?? ''
  const [first, ...rest] = [...line.matchAll(/t\.(\w+)(\} desc)?/g)].map(
    ([, column = '', isDown]) => (isDown ? sql`${t[column]} desc` : t[column]),
  ) as [SQLiteColumn, ...SQLiteColumn[]]
  return index(name).on(first, ...rest)
}

test('property: with what is advised there is nothing more to advise', async () => {
  const seed = Math.floor(Math.random() * 2 ** 31)
  const random = createRandom(seed)
  const names = ['a', 'b', 'c', 'd', 'e', 'f', 'g'] as const
  const table = (lines: readonly string[]) =>
    sqliteTable(
      'things',
      {
        id: integer().primaryKey(),
        ...{ a: integer().notNull(), b: integer().notNull(), c: integer().notNull() },
        ...{ d: integer().notNull(), e: integer().notNull(), f: integer().notNull() },
        g: integer().notNull(),
      },
      (t) => lines.map((line) => indexOf(line, t)),
    )
  for (let round = 0; round < 6; round++) {
    const filters = names.filter(() => random.next() < (round === 0 ? 1 : 0.4))
    const orders = Array.from({ length: 1 + random.below(3) }, () =>
      Array.from({ length: 1 + random.below(3) }, () => ({
        by: random.pick(names),
        descending: random.next() < 0.5,
      })),
    )
    const declare = (lines: readonly string[]) => {
      const things = table(lines)
      const named = orders.map((parts, at) => [
        `o${at}`,
        parts.map(({ by, descending }) => (descending ? desc(things[by]) : asc(things[by]))),
      ])
      return { things: collection(things, { ...read, filters, orders: Object.fromEntries(named) }) }
    }
    const lines = (await adviceFor(declare([]))).map(({ add }) => add)
    const what = { seed, round, filters, orders, lines }
    expect({ ...what, left: await adviceFor(declare(lines)) }).toEqual({ ...what, left: [] })
  }
})

test('what a read rule pins is a filter that is always there', async () => {
  const cards = sqliteTable('cards', columns, (t) => [
    index('cards_author_at').on(t.author, t.at),
    index('cards_author_board_at').on(t.author, t.board, t.at),
  ])
  const lists = { filters: ['board'], orders: { newest: desc(cards.at) } } as const
  const own = collection(cards, { ...lists, read: ({ user }) => user && eq(cards.author, user.id) })
  expect(await adviceFor({ cards: own })).toEqual([])
  const some = collection(cards, {
    ...lists,
    read: ({ user }) => and(eq(cards.board, Number(user?.id)), gt(cards.id, 0)),
  })
  expect(await adviceFor({ cards: some })).toEqual([
    {
      table: 'cards',
      add: "index('cards_board_id_at').on(t.board, t.at)",
      serves: ['cards: order newest, filtered by board'],
    },
  ])
  // Of others nothing is taken for granted: what is seen by more than the one, or by nobody known.
  for (const read of [
    () => or(eq(cards.author, '1'), eq(cards.board, 1)),
    () => false,
    () => {
      throw new Error('wants more of a user')
    },
  ]) {
    expect(await adviceFor({ cards: collection(cards, { ...lists, read }) })).toHaveLength(2)
  }
})

test('the exams app lacks none', async () => {
  const plan = compilePlan(exams)
  using folder = tempFolder()
  await using store = await openStore(folder.file('exams.db'), plan.tables)
  expect(await checkIndexes({ store }, plan.collections)).toEqual([])
})

test('the energy app lacks none', async () => {
  using folder = tempFolder()
  const { tables, collections } = compilePlan(energy)
  await using store = await openStore(folder.file('a.db'), tables)
  expect(await checkIndexes({ store }, collections)).toEqual([])
})

test('a server says at start what is missing, once', async () => {
  const posts = sqliteTable('posts', columns)
  using folder = tempFolder()
  const collections = { posts: collection(posts, { ...read, orders: { newest: desc(posts.at) } }) }
  await using server = await runServer({ app: { collections }, folder })
  const has = (event: string) => server.log.lines.some((line) => line.event === event)
  await until(() => has('collections.indexes_checked'), 'the lists are checked')
  expect(server.log.lines.filter(({ event }) => event === 'collections.index_missing')).toEqual([
    {
      level: 'warn',
      event: 'collections.index_missing',
      fields: {
        table: 'posts',
        add: "index('posts_at').on(t.at)",
        serves: ['posts: order newest'],
      },
    },
  ])
})
