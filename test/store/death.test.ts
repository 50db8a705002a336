import { afterAll, beforeAll, expect, test } from 'bun:test'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { collection } from '../../src/kit.ts'
import { systemClock, type Clock } from '../../src/lib/clock.ts'
import { openThread } from '../../src/store/places.ts'
import { openStore, tempFolder, until } from '../harness.ts'
import { runServer } from '../server.ts'

/** As in src/store/writer.ts. */
const respawnMs = 500

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
  /** The writer's successor comes when it is let: half a second may pass between two requests. */
  let held: (() => void)[] | undefined
  const clock: Clock = {
    ...systemClock,
    after(ms, run) {
      if (!held || ms !== respawnMs) return systemClock.after(ms, run)
      held.push(run)
      return () => {}
    },
  }
  await using server = await runServer({ app, folder, clock })
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

  const waiting: (() => void)[] = (held = [])
  writer?.terminate()
  await until(async () => (await server.get('/api/health')).status === 503, 'health says so')
  expect(await (await server.get('/api/health')).json()).toMatchObject({ status: 'failing' })
  expect((await post(3)).status).toBe(503)
  expect(await isRead('?limit=2')).toBe(true)
  held = undefined
  for (const come of waiting) come()
  await until(async () => (await post(4)).status === 201, 'another writes')
  expect((await server.get('/api/health')).status).toBe(200)
  expect(await isRead('/4')).toBe(true)
})

test('a read that outlasts the stop is answered all the same', async () => {
  using folder = tempFolder()
  const store = await openStore(folder.file('a.db'), [notes])
  const long = `with recursive n(i) as (select 1 union all select i + 1 from n where i < 60000000)
    select count(*) from n`
  const read = store.read({ sql: long, params: [] }).then(
    () => 'rows',
    () => 'refused',
  )
  await store.stop()
  expect(await read).toBe('refused')
})

test('a thread that dies while it is opened is told of once: it has one successor', async () => {
  class Dying extends EventTarget {
    postMessage(): void {
      queueMicrotask(() => this.dispatchEvent(new ErrorEvent('error', { message: 'no memory' })))
    }
    terminate(): void {}
  }
  const kept = globalThis.Worker
  globalThis.Worker = Dying as never
  let deaths = 0
  try {
    const deps = { clock: systemClock, onDeath: () => void deaths++, isPatient: false }
    await openThread({ role: 'reader', file: 'a.db' }, deps).catch(() => {})
  } finally {
    globalThis.Worker = kept
  }
  expect(deaths).toBe(0)
})
