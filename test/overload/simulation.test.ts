import { describe, expect, test } from 'bun:test'
import { capacityOf, simulate, type Machine } from './simulation.ts'

const machines: Readonly<Record<string, Machine>> = {
  'the loop is what there is too little of': {
    readers: 2,
    refuseMs: 0.028,
    kinds: {
      high: { share: 0.3, takeMs: 0.12, answerMs: 0.1, readMs: 0.05 },
      normal: { share: 0.4, takeMs: 0.3, answerMs: 0.3, readMs: 0.1 },
      low: { share: 0.3, takeMs: 0.3, answerMs: 0.4, readMs: 0.2 },
    },
  },
  'the loop is, and others have the processor most of the time': {
    readers: 2,
    refuseMs: 0.028,
    others: { afterMs: 3, forMs: 12 },
    kinds: {
      high: { share: 0.3, takeMs: 0.12, answerMs: 0.1, readMs: 0.05 },
      normal: { share: 0.4, takeMs: 0.3, answerMs: 0.3, readMs: 0.1 },
      low: { share: 0.3, takeMs: 0.3, answerMs: 0.4, readMs: 0.2 },
    },
  },
  'the readers are': {
    readers: 2,
    refuseMs: 0.028,
    kinds: {
      high: { share: 0.3, takeMs: 0.06, answerMs: 0.04, readMs: 0.4 },
      normal: { share: 0.4, takeMs: 0.06, answerMs: 0.04, readMs: 1.5 },
      low: { share: 0.3, takeMs: 0.06, answerMs: 0.04, readMs: 4 },
    },
  },
  'answers take long, and are made late': {
    readers: 2,
    refuseMs: 0.028,
    kinds: {
      high: { share: 0.3, takeMs: 0.06, answerMs: 2, readMs: 0.4 },
      normal: { share: 0.4, takeMs: 0.06, answerMs: 10, readMs: 1.5 },
      low: { share: 0.3, takeMs: 0.06, answerMs: 20, readMs: 4 },
    },
  },
}

const overloadS = 30

describe.each(Object.entries(machines))('%s', (_, machine) => {
  test.each([1, 2])('three times what can be done, for 30 s (%d)', (seed) => {
    const [usual, overload, , rest] = simulate(
      machine,
      [
        { load: 0.5, seconds: 10 },
        { load: 3, seconds: overloadS },
        { load: 0.5, seconds: 10 },
        { load: 0.5, seconds: 5 },
      ],
      seed,
    )
    if (!usual || !overload || !rest) throw new Error('four phases')
    const { high, normal, low } = overload.kinds
    const peak = capacityOf(machine) * machine.kinds.high.share
    expect(high.good / overloadS).toBeGreaterThan(0.8 * peak)
    // Where others have the processor, the beginning is not noticed so soon.
    expect(overload.p99Ms).toBeLessThan((machine.others ? 10 : 5) * usual.p99Ms)
    // There are few of them, most of them from the beginning.
    expect(low.p99Ms).toBeLessThan((machine.others ? 20 : 12) * usual.p99Ms)
    // Low ones first, then normal ones, then high ones.
    const shareOf = ({ good, refused }: typeof high) => refused / (good + refused)
    expect(shareOf(high)).toBeLessThan(0.05)
    expect(shareOf(normal)).toBeLessThan(shareOf(low))
    expect(shareOf(low)).toBeGreaterThan(0.9)
    // Ten seconds after, nobody is refused any more, and nothing is held back.
    expect([rest.stage, rest.p99Ms < 2 * usual.p99Ms]).toEqual([0, true])
    expect(Object.values(rest.kinds).map(({ refused }) => refused)).toEqual([0, 0, 0])
  })

  test('without anybody who refuses, all of it is late', () => {
    const [usual, overload] = simulate({ ...machine, isUnprotected: true }, [
      { load: 0.5, seconds: 5 },
      { load: 3, seconds: 5 },
    ])
    expect(overload?.p99Ms).toBeGreaterThan(20 * (usual?.p99Ms ?? 0))
  })

  test('eight tenths of what can be done is no overload', () => {
    const [usual] = simulate(machine, [{ load: 0.8, seconds: 20 }])
    const refused = Object.values(usual?.kinds ?? {}).reduce((sum, one) => sum + one.refused, 0)
    const good = Object.values(usual?.kinds ?? {}).reduce((sum, one) => sum + one.good, 0)
    expect(refused / good).toBeLessThan(0.1)
  })
})
