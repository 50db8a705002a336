/** A restored database and the copies that are shipped to: they held what the restore has undone. */
import { expect, test } from 'bun:test'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { createBackups, restore } from '../../src/backup/backup.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { createTestLog, openStore, tempFolder, until } from '../harness.ts'
import { requireService, startSqld } from '../services.ts'

const notes = sqliteTable('notes', { id: integer().primaryKey(), text: text().notNull() })

test.skipIf(!requireService('sqld'))(
  'after a restore a shipped copy gives nothing that was undone, and is a copy again',
  async () => {
    using folder = tempFolder()
    await using copy = await startSqld()
    const file = folder.file('a.db')
    const open = () =>
      openStore({ kind: 'file', file, replicas: [{ url: copy.url }] }, [notes], { readers: 1 })
    const clock = systemClock
    const log = createTestLog()
    const insert = (id: number, value: string) => ({
      sql: 'insert into notes (id, text) values (?, ?)',
      params: [id, value],
    })
    let path = ''
    {
      await using store = await open()
      await store.write([insert(1, 'kept')])
      const deps = { snapshot: store.snapshot, clock, log }
      const backups = createBackups(deps, { app: 'a', databaseFile: file, plan: undefined })
      path = (await backups.run()).path
      for (let id = 2; id < 12; id++) await store.write([insert(id, 'undone')])
      const newest = store.stats().seq
      await until(() => store.stats().replicas[0]?.seq === newest, 'the copy has it all')
    }
    await restore({ clock, log }, { from: path, databaseFile: file, tables: [notes] })
    await using store = await open()
    await store.write([insert(20, 'new')])
    const newest = store.stats().seq
    await until(() => store.stats().replicas[0]?.seq === newest, 'it is a copy again')
    const { replicaReads } = store.stats()
    const select = { sql: 'select id, text from notes order by id', params: [] }
    for (let at = 0; at < 4; at++) {
      expect(await store.read(select)).toEqual([
        [1, 'kept'],
        [20, 'new'],
      ])
    }
    expect(store.stats().replicaReads).toBe(replicaReads + 4)
  },
)
