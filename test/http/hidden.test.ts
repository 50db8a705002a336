/** What caches outside are told of answers that not everybody gets alike, and what leaves over HTTP. */
import { expect, test } from 'bun:test'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { signToken } from '../../src/auth/auth.ts'
import { collection, topic } from '../../src/kit.ts'
import { tempFolder } from '../harness.ts'
import { runServer, testApiKey, testSecret } from '../server.ts'

const users = sqliteTable('users', {
  id: text({ length: 20 }).primaryKey(),
  email: text({ length: 80 }).notNull(),
  secret: text({ length: 80 }).notNull(),
})
const posts = sqliteTable('posts', {
  id: integer().primaryKey(),
  by: text()
    .notNull()
    .references(() => users.id),
  draft: text({ length: 80 }).notNull(),
})

const app = {
  collections: {
    users: collection(users, {
      ...{ read: 'public', create: 'signed-in', update: 'signed-in' },
      hide: { secret: true, email: { unless: 'signed-in' } },
      children: { posts: posts.by },
      live: () => 'all',
    }),
    posts: collection(posts, {
      ...{ read: 'public', create: 'signed-in' },
      hide: { draft: true },
      expand: { author: posts.by },
    }),
  },
  topics: { all: topic({ subscribe: 'public', history: { size: 10, ttl: '1h' } }) },
} as const

test('an answer that differs from user to user is nobody else’s; one that hides the same from all is shared', async () => {
  using folder = tempFolder()
  await using server = await runServer({ app, folder })
  const token = await signToken(testSecret, { sub: 'ann' }, { nowMs: Date.now(), ttlMs: 60_000 })
  const asAnn = { authorization: `Bearer ${token}` }
  const send = async (method: string, path: string, body: unknown): Promise<string> => {
    const headers = { ...asAnn, 'content-type': 'application/json' }
    const response = await server.get(path, { method, headers, body: JSON.stringify(body) })
    expect(response.ok).toBe(true)
    return await response.text()
  }
  const made = await send('POST', '/api/users', {
    id: 'ann',
    email: 'an-email',
    secret: 'a-secret',
  })
  const changed = await send('PATCH', '/api/users/ann', { email: 'my-email' })
  const post = await send('POST', '/api/posts', { id: 1, by: 'ann', draft: 'a-draft' })
  expect([made, changed, post]).toEqual([
    '{"id":"ann","email":"an-email"}',
    '{"id":"ann","email":"my-email"}',
    '{"id":1,"by":"ann"}',
  ])

  const get = async (path: string, headers: Record<string, string> = {}) => {
    const response = await server.get(path, { headers })
    return {
      text: await response.text(),
      control: response.headers.get('cache-control'),
      vary: response.headers.get('vary'),
      etag: response.headers.get('etag') ?? '',
    }
  }
  const own = { control: 'private, no-cache', vary: 'authorization, origin' }
  const shared = { control: 'public, no-cache' }
  for (const [path, sharing] of [
    ['/api/users', own],
    ['/api/users/ann', own],
    ['/api/users/ann/posts', own],
    ['/api/posts', shared],
    ['/api/posts/1', shared],
    ['/api/posts?expand=author', own],
  ] as const) {
    // The second time from the cache.
    for (let time = 0; time < 2; time++) {
      const visitors = await get(path)
      const anns = await get(path, asAnn)
      expect(visitors).toMatchObject(sharing)
      expect(anns).toMatchObject(sharing)
      for (const value of ['a-secret', 'a-draft', 'my-email', 'an-email']) {
        expect(visitors.text).not.toContain(value)
      }
      expect(anns.text).not.toMatch(/a-secret|a-draft|an-email/)
      const isShown = path.startsWith('/api/users') && !path.endsWith('/posts')
      expect(anns.text.includes('my-email')).toBe(isShown || path.endsWith('author'))
      // One may not be answered "not modified" about the other's.
      if (sharing === own && anns.text !== visitors.text) expect(anns.etag).not.toBe(visitors.etag)
    }
  }

  const history = await server.get('/api/history', {
    method: 'POST',
    headers: { 'x-api-key': testApiKey, 'content-type': 'application/json' },
    body: JSON.stringify({ channel: 'all', limit: 10 }),
  })
  const said = await history.text()
  expect(said).toContain('"ann"')
  expect(said).not.toContain('a-secret')
})
