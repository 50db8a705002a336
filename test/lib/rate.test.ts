import { expect, test } from 'bun:test'
import { parseRate } from '../../src/lib/rate.ts'

test.each([
  ['5/10s', 5, 10_000],
  ['100/min', 100, 60_000],
  ['5/15min', 5, 900_000],
  ['5/2day', 5, 172_800_000],
  ['100/m', 100, 60_000],
  ['5/15m', 5, 900_000],
  ['1/s', 1, 1_000],
  ['2/500ms', 2, 500],
  ['1000/h', 1_000, 3_600_000],
  ['3/day', 3, 86_400_000],
])('%s', (text, quota, windowMs) => {
  expect(parseRate(text)).toEqual({ quota, windowMs })
})

test.each([
  '',
  '5',
  '5/',
  '/10s',
  '0/s',
  '5/10',
  '5/0s',
  '-1/s',
  '1.5/s',
  '5/30d',
  '1000000/s',
  '5/ms s',
  5,
  null,
])('%p is none', (text) => {
  expect(parseRate(text)).toBeUndefined()
})
