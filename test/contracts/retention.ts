/** How much of the log is kept, on every shape (`test/store/shapes.test.ts`). */
import { expect, test } from 'bun:test'
import type { LogBounds } from '../../src/store/retention.ts'
import { systemClock, type Clock } from '../../src/lib/clock.ts'
import type { Query } from '../../src/store/store.ts'
import { until, type TestStore } from '../harness.ts'
import type { Shape } from './store.ts'

/** So many rows in one statement, each of so many characters. */
export const insertMany = (count: number, characters = 1): Query => ({
  sql: `insert into notes (text) with recursive n(i) as (select 1 union all select i + 1 from n where i < ?)
    select printf('%.*c', ?, 'x') from n`,
  params: [count, characters],
})

/** All that is in the log now is older by so much than it was. */
export const ageLog = (ms: number): Query => ({
  sql: 'update log set at = at - ?',
  params: [ms],
})

const hourMs = 60 * 60 * 1000
export const twoMinutesMs = 2 * 60 * 1000

export async function keptOf(store: TestStore): Promise<{ first: number; last: number }> {
  const sql = 'select min(seq), max(seq), count(*) from log'
  const [row] = await store.read({ sql, params: [] }, { from: 'primary' })
  const [first, last, count] = (row ?? []).map(Number) as [number, number, number]
  expect(count).toBe(last - first + 1)
  return { first, last }
}

/** Housekeeping is begun by time, too: a clock whose minutes are over when the test says so. */
export function createMinutes() {
  const due: (() => void)[] = []
  const clock: Clock = {
    ...systemClock,
    every(ms, run) {
      if (ms < 60_000) return systemClock.every(ms, run)
      due.push(run)
      return () => {}
    },
  }
  return { clock, pass: () => due.forEach((run) => run()) }
}

export function retentionContract(start: () => Promise<Shape>): void {
  const contract = (
    name: string,
    retention: Partial<LogBounds>,
    run: (store: TestStore, pass: () => void) => Promise<void>,
  ): void =>
    test(name, async () => {
      await using shape = await start()
      const { clock, pass } = createMinutes()
      await using store = await shape.open({ clock, retention })
      await run(store, pass)
    })

  contract('the log forgets what is a day old, a thousand aside', {}, async (store, pass) => {
    await store.write([insertMany(1_500)])
    const { seq } = store.stats()
    await store.write([ageLog(24 * hourMs)])
    await store.write([insertMany(800)])
    const newest = store.stats().seq
    await until(async () => {
      pass()
      return (await keptOf(store)).first > newest - 1_000
    }, 'the old ones are gone')
    expect(await keptOf(store)).toEqual({ first: newest - 999, last: newest })
    expect(seq).toBeGreaterThan(newest - 1_000)
    // Nor do numbers begin again.
    const [change] = await store.write([insertMany(1)])
    expect(change?.seq).toBe(newest + 1)
  })

  contract('the log is bounded by number', { entriesMax: 1_200 }, async (store, pass) => {
    await store.write([insertMany(2_500)])
    pass()
    // Young ones are spared.
    expect((await keptOf(store)).first).toBe(1)
    await store.write([ageLog(twoMinutesMs)])
    const { seq } = store.stats()
    await until(async () => {
      pass()
      return (await keptOf(store)).first > seq - 1_200
    }, 'the rest is gone')
    expect(await keptOf(store)).toEqual({ first: seq - 1_199, last: seq })
  })

  contract('the log is bounded by size', { bytesMax: 2_000_000 }, async (store, pass) => {
    await store.write([insertMany(500, 10_000)])
    await store.write([ageLog(twoMinutesMs)])
    const { seq } = store.stats()
    // What begins a step is known to a hundred entries or a megabyte.
    await until(async () => {
      pass()
      return (await keptOf(store)).first > seq - 310
    }, 'the rest is gone')
    expect((await keptOf(store)).first).toBeLessThan(seq - 190)
  })

  contract(
    'young or not, nothing is kept beyond four times the bounds',
    { entriesMax: 500 },
    async (store) => {
      await store.write([insertMany(3_000)])
      const { seq } = store.stats()
      await until(async () => (await keptOf(store)).first > seq - 2_000, 'the rest is gone')
      expect(await keptOf(store)).toEqual({ first: seq - 1_999, last: seq })
    },
  )
}

/** Of shapes that several nodes share. */
export function sharedRetentionContract(start: () => Promise<Shape>): void {
  test('any node may drop, all at once; one that slept is told of the hole', async () => {
    await using shape = await start()
    const [a, b] = [createMinutes(), createMinutes()]
    await using one = await shape.open({ clock: a.clock })
    await using other = await shape.open({ clock: b.clock })
    const asleep: Clock = { ...systemClock, every: () => () => {} }
    await using sleeper = await shape.open({ clock: asleep })
    const heard: string[] = []
    sleeper.onChange(({ seq }) => void heard.push(String(seq)))
    sleeper.onGap((seq) => void heard.push(`gap to ${seq}`))
    await one.write([insertMany(2_000)])
    await one.write([ageLog(25 * hourMs)])
    const { seq } = one.stats()
    await until(() => other.stats().seq === seq, 'the other has heard of all')
    a.pass()
    b.pass()
    await until(async () => (await keptOf(one)).first > seq - 1_000, 'the old ones are gone')
    expect(await keptOf(other)).toEqual({ first: seq - 999, last: seq })
    expect(heard).toEqual([])
    sleeper.wake()
    await until(() => sleeper.stats().seq === seq, 'it has followed')
    expect(heard.slice(0, 2)).toEqual([`gap to ${seq - 1_000}`, String(seq - 999)])
    expect(heard).toHaveLength(1_001)
  })
}
