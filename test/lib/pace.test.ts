import { expect, test } from 'bun:test'
import { Pace } from '../../src/lib/pace.ts'

test('a wait follows what the last work took, and is never absurd', () => {
  const pace = new Pace(1)
  expect(pace.waitMs(1_000)).toBe(1_000)
  for (let n = 0; n < 40; n += 1) pace.took(100, 1_000)
  expect(pace.waitMs(1_000)).toBeCloseTo(10_000, -1)
  // Nothing done says nothing.
  pace.took(0, 60_000)
  expect(pace.waitMs(1_000)).toBeCloseTo(10_000, -1)
  for (let n = 0; n < 40; n += 1) pace.took(1_000, 1)
  expect(pace.waitMs(1_000)).toBe(50)
  expect(pace.waitMs(-5)).toBe(50)
  expect(pace.waitMs(1e12)).toBe(30_000)
})
