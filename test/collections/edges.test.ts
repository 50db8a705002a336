import { describe, expect, test } from 'bun:test'
import {
  index,
  integer,
  numeric,
  primaryKey,
  real,
  sqliteTable,
  text,
} from 'drizzle-orm/sqlite-core'
import type { User } from '../../src/auth/declare.ts'
import { Fault } from '../../src/fault.ts'
import { asc, collection, lte, type CollectionOptions } from '../../src/collections/declare.ts'
import { app } from '../../src/plan/declare.ts'
import { compilePlan } from '../../src/plan/plan.ts'
import { tempFolder } from '../harness.ts'
import { runServer, type TestServer } from '../server.ts'

const open = { read: 'public', create: 'public', update: 'public', remove: 'public' } as const
const writePolicy = { name: 'writes', quota: 10_000, windowMs: 1_000 }
const headers = { 'content-type': 'application/json' }

function send(server: TestServer, method: string, path: string, body?: unknown) {
  const init = body === undefined ? {} : { body: JSON.stringify(body) }
  return server.get(path, { method, headers, ...init })
}

const tags = sqliteTable('tags', { name: text().primaryKey(), n: integer() })

describe('ids', () => {
  test.each([
    ...['a', 'a,b', 'a/b', '100%', 'a%2Fb', 'a b', 'a?b', 'a#b', 'é', '日本', '😀', 'a\nb', 'a\\b'],
    ...['%', 'a+b', 'a&b', 'a:b', '...'],
  ])('%j is where Location says, and can be changed and removed there', async (name) => {
    using folder = tempFolder()
    const collections = { tags: collection(tags, open) }
    await using server = await runServer({ app: { collections }, folder, writePolicy })
    const created = await send(server, 'POST', '/api/tags', { name, n: 1 })
    expect(created.status).toBe(201)
    const path = created.headers.get('location') ?? ''
    expect(await (await server.get(path)).json()).toEqual({ name, n: 1 })
    expect((await send(server, 'PATCH', path, { n: 2 })).status).toBe(200)
    expect(await (await server.get(path)).json()).toEqual({ name, n: 2 })
    expect((await send(server, 'DELETE', path)).status).toBe(204)
  })

  test('what no URL can name, no text can hold, or only the database may choose is refused', async () => {
    const rows = sqliteTable('rows', {
      id: integer().primaryKey({ autoIncrement: true }),
      name: text(),
      meta: text({ mode: 'json' }),
      at: integer({ mode: 'timestamp_ms' }),
    })
    using folder = tempFolder()
    const collections = { tags: collection(tags, open), rows: collection(rows, open) }
    await using server = await runServer({ app: { collections }, folder, writePolicy })
    let deep: unknown = 0
    for (let depth = 0; depth < 80; depth++) deep = [deep]
    const cases: [string, unknown, string][] = [
      ...['', '.', '..'].map((name): [string, unknown, string] => ['tags', { name }, 'name']),
      ['tags', { name: 'a\0b' }, 'name'],
      ['tags', { name: 'a', toString: 1 }, 'toString'],
      ['rows', { id: 2 ** 53 - 1 }, 'id'],
      ['rows', { meta: deep }, 'meta'],
      ['rows', { at: '2026-02-31T00:00:00Z' }, 'at'],
      ['rows', { at: 8.64e15 }, 'at'],
    ]
    for (const [path, body, field] of cases) {
      const response = await send(server, 'POST', `/api/${path}`, body)
      const problem = (await response.json()) as { errors?: { field: string }[] }
      expect([response.status, problem.errors?.map((one) => one.field)]).toEqual([400, [field]])
    }
    expect(server.rooms.store.stats().writes).toBe(0)
  })
})

test('a conflict names the property, not the column behind it', async () => {
  const people = sqliteTable('people', {
    id: integer().primaryKey(),
    email: text('email_address').unique(),
  })
  using folder = tempFolder()
  await using server = await runServer({
    app: { collections: { people: collection(people, open) } },
    folder,
  })
  await send(server, 'POST', '/api/people', { id: 1, email: 'a@b' })
  const response = await send(server, 'POST', '/api/people', { id: 2, email: 'a@b' })
  expect(response.status).toBe(409)
  expect(await response.json()).toMatchObject({ errors: [{ field: 'email', message: 'is taken' }] })
})

test('pages of an order by a text of declared length go on', async () => {
  const items = sqliteTable(
    'items',
    { id: integer().primaryKey(), name: text({ length: 20 }).notNull() },
    (t) => [index('items_name').on(t.name)],
  )
  using folder = tempFolder()
  const collections = { items: collection(items, { ...open, orders: { name: asc(items.name) } }) }
  await using server = await runServer({ app: { collections }, folder })
  for (const name of ['b', 'a', 'c']) await send(server, 'POST', '/api/items', { name })
  const page = async (query: string) =>
    (await (await server.get(`/api/items?limit=1${query}`)).json()) as {
      items: { name: string }[]
      next: string | null
    }
  const seen: string[] = []
  for (let next: string | null = ''; next !== null;) {
    const one = await page(next === '' ? '' : `&after=${next}`)
    seen.push(...one.items.map(({ name }) => name))
    ;({ next } = one)
  }
  expect(seen).toEqual(['a', 'b', 'c'])
})

test('rules with operands JSON cannot tell apart never share an entry', async () => {
  const docs = sqliteTable('docs', { id: integer().primaryKey(), level: real().notNull() })
  const read: CollectionOptions<typeof docs>['read'] = ({ user }) =>
    lte(docs.level, user ? Number(user['level']) : -Infinity)
  using folder = tempFolder()
  await using server = await runServer({
    app: { collections: { docs: collection(docs, { ...open, read }) } },
    folder,
  })
  await send(server, 'POST', '/api/docs', { level: 9 })
  const { collections } = server.rooms
  const [plan] = collections.plans
  if (!plan) throw new Error('the app has a collection')
  const seenBy = async (user: User | null) => {
    const { entry } = await collections.list(plan, user, '')
    return (JSON.parse(new TextDecoder().decode(entry.body)) as { items: unknown[] }).items.length
  }
  expect(await seenBy({ id: 'admin', level: Infinity })).toBe(1)
  expect(await seenBy(null)).toBe(0)
  expect(await seenBy({ id: 'nobody', level: 'none' })).toBe(0)
})

test('what a cascade deletes is not served from cache', async () => {
  const rooms = sqliteTable('rooms', { id: integer().primaryKey() })
  const posts = sqliteTable('posts', {
    id: integer().primaryKey(),
    roomId: integer('room_id').references(() => rooms.id, { onDelete: 'cascade' }),
  })
  const likes = sqliteTable('likes', {
    id: integer().primaryKey(),
    postId: integer('post_id').references(() => posts.id, { onDelete: 'set null' }),
  })
  using folder = tempFolder()
  const collections = {
    likes: collection(likes, open),
    posts: collection(posts, open),
    rooms: collection(rooms, open),
  }
  await using server = await runServer({ app: { collections }, folder, writePolicy })
  await send(server, 'POST', '/api/rooms', { id: 1 })
  await send(server, 'POST', '/api/posts', { id: 1, roomId: 1 })
  await send(server, 'POST', '/api/likes', { id: 1, postId: 1 })
  const json = async (path: string) => await (await server.get(path)).json()
  expect(await json('/api/posts')).toMatchObject({ items: [{ id: 1 }] })
  expect(await json('/api/posts/1')).toMatchObject({ id: 1 })
  expect(await json('/api/likes/1')).toEqual({ id: 1, postId: 1 })
  await send(server, 'DELETE', '/api/rooms/1')
  expect(await json('/api/posts')).toMatchObject({ items: [] })
  expect((await server.get('/api/posts/1')).status).toBe(404)
  expect(await json('/api/likes/1')).toEqual({ id: 1, postId: null })
})

test('a table that others refer to is made, though no collection serves it', async () => {
  const owners = sqliteTable('owners', { id: integer().primaryKey() })
  const pets = sqliteTable('pets', {
    id: integer().primaryKey(),
    ownerId: integer().references(() => owners.id),
  })
  using folder = tempFolder()
  await using server = await runServer({
    app: { collections: { pets: collection(pets, open) } },
    folder,
  })
  expect((await send(server, 'POST', '/api/pets', { id: 1 })).status).toBe(201)
  expect((await send(server, 'POST', '/api/pets', { id: 2, ownerId: 7 })).status).toBe(409)
})

test('forced values are checked like any other', async () => {
  const notes = sqliteTable('notes', { id: integer().primaryKey(), title: text().notNull() })
  using folder = tempFolder()
  const create: CollectionOptions<typeof notes>['create'] = () => ({ title: (() => 'x') as never })
  await using server = await runServer({
    app: { collections: { notes: collection(notes, { ...open, create }) } },
    folder,
  })
  expect((await send(server, 'POST', '/api/notes', { title: 'a' })).status).toBe(500)
  expect(server.rooms.store.stats()).toMatchObject({ writes: 0 })
})

test('columns that cannot be served as they are, are refused at start', () => {
  const bad = sqliteTable('bad', {
    id: integer().primaryKey(),
    price: numeric(),
    double: integer().generatedAlwaysAs(() => Bun.randomUUIDv7() as never),
  })
  let fields: readonly { readonly field: string }[] = []
  try {
    compilePlan(app({ name: 'a', collections: { bad: collection(bad, {}) } }))
  } catch (thrown) {
    if (thrown instanceof Fault) fields = thrown.fields ?? []
  }
  expect(fields.map(({ field }) => field)).toEqual([
    'collections.bad.price',
    'collections.bad.double',
  ])
})

test('every part of a composite key counts', async () => {
  const seats = sqliteTable(
    'seats',
    { room: text().notNull(), seat: integer().notNull(), guest: text() },
    (t) => [primaryKey({ columns: [t.room, t.seat] })],
  )
  using folder = tempFolder()
  const collections = { seats: collection(seats, open) }
  await using server = await runServer({ app: { collections }, folder })
  for (const seat of [1, 2]) await send(server, 'POST', '/api/seats', { room: 'a', seat })
  const guestOf = async (id: string) =>
    ((await (await server.get(`/api/seats/${id}`)).json()) as { guest: string | null }).guest
  expect((await send(server, 'PATCH', '/api/seats/a,2', { guest: 'ann' })).status).toBe(200)
  expect([await guestOf('a,1'), await guestOf('a,2')]).toEqual([null, 'ann'])
  await send(server, 'DELETE', '/api/seats/a,2')
  expect([await guestOf('a,1'), (await server.get('/api/seats/a,2')).status]).toEqual([null, 404])
})
