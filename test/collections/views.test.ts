/** What hearing of a row gives is what reading it gives, for whatever rule and whatever row. */
import { describe, expect, test } from 'bun:test'
import { integer, real, sqliteTable, text, type SQLiteColumn } from 'drizzle-orm/sqlite-core'
import type { User } from '../../src/auth/declare.ts'
import {
  createViews,
  type CollectionPlan,
  type LiveEvent,
} from '../../src/collections/collections.ts'
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
import { topic } from '../../src/realtime/declare.ts'
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

/** Of one row, but for its id. */
function drawn(random: Random): Record<string, unknown> {
  return {
    owner: random.pick([...owners, null]),
    at: random.pick([...dates.map(Number), null]),
    day: Number(random.pick(dates)),
    price: random.pick(numbers),
    size: random.pick([...numbers, null]),
    isOpen: random.below(2) === 0,
    tags: random.pick([['a'], [], null]),
  }
}

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
      await collections.create(asked, null, { id, ...drawn(random) })
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

  test.each([1, 2, 3, 4, 5, 6])(
    'property: who hears all has what REST gives, seed %d',
    async (seed) => {
      using folder = tempFolder()
      const random = createRandom(100 + seed)
      let read = condition(random)
      const open = { create: 'public', update: 'public', remove: 'public' } as const
      const declared = collection(things, { ...open, read: () => read, live: () => 'things' })
      const topics = { things: topic({ subscribe: 'public' }) }
      await using opened = await openCollections(folder, { things: declared }, undefined, topics)
      const { collections, store, planOf, plan, published } = opened
      store.onChange(collections.changed)
      const log = createTestLog()
      const views = createViews(plan.collections, log)
      const asked = planOf('things')
      const some = (): Record<string, unknown> =>
        Object.fromEntries(Object.entries(drawn(random)).filter(() => random.below(3) === 0))
      let left = 0
      for (let round = 0; round < 6; round++) {
        read = condition(random)
        const first: Page = jsonOf(await collections.list(asked, ann, 'limit=100'))
        const known = new Map(first.items.map((row) => [String(row['id']), row]))
        published.length = 0
        for (let n = 0; n < 40; n++) {
          const id = 1 + random.below(12)
          const [here] = await store.read({
            sql: 'select 1 from things where id = ?',
            params: [id],
          })
          // A row that nobody may read is changed all the same.
          const rule = read
          read = eq(things.id, id)
          if (!here) await collections.create(asked, ann, { id, ...drawn(random) })
          else if (random.below(8) === 0) await collections.remove(asked, ann, String(id))
          else
            await collections.update(asked, ann, String(id), {
              owner: random.pick(owners),
              ...some(),
            })
          read = rule
        }
        for (const event of published) {
          const text = JSON.stringify(event)
          const view = must(views.of(text), () => 'by rule')
          const heard = view.lensOf(ann)?.(text)
          expect(views.whole(text)).not.toContain('"was"')
          if (heard === undefined) continue
          expect(heard).not.toContain('"was"')
          const { op, id, row } = JSON.parse(heard) as LiveEvent
          if (op === 'remove' && event.op === 'update') {
            left += 1
            expect(known.has(id)).toBe(true)
            expect(JSON.parse(heard)).toEqual({
              ...event,
              op,
              row: { id: Number(id) },
              was: undefined,
            })
          }
          if (op === 'remove') known.delete(id)
          else known.set(id, row)
        }
        const page: Page = jsonOf(await collections.list(asked, ann, 'limit=100'))
        const byId = (a: Page['items'][number], b: Page['items'][number]) =>
          Number(a['id']) - Number(b['id'])
        expect([...known.values()].toSorted(byId)).toEqual([...page.items].toSorted(byId))
      }
      expect(left).toBeGreaterThan(0)
      expect(log.lines).toEqual([])
    },
  )

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

  test('that a row is gone is told to who surely saw it, and what it was to nobody', () => {
    const plan = planIn({ things: collection(things, { read: () => eq(things.owner, 'ann') }) })
    const row = {
      ...{ id: 1, owner: 'bob', at: null, day: '1970-01-01T00:00:00.000Z' },
      ...{ price: 0, size: 0, isOpen: true, tags: null },
    }
    const told = (now: object, was?: object) =>
      JSON.stringify({ ...JSON.parse(textOf(plan, { ...row, ...now })), was })
    const views = createViews([plan], createTestLog())
    const seen = (now: object, was?: object) => {
      const text = told(now, was)
      return views.of(text)?.lensOf(ann)?.(text)
    }
    const gone = JSON.stringify({ ...JSON.parse(textOf(plan, { id: 1 })), op: 'remove' })
    expect(seen({}, { owner: 'ann', price: 3 })).toBe(gone)
    expect(seen({}, { owner: 'eve' })).toBeUndefined()
    expect(seen({}, { price: 3 })).toBeUndefined()
    expect(seen({})).toBeUndefined()
    // A number without an end, or no number at all.
    expect(seen({}, { owner: 'ann', price: null })).toBeUndefined()
    expect(seen({ owner: 'ann' }, { owner: 'bob' })).toBe(textOf(plan, { ...row, owner: 'ann' }))
    // What was kept before the rule was for all.
    const open = createViews(
      [planIn({ things: collection(things, { read: 'public' }) })],
      createTestLog(),
    )
    const kept = told({}, { owner: 'ann' })
    expect(open.of(kept)?.lensOf(null)?.(kept)).toBe(textOf(plan, row))
    expect(open.of(textOf(plan, row))).toBeUndefined()
    expect([open.whole(kept), views.whole(kept)]).toEqual([textOf(plan, row), textOf(plan, row)])
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
