import { describe, expect, test } from 'bun:test'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { createCache } from '../../src/cache/cache.ts'
import { createCollections, type LiveEvent } from '../../src/collections/collections.ts'
import { collection } from '../../src/collections/declare.ts'
import { must } from '../../src/lib/assert.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { app } from '../../src/plan/declare.ts'
import { compilePlan } from '../../src/plan/plan.ts'
import { faultOf, createTestLog, openStore, tempFolder } from '../harness.ts'
import { alice, at, jsonOf, setUp, type Page } from './setup.ts'

describe('live', () => {
  test('a change is published after the cache was told; unchanged rows are neither written nor published', async () => {
    using folder = tempFolder()
    const { store, collections, spot: plan, published } = await setUp(folder)
    await using _ = store
    const rows = [
      { region: 'NSW1', at: new Date(at(0)), price: 1 },
      { region: 'VIC1', at: at(0), price: 2 },
    ]
    expect((await collections.upsert([{ plan, rows }])).length).toBe(2)
    expect((await collections.upsert([{ plan, rows }])).length).toBe(0)
    expect(await collections.upsert([{ plan, rows: [{ ...rows[0], price: 3 }] }])).toMatchObject([
      { op: 'update' },
    ])
    expect(published.map(({ topic }) => topic)).toEqual([
      'prices:NSW1',
      'prices:VIC1',
      'prices:NSW1',
    ])
    expect(JSON.parse(JSON.stringify(published[2]?.data))).toEqual({
      collection: 'prices/live',
      op: 'update',
      id: `NSW1,${at(0)}`,
      row: { region: 'NSW1', at: at(0), price: 3 },
      seq: 3,
    })
  })

  test('rows of a feed may give different columns; what is not given keeps its value, or its default', async () => {
    const items = sqliteTable('items', {
      id: integer().primaryKey(),
      name: text().notNull().default('?'),
      note: text(),
      at: integer({ mode: 'timestamp_ms' }),
      uid: text()
        .notNull()
        .$defaultFn(() => crypto.randomUUID()),
      tags: text({ mode: 'json' }),
    })
    using folder = tempFolder()
    const plan = must(
      compilePlan(
        app({ name: 'items', collections: { items: collection(items, { read: 'public' }) } }),
      ).collections[0],
      () => 'declared',
    )
    await using store = await openStore(folder.file('a.db'), [items])
    const cache = createCache({ clock: systemClock })
    const topics = { publish: () => {}, audienceOf: () => 'public' as const }
    const collections = createCollections(
      { store, cache, topics, log: createTestLog(), cursorKey: () => new Uint8Array(32) },
      [plan],
    )
    const upsert = (...rows: Record<string, unknown>[]) => collections.upsert([{ plan, rows }])
    await upsert({ id: 1, name: 'a' }, { id: 2, at: null, tags: ['x'] }, { id: 3, at: at(3) })
    await upsert({ id: 1, note: 'n' }, { id: 2, at: at(2) }, { id: 3, at: null })
    store.onChange(({ seq, tags }) => cache.apply(seq, tags))
    const page: Page = jsonOf(await collections.list(plan, null, ''))
    expect(page.items).toMatchObject([
      { id: 1, name: 'a', note: 'n', at: null, tags: null },
      { id: 2, name: '?', note: null, at: at(2), tags: ['x'] },
      { id: 3, name: '?', note: null, at: null, tags: null },
    ])
    expect(new Set(page.items.map(({ uid }) => uid)).size).toBe(3)
    // A tick that brings nothing new changes nothing, whatever Drizzle would make up meanwhile.
    const again = await upsert({ id: 1, note: 'n' }, { id: 2, at: at(2) }, { id: 3, at: null })
    expect(again).toEqual([])
  })

  test('one bad row of a feed leaves none of them', async () => {
    using folder = tempFolder()
    const { store, collections, spot: plan } = await setUp(folder)
    await using _ = store
    const rows = [
      { region: 'NSW1', at: at(0), price: 1 },
      { region: 'VIC1', at: at(0) },
    ]
    const fault = await faultOf(() => collections.upsert([{ plan, rows }]))
    expect(fault.message).toBe('a row for prices/live is not valid: price is required')
    const page: Page = jsonOf(await collections.list(plan, null, ''))
    expect(page.items).toEqual([])
  })

  test('a row with several topics is published on each of them', async () => {
    using folder = tempFolder()
    const {
      store,
      collections,
      spot: plan,
      published,
    } = await setUp(folder, {
      spot: { live: ({ region }) => [`prices:${region}`, 'prices:all'] },
    })
    await using _ = store
    await collections.create(plan, alice, { region: 'NSW1', at: at(0), price: 1 })
    expect(published.map(({ topic }) => topic)).toEqual(['prices:NSW1', 'prices:all'])
    expect(published[1]?.data).toEqual(published[0]?.data)
  })

  test('a row that leaves a topic is gone there, as it was', async () => {
    using folder = tempFolder()
    const opened = await setUp(folder, {
      posts: {
        live: ({ title, isPublic }) => (isPublic ? ['posts:open', `posts:${title}`] : null),
      },
    })
    const { store, collections, posts: plan, published } = opened
    await using _ = store
    await collections.create(plan, alice, { title: 'one', isPublic: true })
    const id = '1'
    for (const change of [{ title: 'two' }, { isPublic: false }, { title: 'three' }]) {
      await collections.update(plan, alice, id, change)
    }
    await collections.update(plan, alice, id, { isPublic: true })
    const told = published.map(({ topic, data }) => {
      const { op, row, seq } = data as LiveEvent
      return [seq, op, topic, row['title'], row['isPublic']]
    })
    expect(told).toEqual([
      [1, 'create', 'posts:open', 'one', true],
      [1, 'create', 'posts:one', 'one', true],
      [2, 'remove', 'posts:one', 'one', true],
      [2, 'update', 'posts:open', 'two', true],
      [2, 'update', 'posts:two', 'two', true],
      [3, 'remove', 'posts:open', 'two', true],
      [3, 'remove', 'posts:two', 'two', true],
      [5, 'update', 'posts:open', 'three', true],
      [5, 'update', 'posts:three', 'three', true],
    ])
  })

  test('a row goes out on its topics whoever may read it: that is judged for each hearer', async () => {
    using folder = tempFolder()
    const {
      store,
      collections,
      posts: plan,
      published,
    } = await setUp(folder, { posts: { live: ({ id }) => [`posts:${id}`, 'posts:own'] } })
    await using _ = store
    await collections.create(plan, alice, { title: 'private' })
    await collections.create(plan, alice, { title: 'open', isPublic: true })
    expect(published.map(({ topic }) => topic)).toEqual([
      ...['posts:1', 'posts:own', 'posts:2', 'posts:own'],
    ])
  })

  test('what is hidden from everybody goes out only where a rule may ask for it', async () => {
    for (const [read, isThere] of [
      ['signed-in', false],
      [() => true, true],
    ] as const) {
      using folder = tempFolder()
      const posts = { read, hide: { title: true } } as const
      const opened = await setUp(folder, { posts })
      await using _ = opened.store
      await opened.collections.create(opened.posts, alice, { title: 'secret' })
      const [event] = opened.published
      expect(JSON.stringify(event).includes('secret')).toBe(isThere)
    }
  })
})
