import { describe, expect, test } from 'bun:test'
import { createTurns } from '../../src/overload/turns.ts'
import { setUp } from './node.ts'

/** Beats that come on time, and nobody else. */
function idle(node: ReturnType<typeof setUp>, forMs: number): number {
  const until = node.clock.tick() + forMs
  let beats = 0
  while (node.clock.tick() < until) {
    node.clock.advance(node.beatEveryMs())
    node.beat()
    beats++
  }
  return beats
}

/** Of a loop that has been so much at work, after a rest and half a second of more than it can do. */
function demandAfter(restMs: number, everyMs: number): number {
  let cpuMs = 0
  const turns = createTurns({ cpuMs: () => cpuMs, stolenMs: () => 0 }, 0)
  let now = 0
  const work = (forMs: number, eachMs: number, requests: number): void => {
    turns.pace(eachMs)
    for (const until = now + forMs; now < until;) {
      for (let n = 0; n < requests; n++) turns.begin(now)
      now += eachMs
      cpuMs += requests * 2
      for (let n = 0; n < requests; n++) turns.end(now)
      turns.beat(now, 10)
    }
  }
  work(3_000, 10, 2)
  work(restMs, everyMs, 0)
  work(500, 10, 6)
  return turns.demand()
}

describe('a loop', () => {
  test('where nothing comes is looked at 20 times a second instead of 100, from the second second on', () => {
    const node = setUp()
    expect(idle(node, 1_000)).toBe(100)
    expect(idle(node, 10_000)).toBe(200)
    node.overload.begin(node.clock.tick())
    expect(node.beatEveryMs()).toBe(10)
    expect(idle(node, 1_000)).toBe(100)
    expect(idle(node, 1_000)).toBe(20)
  })

  test('something late ends the rest: it is a stage as soon as elsewhere', () => {
    const node = setUp()
    idle(node, 5_000)
    const from = node.clock.tick()
    while (node.overload.stage === 0) {
      node.clock.advance(node.beatEveryMs() + 100)
      node.beat()
    }
    expect([node.overload.status().why, node.beatEveryMs()]).toEqual(['loop', 10])
    expect(node.clock.tick() - from).toBeLessThanOrEqual(150 + 110 + 110)
  })

  test('after a rest what comes is counted as after any pause', () => {
    const usual = demandAfter(60_000, 10)
    expect(usual).toBeGreaterThan(0.4)
    expect(Math.abs(demandAfter(60_000, 50) - usual)).toBeLessThan(0.02)
  })

  test('who comes all at once and is answered late is noticed, however long the turns', () => {
    for (const requests of [20, 60, 120]) {
      const { overload, clock, signals, beat, beatEveryMs } = setUp()
      let turns = 0
      for (; overload.stage === 0 && turns < 20; turns++) {
        for (let n = 0; n < requests; n++) overload.begin(clock.tick())
        clock.advance(Math.max(beatEveryMs(), requests * 2))
        signals.cpuMs += requests * 2
        for (let n = 0; n < requests; n++) overload.end(clock.tick())
        beat()
      }
      expect(turns * requests * 2).toBeLessThan(600)
    }
  })
})
