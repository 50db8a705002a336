import { describe, expect, test } from 'bun:test'
import { index, integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import type { User } from '../../src/auth/declare.ts'
import { asc, collection, desc, eq, or } from '../../src/collections/declare.ts'
import { must } from '../../src/lib/assert.ts'
import { faultOf, tempFolder } from '../harness.ts'
import { jsonOf, openCollections, type Page } from './open.ts'
import { alice, bob } from './setup.ts'

const write = { create: 'public', update: 'public', remove: 'public' } as const

const users = sqliteTable('users', {
  id: text({ length: 20 }).primaryKey(),
  name: text({ length: 20 }).notNull(),
  isHidden: integer('is_hidden', { mode: 'boolean' }).notNull().default(false),
})
const boards = sqliteTable('boards', { id: integer().primaryKey(), title: text().notNull() })
const posts = sqliteTable('posts', {
  id: integer().primaryKey(),
  slug: text({ length: 40 }).unique(),
  isPublic: integer('is_public', { mode: 'boolean' }).notNull().default(true),
  authorId: text('author_id').references(() => users.id),
  editorId: text('editor_id').references(() => users.id),
  boardId: integer('board_id').references(() => boards.id),
})
const comments = sqliteTable(
  'comments',
  {
    id: integer().primaryKey(),
    postId: integer('post_id')
      .notNull()
      .references(() => posts.id, { onDelete: 'cascade' }),
    authorId: text('author_id').references(() => users.id),
    kind: text({ enum: ['plain', 'note'] })
      .notNull()
      .default('plain'),
    isOpen: integer('is_open', { mode: 'boolean' }).notNull().default(true),
  },
  (t) => [index('comments_post').on(t.postId)],
)

const declared = {
  users: collection(users, {
    ...write,
    read: ({ user }) => or(eq(users.isHidden, false), eq(users.id, user?.id)),
  }),
  boards: collection(boards, { ...write, read: 'signed-in' }),
  posts: collection(posts, {
    ...write,
    read: ({ user }) => or(eq(posts.isPublic, true), eq(posts.authorId, user?.id)),
    lookup: ['slug'],
    children: { comments: comments.postId },
    expand: { author: posts.authorId, editor: posts.editorId, board: posts.boardId },
  }),
  comments: collection(comments, {
    ...write,
    read: ({ user }) => user !== null || eq(comments.isOpen, true),
    filters: ['kind'],
    orders: { oldest: asc(comments.id), newest: desc(comments.id) },
    expand: { author: comments.authorId },
  }),
}

async function openBlog(folder: ReturnType<typeof tempFolder>) {
  const opened = await openCollections(folder, declared)
  const { collections, planOf, reads } = opened
  const put = (path: string, ...rows: Record<string, unknown>[]) =>
    collections.upsert([{ plan: planOf(path), rows }])
  await put('users', { id: 'alice', name: 'Alice' }, { id: 'bob', name: 'Bob', isHidden: true })
  await put('boards', { id: 1, title: 'one' }, { id: 2, title: 'two' })
  await put(
    'posts',
    { id: 1, slug: 'first', authorId: 'alice', editorId: 'bob', boardId: 1 },
    { id: 2, slug: 'a,b/c d', authorId: 'bob', editorId: 'bob', boardId: 2 },
    { id: 3, slug: null, isPublic: false, authorId: 'alice' },
  )
  await put(
    'comments',
    { id: 1, postId: 1, authorId: 'alice' },
    { id: 2, postId: 1, authorId: 'bob', kind: 'note' },
    { id: 3, postId: 2 },
    { id: 4, postId: 1, isOpen: false },
    { id: 5, postId: 3 },
  )
  const postsPlan = planOf('posts')
  const child = must(postsPlan.children[0], () => 'declared')
  const childrenOf = (user: User | null, id: string, search = '') =>
    collections.children(postsPlan, user, { id, child, search })
  const lookup = (user: User | null, text: string, search = '') =>
    collections.lookup(postsPlan, user, { property: 'slug', text, search })
  reads.length = 0
  return { ...opened, put, posts: postsPlan, childrenOf, lookup }
}

const idsOf = (page: Page) => page.items.map(({ id }) => id)

describe('children', () => {
  test('are a list of their collection: its rule, filters, orders, expands, count and cursors', async () => {
    using folder = tempFolder()
    await using blog = await openBlog(folder)
    const of = async (user: User | null, id: string, search: string): Promise<Page> =>
      jsonOf(await blog.childrenOf(user, id, search))
    expect(idsOf(await of(null, '1', ''))).toEqual([1, 2])
    expect(idsOf(await of(alice, '1', ''))).toEqual([1, 2, 4])
    expect(idsOf(await of(alice, '1', 'kind=note'))).toEqual([2])
    expect(idsOf(await of(null, '2', 'order=newest'))).toEqual([3])
    const first = await of(alice, '1', 'order=newest&limit=2&count=true')
    expect([idsOf(first), first.count]).toEqual([[4, 2], 3])
    const second = await of(alice, '1', `order=newest&limit=2&after=${first.next}`)
    expect([idsOf(second), second.next]).toEqual([[1], null])
    expect(idsOf(await of(alice, '1', `order=newest&before=${second.prev}`))).toEqual([4, 2])
    expect((await of(null, '1', 'expand=author')).items).toMatchObject([
      { id: 1, author: { name: 'Alice' } },
      { id: 2, author: null },
    ])
    expect((await faultOf(() => blog.childrenOf(null, '1', 'nope=1'))).code).toBe('invalid')
  })

  test('are not found when the parent is not, or is not for this reader', async () => {
    using folder = tempFolder()
    await using blog = await openBlog(folder)
    for (const id of ['3', '9', 'x', '1,2', '%']) {
      const fault = await faultOf(() => blog.childrenOf(null, id))
      expect([id, fault.code, fault.message]).toEqual([id, 'not_found', 'no such row in posts'])
    }
    const hers: Page = jsonOf(await blog.childrenOf(alice, '3'))
    expect(idsOf(hers)).toEqual([5])
    // What she got is not what he gets, though their comments' rule is the same.
    expect((await faultOf(() => blog.childrenOf(bob, '3'))).code).toBe('not_found')
  })

  test('are cached: a second time reads nothing, a write to either table is seen at once', async () => {
    using folder = tempFolder()
    await using blog = await openBlog(folder)
    const { put, reads, collections, planOf } = blog
    await blog.childrenOf(null, '1')
    expect(reads.map(({ name }) => name)).toEqual(['read posts', 'list comments'])
    expect(await blog.childrenOf(null, '1', 'limit=20')).toMatchObject({ state: 'hit' })
    // Another parent's list, and the whole collection's, are other entries.
    const others: Page = jsonOf(await blog.childrenOf(null, '2'))
    const all: Page = jsonOf(await collections.list(planOf('comments'), null, ''))
    expect([idsOf(others), idsOf(all)]).toEqual([[3], [1, 2, 3, 5]])
    expect(reads.length).toBe(5)
    await put('comments', { id: 6, postId: 1 })
    expect(idsOf(jsonOf(await blog.childrenOf(null, '1')))).toEqual([1, 2, 6])
    await put('posts', { id: 1, isPublic: false })
    expect((await faultOf(() => blog.childrenOf(null, '1'))).code).toBe('not_found')
    await put('posts', { id: 1, isPublic: true })
    // The post was another for a while; its comments were not.
    expect((await blog.childrenOf(null, '1')).state).toBe('hit')
    await collections.remove(blog.posts, null, '1')
    expect((await faultOf(() => blog.childrenOf(null, '1'))).code).toBe('not_found')
  })
})

describe('expand', () => {
  test('puts what is referred to beside each item, in one query per table', async () => {
    using folder = tempFolder()
    await using blog = await openBlog(folder)
    const { collections, posts: plan, reads } = blog
    const page: Page = jsonOf(await collections.list(plan, alice, 'expand=author,board,editor'))
    expect(page.items).toMatchObject([
      {
        id: 1,
        authorId: 'alice',
        author: { id: 'alice', name: 'Alice' },
        editor: null,
        board: { id: 1 },
      },
      { id: 2, author: null, editor: null, board: { id: 2, title: 'two' } },
      { id: 3, author: { id: 'alice' }, editor: null, board: null },
    ])
    expect(reads.map(({ name }) => name)).toEqual(['list posts', 'load users', 'load boards'])
    expect(JSON.stringify(page)).not.toContain('Bob')
    expect(await collections.list(plan, alice, '')).toMatchObject({ state: 'miss' })
    const row = jsonOf(await collections.read(plan, bob, '1', 'expand=editor'))
    expect(row).toMatchObject({ id: 1, editor: { name: 'Bob', isHidden: true } })
    expect(row).not.toHaveProperty('author')
  })

  test('shows nothing of a target that the reader may not read, and refuses nothing for it', async () => {
    using folder = tempFolder()
    await using blog = await openBlog(folder)
    const { collections, posts: plan, reads } = blog
    const visitor: Page = jsonOf(await collections.list(plan, null, 'expand=board'))
    expect(visitor.items.map(({ board }) => board)).toEqual([null, null])
    expect(reads.map(({ name }) => name)).toEqual(['list posts'])
    // The visitor's entry is not hers: what targets she sees is part of the key.
    const hers: Page = jsonOf(await collections.list(plan, { id: 'carol' }, 'expand=board'))
    expect(hers.items.map(({ board }) => (board as { id: number } | null)?.id)).toEqual([1, 2])
    const his: Page = jsonOf(await collections.list(plan, bob, 'expand=author'))
    expect(his.items.map(({ author }) => (author as { id: string } | null)?.id)).toEqual([
      'alice',
      'bob',
    ])
    const carols: Page = jsonOf(await collections.list(plan, { id: 'carol' }, 'expand=author'))
    expect(carols.items.map(({ author }) => (author as { id: string } | null)?.id)).toEqual([
      'alice',
      undefined,
    ])
  })

  test('keeps apart what readers of the same rows see of their targets, and which targets', async () => {
    using folder = tempFolder()
    await using blog = await openBlog(folder)
    const { collections, planOf, posts: plan } = blog
    const namesFor = async (user: User): Promise<unknown[]> => {
      const read = await collections.list(planOf('comments'), user, 'expand=author')
      const { items }: Page = jsonOf(read)
      return items.map(({ author }) => (author as { name: string } | null)?.name ?? null)
    }
    expect(await namesFor({ id: 'carol' })).toEqual(['Alice', null, null, null, null])
    expect(await namesFor(bob)).toEqual(['Alice', 'Bob', null, null, null])
    const author = jsonOf(await collections.read(plan, bob, '1', 'expand=author'))
    const editor = jsonOf(await collections.read(plan, bob, '1', 'expand=editor'))
    expect([author, editor]).toMatchObject([{ author: { id: 'alice' } }, { editor: { id: 'bob' } }])
  })

  test('is one entry in any spelling, and a write to the target is seen at once', async () => {
    using folder = tempFolder()
    await using blog = await openBlog(folder)
    const { collections, posts: plan, put } = blog
    await collections.list(plan, alice, 'expand=editor,author')
    expect(await collections.list(plan, alice, 'expand=author,editor,author')).toMatchObject({
      state: 'hit',
    })
    await collections.read(plan, alice, '1', 'expand=author')
    expect(await collections.read(plan, alice, '1', 'expand=author')).toMatchObject({
      state: 'hit',
    })
    await collections.read(plan, alice, '1')
    await put('users', { id: 'alice', name: 'Alicia' })
    const page: Page = jsonOf(await collections.list(plan, alice, 'expand=author,editor'))
    expect(page.items[0]).toMatchObject({ author: { name: 'Alicia' } })
    const row = jsonOf(await collections.read(plan, alice, '1', 'expand=author'))
    expect(row).toMatchObject({ author: { name: 'Alicia' } })
    // What was not expanded depends on nobody.
    expect(await collections.read(plan, alice, '1')).toMatchObject({ state: 'hit' })
  })

  test('of what is not declared is refused by name, on lists and rows', async () => {
    using folder = tempFolder()
    await using blog = await openBlog(folder)
    const { collections, posts: plan, planOf } = blog
    const asks = [
      () => collections.list(plan, alice, 'expand=author,nobody'),
      () => collections.read(plan, alice, '1', 'expand=nobody'),
      () => blog.lookup(alice, 'first', 'expand=nobody'),
    ]
    for (const ask of asks) {
      expect((await faultOf(ask)).fields).toEqual([
        { field: 'expand', message: 'nobody is none of author, editor, board' },
      ])
    }
    const none = [
      () => collections.list(planOf('users'), alice, 'expand=a'),
      () => collections.read(planOf('users'), alice, 'alice', 'expand=a'),
      () => collections.read(plan, alice, '1', 'limit=1'),
    ]
    for (const ask of none) expect((await faultOf(ask)).code).toBe('invalid')
  })
})

describe('a look-up', () => {
  test('finds a row by a unique column, under the same rule, as it stands in the path', async () => {
    using folder = tempFolder()
    await using blog = await openBlog(folder)
    expect(jsonOf(await blog.lookup(null, 'first'))).toMatchObject({ id: 1, slug: 'first' })
    expect(jsonOf(await blog.lookup(null, 'a,b%2Fc%20d', 'expand=author'))).toMatchObject({
      id: 2,
      author: null,
    })
    for (const text of ['nope', '', 'null', '%', 'x'.repeat(41)]) {
      const fault = await faultOf(() => blog.lookup(null, text))
      expect([text, fault.code]).toEqual([text, 'not_found'])
    }
    await blog.put('posts', { id: 3, slug: 'third' })
    expect((await faultOf(() => blog.lookup(bob, 'third'))).code).toBe('not_found')
    expect(jsonOf(await blog.lookup(alice, 'third'))).toMatchObject({ id: 3 })
  })

  test('is cached, and gives the row that has the value now', async () => {
    using folder = tempFolder()
    await using blog = await openBlog(folder)
    await blog.lookup(null, 'first')
    expect(await blog.lookup(null, 'f%69rst')).toMatchObject({ state: 'hit' })
    await blog.put('posts', { id: 1, slug: 'old' })
    await blog.put('posts', { id: 2, slug: 'first' })
    expect(jsonOf(await blog.lookup(null, 'first'))).toMatchObject({ id: 2 })
    await blog.collections.remove(blog.posts, null, '2')
    expect((await faultOf(() => blog.lookup(null, 'first'))).code).toBe('not_found')
  })
})
