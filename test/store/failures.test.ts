/** What goes wrong around a database, on the shapes where it can: reads go on where they can, nothing acknowledged is lost. */
import { describe, expect, test } from 'bun:test'
import { copyFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { toFault } from '../../src/fault.ts'
import { openHttp } from '@libsql/hrana-client'
import { insertNote, notes, storeTables } from '../contracts/store.ts'
import type { DatabaseOptions } from '../../src/store/store.ts'
import {
  createTestLog,
  faultOf,
  openStore,
  tempFolder,
  until,
  type TempFolder,
  type TestStore,
} from '../harness.ts'
import { freePort, requireService, startSqld, type Sqld } from '../services.ts'

const countNotes = { sql: 'select count(*) from notes', params: [] }

const embeddedIn = (folder: TempFolder, { url }: Sqld): DatabaseOptions => ({
  kind: 'remote',
  primary: { url },
  replicas: [],
  replicaFile: folder.file('replica.db'),
})

const hasSqld = Boolean(requireService('sqld'))

describe.skipIf(!hasSqld)('a primary that goes away and comes back', () => {
  test('an embedded replica reads on, writes are refused with a time, and nothing needs a restart', async () => {
    using folder = tempFolder()
    await using primary = await startSqld()
    await using store = await openStore(
      {
        kind: 'remote',
        primary: { url: primary.url },
        replicas: [],
        replicaFile: folder.file('replica.db'),
      },
      storeTables,
    )
    await store.write([insertNote(1, 'one')])
    await until(() => (store.stats().replicas[0]?.seq ?? 0) >= 1, 'the replica has it')
    await primary.kill()
    const refused = await faultOf(() => store.write([insertNote(2, 'two')]))
    expect(refused.code).toBe('unavailable')
    const atOnce = await faultOf(() => store.write([insertNote(3, 'three')]))
    expect(atOnce.retryAfterMs).toBeGreaterThan(0)
    expect(store.stats().isWritable).toBe(false)
    expect(await store.read(countNotes)).toEqual([[1]])
    await primary.restart()
    await until(
      () =>
        store.write([insertNote(4, 'four')]).then(
          () => true,
          () => false,
        ),
      'writes go on',
    )
    expect(await store.read({ sql: 'select id from notes order by id', params: [] })).toEqual([
      [1],
      [4],
    ])
    const before = store.stats().replicaReads
    await until(() => (store.stats().replicas[0]?.seq ?? 0) >= 2, 'the replica follows again')
    await store.read(countNotes)
    expect(store.stats().replicaReads).toBe(before + 1)
  })

  test('replicas at URLs read on; one that lags is not asked for what it cannot know', async () => {
    await using primary = await startSqld({ grpcPort: await freePort() })
    await using replica = await startSqld({ primaryGrpcUrl: primary.grpcUrl })
    await using store = await openStore(
      { kind: 'remote', primary: { url: primary.url }, replicas: [{ url: replica.url }] },
      storeTables,
    )
    await store.write([insertNote(1, 'one')])
    await until(() => (store.stats().replicas[0]?.seq ?? 0) >= 1, 'the replica has it')
    replica.pause()
    await store.write([insertNote(2, 'two')])
    // The paused one is left out by its seq, not by its silence.
    expect(await store.read(countNotes)).toEqual([[2]])
    replica.resume()
    await until(() => (store.stats().replicas[0]?.seq ?? 0) >= 2, 'the replica catches up')
    await primary.kill()
    // A sqld may stumble at the moment its primary goes.
    const isRead = async () => String(await store.read(countNotes).catch(() => '')) === '2'
    await until(isRead, 'reads go on')
  })
})

describe.skipIf(!hasSqld)('what a primary cannot be sent, or cannot answer with', () => {
  test('is refused or stored as in a file, alone, and nobody else waits for it', async () => {
    await using primary = await startSqld()
    await using store = await openStore(
      { kind: 'remote', primary: { url: primary.url }, replicas: [] },
      storeTables,
    )
    const priced = (id: number, price: number) => ({
      sql: 'insert into notes (id, text, price) values (?, ?, ?)',
      params: [id, 'x', price],
    })
    const outcomes = await Promise.allSettled([
      store.write([insertNote(1, 'a\ud800b')]),
      store.write([priced(2, NaN)]),
      store.write([priced(3, Infinity)]),
      store.write([insertNote(4, 'a neighbour')]),
    ])
    const statuses = outcomes.map(({ status }) => status)
    expect(statuses).toEqual(['fulfilled', 'fulfilled', 'rejected', 'fulfilled'])
    const stored = { sql: 'select id, text, price from notes order by id', params: [] }
    expect(await store.read(stored)).toEqual([
      [1, 'a\ufffdb', null],
      [2, 'x', null],
      [4, 'a neighbour', null],
    ])
    const large = `with recursive n(i) as (select 1 union all select i + 1 from n where i < 20)
      select hex(zeroblob(500000)) from n`
    for (const sql of ['select 9007199254740993', large]) {
      // Drizzle's own error is around it.
      const failure = await store.transaction((tx) => tx.all(sql)).catch(toFault)
      expect(failure).toMatchObject({ code: 'internal' })
      expect(store.stats().isWritable).toBe(true)
    }
  })
})

describe.skipIf(!hasSqld)('a replica that breaks', () => {
  test('an embedded one that is damaged is taken out, copied anew and put back', async () => {
    using folder = tempFolder()
    await using primary = await startSqld()
    const database = embeddedIn(folder, primary)
    {
      await using store = await openStore(database, storeTables)
      for (let id = 1; id <= 200; id++) await store.write([insertNote(id, 'x'.repeat(500))])
    }
    for (const name of readdirSync(folder.path)) {
      if (/^replica\.db(-wal)?$/.test(name))
        writeFileSync(folder.file(name), 'no database '.repeat(9_000))
    }
    const log = createTestLog()
    await using store = await openStore(database, storeTables, { log })
    expect(log.lines.map(({ event }) => event)).toContain('store.replica_rebuild')
    const before = store.stats().replicaReads
    expect(await store.read(countNotes)).toEqual([[200]])
    expect(store.stats().replicaReads).toBe(before + 1)
  })

  test('one of a primary that went back to an earlier state is copied anew', async () => {
    using folder = tempFolder()
    await using primary = await startSqld()
    const database = embeddedIn(folder, primary)
    {
      await using store = await openStore(database, storeTables)
      for (let id = 1; id <= 5; id++) await store.write([insertNote(id, 'x')])
    }
    await primary.kill()
    rmSync(`${primary.folder}/data.sqld`, { recursive: true, force: true })
    await primary.restart()
    await using store = await openStore(database, storeTables)
    await store.write([insertNote(1, 'new')])
    await until(
      () => (store.stats().replicas[0]?.seq ?? 0) === 1,
      'the replica is of the new state',
    )
    expect(await store.read(countNotes)).toEqual([[1]])
  })

  test('a copy of what a restored file has forgotten is copied anew, and not read before', async () => {
    using folder = tempFolder()
    await using copy = await startSqld()
    const database = {
      kind: 'file',
      file: folder.file('a.db'),
      replicas: [{ url: copy.url }],
    } as const
    const shipped = (store: TestStore) =>
      until(() => store.stats().replicas[0]?.seq === store.stats().seq, 'the copy is in step')
    {
      await using store = await openStore(database, storeTables)
      await store.write([insertNote(1, 'kept')])
      await shipped(store)
    }
    copyFileSync(database.file, folder.file('backup.db'))
    {
      await using store = await openStore(database, storeTables)
      for (let id = 2; id <= 10; id++) await store.write([insertNote(id, 'forgotten')])
      await shipped(store)
    }
    copyFileSync(folder.file('backup.db'), database.file)
    {
      await using store = await openStore(database, storeTables)
      expect(await store.read(countNotes)).toEqual([[1]])
      for (let id = 21; id <= 30; id++) await store.write([insertNote(id, 'new')])
      await shipped(store)
      const ids = { sql: 'select count(*), max(id), sum(id) from notes', params: [] }
      const { replicaReads } = store.stats()
      expect(await store.read(ids)).toEqual([[11, 30, 256]])
      expect(store.stats().replicaReads).toBe(replicaReads + 1)
    }
  })

  test('a shipped copy that loses everything is copied anew, also behind the log that is kept', async () => {
    using folder = tempFolder()
    await using copy = await startSqld()
    await using store = await openStore(
      { kind: 'file', file: folder.file('a.db'), replicas: [{ url: copy.url }] },
      storeTables,
    )
    const shipped = (seq: number) =>
      until(() => (store.stats().replicas[0]?.seq ?? 0) >= seq, `${seq}`)
    for (let id = 1; id <= 20; id++) await store.write([insertNote(id, 'x')])
    await shipped(20)
    await copy.kill()
    await until(() => store.stats().replicas[0]?.seq === -1, 'it is out')
    await store.write([insertNote(21, 'x'), { sql: 'delete from notes where id < 3', params: [] }])
    expect(await store.read(countNotes)).toEqual([[19]])
    rmSync(`${copy.folder}/data.sqld`, { recursive: true, force: true })
    await copy.restart()
    await shipped(23)
    const before = store.stats().replicaReads
    expect(await store.read(countNotes)).toEqual([[19]])
    expect(store.stats().replicaReads).toBe(before + 1)

    await copy.kill()
    await store.write([insertNote(30, 'x')])
    await store.write([insertNote(31, 'x')])
    await store.write([{ sql: 'delete from log where seq <= 24', params: [] }])
    await copy.restart()
    await shipped(25)
    expect(await store.read({ sql: 'select max(id) from notes', params: [] })).toEqual([[31]])
  })

  test('a copy that fails a read is left out for a while; one that is silent, too', async () => {
    using folder = tempFolder()
    await using copy = await startSqld()
    const database = {
      kind: 'file',
      file: folder.file('a.db'),
      replicas: [{ url: copy.url }],
    } as const
    await using store = await openStore(database, storeTables)
    await store.write([insertNote(1, 'one')])
    const seqOfCopy = (): number => store.stats().replicas[0]?.seq ?? 0
    await until(() => seqOfCopy() === 1, 'it is in step')
    copy.pause()
    await until(() => seqOfCopy() === -1, 'it is out, although nothing has failed')
    expect(await store.read(countNotes)).toEqual([[1]])
    copy.resume()
    await until(() => seqOfCopy() === 1, 'it is back')
    const stream = openHttp(copy.url).openStream()
    await stream.run('drop table notes')
    stream.close()
    expect(await store.read(countNotes)).toEqual([[1]])
    expect(seqOfCopy()).toBe(-1)
  })

  test('a database at the URL that is somebody else’s is never touched', async () => {
    using folder = tempFolder()
    await using other = await startSqld()
    {
      await using store = await openStore(
        { kind: 'remote', primary: { url: other.url }, replicas: [] },
        [notes],
      )
      await store.write([insertNote(1, 'precious')])
    }
    const log = createTestLog()
    await using store = await openStore(
      { kind: 'file', file: folder.file('a.db'), replicas: [{ url: other.url }] },
      storeTables,
      { log },
    )
    await store.write([insertNote(1, 'mine')])
    expect(await store.read({ sql: 'select text from notes', params: [] })).toEqual([['mine']])
    expect(log.lines.map(({ event }) => event)).toContain('store.replica_out')
    await using theirs = await openStore(
      { kind: 'remote', primary: { url: other.url }, replicas: [] },
      [notes],
    )
    expect(await theirs.read({ sql: 'select text from notes', params: [] })).toEqual([['precious']])
  })
})
