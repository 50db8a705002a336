/** How the log is kept within bounds, beside what every shape must do (`test/contracts/retention.ts`). */
import { expect, test } from 'bun:test'
import { ageLog, createMinutes, insertMany, keptOf, twoMinutesMs } from '../contracts/retention.ts'
import { insertNote, storeTables } from '../contracts/store.ts'
import { createTestLog, openStore, tempFolder, until } from '../harness.ts'
import { startProxy } from '../proxy.ts'
import { requireService, startSqld } from '../services.ts'

test('what is dropped goes in steps: other writes come between', async () => {
  using folder = tempFolder()
  const { clock, pass } = createMinutes()
  const retention = { entriesMax: 1_000 }
  await using store = await openStore(folder.file('a.db'), storeTables, { clock, retention })
  await store.write([insertMany(3_900)])
  await store.write([ageLog(twoMinutesMs)])
  const { commits, seq } = store.stats()
  pass()
  let seen = commits
  for (let id = 10_001, first = 1; first < seq - 1_000; id++) {
    await store.write([insertNote(id, 'between')])
    const now = (await keptOf(store)).first
    // No more in a commit than a step; of the last one it may not be known yet that it is one.
    const steps = store.stats().commits - seen + 1
    expect(now - first).toBeLessThanOrEqual(500 * steps)
    seen = store.stats().commits
    first = now
  }
  expect(store.stats().commits - commits).toBeGreaterThanOrEqual(Math.floor(2_900 / 500))
})

test('rows of a megabyte are dropped one by one', async () => {
  using folder = tempFolder()
  const { clock, pass } = createMinutes()
  const retention = { bytesMax: 3_000_000 }
  await using store = await openStore(folder.file('a.db'), storeTables, { clock, retention })
  await store.write([insertMany(10, 999_000)])
  await store.write([ageLog(twoMinutesMs)])
  const { commits } = store.stats()
  await until(async () => {
    pass()
    return (await keptOf(store)).first > 6
  }, 'the rest is gone')
  expect((await keptOf(store)).first).toBeLessThan(9)
  expect(store.stats().commits - commits).toBeGreaterThanOrEqual(3)
})

test('what was there before a restart counts', async () => {
  using folder = tempFolder()
  const { clock, pass } = createMinutes()
  {
    await using store = await openStore(folder.file('a.db'), storeTables)
    await store.write([insertMany(1_000, 5_000)])
    await store.write([ageLog(twoMinutesMs)])
  }
  const retention = { bytesMax: 2_000_000 }
  await using store = await openStore(folder.file('a.db'), storeTables, { clock, retention })
  await store.write([insertNote(5_000, 'new')])
  await until(async () => {
    pass()
    return (await keptOf(store)).first > 500
  }, 'the rest is gone')
  // A group of a hundred may be kept whole.
  expect((await keptOf(store)).first).toBeLessThan(1_001 - 390)
})

test('housekeeping that fails is told once, and goes on when it can', async () => {
  using folder = tempFolder()
  const { clock, pass } = createMinutes()
  const log = createTestLog()
  const retention = { entriesMax: 10 }
  await using store = await openStore(folder.file('a.db'), storeTables, { clock, log, retention })
  await store.write([insertMany(100)])
  await store.write([
    ageLog(twoMinutesMs),
    {
      sql: `create trigger keep before delete on log begin select raise(abort, 'kept'); end`,
      params: [],
    },
  ])
  const told = () => log.lines.filter(({ event }) => event === 'store.tidy_failed')
  await until(() => {
    pass()
    return told().length > 0
  }, 'it is told')
  for (let id = 1_001; id <= 1_010; id++) {
    pass()
    await store.write([insertNote(id, 'x')])
  }
  expect(told()).toHaveLength(1)
  await store.write([{ sql: 'drop trigger keep', params: [] }])
  await until(async () => {
    pass()
    return (await keptOf(store)).first > 90
  }, 'the old ones are gone')
})

test('idempotency keys that are old go, some at a time', async () => {
  using folder = tempFolder()
  const { clock, pass } = createMinutes()
  await using store = await openStore(folder.file('a.db'), storeTables, { clock })
  const keys = `insert into idempotency (scope, key, fingerprint, at)
    with recursive n(i) as (select 1 union all select i + 1 from n where i < 1300)
    select 'test', 'k' || i, '', case when i <= 1200 then 0 else ? end from n`
  await store.write([{ sql: keys, params: [clock.now()] }])
  pass()
  const count = { sql: 'select count(*) from idempotency', params: [] }
  await until(async () => (await store.read(count))[0]?.[0] === 100, 'the old ones are gone')
})

test.skipIf(!requireService('sqld'))(
  'a copy under way keeps what it still needs: it is not begun again and again',
  async () => {
    using folder = tempFolder()
    await using copy = await startSqld()
    await using link = await startProxy({ target: copy.port, delayMs: 20 })
    const file = folder.file('a.db')
    {
      await using store = await openStore(file, storeTables)
      await store.write([insertMany(5_000)])
    }
    const { clock, pass } = createMinutes()
    const log = createTestLog()
    const database = { kind: 'file', file, replicas: [{ url: link.url }] } as const
    const options = { clock, log, retention: { entriesMax: 1_000 } }
    await using store = await openStore(database, storeTables, options)
    for (let id = 1; store.stats().replicas[0]?.seq === -1 && id < 2_500; id += 100) {
      const sql = 'update notes set text = ? where id between ? and ?'
      await store.write([{ sql, params: ['again', id, id + 99] }])
      await store.write([ageLog(twoMinutesMs)])
      pass()
    }
    expect((await keptOf(store)).last - 1_000).toBeGreaterThan((await keptOf(store)).first)
    await until(() => store.stats().replicas[0]?.seq === store.stats().seq, 'the copy is in step')
    const copies = log.lines.filter(({ event }) => event === 'store.copy_started')
    expect(copies).toHaveLength(1)
    await until(async () => {
      pass()
      return (await keptOf(store)).first > store.stats().seq - 1_000
    }, 'nobody needs it any more')
  },
)
