import { describe, expect, test } from 'bun:test'
import { integer, primaryKey, real, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import type { User } from '../../src/auth/declare.ts'
import { createCache, type CacheRead } from '../../src/cache/cache.ts'
import {
  createCollections,
  type CollectionPlan,
  type CollectionsDeps,
} from '../../src/collections/collections.ts'
import { collection, desc, eq, or, type CollectionOptions } from '../../src/collections/declare.ts'
import { Fault } from '../../src/fault.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { must } from '../../src/lib/assert.ts'
import { app } from '../../src/plan/declare.ts'
import { compilePlan } from '../../src/plan/plan.ts'
import { createTestLog, openStore, tempFolder } from '../harness.ts'
import { createRandom } from '../lib/random.ts'

const spot = sqliteTable(
  'spot',
  {
    region: text().notNull(),
    at: integer({ mode: 'timestamp_ms' }).notNull(),
    price: real().notNull(),
  },
  (t) => [primaryKey({ columns: [t.region, t.at] })],
)

const posts = sqliteTable('posts', {
  id: integer().primaryKey({ autoIncrement: true }),
  authorId: text('author_id').notNull(),
  title: text({ length: 20 }).notNull(),
  isPublic: integer('is_public', { mode: 'boolean' }).notNull().default(false),
})

type Audience = ReturnType<CollectionsDeps['topics']['audienceOf']>

async function setUp(
  folder: ReturnType<typeof tempFolder>,
  options: {
    readonly spot?: Partial<CollectionOptions<typeof spot>>
    readonly posts?: Partial<CollectionOptions<typeof posts>>
    readonly audience?: Audience
  } = {},
) {
  const plan = compilePlan(
    app({
      name: 'test',
      collections: {
        'prices/live': collection(spot, {
          read: 'public',
          create: 'public',
          update: 'public',
          remove: 'public',
          filters: ['region'],
          orders: { newest: desc(spot.at), price: [desc(spot.price)] },
          live: (row) => `prices:${row.region}`,
          ...options.spot,
        }),
        posts: collection(posts, {
          read: ({ user }) => or(eq(posts.isPublic, true), eq(posts.authorId, user?.id)),
          create: ({ user }) => user && { authorId: user.id },
          update: ({ user, row }) => row.authorId === user?.id,
          remove: ({ user, row }) => row.authorId === user?.id,
          live: (row) => `posts:${row.id}`,
          ...options.posts,
        }),
      },
    }),
  )
  const store = await openStore(folder.file('a.db'), plan.tables)
  const cache = createCache({ clock: systemClock })
  const published: { topic: string; data: unknown }[] = []
  /** What a reader thread brings waits here, so that a test decides what happens meanwhile. */
  const hold = { until: Promise.resolve() }
  const collections = createCollections(
    {
      store: {
        write: store.write,
        db: store.db,
        read: async (query) => {
          const rows = await store.read(query)
          await hold.until
          return rows
        },
      },
      cache,
      topics: {
        publish: (topic, data) => void published.push({ topic, data }),
        audienceOf: () => options.audience ?? 'public',
      },
      log: createTestLog(),
    },
    plan.collections,
  )
  store.onChange(({ seq, tags }) => cache.apply(seq, tags))
  store.onChange((change) => collections.changed(change))
  const planOf = (path: string): CollectionPlan =>
    must(
      plan.collections.find((one) => one.path === path),
      () => path,
    )
  return {
    store,
    cache,
    collections,
    published,
    hold,
    spot: planOf('prices/live'),
    posts: planOf('posts'),
  }
}

const jsonOf = (read: CacheRead): never =>
  JSON.parse(new TextDecoder().decode(read.entry.body)) as never

interface Page {
  items: Record<string, unknown>[]
  next: string | null
  prev: string | null
}

async function faultOf(run: () => unknown): Promise<Fault> {
  try {
    await run()
  } catch (thrown) {
    if (thrown instanceof Fault) return thrown
    throw thrown
  }
  throw new Error('nothing was thrown')
}

const at = (minutes: number): string => new Date(Date.UTC(2021, 9, 6, 5, minutes)).toISOString()
const alice: User = { id: 'alice' }
const bob: User = { id: 'bob' }

describe('lists', () => {
  test('property: pages both ways give every row once, in order, for any page size', async () => {
    const random = createRandom(7)
    using folder = tempFolder()
    const { store, collections, spot: plan } = await setUp(folder)
    await using _ = store
    const rows = Array.from({ length: 53 }, (_, n) => ({
      region: n % 2 ? 'NSW1' : 'VIC1',
      at: at(n >> 1),
      // Equal prices, so that the tie-break decides.
      price: random.below(4),
    }))
    await collections.upsert([{ plan, rows }])
    for (const order of ['newest', 'price']) {
      for (const limit of [1, 7, 53, 100]) {
        const page = async (cursor: string): Promise<Page> =>
          jsonOf(await collections.list(plan, null, `order=${order}&limit=${limit}${cursor}`))
        const forward: unknown[] = []
        let last = await page('')
        expect(last.prev).toBeNull()
        forward.push(...last.items)
        while (last.next !== null) {
          last = await page(`&after=${last.next}`)
          forward.push(...last.items)
        }
        const backward: unknown[] = [...last.items]
        while (last.prev !== null) {
          last = await page(`&before=${last.prev}`)
          backward.unshift(...last.items)
        }
        expect(forward.length).toBe(53)
        expect(new Set(forward.map((row) => JSON.stringify(row))).size).toBe(53)
        expect(backward).toEqual(forward)
      }
    }
  })

  test('filters narrow, and another spelling of the same question is the same entry', async () => {
    using folder = tempFolder()
    const { store, collections, spot: plan } = await setUp(folder)
    await using _ = store
    await collections.create(plan, null, { region: 'NSW1', at: at(0), price: 1 })
    await collections.create(plan, null, { region: 'VIC1', at: at(0), price: 2 })
    const one: Page = jsonOf(await collections.list(plan, null, 'region=NSW1&limit=5'))
    expect(one.items).toEqual([{ region: 'NSW1', at: at(0), price: 1 }])
    const same = await collections.list(plan, null, 'limit=5&order=newest&region=%4eSW1')
    expect(same.state).toBe('hit')
  })

  test('every wrong parameter is named, none is ignored', async () => {
    using folder = tempFolder()
    const { store, collections, spot: plan } = await setUp(folder)
    await using _ = store
    const fault = await faultOf(() =>
      collections.list(
        plan,
        null,
        'limit=101&order=best&page=2&region=a&region=b&after=x&before=y',
      ),
    )
    expect(fault.fields?.map(({ field }) => field).toSorted()).toEqual([
      'after',
      'before',
      'limit',
      'order',
      'page',
      'region',
    ])
  })

  test('a cursor of another order, or a made-up one, is refused', async () => {
    using folder = tempFolder()
    const { store, collections, spot: plan } = await setUp(folder)
    await using _ = store
    for (const n of [1, 2])
      await collections.create(plan, null, { region: 'A', at: at(n), price: n })
    const { next }: Page = jsonOf(await collections.list(plan, null, 'limit=1'))
    for (const cursor of [
      next,
      'bm90IG91cnM',
      Buffer.from('["price",{},1,1]').toString('base64url'),
    ]) {
      const fault = await faultOf(() => collections.list(plan, null, `order=price&after=${cursor}`))
      expect(fault.fields?.[0]?.field).toBe('after')
    }
  })
})

describe('rows', () => {
  test('are found by a composite id, created, changed and removed', async () => {
    using folder = tempFolder()
    const { store, collections, spot: plan } = await setUp(folder)
    await using _ = store
    const created = await collections.create(plan, null, { region: 'NSW1', at: at(0), price: 1 })
    expect(created).toMatchObject({ id: `NSW1,${at(0)}`, seq: 1 })
    const read = await collections.read(plan, null, created.id)
    expect(jsonOf(read)).toEqual({ region: 'NSW1', at: at(0), price: 1 } as never)
    await collections.update(plan, null, created.id, { price: 2 })
    expect(jsonOf(await collections.read(plan, null, created.id))).toMatchObject({ price: 2 })
    await collections.remove(plan, null, created.id)
    expect((await faultOf(() => collections.read(plan, null, created.id))).code).toBe('not_found')
  })

  test('every wrong field is named and nothing is written', async () => {
    using folder = tempFolder()
    const { store, collections, posts: plan } = await setUp(folder)
    await using _ = store
    const body = { title: 'x'.repeat(21), isPublic: 'yes', id: 1.5, nope: 1, __proto__: null }
    const fault = await faultOf(() => collections.create(plan, alice, body))
    expect(fault.fields).toEqual([
      { field: 'title', message: 'must be at most 20 characters' },
      { field: 'isPublic', message: 'must be true or false' },
      { field: 'id', message: 'must be an integer below 2^53' },
      { field: 'nope', message: 'is not a column' },
    ])
    const missing = await faultOf(() => collections.create(plan, alice, {}))
    expect(missing.fields).toEqual([{ field: 'title', message: 'is required' }])
    for (const body of [null, [], 'x', 1]) {
      expect((await faultOf(() => collections.create(plan, alice, body))).code).toBe('invalid')
    }
    expect(store.stats().writes).toBe(0)
  })

  test('a forced value wins over what the client sends', async () => {
    using folder = tempFolder()
    const { store, collections, posts: plan } = await setUp(folder)
    await using _ = store
    const { row } = await collections.create(plan, alice, { title: 'hi', authorId: 'mallory' })
    expect(row).toEqual({ id: 1, authorId: 'alice', title: 'hi', isPublic: false })
  })

  test('a row that is taken is a conflict', async () => {
    using folder = tempFolder()
    const { store, collections, spot: plan } = await setUp(folder)
    await using _ = store
    const body = { region: 'NSW1', at: at(0), price: 1 }
    await collections.create(plan, null, body)
    expect((await faultOf(() => collections.create(plan, null, body))).code).toBe('conflict')
  })
})

describe('rules', () => {
  test('absent denies: 401 for a visitor, 403 for a user', async () => {
    using folder = tempFolder()
    const none = { read: undefined, create: undefined, update: undefined, remove: undefined }
    const { store, collections, spot: plan } = await setUp(folder, { spot: none as never })
    await using _ = store
    for (const [user, code] of [
      [null, 'unauthenticated'],
      [alice, 'denied'],
    ] as const) {
      const body = { region: 'A', at: at(0), price: 1 }
      expect((await faultOf(() => collections.list(plan, user, ''))).code).toBe(code)
      expect((await faultOf(() => collections.read(plan, user, `A,${at(0)}`))).code).toBe(code)
      expect((await faultOf(() => collections.create(plan, user, body))).code).toBe(code)
      expect((await faultOf(() => collections.update(plan, user, 'A,1', body))).code).toBe(code)
      expect((await faultOf(() => collections.remove(plan, user, 'A,1'))).code).toBe(code)
    }
  })

  test('a Where narrows what each reader sees; what one sees never answers another', async () => {
    using folder = tempFolder()
    const { store, collections, posts: plan } = await setUp(folder)
    await using _ = store
    await collections.create(plan, alice, { title: 'hers' })
    await collections.create(plan, bob, { title: 'his' })
    await collections.create(plan, bob, { title: 'ours', isPublic: true })
    const titles = async (user: User | null): Promise<unknown[]> => {
      const page: Page = jsonOf(await collections.list(plan, user, ''))
      return page.items.map(({ title }) => title)
    }
    for (let round = 0; round < 2; round++) {
      expect(await titles(null)).toEqual(['ours'])
      expect(await titles(alice)).toEqual(['hers', 'ours'])
      expect(await titles(bob)).toEqual(['his', 'ours'])
      expect((await collections.read(plan, alice, '1')).entry.tags).toEqual(['posts:1'])
      expect((await faultOf(() => collections.read(plan, bob, '1'))).code).toBe('not_found')
    }
  })

  test('a rule that throws, or is async, denies and shows nothing of itself', async () => {
    using folder = tempFolder()
    const {
      store,
      collections,
      posts: plan,
    } = await setUp(folder, {
      posts: {
        read: (() => Promise.resolve(true)) as never,
        create: () => {
          throw new Error('secret')
        },
      },
    })
    await using _ = store
    for (const run of [
      () => collections.list(plan, alice, ''),
      () => collections.create(plan, alice, { title: 'x' }),
    ]) {
      const fault = await faultOf(run)
      expect([fault.code, fault.message]).toEqual(['internal', 'internal error'])
    }
  })

  test('race: a rule is judged again on the row as it became, never on the one it was', async () => {
    using folder = tempFolder()
    const { store, collections, posts: plan, hold } = await setUp(folder)
    await using _ = store
    await collections.create(plan, alice, { title: 'hers' })
    const held = Promise.withResolvers<void>()
    hold.until = held.promise
    const update = collections.update(plan, alice, '1', { title: 'changed' })
    await Bun.sleep(0)
    await store.write([
      {
        sql: "update posts set author_id = 'bob' where id = 1 returning id, author_id, title, is_public",
        params: [],
        columns: ['id', 'author_id', 'title', 'is_public'],
        table: 'posts',
        keyAt: [0],
        op: 'update',
      },
    ])
    held.resolve()
    expect((await faultOf(() => update)).code).toBe('denied')
  })
})

describe('a write and the cache', () => {
  test('a read right after a write never gives the old value', async () => {
    using folder = tempFolder()
    const { store, collections, spot: plan } = await setUp(folder)
    await using _ = store
    await collections.create(plan, null, { region: 'NSW1', at: at(0), price: 0 })
    for (let price = 1; price <= 100; price++) {
      await collections.list(plan, null, '')
      await collections.update(plan, null, `NSW1,${at(0)}`, { price })
      const page: Page = jsonOf(await collections.list(plan, null, ''))
      expect(page.items[0]).toMatchObject({ price })
    }
  })

  test('race: a load in flight during a write never lands in the cache', async () => {
    using folder = tempFolder()
    const { store, collections, spot: plan, hold } = await setUp(folder)
    await using _ = store
    await collections.create(plan, null, { region: 'NSW1', at: at(0), price: 1 })
    const held = Promise.withResolvers<void>()
    hold.until = held.promise
    // This load has read price 1 and is on its way back while price 2 is written.
    const early = collections.list(plan, null, '')
    await Bun.sleep(20)
    await collections.upsert([{ plan, rows: [{ region: 'NSW1', at: at(0), price: 2 }] }])
    held.resolve()
    hold.until = Promise.resolve()
    const old: Page = jsonOf(await early)
    expect(old.items[0]).toMatchObject({ price: 1 })
    const late = await collections.list(plan, null, '')
    const now: Page = jsonOf(late)
    expect([late.state, now.items[0]?.['price']]).toEqual(['miss', 2])
  })

  test('two collections over one table both notice', async () => {
    using folder = tempFolder()
    const { store, collections, spot: plan, cache } = await setUp(folder)
    await using _ = store
    await collections.list(plan, null, '')
    const twin = { ...plan, path: 'prices/twin' }
    await collections.create(twin, null, { region: 'NSW1', at: at(0), price: 1 })
    expect((await collections.list(plan, null, '')).state).toBe('miss')
    expect(cache.stats().hits).toBe(0)
  })
})

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
    const collections = createCollections({ store, cache, topics, log: createTestLog() }, [plan])
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

  test.each([
    ['public', ['posts:2']],
    ['signed-in', ['posts:2']],
    ['rule', ['posts:1', 'posts:2']],
    ['nobody', []],
  ] as const)('a row its readers may not see is not published to %s', async (audience, topics) => {
    using folder = tempFolder()
    const { store, collections, posts: plan, published } = await setUp(folder, { audience })
    await using _ = store
    await collections.create(plan, alice, { title: 'private' })
    await collections.create(plan, alice, { title: 'open', isPublic: true })
    expect(published.map(({ topic }) => topic)).toEqual([...topics])
  })
})
