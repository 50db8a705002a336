import { describe, expect, test } from 'bun:test'
import { createShares } from '../../src/overload/shares.ts'
import { setUp } from './node.ts'

const kinds = ['low', 'normal', 'high'] as const

/** Refusing, with the ramps of what was refused before nearly over. */
function refusing() {
  const one = setUp()
  one.turns(60, 200)
  one.turns(0, 2_900)
  return one
}

describe('shares', () => {
  test('the longer the wait, the fewer: low, then normal, then high ones are refused', () => {
    const shares = createShares()
    const admittedAt = (waitMs: number) => kinds.filter((kind) => shares.admits(kind, waitMs, 1e9))
    expect(admittedAt(0.5)).toEqual(['low', 'normal', 'high'])
    expect(admittedAt(1.5)).toEqual(['normal', 'high'])
    expect(admittedAt(5)).toEqual(['high'])
    expect(admittedAt(20)).toEqual([])
    expect(shares.refused).toEqual({ low: 3, normal: 2, high: 1 })
  })

  test('where high ones are refused, those below get nothing, and then little by little all', () => {
    const shares = createShares()
    for (let n = 0; n < 10; n++) shares.admits('high', 20, 0)
    expect(shares.look(0)).toBe(true)
    const admittedAt = (now: number) => {
      let admitted = 0
      for (let n = 0; n < 100; n++) admitted += Number(shares.admits('normal', 0, now))
      return admitted
    }
    expect(admittedAt(0)).toBe(0)
    for (const share of [25, 50, 75, 100]) {
      expect(Math.abs(admittedAt(share * 10) - share)).toBeLessThanOrEqual(1)
    }
    expect(shares.admits('high', 0, 0)).toBe(true)
  })

  test('a few of many are no strain, and what was long ago is forgotten', () => {
    const shares = createShares()
    for (let n = 0; n < 100; n++) shares.admits('normal', n % 12 === 0 ? 5 : 0, 1e9)
    expect(shares.look(1e9)).toBe(false)
    for (let n = 0; n < 100; n++) shares.admits('normal', n % 3 === 0 ? 5 : 0, 1e9)
    expect(shares.look(1e9)).toBe(true)
    for (let look = 0; look < 50; look++) shares.look(1e9)
    expect(shares.look(1e9)).toBe(false)
    // Of low ones nobody is below.
    for (let n = 0; n < 100; n++) shares.admits('low', 5, 1e12)
    expect(shares.look(1e12)).toBe(false)
  })
})

describe('who is let in', () => {
  test('those who came before are waited for, as long as they take on average', () => {
    const { overload, turns, clock, signals } = setUp()
    for (let n = 0; n < 30; n++) {
      for (let one = 0; one < 20; one++) overload.end(clock.tick())
      signals.cpuMs += 20
      turns(60, 1)
    }
    expect(overload.stage).toBe(2)
    const admitted = (kind: 'normal' | 'high') => {
      let count = 0
      for (let n = 0; n < 20; n++) {
        overload.begin(clock.tick())
        count += Number(overload.admits(kind, 'loop', clock.tick()))
      }
      return count
    }
    // Of 1 ms each and a bit: 2 ms are waited for, then 10.
    expect([admitted('normal'), admitted('high')]).toEqual([2, 8])
    // Time in which others had the processor has done nothing of it.
    signals.stolenMs += 5
    turns(3, 1)
    expect(admitted('high')).toBe(0)
    turns(5, 1)
    expect(admitted('high')).toBeWithin(3, 8)
  })

  test('where each takes long, waits of several are no overload', () => {
    const { overload, turns, clock, signals } = setUp()
    const answers = (lateMs: number) => {
      for (let n = 0; n < 60; n++) {
        overload.end(clock.tick())
        signals.cpuMs += 20
        turns(lateMs, 1)
      }
    }
    answers(0)
    // Of 20 ms each, 60 ms are 3.
    answers(60)
    expect(overload.stage).toBe(1)
    answers(100)
    expect(overload.stage).toBe(2)
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
    signals.readsMs = 30
    expect(kinds.map((kind) => overload.mayLoad(kind))).toEqual([false, false, true])
    // An app's own route was let in already.
    expect(overload.mayLoad(undefined)).toBe(true)
  })

  describe('low ones in a line', () => {
    /** Each request takes 1 ms. */
    function calm() {
      const one = setUp()
      for (let n = 0; n < 30; n++) {
        for (let answer = 0; answer < 10; answer++) one.overload.end(one.clock.tick())
        one.signals.cpuMs += 10
        one.turns(0, 1)
      }
      return one
    }
    const letIn = ({ overload, clock }: ReturnType<typeof setUp>) =>
      overload.isShedding
        ? kinds.filter((kind) => overload.admits(kind, 'loop', clock.tick()))
        : [...kinds]

    test('of more than 20 ms are refused in the turn, and in the next one, and nobody else is', () => {
      const one = calm()
      const { overload, clock } = one
      const come = (count: number) => {
        for (let n = 0; n < count; n++) {
          overload.begin(clock.tick())
          clock.advance(1)
        }
      }
      come(18)
      expect(letIn(one)).toEqual(['low', 'normal', 'high'])
      come(6)
      expect(letIn(one)).toEqual(['normal', 'high'])
      one.beat()
      come(1)
      expect(letIn(one)).toEqual(['normal', 'high'])
      one.turns(0, 20)
      expect([letIn(one).length, overload.stage, overload.status().refused.low]).toEqual([3, 0, 2])
    })

    test('are let in where the line is one by estimate only', () => {
      const one = calm()
      one.signals.cpuMs += 500
      one.turns(0, 1)
      for (let n = 0; n < 20; n++) one.overload.begin(one.clock.tick())
      expect(letIn(one)).toEqual(['low', 'normal', 'high'])
    })

    test('for readers are refused, and where it stays it is an overload', () => {
      const one = calm()
      one.signals.readsMs = 30
      one.turns(0, 1_000)
      // As long as no low one comes, there is nothing to be told.
      expect(one.overload.stage).toBe(0)
      for (let n = 0; n < 8; n++) {
        expect(letIn(one)).toEqual(['normal', 'high'])
        one.turns(0, 1)
      }
      expect(one.overload.stage).toBe(0)
      for (let n = 0; n < 6; n++) {
        letIn(one)
        one.turns(0, 1)
      }
      expect([one.overload.stage, one.overload.status().why]).toEqual([2, 'line'])
      one.signals.readsMs = 0
      one.turns(0, 7_000)
      expect([one.overload.stage, letIn(one).length]).toEqual([0, 3])
    })

    test('are let in by whoever said that nothing is refused', async () => {
      const one = calm()
      one.signals.readsMs = 30
      one.turns(0, 1)
      expect(letIn(one)).toEqual(['normal', 'high'])
      await one.overload.set('normal')
      expect(letIn(one)).toEqual(['low', 'normal', 'high'])
      one.turns(0, 1_000)
      expect(letIn(one)).toEqual(['low', 'normal', 'high'])
    })
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
    const { overload, turns, clock, signals } = setUp()
    turns(60, 200)
    signals.writesMs = 100
    const write = (count: number) => {
      for (let n = 0; n < count; n++) overload.admits('normal', 'writes', clock.tick())
    }
    for (let n = 0; n < 40; n++) {
      turns(0, 250)
      write(20)
    }
    expect(overload.stage).toBe(2)
    for (let n = 0; n < 18; n++) {
      turns(0, 250)
      write(3)
    }
    expect(overload.stage).toBe(1)
  })

  test('who came together where there is room is no strain; who waits for a thread is one', () => {
    const loop = createShares()
    const reads = createShares()
    for (let n = 0; n < 20; n++) {
      expect(loop.admits('normal', 5, 1e9)).toBe(false)
      expect(reads.admits('normal', 0, 1e9)).toBe(true)
      expect(reads.awaits('normal', 'reads', 25)).toBe(false)
    }
    expect(loop.look(1e9, false)).toBe(false)
    expect(loop.look(1e9, true)).toBe(true)
    expect(reads.look(1e9, false)).toBe(true)
  })
})
