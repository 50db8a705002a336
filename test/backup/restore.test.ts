import { describe, expect, test } from 'bun:test'
import { copyFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import Database from 'libsql'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { restore } from '../../src/backup/backup.ts'
import { collection } from '../../src/collections/declare.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { must } from '../../src/lib/assert.ts'
import { openPinned } from '../../src/store/store.ts'
import { createTestLog, faultOf, tempFolder, type TempFolder } from '../harness.ts'
import { runServer } from '../server.ts'
import { contentsOf, namesIn, rowsOf } from './setup.ts'

const notes = sqliteTable('notes', { id: integer().primaryKey(), text: text().notNull() })
const app = { collections: { notes: collection(notes, { read: 'public' }) } }

/** A stopped server's folder with 300 rows, and a backup of the first 200 of them. */
async function setUp(folder: TempFolder) {
  const server = await runServer({ app, folder })
  const { collections, backups } = server.rooms
  const plan = must(collections.plans[0], () => 'there is one')
  const rows = (from: number, to: number) =>
    Array.from({ length: to - from }, (_, at) => ({ id: from + at, text: 'ä'.repeat(900) }))
  await collections.upsert([{ plan, rows: rows(0, 200) }])
  const { path } = await backups.run({ folder: folder.file('elsewhere') })
  await collections.upsert([{ plan, rows: rows(200, 300) }])
  await server.stop()
  const databaseFile = folder.file('test.db')
  const run = (from = path, tables = [notes]) =>
    restore({ clock: systemClock, log: createTestLog() }, { from, databaseFile, tables })
  const count = async (file = databaseFile) =>
    (await rowsOf(file, 'select count(*) from notes'))[0]?.[0]?.[0]
  return { path, databaseFile, run, count }
}

describe('restore', () => {
  test('puts the backup in place, keeps the old one beside, and a server starts on it', async () => {
    using folder = tempFolder()
    const { run, count, databaseFile } = await setUp(folder)
    const { keptAs, seq } = await run()
    expect([seq, await count()]).toEqual([200, 200])
    expect(await count(must(keptAs, () => 'it was kept'))).toBe(300)
    expect(namesIn(folder.path).filter((name) => name.startsWith('.'))).toEqual([])
    await using server = await runServer({ app, folder })
    expect(((await (await server.get('/api/notes/199')).json()) as { id: number }).id).toBe(199)
    expect((await server.get('/api/notes/200')).status).toBe(404)
    expect(server.rooms.store.stats().seq).toBe(200)
    expect(databaseFile).toBe(folder.file('test.db'))
  })

  test('takes a plain database file, where there was none', async () => {
    using folder = tempFolder()
    const { run, count, databaseFile } = await setUp(folder)
    copyFileSync(databaseFile, folder.file('plain.db'))
    rmSync(databaseFile)
    expect((await run(folder.file('plain.db'))).keptAs).toBeUndefined()
    expect(await count()).toBe(300)
  })

  test('replaces a damaged database, and keeps that one too, with its WAL', async () => {
    using folder = tempFolder()
    const { run, count, databaseFile } = await setUp(folder)
    writeFileSync(databaseFile, 'not a database any more'.repeat(1_000))
    writeFileSync(`${databaseFile}-wal`, 'nor is this a WAL')
    const { keptAs = '' } = await run()
    expect(await count()).toBe(200)
    expect(readFileSync(keptAs, 'utf8')).toStartWith('not a database any more')
    expect(readFileSync(`${keptAs}-wal`, 'utf8')).toBe('nor is this a WAL')
  })

  test('what another process left in the WAL goes with the old one, not into the new', async () => {
    using folder = tempFolder()
    const { run, count, databaseFile } = await setUp(folder)
    // As a killed server leaves it: rows in the WAL alone.
    const writer = `
      import Database from 'libsql'
      const db = new Database(${JSON.stringify(databaseFile)})
      db.exec("pragma journal_mode = wal; pragma wal_autocheckpoint = 0; delete from notes where id >= 250")
      process.kill(process.pid, 'SIGKILL')`
    const root = `${import.meta.dir}/../..`
    Bun.spawnSync([process.execPath, '-e', writer], { cwd: root })
    expect(namesIn(folder.path)).toContain('test.db-wal')
    const { keptAs } = await run()
    expect([await count(), await count(must(keptAs, () => 'it was kept'))]).toEqual([200, 250])
  })

  test('refuses while a server has the folder, and while another program reads the database', async () => {
    using folder = tempFolder()
    const { run, count, databaseFile } = await setUp(folder)
    {
      // In a process of its own: file locks do not hold against the same one.
      await using holder = Bun.spawn(
        [process.execPath, `${import.meta.dir}/../store/hold-fixture.ts`, databaseFile],
        { stdout: 'pipe', stderr: 'inherit' },
      )
      for await (const chunk of holder.stdout)
        if (new TextDecoder().decode(chunk).includes('held')) break
      const before = contentsOf(folder.path)
      const fault = await faultOf(() => run())
      expect([fault.code, fault.message, fault.hint]).toEqual([
        'unavailable',
        `the data folder is in use by another belfry process: ${folder.path}`,
        'a restore replaces what a server serves: stop it first',
      ])
      expect(contentsOf(folder.path)).toEqual(before)
      holder.kill('SIGKILL')
      await holder.exited
    }
    const reader = await openPinned(
      { clock: systemClock },
      { kind: 'file', file: databaseFile, replicas: [] },
    )
    await rowsOf(databaseFile, 'select 1')
    // Something in the WAL that the reader does not see yet: it cannot be folded under it.
    const script = `
      import Database from 'libsql'
      const db = new Database(${JSON.stringify(databaseFile)})
      db.exec('pragma wal_autocheckpoint = 0; delete from notes where id = 1')`
    Bun.spawnSync([process.execPath, '-e', script], { cwd: `${import.meta.dir}/../..` })
    expect((await faultOf(() => run())).message).toBe('another program reads test.db')
    await reader.close()
    await run()
    expect(await count()).toBe(200)
  })

  test.each<[string, string, (good: Buffer) => Buffer | string]>([
    [
      'a flipped bit',
      'damaged',
      (good) => (good.writeUInt8(good.readUInt8(2_000) ^ 1, 2_000), good),
    ],
    ['cut off in the middle', 'cut off', (good) => good.subarray(0, good.length >> 1)],
    [
      'cut off between two frames',
      'cut off',
      (good) => zstd(zstdDecompressSync(good).subarray(0, 8_192)),
    ],
    ['an empty frame', 'cut off', () => zstd(Buffer.alloc(0))],
    [
      'a damaged page that unpacks well',
      'damaged',
      (good) => zstd(zstdDecompressSync(good).fill(7, 5_000, 9_000)),
    ],
    ['not a backup', 'neither a backup', () => 'hello'],
    ['no database inside', 'no database is in it', () => zstd(Buffer.from('x'.repeat(9_000)))],
  ])('refuses %s (%s), and touches nothing', async (_, message, change) => {
    using folder = tempFolder()
    const { run, path } = await setUp(folder)
    const bad = folder.file('bad.db.zst')
    writeFileSync(bad, change(readFileSync(path)))
    const before = contentsOf(folder.path)
    expect((await faultOf(() => run(bad))).message).toContain(message)
    expect(contentsOf(folder.path)).toEqual(before)
  })

  test('refuses what would not start: a newer belfry, tables that differ, nothing there', async () => {
    using folder = tempFolder()
    const { run, path, databaseFile } = await setUp(folder)
    const newer = zstdDecompressSync(readFileSync(path))
    // `user_version` of the header.
    newer.writeUInt32BE(9_999, 60)
    writeFileSync(folder.file('newer.db'), newer)
    const other = sqliteTable('notes', { id: integer().primaryKey(), text: integer().notNull() })
    new Database(folder.file('foreign.db')).exec('create table t (a)')
    const before = contentsOf(folder.path)
    expect((await faultOf(() => run(folder.file('foreign.db')))).message).toContain('no belfry')
    expect((await faultOf(() => run(folder.file('newer.db')))).message).toContain(
      'of a newer belfry',
    )
    expect((await faultOf(() => run(path, [other as never]))).message).toContain('could lose data')
    expect((await faultOf(() => run(folder.file('none')))).message).toContain('there is no file')
    expect(contentsOf(folder.path)).toEqual(before)
    expect(databaseFile).toBe(folder.file('test.db'))
  })
})

function zstd(bytes: Uint8Array): Buffer {
  return zstdCompressSync(bytes)
}
