import { afterAll, beforeAll, expect, test } from 'bun:test'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { collection } from '../../src/kit.ts'
import { tempFolder, until } from '../harness.ts'
import { runServer } from '../server.ts'

// Threads are real and die for real: this only keeps hold of them.
const threads: Worker[] = []
const { Worker } = globalThis

beforeAll(() => {
  globalThis.Worker = class extends Worker {
    constructor(...args: ConstructorParameters<typeof Worker>) {
      super(...args)
      threads.push(this)
    }
  }
})

afterAll(() => {
  globalThis.Worker = Worker
})

const notes = sqliteTable('notes', { id: integer().primaryKey(), text: text().notNull() })
const app = { collections: { notes: collection(notes, { read: 'public', create: 'public' }) } }

test('threads that die are replaced; meanwhile health says so, and reads go on', async () => {
  using folder = tempFolder()
  threads.length = 0
  await using server = await runServer({ app, folder })
  const post = (id: number) =>
    server.get('/api/notes', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ id, text: 'x' }),
    })
  const isRead = async (query: string) => (await server.get(`/api/notes${query}`)).status === 200
  expect((await post(1)).status).toBe(201)

  const [writer, ...readers] = threads.splice(0)
  for (const reader of readers) reader.terminate()
  await until(() => threads.length === readers.length, 'others are started')
  await until(() => isRead('?limit=1'), 'the others read')
  expect((await post(2)).status).toBe(201)
  expect((await server.get('/api/health')).status).toBe(200)

  writer?.terminate()
  await until(async () => (await server.get('/api/health')).status === 503, 'health says so')
  expect(await (await server.get('/api/health')).json()).toMatchObject({ status: 'failing' })
  expect((await post(3)).status).toBe(503)
  expect(await isRead('?limit=2')).toBe(true)
  await until(async () => (await post(4)).status === 201, 'another writes')
  expect((await server.get('/api/health')).status).toBe(200)
  expect(await isRead('/4')).toBe(true)
})
