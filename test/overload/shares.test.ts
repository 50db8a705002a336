import { describe, expect, test } from 'bun:test'
import { setUp } from './node.ts'

const kinds = ['low', 'normal', 'high'] as const

/** Refusing, with the ramps of earlier refusals over. */
function refusing() {
  const one = setUp()
  one.turns(60, 200)
  // Low ones are let in again as long as nothing is wrong: to just before the stage goes.
  one.turns(0, 2_900)
  return one
}

describe('who is let in', () => {
  test('the later the turn, the fewer: low, then normal, then high ones are refused', () => {
    const { overload, late, beat } = refusing()
    const admittedAt = (ms: number) => {
      beat()
      const now = late(ms)
      // What each turn takes in however late it is.
      for (let n = 0; n < 4; n++) overload.admits('high', 'loop', now)
      return kinds.filter((kind) => overload.admits(kind, 'loop', now))
    }
    expect(admittedAt(4)).toEqual(['normal', 'high'])
    expect(admittedAt(10)).toEqual(['high'])
    expect(admittedAt(20)).toEqual([])
  })

  test('where each takes long, a turn still lets some in', () => {
    const { overload, late } = refusing()
    const now = late(200)
    const admitted = Array.from({ length: 6 }, () => overload.admits('normal', 'loop', now))
    expect(admitted).toEqual([true, true, true, true, false, false])
  })

  test('where a high one was refused, those below get nothing, and then little by little all', () => {
    const { overload, late, beat, clock } = refusing()
    for (let turn = 0; turn < 2; turn++) {
      const at = late(20)
      for (let n = 0; n < 5; n++) overload.admits('high', 'loop', at)
      beat()
    }
    const now = clock.tick()
    const shares = [0, 250, 500, 750, 1_000].map((afterMs) => {
      clock.advance(now + afterMs - clock.tick())
      beat()
      let admitted = 0
      for (let n = 0; n < 100; n++) {
        admitted += Number(overload.admits('normal', 'loop', clock.tick()))
      }
      return admitted
    })
    expect(shares[0]).toBe(0)
    for (const [at, share] of [25, 50, 75, 100].entries()) {
      expect(Math.abs((shares[at + 1] ?? 0) - share)).toBeLessThanOrEqual(1)
    }
  })

  test('low ones get nothing while it lasts, and are all back before the stage goes', () => {
    const { overload, turns, clock } = setUp()
    turns(60, 200)
    const admitted = () => {
      let count = 0
      for (let n = 0; n < 100; n++) count += Number(overload.admits('low', 'loop', clock.tick()))
      return count
    }
    turns(60, 10_000)
    expect(admitted()).toBe(0)
    turns(0, 1_500)
    expect(admitted()).toBeWithin(45, 56)
    turns(0, 1_400)
    expect(admitted()).toBeWithin(90, 101)
    // All of that was too much: from the beginning.
    turns(60, 300)
    expect(admitted()).toBe(0)
    expect(overload.stage).toBe(2)
  })

  test('writes look at the writer as well, loads at the readers', () => {
    const { overload, signals, clock } = refusing()
    signals.writesMs = 60
    expect(overload.admits('normal', 'writes', clock.tick())).toBe(false)
    expect(overload.admits('high', 'writes', clock.tick())).toBe(true)
    expect(overload.admits('normal', 'loop', clock.tick())).toBe(true)
    signals.readsMs = 20
    expect(kinds.map((kind) => overload.mayLoad(kind))).toEqual([false, false, true])
    // An app's own route was let in already.
    expect(overload.mayLoad(undefined)).toBe(true)
  })

  test('the last stage takes no new connections, and all else as the one before', async () => {
    const { overload, clock } = setUp()
    const now = clock.tick()
    expect(overload.admits('connection', 'loop', now)).toBe(true)
    await overload.set('closed')
    expect(overload.admits('connection', 'loop', now)).toBe(false)
    expect(kinds.filter((kind) => overload.admits(kind, 'loop', now))).toEqual(['normal', 'high'])
    expect(overload.status().refused).toEqual({ low: 1, normal: 0, high: 0, connection: 1 })
  })

  test('what is refused for want of time is no calm', () => {
    const { overload, turns, late, beat } = setUp()
    turns(60, 200)
    const refuse = () => {
      const now = late(9)
      for (let m = 0; m < 5; m++) overload.admits('normal', 'loop', now)
      beat()
    }
    for (let n = 0; n < 20; n++) {
      turns(0, 500)
      refuse()
      refuse()
    }
    expect(overload.stage).toBe(2)
    // One late turn is a collection of garbage, or a long call.
    for (let n = 0; n < 7; n++) {
      turns(0, 500)
      refuse()
    }
    expect(overload.stage).toBe(1)
  })
})
