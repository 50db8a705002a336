/** What follows the log waits behind no load: how old an answer may be does not depend on how slow others' are. */
import { describe, expect, test } from 'bun:test'
import { systemClock } from '../../src/lib/clock.ts'
import type { Query, ReadRows } from '../../src/store/messages.ts'
import { createPool } from '../../src/store/pool.ts'
import type { ThreadClient } from '../../src/store/thread-client.ts'
import { insertNote, storeTables } from '../contracts/store.ts'
import { createTestLog, openStore, tempFolder, until } from '../harness.ts'
import { requireService, startSqld } from '../services.ts'
import { startGate } from './gate.ts'
import { slowQuery } from './slow.ts'

test('race: a poll goes past reads that wait, and past what may be under way at once', async () => {
  const asked: { readonly sql: string; answer(): void }[] = []
  const thread: ThreadClient = {
    ask: (request) =>
      new Promise((resolve) => {
        const { sql } = (request as { readonly query: Query }).query
        asked.push({ sql, answer: () => resolve({ id: 1, rows: [[sql]], ms: 0 }) })
      }),
    pending: 0,
    isDead: false,
    stop: async () => {},
  }
  const pool = createPool(
    { clock: systemClock, log: createTestLog(), open: async () => thread },
    { threads: 1, atOnce: 2, isInTurn: false },
  )
  await pool.start()
  const read = (sql: string): Promise<ReadRows> => pool.read({ sql, params: [] })
  const loads = ['a', 'b', 'c', 'd'].map(read)
  const poll = pool.readFirst({ sql: 'poll', params: [] })
  expect(asked.map(({ sql }) => sql)).toEqual(['a', 'b', 'poll'])
  asked[2]?.answer()
  expect((await poll).rows).toEqual([['poll']])
  // It has taken nobody's place, and made none.
  expect(asked).toHaveLength(3)
  for (let at = 0; at < 5; at++) {
    asked[at]?.answer()
    await Bun.sleep(0)
  }
  expect((await Promise.all(loads)).map(({ rows }) => rows)).toEqual([
    [['a']],
    [['b']],
    [['c']],
    [['d']],
  ])
})

describe.skipIf(!requireService('sqld'))('with a sqld', () => {
  test('race: a poll does not wait behind slow reads of the primary', async () => {
    await using primary = await startSqld()
    const over = Promise.withResolvers<undefined>()
    const isLoad = (body: string): boolean => body.includes('from notes')
    await using gate = startGate(primary.url, async (body) =>
      isLoad(body) ? await over.promise : undefined,
    )
    const nodeAt = (url: string) =>
      openStore({ kind: 'remote', primary: { url }, replicas: [] }, storeTables)
    await using other = await nodeAt(primary.url)
    await using store = await nodeAt(gate.url)
    let ended = 0
    const end = (): void => void ended++
    const slow = Array.from({ length: 200 }, () =>
      store.read({ sql: 'select count(*) from notes', params: [] }).then(end, end),
    )
    await other.write([insertNote(1, 'one')])
    await until(() => store.stats().seq === other.stats().seq, 'it has heard of the write')
    expect(ended).toBe(0)
    over.resolve(undefined)
    await Promise.all(slow)
  })

  test('race: an embedded replica is followed while all of its readers are in long queries', async () => {
    using folder = tempFolder()
    await using primary = await startSqld()
    const remote = { kind: 'remote', primary: { url: primary.url }, replicas: [] } as const
    await using other = await openStore(remote, storeTables)
    const replicaFile = folder.file('replica.db')
    await using store = await openStore({ ...remote, replicaFile }, storeTables)
    // It asks as often as it is told, and each time for what it does not know yet.
    for (let id = 1; id <= 3; id++) {
      await other.write([insertNote(id, 'before')])
      await until(() => store.stats().seq === other.stats().seq, 'it has heard of the write')
    }
    let ended = 0
    for (let left = 2; left > 0; left--) {
      const end = (): void => void ended++
      // It outlasts the test, which ends it.
      store.read({ sql: slowQuery(200_000_000), params: [] }).then(end, end)
    }
    await other.write([insertNote(4, 'meanwhile')])
    await until(() => store.stats().seq === other.stats().seq, 'it has heard of the write')
    expect(ended).toBe(0)
  })

  test('a server that has too many requests is asked again, and nothing is told to fail', async () => {
    await using primary = await startSqld()
    let left = 0
    await using gate = startGate(primary.url, async () =>
      left-- > 0 ? new Response('too many requests', { status: 429 }) : undefined,
    )
    const database = { kind: 'remote', primary: { url: gate.url }, replicas: [] } as const
    await using store = await openStore(database, storeTables)
    left = 3
    await store.write([insertNote(1, 'one')])
    left = 3
    expect(await store.read({ sql: 'select count(*) from notes', params: [] })).toEqual([[1]])
  })
})
