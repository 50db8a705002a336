import { describe, expect, test } from 'bun:test'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { signToken } from '../../src/auth/auth.ts'
import { createLane } from '../../src/http/lane.ts'
import { collection, eq } from '../../src/kit.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { shiftedClock } from '../clock.ts'
import { tempFolder } from '../harness.ts'
import { runServer, testSecret, type TestServer } from '../server.ts'

const notes = sqliteTable('notes', {
  id: integer().primaryKey({ autoIncrement: true }),
  owner: text().notNull(),
})

const app = {
  collections: {
    notes: collection(notes, { read: 'public', create: 'public', filters: ['owner'] }),
    own: collection(notes, { read: ({ user }) => user && eq(notes.owner, user.id) }),
  },
}

const create = (server: TestServer, owner: string) =>
  server.get('/api/notes', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ owner }),
  })

const tokenOf = async (sub: string) => {
  const token = await signToken(testSecret, { sub }, { nowMs: systemClock.now(), ttlMs: 60_000 })
  return { authorization: `Bearer ${token}` }
}

/** The first is a miss, the second comes through the router and teaches the lane, the third takes it. */
const thrice = async (server: TestServer, path: string, init?: RequestInit) => {
  await server.get(path, init)
  return [await server.get(path, init), await server.get(path, init)] as const
}

describe('a URL that is known', () => {
  test('skips the router, and no other is taken for it', async () => {
    const asked: string[] = []
    const lane = createLane()
    const good = () => new Response('good')
    const learning = lane.learning(
      (request, door = good) => door(request, {} as never),
      (url) => () => {
        asked.push(url)
        return new Response(url.includes('bad') ? null : url, {
          status: url.includes('bad') ? 404 : 200,
        })
      },
    )
    let routed = 0
    const fetch = lane.before((request) => {
      routed++
      return learning(request)
    })
    const urls = ['http://a/x?1', 'http://a/x?1', 'http://a/bad', 'http://a/bad', 'http://b/x?1']
    for (const url of urls) await fetch(new Request(url))
    expect([asked, routed]).toEqual([urls, 4])
    await fetch(new Request('http://a/x?1', { method: 'DELETE' }))
    const long = `http://a/${'x'.repeat(600)}`
    for (let time = 0; time < 2; time++) await fetch(new Request(long))
    expect(routed).toBe(7)
  })

  test('is answered with the same headers and bytes', async () => {
    using folder = tempFolder()
    // Time stands: how long an answer is good for is told in whole seconds.
    await using server = await runServer({ app, folder, clock: shiftedClock() })
    await create(server, 'ann')
    for (const path of ['/api/notes?owner=ann', '/api/notes/1', '/api/notes/?limit=3']) {
      const [full, short] = await thrice(server, path)
      const changing = /^(x-request-id|x-response-time|date)$/
      const steady = ({ headers }: Response) =>
        Object.fromEntries([...headers].filter(([name]) => !changing.test(name)))
      expect(steady(short)).toEqual(steady(full))
      for (const name of ['x-request-id', 'x-response-time']) {
        expect(short.headers.get(name)).toMatch(/./)
      }
      expect(short.headers.get('x-request-id')).not.toBe(full.headers.get('x-request-id'))
      expect(await short.text()).toBe(await full.text())
    }
  })

  test('still passes every gate: a write shows, a bad token is refused, metrics count', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    await create(server, 'ann')
    await thrice(server, '/api/notes')
    await create(server, 'ben')
    const { items } = (await (await server.get('/api/notes')).json()) as { items: unknown[] }
    expect(items).toHaveLength(2)
    const bad = await server.get('/api/notes', { headers: { authorization: 'Bearer x' } })
    expect([bad.status, bad.headers.get('content-type')]).toEqual([401, 'application/problem+json'])
    const metrics = await (await server.get('/api/metrics')).text()
    expect(metrics).toContain('belfry_requests_total{route="GET /api/notes",status="200"} 4')
    expect((await server.get('/api/notes', { method: 'PUT' })).status).toBe(405)
  })

  test('answers each user with what that one may see', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    for (const owner of ['ann', 'ben', 'ben']) await create(server, owner)
    const lengthFor = async (sub: string) => {
      const [, short] = await thrice(server, '/api/own', { headers: await tokenOf(sub) })
      expect(short.headers.get('vary')).toBe('authorization, origin')
      return ((await short.json()) as { items: unknown[] }).items.length
    }
    expect([await lengthFor('ann'), await lengthFor('ben'), await lengthFor('cyd')]).toEqual([
      1, 2, 0,
    ])
    expect((await server.get('/api/own')).status).toBe(401)
  })

  test('with origins configured each answer says which may read it', async () => {
    using folder = tempFolder()
    const env = { CORS_ORIGIN: 'https://a.example,https://b.example' }
    await using server = await runServer({ app, folder, env })
    for (const origin of ['https://a.example', 'https://b.example', 'https://a.example']) {
      const [full, short] = await thrice(server, '/api/notes', { headers: { origin } })
      for (const one of [full, short]) {
        expect(one.headers.get('access-control-allow-origin')).toBe(origin)
      }
    }
  })
})

test('a thousand requests have a thousand ids', async () => {
  using folder = tempFolder()
  await using server = await runServer({ app, folder })
  const ids = new Set<string>()
  for (let batch = 0; batch < 22; batch++) {
    const answers = await Promise.all(Array.from({ length: 50 }, () => server.get('/api/notes')))
    for (const { headers } of answers) ids.add(headers.get('x-request-id') ?? '')
  }
  expect(ids.size).toBe(1100)
  const numbers = [...ids].map((id) => Number(/^[\da-f]{8}-(\d+)$/.exec(id)?.[1]))
  expect(numbers.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 1100 }, (_, n) => n + 1))
})
