import { expect, test } from 'bun:test'
import { index, integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { signToken } from '../../src/auth/auth.ts'
import { collection, eq } from '../../src/kit.ts'
import { tempFolder } from '../harness.ts'
import { runServer, testSecret } from '../server.ts'

const write = { create: 'public', update: 'public', remove: 'public' } as const

const users = sqliteTable('users', { id: text({ length: 9 }).primaryKey(), name: text().notNull() })
const posts = sqliteTable('posts', {
  id: integer().primaryKey(),
  slug: text({ length: 40 }).notNull().unique(),
  authorId: text('author_id').references(() => users.id),
})
const comments = sqliteTable(
  'comments',
  { id: integer().primaryKey(), postId: integer('post_id').references(() => posts.id) },
  (t) => [index('comments_post').on(t.postId)],
)
const notes = sqliteTable('notes', {
  id: text().primaryKey(),
  owner: text({ length: 9 }).notNull(),
  parent: text(),
})

const collections = {
  users: collection(users, {
    ...write,
    read: 'signed-in',
    children: { posts: posts.authorId },
  }),
  posts: collection(posts, {
    ...write,
    read: 'public',
    lookup: ['slug'],
    children: { comments: comments.postId },
    expand: { author: posts.authorId },
  }),
  comments: collection(comments, { ...write, read: 'public', expand: { post: comments.postId } }),
  notes: collection(notes, {
    ...write,
    read: ({ user }) => user && eq(notes.owner, user.id),
    children: { replies: notes.parent },
  }),
}

async function runBlog(folder: ReturnType<typeof tempFolder>) {
  const server = await runServer({ app: { collections }, folder })
  const post = async (path: string, body: unknown) => {
    const init = { method: 'POST', headers: { 'content-type': 'application/json' } }
    return await server.get(`/api/${path}`, { ...init, body: JSON.stringify(body) })
  }
  await post('users', { id: 'ann', name: 'Ann' })
  await post('posts', { id: 1, slug: 'hello', authorId: 'ann' })
  await post('posts', { id: 2, slug: 'comments' })
  await post('comments', { id: 1, postId: 1 })
  const token = await signToken(testSecret, { sub: 'ann' }, { nowMs: Date.now(), ttlMs: 60_000 })
  const asAnn = { headers: { authorization: `Bearer ${token}` } }
  return { ...server, post, asAnn }
}

const sharing = ({ headers }: Response) => [headers.get('cache-control'), headers.get('vary')]
const shared = ['public, no-cache', null]
const own = ['private, no-cache', 'authorization, origin']

test.each([
  ['/api/posts/1/comments', { items: [{ id: 1, postId: 1 }], next: null, prev: null }],
  [
    '/api/posts/1/comments/?count=true',
    { items: [{ id: 1, postId: 1 }], next: null, prev: null, count: 1 },
  ],
  ['/api/posts/2/comments', { items: [], next: null, prev: null }],
  ['/api/posts/slug/hello', { id: 1, slug: 'hello', authorId: 'ann' }],
  ['/api/posts/slug/comments', { id: 2, slug: 'comments', authorId: null }],
  ['/api/posts/1?expand=author', { id: 1, slug: 'hello', authorId: 'ann', author: null }],
])('GET %s: miss, hit with its ETag, 304', async (path, json) => {
  using folder = tempFolder()
  await using server = await runBlog(folder)
  const first = await server.get(path)
  expect([first.status, first.headers.get('x-cache')]).toEqual([200, 'miss'])
  expect(await first.json()).toEqual(json)
  const etag = first.headers.get('etag') ?? ''
  const second = await server.get(path)
  expect([second.headers.get('x-cache'), second.headers.get('etag')]).toEqual(['hit', etag])
  const third = await server.get(path, { headers: { 'if-none-match': etag } })
  expect([third.status, await third.text()]).toEqual([304, ''])
})

test('what is not there is 404, what is not asked for so 400, what is not done 405', async () => {
  using folder = tempFolder()
  await using server = await runBlog(folder)
  const statusOf = async (path: string, method = 'GET') => {
    const response = await server.get(path, { method })
    return [response.status, response.headers.get('allow')]
  }
  for (const path of ['posts/9/comments', 'posts/x/comments', 'posts/slug/nope', 'posts/1/nope']) {
    expect([path, ...(await statusOf(`/api/${path}`))]).toEqual([path, 404, null])
  }
  const wrong = ['posts/1?limit=1', 'posts/1/comments?slug=a', 'posts/slug/hello?expand=x']
  for (const path of [...wrong, 'posts?count=1', 'comments/1?expand=x', 'posts?after=x']) {
    expect([path, ...(await statusOf(`/api/${path}`))]).toEqual([path, 400, null])
  }
  expect(await statusOf('/api/posts/1/comments', 'POST')).toEqual([405, 'GET, HEAD, OPTIONS'])
  expect(await statusOf('/api/posts/slug/hello', 'DELETE')).toEqual([405, 'GET, HEAD, OPTIONS'])
})

test('an answer that a rule had a say in is private: the row’s, the parent’s, a target’s', async () => {
  using folder = tempFolder()
  await using server = await runBlog(folder)
  for (const path of [
    'posts',
    'posts?count=true',
    'posts/1',
    'posts/slug/hello',
    'posts/1/comments?expand=post',
  ]) {
    expect([path, ...sharing(await server.get(`/api/${path}`))]).toEqual([path, ...shared])
  }
  for (const path of [
    'posts?expand=author',
    'posts/1?%65xpand=author',
    'posts/slug/hello?expand=author',
  ]) {
    const visitor = await server.get(`/api/${path}`)
    expect([path, ...sharing(visitor)]).toEqual([path, ...own])
    expect(await visitor.text()).toContain('"author":null')
    const ann = await server.get(`/api/${path}`, server.asAnn)
    expect(await ann.text()).toContain('"author":{"id":"ann","name":"Ann"}')
  }
  // Its posts are for everybody, that she is there is not.
  const hers = await server.get('/api/users/ann/posts', server.asAnn)
  expect([hers.status, ...sharing(hers)]).toEqual([200, ...own])
  expect((await server.get('/api/users/ann/posts')).status).toBe(401)
  await server.post('notes', { id: 'a/b', owner: 'ann' })
  await server.post('notes', { id: 'c', owner: 'ann', parent: 'a/b' })
  await server.post('notes', { id: 'd', owner: 'ben', parent: 'a/b' })
  expect((await server.get('/api/notes/a%2Fb/replies')).status).toBe(401)
  const replies = await server.get('/api/notes/a%2Fb/replies', server.asAnn)
  expect(sharing(replies)).toEqual(own)
  expect(await replies.json()).toMatchObject({ items: [{ id: 'c' }] })
})
