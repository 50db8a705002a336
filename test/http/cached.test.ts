import { describe, expect, test } from 'bun:test'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { signToken } from '../../src/auth/auth.ts'
import { collection, desc, type Routes } from '../../src/kit.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { tempFolder, until } from '../harness.ts'
import { runServer, testApiKey, testSecret, type TestServer } from '../server.ts'

const posts = sqliteTable('posts', {
  id: integer().primaryKey({ autoIncrement: true }),
  title: text().notNull().unique(),
})

const replies = sqliteTable('replies', {
  id: integer().primaryKey({ autoIncrement: true }),
  postId: integer()
    .notNull()
    .references(() => posts.id),
})

let loads = 0

const routes: Routes = (server, { db, cache }) =>
  server
    .get('/api/board/:id', ({ params, user }) =>
      cache.get(
        ['board', params.id],
        { ttl: '1h', tags: [posts, 'boards'], scope: { user } },
        async () => {
          loads++
          return { for: user?.id ?? null, posts: await db.$count(posts) }
        },
      ),
    )
    .get('/api/nothing/:id', async ({ params }) => {
      const value = await cache.get(['nothing', params.id], { scope: 'public' }, () => {
        loads++
        return undefined
      })
      return { isThere: value !== undefined }
    })
    .post('/api/flush/:what', async ({ params }) => {
      await cache.invalidate(decodeURIComponent(params.what))
      return 'done'
    })

const app = {
  collections: {
    posts: collection(posts, {
      ttl: { own: '1m', shared: '10m' },
      read: 'public',
      create: 'public',
      orders: {
        newest: desc(posts.id),
        oldest: posts.id && { column: posts.id, descending: false },
      },
      warm: [{ order: 'oldest', limit: 5 }],
      lookup: ['title'],
      children: { replies: replies.postId },
    }),
    replies: collection(replies, {
      read: 'public',
      create: 'public',
      filters: ['postId'],
      expand: { post: replies.postId },
    }),
  },
  routes,
}

const json = async (server: TestServer, path: string, headers = {}): Promise<unknown> =>
  await (await server.get(path, { headers })).json()

const post = (server: TestServer, path: string, body: unknown = {}) =>
  server.get(path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })

const tokenOf = async (sub: string, role?: string) => {
  const claims = role === undefined ? { sub } : { sub, role }
  const token = await signToken(testSecret, claims, { nowMs: systemClock.now(), ttlMs: 60_000 })
  return { authorization: `Bearer ${token}` }
}

describe('cache.get in a route', () => {
  test('loads once for each scope; a write to a table it names drops it', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    const ann = await tokenOf('ann')
    loads = 0
    await Promise.all(Array.from({ length: 20 }, () => json(server, '/api/board/1')))
    expect(await json(server, '/api/board/1', ann)).toEqual({ for: 'ann', posts: 0 })
    expect(await json(server, '/api/board/1')).toEqual({ for: null, posts: 0 })
    expect(loads).toBe(2)
    await post(server, '/api/posts', { title: 'one' })
    expect(await json(server, '/api/board/1')).toEqual({ for: null, posts: 1 })
    expect(await json(server, '/api/board/1', ann)).toEqual({ for: 'ann', posts: 1 })
    expect(loads).toBe(4)
  })

  test.each([
    ['boards', true],
    ['board:1:*', true],
    ['board:*', true],
    ['board:2:*', false],
    ['other', false],
    ['posts', false],
  ])('invalidate(%s): %s', async (tag, isDropped) => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    loads = 0
    await json(server, '/api/board/1')
    expect((await post(server, `/api/flush/${encodeURIComponent(tag)}`)).status).toBe(200)
    await json(server, '/api/board/1')
    expect(loads).toBe(isDropped ? 2 : 1)
  })

  test('that there is nothing is remembered', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    loads = 0
    for (let time = 0; time < 3; time++) {
      expect(await json(server, '/api/nothing/1')).toEqual({ isThere: false })
    }
    expect(loads).toBe(1)
  })
})

describe('what is read before anybody asks', () => {
  test('is what the app declares, and what was hot before the last stop', async () => {
    using folder = tempFolder()
    {
      await using server = await runServer({ app, folder })
      await post(server, '/api/posts', { title: 'one' })
      for (let time = 0; time < 200; time++) await json(server, '/api/posts/1')
    }
    await using server = await runServer({ app, folder })
    const declared = await server.get('/api/posts?order=oldest&limit=5')
    expect(declared.headers.get('x-cache')).toBe('hit')
    expect((await server.get('/api/posts?limit=7')).headers.get('x-cache')).toBe('miss')
    await until(
      () => server.rooms.cache.hottest(100).some((key) => key.startsWith('posts/')),
      'hot',
    )
    expect((await server.get('/api/posts/1')).headers.get('x-cache')).toBe('hit')
  })

  test('however it was asked for: by a column, as a child, with what it refers to; and after two stops', async () => {
    using folder = tempFolder()
    const paths = [
      '/api/posts/title/one',
      '/api/posts/1/replies?limit=3',
      '/api/replies/1?expand=post',
      '/api/replies?postId=1',
    ]
    {
      await using server = await runServer({ app, folder })
      await post(server, '/api/posts', { title: 'one' })
      await post(server, '/api/replies', { postId: 1 })
      // In turn, as a page asks for them.
      for (let n = 0; n < 64; n++) for (const path of paths) await json(server, path)
    }
    for (let start = 0; start < 2; start++) {
      await using server = await runServer({ app, folder })
      // One declared, and these four; a child's parent beside it.
      await until(() => server.rooms.cache.stats().entries >= 1 + paths.length + 1, 'hot')
      for (const path of paths) {
        expect([path, (await server.get(path)).headers.get('x-cache')]).toEqual([path, 'hit'])
      }
      // Something else is hot now.
      for (let n = 0; n < 64; n++) await json(server, '/api/posts/1')
    }
  })
})

describe('GET /api/admin/cache/stats', () => {
  test('tells administrators, and nobody else', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    const status = async (headers = {}) =>
      (await server.get('/api/admin/cache/stats', { headers })).status
    expect(await status()).toBe(401)
    expect(await status(await tokenOf('ann'))).toBe(403)
    expect(await status(await tokenOf('ann', 'admin'))).toBe(200)
    for (let time = 0; time < 4; time++) await json(server, '/api/posts?limit=3')
    const stats = await json(server, '/api/admin/cache/stats', { 'x-api-key': testApiKey })
    expect(stats).toMatchObject({
      l1: { hits: 3 },
      l2: { hits: 0 },
      byPath: { posts: { hits: 3, misses: 2 } },
      log: { seq: 0, checkedMsAgo: 0 },
    })
    expect((stats as { hottest: string[] }).hottest.length).toBeGreaterThan(0)
  })
})
