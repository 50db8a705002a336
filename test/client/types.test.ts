/** What a client may say is read from `typeof app`. Checked by the compiler; `bun test` only runs it through. */
import { expectTypeOf, test } from 'bun:test'
import { index, integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { t } from 'elysia'
import type radio from '../../src/apps/radio.ts'
import { createClient, type Change, type Client, type Row } from '../../src/client/client.ts'
import type { DataOf, TopicName } from '../../src/client/types.ts'
import { app, asc, collection, desc, eq, topic } from '../../src/kit.ts'

const posts = sqliteTable(
  'posts',
  {
    id: integer().primaryKey(),
    blog: text().notNull(),
    title: text().notNull(),
    at: integer({ mode: 'timestamp_ms' }).notNull(),
    tags: text({ mode: 'json' }).$type<readonly string[]>().notNull(),
    note: text(),
  },
  (table) => [index('posts_blog').on(table.blog)],
)

const declared = app({
  name: 'blog',
  collections: {
    posts: collection(posts, {
      read: 'public',
      create: ({ user }) => user !== null,
      filters: ['blog'],
      orders: { newest: desc(posts.at), oldest: asc(posts.at) },
      live: (row) => [`blog:${row.blog}`, `said:${row.blog}`, 'all'],
    }),
    'posts/archive': collection(posts, { read: 'public' }),
    'posts/short': collection(posts, {
      read: 'public',
      hide: { note: true, tags: { unless: ({ user }) => eq(posts.blog, user?.id) } },
      live: () => 'short',
    }),
  },
  topics: {
    'blog:{name}': topic({ subscribe: 'public' }),
    all: topic({ subscribe: 'public' }),
    'chat:{room}': topic({
      subscribe: 'public',
      publish: 'signed-in',
      message: t.Object({ text: t.String() }),
    }),
    'load:{node}': topic<{ readonly cpu: number; readonly at: Date }>({ subscribe: 'public' }),
    'said:{blog}': topic({
      ...{ subscribe: 'public', publish: 'signed-in', through: 'POST /api/posts' },
      message: t.Object({ title: t.String() }),
    }),
    short: topic({ subscribe: 'public' }),
    anything: topic({ subscribe: 'public' }),
  },
})
type Blog = typeof declared

/** Never called. */
function use(client: Client<Blog>): void {
  // @ts-expect-error: no such collection
  client.collection('pots')
  // @ts-expect-error: no such order
  void client.collection('posts').list({ order: 'best' })
  // @ts-expect-error: no filter
  void client.collection('posts').list({ title: 'x' })
  void client.collection('posts').list({ blog: 'x', order: 'newest', limit: 5, count: true })
  // @ts-expect-error: declares no filters
  void client.collection('posts/archive').list({ blog: 'x' })
  void client.collection('posts').create({ title: 'x', at: new Date(0), tags: ['a'] })
  void client.collection('posts').create({ at: '2026-01-01T00:00:00Z' })
  // @ts-expect-error: no such column
  void client.collection('posts').update(1, { titel: 'x' })
  // @ts-expect-error: no such topic
  client.subscribe('blogs:mine', {})
  client.subscribe('blog:mine', {
    message: ({ op, row }) => {
      expectTypeOf(op).toEqualTypeOf<'create' | 'update' | 'remove'>()
      expectTypeOf(row.at).toEqualTypeOf<string>()
    },
  })
  // Through a route: published as its message, heard as what that stores.
  const said = client.subscribe('said:mine', { message: ({ row }) => void row.title })
  void said.publish({ title: 'x' })
  // @ts-expect-error: no message
  void said.publish({ text: 'x' })
  const room: string = 'lobby'
  client.subscribe(`chat:${room}`, { message: (data) => void data.text })
}

test('collections and topics have the types of the app', () => {
  void use
  type Post = Row<Blog, 'posts'>
  expectTypeOf<Post>().toEqualTypeOf<{
    readonly id: number
    readonly blog: string
    readonly title: string
    readonly at: string
    readonly tags: readonly string[]
    readonly note: string | null
  }>()
  expectTypeOf<TopicName<Blog>>().toEqualTypeOf<
    | `blog:${string}`
    | 'all'
    | `chat:${string}`
    | `load:${string}`
    | `said:${string}`
    | 'short'
    | 'anything'
  >()
  expectTypeOf<DataOf<Blog, 'blog:mine'>>().toEqualTypeOf<Change<'posts', Post>>()
  expectTypeOf<DataOf<Blog, 'all'>>().toEqualTypeOf<Change<'posts', Post>>()
  expectTypeOf<DataOf<Blog, 'said:mine'>>().toEqualTypeOf<Change<'posts', Post>>()
  expectTypeOf<DataOf<Blog, 'chat:lobby'>>().toEqualTypeOf<{ readonly text: string }>()
  expectTypeOf<DataOf<Blog, 'load:a'>>().toEqualTypeOf<{
    readonly cpu: number
    readonly at: string
  }>()
  expectTypeOf<DataOf<Blog, 'anything'>>().toEqualTypeOf<unknown>()
})

test('what is hidden is not in the type; what is hidden from some may be missing', () => {
  type Short = Row<Blog, 'posts/short'>
  expectTypeOf<keyof Short>().toEqualTypeOf<'id' | 'blog' | 'title' | 'at' | 'tags'>()
  expectTypeOf<Short['tags']>().toEqualTypeOf<readonly string[] | undefined>()
  expectTypeOf<DataOf<Blog, 'short'>['row']>().toEqualTypeOf<Short>()
})

test('an app that ships inside', () => {
  type Radio = typeof radio
  expectTypeOf<DataOf<Radio, 'live-stream'>['row']['album']>().toEqualTypeOf<string | null>()
  expectTypeOf<DataOf<Radio, 'user:ann'>['row']['kind']>().toEqualTypeOf<
    'first-shout' | 'ten-shouts' | 'hundred-shouts'
  >()
})

test('without an app, names are strings', () => {
  const client = createClient({ url: 'http://localhost:1' })
  expectTypeOf(client.collection).toBeCallableWith('whatever')
  client.close()
})
