/**
 * The event loop never waits for SQL: how late its timers come, at the worst, while the store is hard
 * at work. Measured inside a belfry process against the same process under the like load of cached
 * reads, a moment before.
 */
import { Database } from 'bun:sqlite'
import { existsSync } from 'node:fs'
import { expect, test } from 'bun:test'
import { signToken } from '../../src/auth/auth.ts'
import { tempFolder } from '../harness.ts'
import { testSecret } from '../server.ts'
import { slowQuery } from '../store/slow.ts'
import { openBurst } from './burst.ts'
import { expectSmallLag, spawnWithLag, type ProcessWithLag } from './lag.ts'

/** About five seconds on a quiet machine. */
const querySteps = 15_000_000

/** Its feed runs a long query for as long as a file says so. */
const appFile = (steps: number) => `
import { app, collection, feed, topic } from 'belfry'
import { sql } from 'drizzle-orm'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { existsSync, rmSync } from 'node:fs'
const notes = sqliteTable('notes', { id: integer().primaryKey(), text: text().notNull() })
export default app({
  name: 'lag',
  collections: { notes: collection(notes, { read: 'public', create: 'signed-in' }) },
  topics: { counted: topic({ subscribe: 'public' }) },
  feeds: {
    counted: feed({
      every: '100ms',
      timeout: '60s',
      publish: 'counted',
      load: async ({ db }) => {
        if (!existsSync('run-query')) return null
        const rows = await db.all(sql.raw(${JSON.stringify(slowQuery(steps))}))
        rmSync('run-query')
        return rows
      },
    }),
  },
})
`

const start = async (folder: { path: string; file(name: string): string }, steps = 1) => {
  await Bun.write(folder.file('app.ts'), appFile(steps))
  return await spawnWithLag({
    args: ['serve', 'app.ts'],
    cwd: folder.path,
    env: { JWT_SECRET: testSecret, LOG_LEVEL: 'warn' },
  })
}

/** Users enough for `writes`: each may write 600 times a minute. */
async function tokensFor(writes: number, from = 0): Promise<(at: number) => string> {
  const times = { nowMs: Date.now(), ttlMs: 600_000 }
  const tokens = await Promise.all(
    Array.from({ length: Math.ceil(writes / 500) }, (_, at) =>
      signToken(testSecret, { sub: `user-${from}-${at}` }, times),
    ),
  )
  return (at) => tokens[at % tokens.length] ?? ''
}

const signedIn = async (): Promise<string> => (await tokensFor(1))(0)

function get(path: string): string {
  return `GET ${path} HTTP/1.1\r\nhost: lag\r\n\r\n`
}

function post(path: string, token: string, body: unknown): string {
  const text = JSON.stringify(body)
  const head = `POST ${path} HTTP/1.1\r\nhost: lag\r\nauthorization: Bearer ${token}\r\n`
  return `${head}content-type: application/json\r\ncontent-length: ${text.length}\r\n\r\n${text}`
}

test('a query of 5 s, with reads and writes beside it', async () => {
  using folder = tempFolder()
  await using server = await start(folder, querySteps)
  const token = await tokensFor(10_000)
  // One read of the database at a time: two at once, and one of them waits behind the query.
  const connections = 4
  using burst = await openBurst(server.port, connections)
  let id = 0
  const requests = async (isOver: (rounds: number) => boolean): Promise<number> => {
    let rounds = 0
    for (; !isOver(rounds); rounds++) {
      id++
      const statuses = await burst.send((at) => {
        if (at === 0) return post('/api/notes', token(id), { id, text: 'x' })
        return get(at === 1 ? `/api/notes/${id - 1}` : '/api/health')
      })
      if (id > 1) {
        expect(statuses).toEqual(
          new Map([
            [200, connections - 1],
            [201, 1],
          ]),
        )
      }
    }
    return rounds * connections
  }
  await requests((rounds) => rounds === 200)
  await expectSmallLag('while a long query runs', server, {
    baseline: async () => void (await requests((rounds) => rounds === 500)),
    async measured() {
      const flag = folder.file('run-query')
      await Bun.write(flag, '')
      const startedAt = performance.now()
      const answered = await requests(() => !existsSync(flag))
      const seconds = (performance.now() - startedAt) / 1_000
      expect(answered).toBeGreaterThan(100)
      expect(seconds).toBeGreaterThan(1)
      return `${seconds.toFixed(1)} s and ${answered} requests`
    },
  })
}, 180_000)

/** An insert that holds the writer: a trigger of another's making counts for so long. */
function slowInserts(file: string): void {
  using database = new Database(file)
  database.run('pragma busy_timeout = 5000')
  database.run(`create view slowly as ${slowQuery(querySteps)}`)
  database.run(
    "create trigger slow before insert on notes when new.text = 'slow' begin select * from slowly; end",
  )
}

test('10,000 writes that queue', async () => {
  using folder = tempFolder()
  await using server = await start(folder)
  const writes = 10_000
  using burst = await openBurst(server.port, writes)
  let stored = 0
  const write = async (seen: (sent: number) => void): Promise<void> => {
    const token = await tokensFor(writes, stored)
    const statuses = await burst.send((at) => {
      seen(at + 1)
      return post('/api/notes', token(at), { id: ++stored, text: 'x' })
    })
    expect(statuses).toEqual(new Map([[201, writes]]))
  }
  await write(() => undefined)
  slowInserts(folder.file('data/lag.db'))
  await expectSmallLag('while 10,000 writes queue and are done', server, {
    // As many, each done as it comes.
    baseline: async () => await write(() => undefined),
    async measured() {
      let isHeld = true
      const slow = insert(server, await signedIn(), { id: ++stored, text: 'slow' })
      void slow.then(() => (isHeld = false))
      await Bun.sleep(50)
      let waiting = 0
      await write((sent) => {
        if (isHeld) waiting = sent
      })
      expect(await slow).toBe(201)
      return `${waiting} sent before the first is done`
    },
  })
  const health = (await (await fetch(`${server.url}/api/health`)).json()) as { seq: number }
  expect(health.seq).toBe(stored)
}, 180_000)

async function insert(server: ProcessWithLag, token: string, row: unknown): Promise<number> {
  const response = await fetch(`${server.url}/api/notes`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify(row),
  })
  return response.status
}
