import { describe, expect, test } from 'bun:test'
import { createLimits } from '../../src/limits/limits.ts'
import { createTestClock } from '../clock.ts'
import { createRandom } from '../lib/random.ts'

describe('limits.take', () => {
  test('refuses the request over the quota and says when the next fits', () => {
    const clock = createTestClock()
    const limits = createLimits({ clock }, { name: 'p', quota: 2, windowMs: 1000 })
    expect(limits.take('a')).toEqual({ ok: true, left: 1, resetMs: 1000 })
    clock.advance(400)
    expect(limits.take('a')).toEqual({ ok: true, left: 0, resetMs: 600 })
    expect(limits.take('a')).toEqual({ ok: false, left: 0, resetMs: 600 })
    expect(limits.take('b').ok).toBe(true)
    clock.advance(600)
    expect(limits.take('a')).toEqual({ ok: true, left: 0, resetMs: 400 })
  })

  test('property: no window of any place ever holds more than the quota', () => {
    const random = createRandom(11)
    const clock = createTestClock()
    const [quota, windowMs] = [5, 1000]
    const limits = createLimits({ clock }, { name: 'p', quota, windowMs })
    const taken: number[] = []
    for (let step = 0; step < 5000; step++) {
      clock.advance(random.below(300))
      if (limits.take('a').ok) taken.push(clock.tick())
    }
    for (const [at, first] of taken.entries()) {
      const next = taken[at + quota]
      if (next !== undefined) expect(next - first).toBeGreaterThanOrEqual(windowMs)
    }
    expect(taken.length).toBeGreaterThan(1000)
  })
})
