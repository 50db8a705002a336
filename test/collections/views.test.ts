/** What hearing of a row gives is what reading it gives, for whatever rule and whatever row. */
import { describe, expect, test } from 'bun:test'
import { integer, real, sqliteTable, text, type SQLiteColumn } from 'drizzle-orm/sqlite-core'
import type { User } from '../../src/auth/declare.ts'
import { createViews, type CollectionPlan } from '../../src/collections/collections.ts'
import {
  and,
  collection,
  eq,
  gt,
  isNull,
  lte,
  ne,
  not,
  oneOf,
  or,
  type CollectionDeclaration,
  type Where,
} from '../../src/collections/declare.ts'
import { app } from '../../src/plan/declare.ts'
import { compilePlan } from '../../src/plan/plan.ts'
import { must } from '../../src/lib/assert.ts'
import { createTestLog, tempFolder } from '../harness.ts'
import { createRandom, type Random } from '../lib/random.ts'
import { jsonOf, openCollections, type Page } from './open.ts'

const things = sqliteTable('things', {
  id: integer().primaryKey(),
  owner: text(),
  at: integer({ mode: 'timestamp_ms' }),
  day: integer({ mode: 'timestamp' }).notNull(),
  price: real().notNull(),
  size: real(),
  isOpen: integer('is_open', { mode: 'boolean' }).notNull(),
  tags: text({ mode: 'json' }).$type<readonly string[]>(),
})

const owners = ['ann', 'bob', 'Ärger', '𐐷', '']
const dates = [new Date(0), new Date(1_700_000_000_000)]
const numbers = [-1, 0, 0.5, 3]

function condition(random: Random, depth = 0): Where {
  const [owner, date, number] = [random.pick(owners), random.pick(dates), random.pick(numbers)]
  const leaves: (() => Where)[] = [
    () => eq(things.owner, owner),
    () => ne(things.owner, owner),
    () => gt(things.owner, owner),
    () => oneOf(things.owner, [owner, 'bob']),
    () => lte(things.at, date),
    () => eq(things.day, date),
    () => gt(things.price, number),
    () => eq(things.size, number),
    () => eq(things.isOpen, random.below(2) === 0),
    () => isNull(random.pick<SQLiteColumn>([things.owner, things.at, things.size, things.tags])),
  ]
  if (depth > 2 || random.below(2) === 0) return random.pick(leaves)()
  const part = () => condition(random, depth + 1)
  return random.pick([() => not(part()), () => and(part(), part()), () => or(part(), part())])()
}

const ann: User = { id: 'ann' }
const textOf = (plan: CollectionPlan, row: unknown): string =>
  JSON.stringify({ collection: plan.path, op: 'update', id: '1', row, seq: 1 })

describe('live events', () => {
  test.each([1, 2, 3, 4, 5, 6])('property: as REST, seed %d', async (seed) => {
    using folder = tempFolder()
    const random = createRandom(seed)
    let [read, unless] = [condition(random), condition(random)]
    await using opened = await openCollections(folder, {
      things: collection(things, {
        create: 'public',
        read: () => read,
        hide: { tags: { unless: () => unless } },
      }),
      whole: collection(things, { read: 'public' }),
    })
    const { collections, planOf, plan } = opened
    const log = createTestLog()
    const views = createViews(plan.collections, log)
    const asked = planOf('things')
    for (let id = 1; id <= 30; id++) {
      await collections.create(asked, null, {
        id,
        owner: random.pick([...owners, null]),
        at: random.pick([...dates.map(Number), null]),
        day: Number(random.pick(dates)),
        price: random.pick(numbers),
        size: random.pick([...numbers, null]),
        isOpen: random.below(2) === 0,
        tags: random.pick([['a'], [], null]),
      })
    }
    const all: Page = jsonOf(await collections.list(planOf('whole'), null, 'limit=100'))
    for (let round = 0; round < 40; round++) {
      read = condition(random)
      unless = condition(random)
      const page: Page = jsonOf(await collections.list(asked, ann, 'limit=100'))
      const heard = all.items.flatMap((row) => {
        const seen = textOf(asked, row)
        const text = must(views.of(seen), () => 'by rule').lensOf(ann)?.(seen)
        return text === undefined ? [] : [(JSON.parse(text) as { row: unknown }).row]
      })
      expect(heard).toEqual([...page.items])
    }
    expect(log.lines).toEqual([])
  })

  test('what a text cannot say, or does not say, is shown to nobody who is judged by it', () => {
    const declared = collection(things, {
      read: () => not(gt(things.price, 1)),
      hide: { size: { unless: () => not(eq(things.size, 1)) } },
    })
    const plan = planIn({ things: declared })
    const lens = createViews([plan], createTestLog()).of(textOf(plan, {}))?.lensOf(ann)
    const row = {
      ...{ id: 1, owner: null, at: null, day: '1970-01-01T00:00:00.000Z' },
      ...{ price: 0, size: 0, isOpen: true, tags: null },
    }
    const seen = (one: unknown) => lens?.(textOf(plan, one))
    expect(seen(row)).toBe(textOf(plan, row))
    // An endless number is null in JSON.
    expect(seen({ ...row, price: null })).toBeUndefined()
    expect(seen({ ...row, price: undefined })).toBeUndefined()
    expect(seen(null)).toBeUndefined()
    expect(seen([])).toBeUndefined()
    const open = planIn({ things: collection(things, { ...declared.options, read: 'public' }) })
    const other = createViews([open], createTestLog()).of(textOf(open, {}))?.lensOf(ann)
    const of = (one: unknown) => JSON.parse(other?.(textOf(open, one)) ?? '{}').row as object
    expect(of(row)).toHaveProperty('size')
    expect(of({ ...row, price: null })).not.toHaveProperty('size')
  })

  test('only what `live` publishes is taken for a row', () => {
    const plan = planIn({ things: collection(things, { read: () => false }) })
    const views = createViews([plan], createTestLog())
    for (const text of [
      '"a text"',
      '{"collection":"things"}',
      '{"collection":"things","op":"sale","id":"1"}',
      '{"op":"update","collection":"things","id":"1","row":{}}',
      '{"collection":5,"op":"update","id":"1","row":{}}',
    ]) {
      expect(views.of(text)).toBeUndefined()
      expect(views.whole(text)).toBe(text)
    }
    expect(views.of(textOf(plan, {}))?.lensOf(ann)).toBeUndefined()
  })
})

function planIn(collections: Readonly<Record<string, CollectionDeclaration>>): CollectionPlan {
  return must(compilePlan(app({ name: 'a', collections })).collections[0], () => 'it is declared')
}
