import { expect, test } from 'bun:test'
import { adaptedMs } from '../../src/feeds/adaptive.ts'
import { createRandom } from '../lib/random.ts'

const plan = { minMs: 500, maxMs: 8_000 }

test('adaptive: faster while values change, slower while they do not, as it is in between', () => {
  const heard = (changed: number, hasWaited = false) =>
    adaptedMs(1_000, plan, { asked: 100, changed, hasWaited })
  expect(heard(100)).toBe(750)
  expect(heard(50)).toBe(750)
  expect(heard(30)).toBe(1_000)
  expect(heard(10)).toBe(1_250)
  expect(heard(0)).toBe(1_250)
  // The budget is used up: faster would be a longer queue.
  expect(heard(100, true)).toBe(1_000)
})

test('adaptive: within its bounds, whatever is heard', () => {
  const random = createRandom(11)
  let ms = 1_000
  for (let n = 0; n < 10_000; n += 1) {
    const asked = random.below(50)
    const changed = random.below(asked + 1)
    ms = adaptedMs(ms, plan, { asked, changed, hasWaited: random.next() < 0.2 })
    expect(ms >= 500 && ms <= 8_000).toBe(true)
  }
})
