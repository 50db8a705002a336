import { expect, test } from 'bun:test'
import { createBackoff } from '../../src/lib/backoff.ts'
import { createRandom } from './random.ts'

test('each wait is from the least to three times the last one, and at most the most', () => {
  const most = createBackoff({ leastMs: 100, mostMs: 2_000, random: () => 1 })
  expect(Array.from({ length: 5 }, () => most.next())).toEqual([300, 900, 2_000, 2_000, 2_000])
  most.reset()
  expect(most.next()).toBe(300)
  const random = createRandom(1)
  const any = createBackoff({ leastMs: 100, mostMs: 2_000, random: random.next })
  let last = 100
  for (let n = 0; n < 1_000; n++) {
    const waitMs = any.next()
    expect(waitMs).toBeGreaterThanOrEqual(100)
    expect(waitMs).toBeLessThanOrEqual(Math.min(2_000, last * 3))
    last = waitMs
  }
})
