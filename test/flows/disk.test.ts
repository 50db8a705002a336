import { expect, test } from 'bun:test'
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { openStore, tempFolder } from '../harness.ts'
import { runBelfry, spawnBelfry } from '../process.ts'

const appFile = `
import { app, collection } from 'belfry'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
const notes = sqliteTable('notes', { id: integer().primaryKey(), text: text().notNull() })
export default app({ name: 'notes', collections: { notes: collection(notes, { read: 'public', create: 'public' }) } })
`

const notes = sqliteTable('notes', { id: integer().primaryKey(), text: text().notNull() })

/** A disk that is full after 3 MB: files of the process cannot grow further, and the signal is ignored. */
const onSmallDisk = ['bash', '-c', 'trap "" XFSZ; ulimit -f 3000; exec "$@"', 'small']
const source = [process.execPath, 'run', `${import.meta.dir}/../../src/main.ts`]

test('a full disk: writes get 503 and leave nothing half done, reads go on, no acknowledged row is lost', async () => {
  using folder = tempFolder()
  await Bun.write(folder.file('app.ts'), appFile)
  const acknowledged: number[] = []
  const statuses = new Set<number>()
  {
    await using server = await spawnBelfry({
      command: [...onSmallDisk, ...source],
      args: ['serve', 'app.ts'],
      cwd: folder.path,
    })
    const post = (id: number) =>
      fetch(`${server.url}/api/notes`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ id, text: 'x'.repeat(30_000) }),
      })
    for (let id = 1; id <= 300 && statuses.size < 2; id++) {
      const response = await post(id)
      statuses.add(response.status)
      if (response.status === 201) acknowledged.push(id)
      else expect(response.headers.get('retry-after')).not.toBeNull()
    }
    expect([...statuses]).toEqual([201, 503])
    for (const id of acknowledged.slice(-5)) {
      expect((await fetch(`${server.url}/api/notes/${id}`)).status).toBe(200)
    }
    server.kill('SIGKILL')
    await server.exited
  }
  await using store = await openStore(folder.file('data/notes.db'), [notes])
  const column = async (sql: string) =>
    (await store.read({ sql, params: [] })).map(([value]) => value)
  expect(await column('pragma integrity_check')).toEqual(['ok'])
  expect(await column('select id from notes order by id')).toEqual(acknowledged)
  expect(await column("select json_extract(data, '$.row.id') from log order by seq")).toEqual(
    acknowledged,
  )
  await store.write([
    { sql: "insert into notes (id, text) values (9999, 'space again')", params: [] },
  ])
})

test('a file that may not be written stops the start, with a word on what to do', async () => {
  using folder = tempFolder()
  await Bun.write(folder.file('app.ts'), appFile)
  mkdirSync(folder.file('data'))
  {
    await using _ = await openStore(folder.file('data/notes.db'), [notes])
  }
  // Root may write what is read-only: for it, the data folder is a file.
  const env: Record<string, string> = { PORT: '0' }
  if (process.getuid?.() === 0) {
    writeFileSync(folder.file('plain'), '')
    env['DATABASE_URL'] = `file:${folder.file('plain/notes.db')}`
  } else chmodSync(folder.file('data'), 0o500)
  const { exitCode, stderr } = await runBelfry({ args: ['serve', 'app.ts'], cwd: folder.path, env })
  chmodSync(folder.file('data'), 0o700)
  expect(exitCode).toBe(1)
  expect(stderr).toMatch(/the data folder cannot be made|cannot be opened for writing/)
  expect(stderr).toContain('hint: check the path')
})
