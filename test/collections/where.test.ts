import { describe, expect, test } from 'bun:test'
import { integer, real, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { drizzle } from 'drizzle-orm/sqlite-proxy'
import {
  and,
  eq,
  gt,
  gte,
  isNull,
  lt,
  lte,
  matches,
  ne,
  not,
  oneOf,
  or,
  toSql,
  type Where,
} from '../../src/collections/where.ts'
import { columnsOf, decodeRow } from '../../src/collections/columns.ts'
import { openStore, tempFolder } from '../harness.ts'
import { createRandom, type Random } from '../lib/random.ts'

const things = sqliteTable('things', {
  id: integer().primaryKey(),
  authorName: text('author_name'),
  score: real(),
  isPublic: integer({ mode: 'boolean' }).notNull(),
  at: integer({ mode: 'timestamp_ms' }),
})

const texts = ['', 'a', 'b', 'B', 'é', '\u{1f600}', '\uffee']
const numbers = [-1.5, 0, 1, 2.25, 1e9]
const dates = [0, 1_633_000_000_000, 1_700_000_000_000].map((ms) => new Date(ms))

function randomWhere(random: Random, depth: number): Where {
  if (depth > 0 && random.next() < 0.5) {
    const parts = Array.from({ length: random.below(3) }, () => randomWhere(random, depth - 1))
    const shape = random.below(3)
    if (shape === 2) return not(randomWhere(random, depth - 1))
    return shape === 0 ? and(...parts) : or(...parts)
  }
  const compare = random.pick([eq, ne, gt, gte, lt, lte])
  switch (random.below(6)) {
    case 0:
      return compare(things.authorName, random.pick([...texts, null]))
    case 1:
      return compare(things.score, random.pick([...numbers, undefined]))
    case 2:
      return eq(things.isPublic, random.pick([true, false]))
    case 3:
      return compare(things.at, random.pick(dates))
    case 4:
      return isNull(random.pick([things.authorName, things.score, things.at]))
    default:
      return oneOf(things.authorName, texts.slice(random.below(texts.length)))
  }
}

describe('where', () => {
  test('property: the SQL and the predicate agree on every row', async () => {
    const seed = Math.floor(Math.random() * 2 ** 31)
    const random = createRandom(seed)
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [things])
    const db = drizzle(() => Promise.resolve({ rows: [] }))
    const columns = columnsOf(things)
    const ops = Array.from({ length: 60 }, (_, id) => ({
      ...db
        .insert(things)
        .values({
          id,
          authorName: random.pick([...texts, null]),
          score: random.pick([...numbers, null]),
          isPublic: random.pick([true, false]),
          at: random.pick([...dates, null]),
        })
        .returning()
        .toSQL(),
      columns: [...columns.values()].map(({ name }) => name),
      table: 'things',
      keyAt: [0],
      op: 'create' as const,
    }))
    await store.write(ops)
    const rows = (await store.read(db.select().from(things).toSQL())).map((raw) =>
      decodeRow(columns, raw),
    )
    for (let round = 0; round < 300; round++) {
      const where = randomWhere(random, 3)
      const query = db.select({ id: things.id }).from(things).where(toSql(where)).orderBy(things.id)
      const bySql = (await store.read(query.toSQL())).map(([id]) => id)
      const byPredicate = rows.filter((row) => matches(where, row)).map(({ id }) => id)
      expect({ seed, round, ids: byPredicate }).toEqual({ seed, round, ids: bySql })
    }
  })

  test('an operand that is not there matches nothing', () => {
    const row = { id: 1, authorName: null, score: null, isPublic: true, at: null }
    expect(matches(eq(things.authorName, undefined), row)).toBe(false)
    expect(matches(ne(things.authorName, null), row)).toBe(false)
    expect(matches(or(eq(things.isPublic, true), eq(things.authorName, undefined)), row)).toBe(true)
  })
})
