import { describe, expect, test } from 'bun:test'
import { calmMs, createStages, risingMs, type Signal } from '../../src/overload/stages.ts'
import { createRandom } from '../lib/random.ts'
import { setUp } from './node.ts'

const signal = (value: number): Signal => ({
  name: 'loop',
  value,
  limits: [20, 40, 250],
  release: 0.5,
})

describe('stages', () => {
  test('one late turn is none of them, nor is a burst that is through within 100 ms', () => {
    const { overload, turns } = setUp()
    turns(900, 1)
    turns(0, 50)
    expect(overload.stage).toBe(0)
    turns(25, 30)
    turns(25, 30)
    turns(0, 10)
    expect(overload.stage).toBe(0)
  })

  test('a queue leads to the stage that it says, and calm goes down one at a time', () => {
    const { overload, turns } = setUp()
    turns(30, 140)
    expect(overload.stage).toBe(1)
    turns(60, 200)
    expect([overload.stage, overload.isShedding]).toEqual([2, true])
    turns(0, calmMs - 50)
    expect(overload.stage).toBe(2)
    turns(0, 100)
    expect([overload.stage, overload.isShedding]).toEqual([1, false])
    turns(0, calmMs - 150)
    expect(overload.stage).toBe(1)
    turns(0, 100)
    expect(overload.stage).toBe(0)
  })

  test('a turn that has just begun says nothing of a queue that the last two have shown', () => {
    const { overload, turns, clock } = setUp()
    turns(25, 1)
    turns(45, 1)
    // 100 ms after the first of them began, this one is 1 ms late.
    overload.begin(clock.tick())
    clock.advance(11)
    overload.begin(clock.tick())
    expect(overload.stage).toBe(0)
    clock.advance(24)
    overload.begin(clock.tick())
    expect(overload.stage).toBe(2)
  })

  test('a loop that is late without a queue has nothing to refuse', () => {
    const { overload, stalls } = setUp()
    stalls(100, 5_000)
    expect([overload.stage, overload.status().why]).toEqual([1, 'loop'])
    stalls(1_100, 5_000)
    expect(overload.stage).toBe(3)
  })

  test('half of what led to a stage keeps it', () => {
    const { overload, turns } = setUp()
    turns(60, 200)
    turns(21, 20_000)
    expect(overload.stage).toBe(2)
    turns(11, 20_000)
    expect(overload.stage).toBe(1)
    turns(9, 4_000)
    expect(overload.stage).toBe(0)
  })

  test.each([
    ['memory', 0.85, 1],
    ['memory', 0.9, 2],
    ['memory', 0.96, 3],
    ['connections', 0.91, 1],
    ['readsMs', 60, 1],
    ['readsMs', 200, 2],
    ['writesMs', 300, 1],
    ['writesMs', 2_000, 2],
  ] as const)('%s at %d is stage %d', (name, value, stage) => {
    const { overload, signals, turns } = setUp()
    signals[name] = value
    turns(0, 2_000)
    expect(overload.stage).toBe(stage)
    signals[name] = 0
    turns(0, 12_000)
    expect(overload.stage).toBe(0)
  })

  test('each change is one line that says why', () => {
    const { log, turns } = setUp()
    turns(60, 200)
    turns(0, 7_000)
    const lines = log.lines.map(({ level, event, fields }) => [
      level,
      event,
      fields['was'],
      fields['stage'],
      fields['why'],
    ])
    expect(lines).toEqual([
      ['warn', 'overload.stage', 'normal', 'refusing', 'requests'],
      ['info', 'overload.stage', 'refusing', 'saving', 'calm'],
      ['info', 'overload.stage', 'saving', 'normal', 'calm'],
    ])
  })

  test('whatever the signal does: up takes 100 ms, down 3 s of calm, one at a time', () => {
    for (let seed = 1; seed <= 60; seed++) {
      const { next: random } = createRandom(seed)
      const stages = createStages()
      const values: { at: number; value: number; isStrained: boolean }[] = []
      let now = 0
      let changedAt = 0
      // Some signals stand for long, some jump at each look.
      const changes = random() < 0.5 ? 0.02 : 0.5
      let value = 0
      for (let look = 0; look < 2_000; look++) {
        const since = now
        now += 10 + random() * (random() < 0.1 ? 200 : 5)
        if (random() < changes) value = random() < 0.5 ? random() * 15 : random() * 300
        const isStrained = random() < 0.001
        values.push({ at: now, value, isStrained })
        const before = stages.stage
        const isChanged = stages.look([signal(value)], { now, since, isStrained })
        expect(isChanged).toBe(stages.stage !== before)
        if (!isChanged) continue
        const limits = [20, 40, 250]
        if (stages.stage > before) {
          const last = values.slice(-2)
          expect(last.length === 2 && last.every((one) => one.value >= 20)).toBe(true)
          expect(limits[stages.stage - 1]).toBeLessThanOrEqual(value)
          const low = values.findLastIndex((one) => one.value < 20)
          expect(now - (values[low]?.at ?? 0)).toBeGreaterThanOrEqual(risingMs)
        } else {
          expect(stages.stage).toBe((before - 1) as typeof before)
          expect(now - changedAt).toBeGreaterThanOrEqual(calmMs)
          const kept = (limits[before - 1] ?? 0) * 0.5
          const recent = values.filter(({ at }) => at > now - calmMs)
          expect(recent.every((one) => one.value < kept)).toBe(true)
          expect(before <= 2 && recent.some((one) => one.isStrained)).toBe(false)
        }
        changedAt = now
      }
    }
  })
})
