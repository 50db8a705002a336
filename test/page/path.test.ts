import { expect, test } from 'bun:test'
import { nearest, segments, stepPath } from '../../src/page/path.ts'

const minute = 60_000
const point = (minutes: number, price = 0) => ({
  at: minutes * minute,
  price,
  demand: 0,
  interchange: null,
  source: '',
})

const times = (runs: readonly (readonly { at: number }[])[]): number[][] =>
  runs.map((run) => run.map(({ at }) => at / minute))

test('segments draws through a short loss and breaks at a hole', () => {
  expect(times(segments([5, 10, 25, 30, 50].map((at) => point(at))))).toEqual([
    [5, 10, 25, 30],
    [50],
  ])
  expect(segments([])).toEqual([])
})

test('stepPath lets a price hold for its whole interval', () => {
  const path = stepPath(
    [point(5, 1), point(10, 2)],
    (ms) => ms / minute,
    (price) => price * 10,
  )
  expect(path).toBe('M0 10L5 10L5 20L10 20')
})

test('nearest finds the interval under the pointer', () => {
  const series = [5, 10, 15].map((at) => point(at))
  expect([-9, 7, 8, 99].map((at) => nearest(series, at * minute))).toEqual([0, 0, 1, 2])
  expect(nearest([], 0)).toBe(-1)
})
