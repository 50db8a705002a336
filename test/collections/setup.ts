/** Two collections over a real store and a real cache; topics only note what they were told. */
import { integer, primaryKey, real, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import type { User } from '../../src/auth/declare.ts'
import { createCache, type CacheRead } from '../../src/cache/cache.ts'
import { createCollections, type CollectionPlan } from '../../src/collections/collections.ts'
import {
  asc,
  collection,
  desc,
  eq,
  or,
  type CollectionOptions,
} from '../../src/collections/declare.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { must } from '../../src/lib/assert.ts'
import { app } from '../../src/plan/declare.ts'
import { topic } from '../../src/realtime/declare.ts'
import { compilePlan } from '../../src/plan/plan.ts'
import type { tempFolder } from '../harness.ts'
import { createTestLog, openStore } from '../harness.ts'

export const spot = sqliteTable(
  'spot',
  {
    region: text().notNull(),
    at: integer({ mode: 'timestamp_ms' }).notNull(),
    price: real().notNull(),
  },
  (t) => [primaryKey({ columns: [t.region, t.at] })],
)

export const posts = sqliteTable('posts', {
  id: integer().primaryKey({ autoIncrement: true }),
  authorId: text('author_id').notNull(),
  title: text({ length: 20 }).notNull(),
  isPublic: integer('is_public', { mode: 'boolean' }).notNull().default(false),
})

export async function setUp(
  folder: ReturnType<typeof tempFolder>,
  options: {
    readonly spot?: Partial<CollectionOptions<typeof spot>>
    readonly posts?: Partial<CollectionOptions<typeof posts>>
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
          orders: { newest: desc(spot.at), price: [desc(spot.price)], oldest: asc(spot.at) },
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
      topics: { 'prices:{region}': topic({}), 'posts:{id}': topic({}) },
    }),
  )
  const store = await openStore(folder.file('a.db'), plan.tables)
  const cache = createCache({ clock: systemClock }, { groups: ['spot', 'posts'] })
  const published: { topic: string; data: unknown }[] = []
  /** What a reader thread brings waits here, so that a test decides what happens meanwhile. */
  const hold = { until: Promise.resolve(), brought: 0 }
  const collections = createCollections(
    {
      store: {
        write: store.write,
        writeOnce: store.writeOnce,
        db: store.db,
        read: async (query, options) => {
          const rows = await store.read(query, options)
          hold.brought++
          await hold.until
          return rows
        },
      },
      cache,
      topics: {
        publish: (topic, data) => void published.push({ topic, data }),
      },
      log: createTestLog(),
      cursorKey: () => new Uint8Array(32),
    },
    plan.collections,
  )
  store.onChange((change) => cache.apply(change.seq, change.tags, change))
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

export const jsonOf = (read: CacheRead): never =>
  JSON.parse(new TextDecoder().decode(read.entry.body)) as never

export interface Page {
  items: Record<string, unknown>[]
  next: string | null
  prev: string | null
}

export const at = (minutes: number): string =>
  new Date(Date.UTC(2021, 9, 6, 5, minutes)).toISOString()
export const alice: User = { id: 'alice' }
export const bob: User = { id: 'bob' }
