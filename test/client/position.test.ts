import { describe, expect, test } from 'bun:test'
import { Tracker } from '../../src/client/position.ts'

const at = (offset: number, epoch = 'e') => ({ epoch, offset })

/** A subscriber that stands at 5. */
function standing(): Tracker {
  const tracker = new Tracker()
  tracker.subscribed({ recovered: false, position: at(4) })
  expect(tracker.heard(5)).toBe('next')
  return tracker
}

describe('Tracker.subscribed', () => {
  test('the first time nothing was missed, and the latest publication may come with it', () => {
    const tracker = new Tracker()
    expect(tracker.subscribed({ recovered: false, position: at(7) })).toBeUndefined()
    expect([tracker.heard(7), tracker.heard(7), tracker.heard(8)]).toEqual([
      'next',
      'again',
      'next',
    ])
  })

  test('recovered: what follows begins where it stood', () => {
    const tracker = standing()
    expect(tracker.subscribed({ recovered: true, position: at(5) })).toBeUndefined()
    expect([tracker.heard(6), tracker.heard(7)]).toEqual(['next', 'next'])
    expect(tracker.position).toEqual(at(7))
  })

  test('not recovered, but nothing was published meanwhile: no gap, and the latest is known', () => {
    const tracker = standing()
    expect(tracker.subscribed({ recovered: false, position: at(5) })).toBeUndefined()
    expect([tracker.heard(5), tracker.heard(6)]).toEqual(['again', 'next'])
  })

  test('not recovered: says how many, and goes on from there', () => {
    const tracker = standing()
    const gap = tracker.subscribed({ recovered: false, position: at(9) })
    expect(gap).toEqual({ reason: 'missed', missed: 4 })
    expect([tracker.heard(9), tracker.heard(10)]).toEqual(['next', 'next'])
  })

  test('another epoch: nobody knows how many, also when the offset is the same or lower', () => {
    for (const offset of [0, 5, 9]) {
      const gap = standing().subscribed({ recovered: false, position: at(offset, 'f') })
      expect(gap).toEqual({ reason: 'epoch', missed: undefined })
    }
  })

  test('goes on from where an earlier subscriber was', () => {
    const tracker = new Tracker(at(5))
    expect(tracker.subscribed({ recovered: false, position: at(6) })).toEqual({
      reason: 'missed',
      missed: 1,
    })
  })
})

describe('Tracker.heard', () => {
  test('an offset that is skipped is a gap, one that was heard is none', () => {
    const tracker = standing()
    expect(tracker.heard(8)).toEqual({ reason: 'missed', missed: 2 })
    expect([tracker.heard(8), tracker.heard(3), tracker.heard(9)]).toEqual([
      'again',
      'again',
      'next',
    ])
  })

  test('without offsets everything is next', () => {
    const tracker = standing()
    expect([tracker.heard(undefined), tracker.heard(6)]).toEqual(['next', 'next'])
  })
})
