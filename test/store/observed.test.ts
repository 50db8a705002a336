import { expect, test } from 'bun:test'
import { createMetrics } from '../../src/observe/metrics.ts'
import { createStore } from '../../src/store/store.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { insertNote, notes } from '../contracts/store.ts'
import { createTestLog, openStore, tempFolder, type LogLine } from '../harness.ts'
import { startProxy } from '../proxy.ts'
import { requireService, startSqld } from '../services.ts'
import { startGate } from './gate.ts'
import { slowQuery } from './slow.ts'

test('a slow query is told with its plan, every query is timed by its name', async () => {
  using folder = tempFolder()
  const log = createTestLog()
  const metrics = createMetrics()
  const store = createStore(
    { clock: systemClock, log, observe: metrics.query },
    { database: { kind: 'file', file: folder.file('a.db'), replicas: [] }, tables: [notes] },
  )
  await store.start()
  try {
    await store.write([insertNote(1, 'one')])
    await store.read({ sql: 'select * from notes where id = ?', params: [1], name: 'read notes' })
    await store.read({ sql: slowQuery(5_000_000), params: [], name: 'count slowly' })
  } finally {
    await store.stop()
  }
  // On a busy machine others may have been slow, too.
  const slow = log.lines.filter(
    ({ event, fields }) => event === 'store.slow_query' && fields['query'] === 'count slowly',
  )
  expect(slow).toHaveLength(1)
  expect(slow[0]?.fields).toMatchObject({ query: 'count slowly', sql: slowQuery(5_000_000) })
  expect(String(slow[0]?.fields['plan'])).toContain('SCAN')
  expect(Number(slow[0]?.fields['ms'])).toBeGreaterThanOrEqual(100)
  const text = metrics.text()
  expect(text).toContain('belfry_query_duration_seconds_count{query="read notes"} 1')
  expect(text).toMatch(
    /belfry_query_duration_seconds_sum\{query="count slowly"\} (0\.[1-9]|[1-9]\d*\.)/,
  )
})

test.skipIf(!requireService('sqld'))(
  'a primary that is far away makes no query slow, nor is it asked twice',
  async () => {
    await using primary = await startSqld()
    await using link = await startProxy({ target: primary.port })
    const read = { sql: 'select count(*) from notes', params: [] }
    let asked = 0
    await using gate = startGate(link.url, async (body) => {
      if (body.includes(read.sql)) asked++
      return undefined
    })
    const log = createTestLog()
    const database = { kind: 'remote', primary: { url: gate.url }, replicas: [] } as const
    await using store = await openStore(database, [notes], { log })
    link.setDelay(75)
    for (let at = 0; at < 5; at++) await store.read(read)
    const isSlow = ({ event, fields }: LogLine) =>
      event === 'store.slow_query' && fields['sql'] === read.sql
    const slow = log.lines.filter(isSlow).length
    // One may have been slow for this machine's sake: then its plan was asked for, once.
    expect(slow).toBeLessThan(2)
    expect(asked).toBe(5 + slow)
  },
)
