/** The event loop while a whole database is copied, and while a replica syncs over a slow link. */
import { Database } from 'bun:sqlite'
import { expect, test } from 'bun:test'
import { mkdirSync, readdirSync, statSync } from 'node:fs'
import { tempFolder } from '../harness.ts'
import { requireService, startSqld } from '../services.ts'
import { expectSmallLag, spawnWithLag, startSlowLink } from './lag.ts'

const appFile = `
import { app, collection } from 'belfry'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
const notes = sqliteTable('notes', { id: integer().primaryKey(), text: text().notNull() })
export default app({ name: 'lag', collections: { notes: collection(notes, { read: 'public', create: 'public' }) } })
`

const rows = 26_000

/** As Belfry makes it, and 200 MB of rows that do not compress to nothing. */
function fill(file: string): void {
  using database = new Database(file)
  database.run('create table notes ("id" integer primary key not null, "text" text not null)')
  database.run(
    `insert into notes with recursive n(i) as (select 1 union all select i + 1 from n where i < ${rows})
     select i, hex(randomblob(4000)) from n`,
  )
}

const read = async (url: string, ids: readonly number[]): Promise<void> => {
  for (const id of ids) expect((await fetch(`${url}/api/notes/${id}`)).status).toBe(200)
}

const someIds = (from: number, count: number): number[] =>
  Array.from({ length: count }, (_, at) => from + at)

test('a backup of 200 MB, with reads and writes beside it', async () => {
  using folder = tempFolder()
  await Bun.write(folder.file('app.ts'), appFile)
  mkdirSync(folder.file('data'))
  fill(folder.file('data/lag.db'))
  expect(statSync(folder.file('data/lag.db')).size).toBeGreaterThan(200e6)
  await using server = await spawnWithLag({
    args: ['serve', 'app.ts'],
    cwd: folder.path,
    env: { LOG_LEVEL: 'warn' },
  })
  let id = rows
  const load = async (): Promise<void> => {
    await read(server.url, [(id % rows) + 1])
    const created = await fetch(`${server.url}/api/notes`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ id: ++id, text: 'x' }),
    })
    // 600 a minute from one address.
    expect([201, 429]).toContain(created.status)
  }
  await expectSmallLag('while a backup of 200 MB is made', server, {
    async baseline() {
      for (let at = 0; at < 200; at++) await load()
    },
    async measured() {
      let isOver = false
      const socket = folder.file('data/belfry.sock')
      const startedAt = performance.now()
      const backup = fetch('http://local/backup', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: '{}',
        unix: socket,
      }).finally(() => (isOver = true))
      let requests = 0
      for (; !isOver; requests++) await load()
      expect((await backup).status).toBe(200)
      const seconds = ((performance.now() - startedAt) / 1_000).toFixed(1)
      return `${seconds} s, ${requests} requests meanwhile`
    },
  })
  expect(readdirSync(folder.file('data/backups')).length).toBeGreaterThan(0)
}, 240_000)

test.skipIf(!requireService('sqld'))(
  'a replica that syncs over a link of 200 ms, with writes that cross it',
  async () => {
    using folder = tempFolder()
    await Bun.write(folder.file('app.ts'), appFile)
    await using primary = await startSqld()
    await using link = await startSlowLink(primary.port)
    await using server = await spawnWithLag({
      args: ['serve', 'app.ts'],
      cwd: folder.path,
      env: {
        LOG_LEVEL: 'warn',
        DATABASE_URL: link.url,
        DATABASE_REPLICA_PATH: folder.file('replica.db'),
      },
    })
    let id = 0
    const write = async (): Promise<void> => {
      const response = await fetch(`${server.url}/api/notes`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ id: ++id, text: 'x'.repeat(20_000) }),
      })
      expect(response.status).toBe(201)
    }
    await Promise.all(Array.from({ length: 50 }, write))
    await expectSmallLag('while a replica syncs over 200 ms', server, {
      async baseline() {
        for (let at = 0; at < 10; at++) await read(server.url, someIds(1, 50))
      },
      async measured() {
        const startedAt = performance.now()
        let reads = 0
        let isOver = false
        const writing = (async () => {
          for (let round = 0; round < 5; round++)
            await Promise.all(Array.from({ length: 20 }, write))
          isOver = true
        })()
        for (; !isOver; reads += 20) await read(server.url, someIds(1, 20))
        await writing
        const seconds = ((performance.now() - startedAt) / 1_000).toFixed(1)
        return `${seconds} s, 100 writes of 20 KB, ${reads} reads meanwhile`
      },
    })
  },
  240_000,
)
