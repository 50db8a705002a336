import { expect, test } from 'bun:test'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { openStore, tempFolder } from '../harness.ts'
import { spawnBelfry } from '../process.ts'

const appFile = `
import { app, collection } from 'belfry'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
const notes = sqliteTable('notes', { id: integer().primaryKey(), text: text().notNull() })
export default app({ name: 'notes', collections: { notes: collection(notes, { read: 'public', create: 'public' }) } })
`

const notes = sqliteTable('notes', { id: integer().primaryKey(), text: text().notNull() })

const writers = 500

test('kill -9 during 500 concurrent writes loses no acknowledged write, and no half of one', async () => {
  using folder = tempFolder()
  await Bun.write(folder.file('app.ts'), appFile)
  const acknowledged = new Set<number>()
  {
    await using server = await spawnBelfry({ args: ['serve', 'app.ts'], cwd: folder.path })
    const post = async (id: number): Promise<void> => {
      const response = await fetch(`${server.url}/api/notes`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ id, text: 'x'.repeat(200) }),
      })
      if (response.status !== 201) return
      acknowledged.add(id)
      if (acknowledged.size === writers / 4) server.kill('SIGKILL')
    }
    await Promise.allSettled(Array.from({ length: writers }, (_, id) => post(id + 1)))
    await server.exited
  }
  expect(acknowledged.size).toBeGreaterThanOrEqual(writers / 4)

  await using store = await openStore(folder.file('data/notes.db'), [notes])
  const column = async (sql: string): Promise<unknown[]> =>
    (await store.read({ sql, params: [] })).map(([value]) => value)
  expect(await column('pragma integrity_check')).toEqual(['ok'])
  const stored = await column('select id from notes order by id')
  const logged = await column("select json_extract(data, '$.row.id') from log order by 1")
  expect(logged).toEqual(stored)
  expect([...acknowledged].filter((id) => !stored.includes(id))).toEqual([])
  // The next number is beyond every one that was ever given.
  const [change] = await store.write([
    {
      sql: 'insert into notes (id, text) values (?, ?)',
      params: [10_000, 'after'],
    },
  ])
  expect(change?.seq).toBe(Number((await column('select max(seq) from log'))[0]))
})
