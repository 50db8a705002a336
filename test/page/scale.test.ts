import { describe, expect, test } from 'bun:test'
import { linearScale, priceScale, sparkScale, timeMarks } from '../../src/page/scale.ts'

describe('linearScale', () => {
  test('ends on round numbers around the values', () => {
    const scale = linearScale([5_768, 7_321], 4)
    expect(scale.marks).toEqual([5_500, 6_000, 6_500, 7_000, 7_500])
    expect([5_500, 6_500, 7_500].map(scale.toUnit)).toEqual([0, 0.5, 1])
  })

  test.each([[[]] as [number[]], [[0]], [[-38.01]], [[7, 7, 7]], [[0.0001, 0.0002]]])(
    'has a height for %p',
    (values) => {
      const scale = linearScale(values, 5)
      expect(scale.high).toBeGreaterThan(scale.low)
      for (const value of values) {
        expect(scale.toUnit(value)).toBeWithin(-1e-9, 1 + 1e-9)
      }
      expect(scale.marks.length).toBeWithin(2, 12)
    },
  )
})

describe('priceScale', () => {
  test('is linear on a usual day and always shows zero', () => {
    const scale = priceScale([20, 61, 89.65])
    expect(scale).toMatchObject({ kind: 'linear', low: 0, high: 100 })
    expect(priceScale([-115, 69])).toMatchObject({ kind: 'linear', low: -150, high: 100 })
  })

  test('keeps usual prices apart on a day of both extremes, and says how', () => {
    const scale = priceScale([-1_000, 60, 61, 17_500])
    expect(scale).toMatchObject({ kind: 'logarithmic', low: -1_000, high: 20_000 })
    expect(scale.marks).toEqual([-1_000, -300, -100, 0, 100, 300, 1_000, 3_000, 10_000, 20_000])
    const places = [-1_000, 0, 60, 300, 17_500, 20_000].map(scale.toUnit)
    expect(places).toEqual(places.toSorted((left, right) => left - right))
    expect([places[0], places.at(-1)]).toEqual([0, 1])
    expect(scale.toUnit(300) - scale.toUnit(60)).toBeGreaterThan(0.1)
  })
})

test('sparkScale fills the height, and draws an unchanged day in the middle', () => {
  expect([20, 60].map(sparkScale([20, 60]).toUnit)).toEqual([0, 1])
  expect(sparkScale([5, 5]).toUnit(5)).toBe(0.5)
  expect(sparkScale([5, 15_000]).kind).toBe('logarithmic')
})

test('timeMarks fall on whole market hours', () => {
  const from = Date.parse('2021-10-06T14:55:00+10:00')
  const iso = timeMarks(from, from + 24 * 3_600_000, 8).map((ms) => new Date(ms).toISOString())
  expect(iso.slice(0, 3)).toEqual([
    '2021-10-06T05:00:00.000Z',
    '2021-10-06T08:00:00.000Z',
    '2021-10-06T11:00:00.000Z',
  ])
  expect(iso).toHaveLength(8)
  expect(timeMarks(from, from + 3_600_000, 4)).toHaveLength(4)
})
