import { describe, expect, test } from 'bun:test'
import type { Change, State } from '../../src/page/state.ts'
import { initialState, newestPoint, pointsMax, reduce, summarise } from '../../src/page/state.ts'

const start = Date.UTC(2021, 9, 6, 5)
const stamp = (index: number): string => new Date(start + index * 300_000).toISOString()

const row = (index: number, price: number, region = 'NSW1') => ({
  region,
  at: stamp(index),
  price,
  demand: 6e3,
  interchange: null,
  source: 'test',
})

const spot = (
  index: number,
  price: number,
  op: 'create' | 'update' | 'remove' = 'create',
): Change => ({
  kind: 'spot',
  publication: { op, region: 'NSW1', row: row(index, price), seq: index },
})

const loaded = (...rows: readonly unknown[]): Change => ({ kind: 'loaded', region: 'NSW1', rows })
const resync: Change = { kind: 'resync', region: 'NSW1' }

const after = (...changes: readonly Change[]): State =>
  changes.reduce(reduce, initialState(undefined))

const prices = (state: State): number[] => state.series.NSW1.map(({ price }) => price)

describe('reduce', () => {
  test('puts list answers, newest first, into time order', () => {
    expect(prices(after(loaded(row(2, 30), row(1, 20), row(0, 10))))).toEqual([10, 20, 30])
  })

  test('lets an event win over a list answer of the same interval, in either order', () => {
    expect(prices(after(spot(1, 99), loaded(row(1, 20), row(0, 10))))).toEqual([10, 99])
    expect(prices(after(loaded(row(1, 20), row(0, 10)), spot(1, 99)))).toEqual([10, 99])
  })

  test('sorts in an event that comes late and forgets one that was removed', () => {
    const state = after(spot(0, 10), spot(2, 30), spot(1, 20))
    expect(prices(state)).toEqual([10, 20, 30])
    expect(prices(reduce(state, spot(1, 20, 'remove')))).toEqual([10, 30])
  })

  // After a gap the server could not fill: what was held may be wrong, what came since is right.
  test('replaces what is older than a resync by the next list answer', () => {
    const state = after(loaded(row(0, 10)), spot(1, 20), resync, spot(3, 40))
    expect(prices(state)).toEqual([10, 20, 40])
    expect(prices(reduce(state, loaded(row(2, 31), row(1, 21))))).toEqual([21, 31, 40])
  })

  test('keeps one market day', () => {
    const all = Array.from({ length: pointsMax }, (_, index) => row(index, index))
    const state = after(loaded(...all), spot(pointsMax, 500))
    expect(state.series.NSW1).toHaveLength(pointsMax)
    expect([prices(state)[0], prices(state).at(-1)]).toEqual([1, 500])
  })

  test('leaves out rows that are malformed', () => {
    expect(prices(after(loaded(row(0, 10), null, { region: 'NSW1' })))).toEqual([10])
  })

  test('calls a second attempt a reconnect', () => {
    const to = (connection: 'connecting' | 'live' | 'offline'): Change => ({
      kind: 'connection',
      to: connection,
    })
    expect(after(to('connecting')).connection).toBe('connecting')
    expect(after(to('connecting'), to('live')).connection).toBe('live')
    expect(after(to('live'), to('connecting')).connection).toBe('reconnecting')
    expect(after(to('live'), to('connecting'), to('connecting')).connection).toBe('reconnecting')
    expect(after(to('live'), to('offline')).connection).toBe('offline')
  })

  test('selects known regions only, also from the address', () => {
    expect(initialState('TAS1').selected).toBe('TAS1')
    expect(initialState('<b>').selected).toBe('NSW1')
    expect(after({ kind: 'select', region: 'SA1' }).selected).toBe('SA1')
    const state = after()
    expect(reduce(state, { kind: 'select', region: 'XX' })).toBe(state)
  })

  test('does not let a list answer overtake a newer FCAS event', () => {
    const fcas = (index: number, raise1sec: number, isLive: boolean): Change => ({
      kind: 'fcas',
      region: 'SA1',
      row: { at: stamp(index), raise1sec, source: '' },
      isLive,
    })
    const price = (state: State) => state.fcas.SA1?.prices.raise1sec
    expect(price(after(fcas(2, 7, true), fcas(1, 5, false)))).toBe(7)
    expect(price(after(fcas(1, 5, false), fcas(2, 7, true)))).toBe(7)
    // A server that began anew has earlier dates: its event is still the newest word.
    expect(price(after(fcas(9, 7, true), fcas(1, 5, true)))).toBe(5)
  })

  test('does not touch the series of other regions', () => {
    const before = after()
    expect(reduce(before, spot(0, 10)).series.VIC1).toBe(before.series.VIC1)
  })
})

test('newestPoint looks at all regions', () => {
  expect(newestPoint(after())).toBeUndefined()
  const vic: Change = { kind: 'loaded', region: 'VIC1', rows: [row(5, 50, 'VIC1')] }
  expect(newestPoint(after(loaded(row(1, 20)), vic))?.price).toBe(50)
})

test('summarise gives low, average and high', () => {
  expect(summarise(after(loaded(row(0, -10), row(1, 40))).series.NSW1)).toEqual({
    low: -10,
    high: 40,
    average: 15,
  })
  expect(summarise([])).toBeNull()
})
