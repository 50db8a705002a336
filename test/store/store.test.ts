import { describe, expect, test } from 'bun:test'
import { mkdirSync, writeFileSync } from 'node:fs'
import { blob, integer, real, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { systemClock } from '../../src/lib/clock.ts'
import {
  createStore,
  type Change,
  type DatabaseOptions,
  type Query,
} from '../../src/store/store.ts'
import { createTestLog, faultOf, openStore, tempFolder } from '../harness.ts'
import { slowQuery } from './slow.ts'

const notes = sqliteTable('notes', {
  id: integer().primaryKey(),
  text: text().notNull(),
})

function insert(id: number, body: string | null): Query {
  return {
    sql: 'insert into notes (id, text) values (?, ?)',
    params: [id, body],
  }
}

describe('store.write', () => {
  test('writes the row and its log entry, tells listeners before it answers', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [notes])
    const told: Change[] = []
    store.onChange((change) => void told.push(change))
    const changes = await store.write([insert(1, 'one')])
    expect(told).toEqual([...changes])
    expect(changes).toMatchObject([
      {
        seq: 1,
        table: 'notes',
        op: 'create',
        key: '1',
        row: [1, 'one'],
        tags: ['notes', 'notes:1'],
      },
    ])
    expect(await store.read({ sql: 'select * from notes', params: [] })).toEqual([[1, 'one']])
    const log = await store.read({
      sql: 'select seq, kind, subject, tags, data from log',
      params: [],
    })
    expect(log).toEqual([[1, 'row', 'notes', '[]', '{"op":"create","row":{"id":1,"text":"one"}}']])
  })

  test('an update says what was otherwise, unless that is long', async () => {
    const wide = sqliteTable('wide', {
      id: integer().primaryKey(),
      name: text(),
      price: real(),
      bytes: blob(),
      ...Object.fromEntries(Array.from({ length: 120 }, (_, n) => [`c${n}`, integer(`c${n}`)])),
    })
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [wide])
    const run = async (sql: string) => await store.write([{ sql, params: [] }])
    await run(`insert into wide (id, name, price, bytes) values (1, 'it''s "a"', 0.1, x'00')`)
    const last = async () => {
      const sql = 'select data from log order by seq desc limit 1'
      const [[data] = []] = await store.read({ sql, params: [] })
      return (JSON.parse(String(data)) as { was: unknown }).was
    }
    const [same] = await run('update wide set name = name')
    expect([same?.was, await last()]).toEqual([undefined, [0]])
    const [changed] = await run(
      `update wide set name = printf('%.300c', 'x'), price = 1e300, c119 = 5`,
    )
    expect(changed?.was?.slice(0, 4)).toEqual([1, 'it\'s "a"', 0.1, '00'])
    expect(changed?.was?.at(-1)).toBeNull()
    expect(await last()).toEqual([['name', 'it\'s "a"'], ['price', 0.1], ['c119', null], 0])
    const [long] = await run('update wide set name = null, price = null')
    expect([long?.was, await last()]).toEqual([undefined, [['name'], ['price', 1e300], 0]])
    const [binary] = await run(`update wide set bytes = x'01'`)
    expect([binary?.was, await last()]).toEqual([undefined, [['bytes'], 0]])
    const [gone] = await run('delete from wide')
    expect(gone?.was).toBeUndefined()
  })

  test('a start tells nobody of what was written before', async () => {
    using folder = tempFolder()
    const database: DatabaseOptions = { kind: 'file', file: folder.file('a.db'), replicas: [] }
    const told: number[] = []
    for (let life = 0; life < 2; life++) {
      const deps = { clock: systemClock, log: createTestLog() }
      const store = createStore(deps, { database, tables: [notes] })
      store.onChange(({ seq }) => void told.push(seq))
      store.onGap((seq) => void told.push(-seq))
      await store.start()
      expect(told).toEqual([])
      const { seq } = store.stats()
      for (const id of [1, 2, 3]) await store.write([insert(seq + id, 'one')])
      expect(told).toEqual([seq + 1, seq + 2, seq + 3])
      told.length = 0
      await store.stop()
    }
  })

  test('writes queued while one commits share the next transaction', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [notes])
    await Promise.all(Array.from({ length: 100 }, (_, id) => store.write([insert(id + 1, 'x')])))
    const { writes, commits } = store.stats()
    expect(writes).toBe(100)
    expect(commits).toBeLessThanOrEqual(2)
  })

  test('a write that fails is undone alone, its neighbours in the group are kept', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [notes])
    const outcomes = await Promise.allSettled([
      store.write([insert(1, 'one')]),
      store.write([insert(2, 'two'), insert(1, 'again')]),
      store.write([insert(3, null)]),
      store.write([insert(4, 'four')]),
    ])
    const statuses = outcomes.map(({ status }) => status)
    expect(statuses).toEqual(['fulfilled', 'rejected', 'rejected', 'fulfilled'])
    expect(await store.read({ sql: 'select id from notes order by id', params: [] })).toEqual([
      [1],
      [4],
    ])
    expect(await store.read({ sql: 'select count(*) from log', params: [] })).toEqual([[2]])
    // The connection is not poisoned by the failures (libsql-js#237): it still commits.
    await store.write([insert(5, 'five')])
  })

  test('a constraint names the columns', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [notes])
    await store.write([insert(1, 'one')])
    const taken = await faultOf(() => store.write([insert(1, 'one')]))
    expect({ code: taken.code, fields: taken.fields }).toEqual({
      code: 'conflict',
      fields: [{ field: 'id', message: 'is taken' }],
    })
    const missing = await faultOf(() => store.write([insert(2, null)]))
    expect({ code: missing.code, message: missing.message }).toEqual({
      code: 'invalid',
      message: 'a required value is missing',
    })
  })

  test('no log entry, no row: what cannot be logged is not written', async () => {
    using folder = tempFolder()
    const { default: Database } = await import('libsql')
    {
      await using _ = await openStore(folder.file('a.db'), [notes])
    }
    const db = new Database(folder.file('a.db'))
    db.exec(`create trigger refuse before insert on log when new.data like '%poison%'
             begin select raise(abort, 'refused'); end`)
    db.close()
    await using store = await openStore(folder.file('a.db'), [notes])
    const outcomes = await Promise.allSettled([
      store.write([insert(1, 'fine')]),
      store.write([insert(2, 'poison')]),
      store.write([insert(3, 'fine')]),
    ])
    expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
    expect(await store.read({ sql: 'select id from notes', params: [] })).toEqual([[1], [3]])
  })

  test('what cannot be sent to the thread fails as a fault, and the store goes on', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [notes])
    const fault = await faultOf(() => store.write([{ ...insert(1, 'x'), params: [() => 1, 'x'] }]))
    expect(fault.code).toBe('internal')
    await store.write([insert(1, 'x')])
  })

  test('stops although a reader is in a query without end', async () => {
    using folder = tempFolder()
    const store = await openStore(folder.file('a.db'), [notes])
    await store.write([insert(1, 'x')])
    const endless = store.read({ sql: slowQuery(10_000_000), params: [] })
    endless.catch(() => {})
    await store.stop()
  })

  test('writes that wait are bounded: what is beyond is refused at once', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [notes])
    const all = Array.from({ length: 10_100 }, (_, id) => store.write([insert(id + 1, 'x')]))
    const outcomes = await Promise.allSettled(all)
    const refused = outcomes.filter(({ status }) => status === 'rejected').length
    expect(refused).toBeGreaterThan(0)
    expect(refused).toBeLessThan(100)
    const stored = await store.read({ sql: 'select count(*) from notes', params: [] })
    expect(stored).toEqual([[10_100 - refused]])
  })

  test('seq never goes back and is never given twice, over a restart too', async () => {
    using folder = tempFolder()
    const file = folder.file('a.db')
    {
      await using store = await openStore(file, [notes])
      await store.write([insert(1, 'one')])
      await store.write([insert(2, 'two')])
    }
    await using store = await openStore(file, [notes])
    expect(store.stats().seq).toBe(2)
    const [change] = await store.write([insert(3, 'three')])
    expect(change?.seq).toBe(3)
  })
})

describe('store.read', () => {
  test('readers cannot write', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [notes])
    const fault = await faultOf(() => store.read({ sql: 'delete from notes', params: [] }))
    expect(fault.code).toBe('unavailable')
  })

  test('a long query leaves other reads and the event loop free', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [notes])
    // Longer than the test, which ends it.
    let isSlowDone = false
    const end = (): void => void (isSlowDone = true)
    store.read({ sql: slowQuery(200_000_000), params: [] }).then(end, end)
    for (let id = 1; id <= 50; id++) {
      await store.write([insert(id, 'x')])
      await store.read({ sql: 'select * from notes where id = ?', params: [id] })
    }
    expect(isSlowDone).toBe(false)
  })

  test('race: no read waits behind a long one while another reader is free', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [notes])
    let isSlowDone = false
    const end = (): void => void (isSlowDone = true)
    store.read({ sql: slowQuery(200_000_000), params: [] }).then(end, end)
    const short = { sql: 'select count(*) from notes', params: [] }
    await Promise.all(Array.from({ length: 20 }, () => store.read(short)))
    expect(isSlowDone).toBe(false)
  })

  test('an EXPLAIN leaves no reader in the past', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [notes], { readers: 1 })
    const count = { sql: 'select count(*) from notes', params: [] }
    await store.read({ sql: 'explain query plan select * from notes where id = ?', params: [1] })
    expect(await store.read(count)).toEqual([[0]])
    await store.write([insert(1, 'one')])
    expect(await store.read(count)).toEqual([[1]])
  })

  test('whole numbers are bound as integers, not as 5.0', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [])
    expect(
      await store.read({ sql: "select typeof(?), typeof(?), ? || ''", params: [5, 5.5, 7] }),
    ).toEqual([['integer', 'real', '7']])
  })
})

describe('store.start refuses, with a word on how to mend it', () => {
  test('a folder another process holds', async () => {
    using folder = tempFolder()
    const file = folder.file('a.db')
    const holder = Bun.spawn({
      cmd: [process.execPath, `${import.meta.dir}/hold-fixture.ts`, file],
      stdout: 'pipe',
    })
    for await (const _ of holder.stdout) break
    const fault = await faultOf(() => openStore(file, [notes]))
    expect(fault.message).toStartWith('the data folder is in use by another belfry process')
    holder.kill('SIGKILL')
    await holder.exited
    // The kernel gives the lock back, whatever way the holder went.
    await using store = await openStore(file, [notes])
    expect(store.stats().seq).toBe(0)
  })

  test('a file that is no database', async () => {
    using folder = tempFolder()
    const file = folder.file('a.db')
    writeFileSync(file, 'this is not a database, and long enough to have a header '.repeat(100))
    const fault = await faultOf(() => openStore(file, [notes]))
    expect(fault.message).toStartWith('the database file is damaged or is no SQLite database')
    expect(await Bun.file(file).text()).toStartWith('this is not a database')
  })

  test('a directory in place of the file', async () => {
    using folder = tempFolder()
    mkdirSync(folder.file('a.db'))
    const fault = await faultOf(() => openStore(folder.file('a.db'), [notes]))
    expect(fault.message).toStartWith('the database file cannot be opened')
  })

  test('a folder that cannot be made', async () => {
    using folder = tempFolder()
    writeFileSync(folder.file('taken'), '')
    const fault = await faultOf(() => openStore(folder.file('taken/data/a.db'), [notes]))
    expect(fault.message).toStartWith('the data folder cannot be made')
  })
})
