import { describe, expect, test } from 'bun:test'
import { Tracker } from '../../src/client/position.ts'

const at = (offset: number, epoch = 'e') => ({ epoch, offset })

const fresh = (offset: number, epoch?: string) => ({
  ...{ recovered: false, hasLatest: false },
  position: at(offset, epoch),
})
const latest = (offset: number) => ({ ...fresh(offset), hasLatest: true })

/** A subscriber that stands at 5. */
function standing(): Tracker {
  const tracker = new Tracker()
  tracker.subscribed(fresh(4))
  expect(tracker.heard(5)).toBe('next')
  return tracker
}

describe('Tracker.subscribed', () => {
  test('the first time nothing was missed, and the latest publication may come with it', () => {
    const tracker = new Tracker()
    expect(tracker.subscribed(latest(7))).toBeUndefined()
    expect([tracker.heard(7), tracker.heard(7), tracker.heard(8)]).toEqual([
      'next',
      'again',
      'next',
    ])
  })

  test('recovered: what follows begins where it stood', () => {
    const tracker = standing()
    expect(tracker.subscribed({ ...fresh(5), recovered: true })).toBeUndefined()
    expect([tracker.heard(6), tracker.heard(7)]).toEqual(['next', 'next'])
    expect(tracker.position).toEqual(at(7))
  })

  test('not recovered, but nothing was published meanwhile: no gap, and the latest is known', () => {
    const tracker = standing()
    expect(tracker.subscribed(latest(5))).toBeUndefined()
    expect([tracker.heard(5), tracker.heard(6)]).toEqual(['again', 'next'])
  })

  test('not recovered: says how many, and goes on from there', () => {
    const tracker = standing()
    expect(tracker.subscribed(fresh(9))).toEqual({ reason: 'missed', missed: 4 })
    expect([tracker.heard(9), tracker.heard(10)]).toEqual(['again', 'next'])
  })

  test('the latest that follows was not missed', () => {
    const [far, near] = [standing(), standing()]
    expect(far.subscribed(latest(9))).toEqual({ reason: 'missed', missed: 3 })
    expect(near.subscribed(latest(6))).toBeUndefined()
    expect([far.heard(9), near.heard(6), near.heard(6)]).toEqual(['next', 'next', 'again'])
  })

  test('another epoch: nobody knows how many, also when the offset is the same or lower', () => {
    for (const offset of [0, 5, 9]) {
      const gap = standing().subscribed(fresh(offset, 'f'))
      expect(gap).toEqual({ reason: 'epoch', missed: undefined })
    }
  })

  test('goes on from where an earlier subscriber was', () => {
    const tracker = new Tracker(at(5))
    expect(tracker.subscribed(fresh(6))).toEqual({
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

  test('what the publication says was not for this subscriber is no gap; what lies before that is', () => {
    const tracker = standing()
    expect(tracker.heard(8, 5)).toBe('next')
    expect(tracker.heard(12, 3)).toBe('next')
    expect(tracker.heard(20, 15)).toEqual({ reason: 'missed', missed: 3 })
  })

  test('the latest may lie before where the topic stands, if what came then was not for this subscriber', () => {
    const tracker = new Tracker()
    tracker.subscribed(latest(9))
    expect([tracker.heard(6), tracker.heard(6), tracker.heard(10, 9)]).toEqual([
      ...(['next', 'again', 'next'] as const),
    ])
    // Heard before it went away.
    const again = standing()
    again.subscribed(latest(9))
    expect(again.heard(5)).toBe('again')
  })

  test('without offsets everything is next', () => {
    const tracker = standing()
    expect([tracker.heard(undefined), tracker.heard(6)]).toEqual(['next', 'next'])
  })
})
