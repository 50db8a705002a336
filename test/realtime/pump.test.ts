/** How publications gather, leave in slices and reach whoever joined in the middle, each once. */
import { describe, expect, test } from 'bun:test'
import { Outbox, type Shard, type Sink } from '../../src/realtime/outbox.ts'
import { createPump, type Pump, type Pumped } from '../../src/realtime/pump.ts'
import { createTestClock, type TestClock } from '../clock.ts'
import { createRandom } from '../lib/random.ts'

/** `soon` and time by hand, so that a test says what happens between two turns. */
interface Turns extends TestClock {
  /** Runs what is due at the end of this turn; true if there was something. */
  turn(): boolean
  /** Each look at the clock takes so long. */
  costMs: number
}

function createTurns(): Turns {
  const clock = createTestClock()
  let due: (() => void)[] = []
  const turns: Turns = {
    ...clock,
    costMs: 0,
    tick() {
      clock.advance(turns.costMs)
      return clock.tick()
    },
    soon: (run) => void due.push(run),
    turn() {
      const now = due
      due = []
      for (const run of now) run()
      return now.length > 0
    },
  }
  return turns
}

interface Setting {
  readonly turns: Turns
  readonly pump: Pump
  readonly outbox: Outbox<string, string>
}

function setUp(limits: { turnMs?: number; shardSize?: number } = {}): Setting {
  const turns = createTurns()
  const pump = createPump(turns, { turnMs: limits.turnMs ?? 0 })
  return { turns, pump, outbox: outboxOf(pump, limits.shardSize) }
}

function outboxOf(pump: Pump, shardSize = 2): Outbox<string, string> {
  return new Outbox('topic', pump, { shardSize, pack: (frames) => frames.join(',') })
}

class Hearer implements Sink<string> {
  readonly chunks: string[] = []
  push(chunk: string): void {
    this.chunks.push(chunk)
  }
  get heard(): string[] {
    return this.chunks.flatMap((chunk) => chunk.split(','))
  }
}

describe('an outbox', () => {
  test('what one turn publishes is one write per listener', () => {
    const { outbox, turns } = setUp()
    const hearers = Array.from({ length: 5 }, () => new Hearer())
    for (const hearer of hearers) outbox.join(hearer)
    for (const frame of ['a', 'b', 'c']) outbox.append(frame)
    while (turns.turn());
    for (const { chunks } of hearers) expect(chunks).toEqual(['a,b,c'])
  })

  test('a write holds some 16,000 characters, or one frame', () => {
    const { outbox, turns } = setUp()
    const hearer = new Hearer()
    outbox.join(hearer)
    const lengths = [6_000, 6_000, 6_000, 40_000, 10]
    for (const length of lengths) outbox.append('x'.repeat(length))
    while (turns.turn());
    expect(hearer.chunks.map(({ length }) => length)).toEqual([12_001, 6_000, 40_000, 10])
  })

  test('a large audience is served in slices, a small topic between them', () => {
    const { outbox, pump, turns } = setUp()
    const many = Array.from({ length: 10 }, () => new Hearer())
    for (const hearer of many) outbox.join(hearer)
    const small = outboxOf(pump)
    const one = new Hearer()
    small.join(one)
    outbox.append('a')
    small.append('b')
    const served = () => many.filter(({ chunks }) => chunks.length > 0).length
    turns.turn()
    turns.turn()
    expect([served(), one.chunks]).toEqual([2, ['b']])
    turns.turn()
    expect(served()).toBe(4)
    while (turns.turn());
    expect(served()).toBe(10)
  })

  test('who joins between two slices hears neither again what its answer told, nor misses the rest', () => {
    const { outbox, turns } = setUp()
    const first = Array.from({ length: 3 }, () => new Hearer())
    for (const hearer of first) outbox.join(hearer)
    outbox.append('a')
    turns.turn()
    // One shard has `a`, the one with room does not yet.
    const late = new Hearer()
    outbox.join(late)
    outbox.append('b')
    const later = new Hearer()
    outbox.join(later)
    outbox.append('c')
    while (turns.turn());
    for (const { heard } of first) expect(heard).toEqual(['a', 'b', 'c'])
    expect(late.heard).toEqual(['b', 'c'])
    expect(later.heard).toEqual(['c'])
  })

  test('who leaves while it is pushed takes nobody along', () => {
    const { outbox, turns } = setUp({ shardSize: 10 })
    const hearers = Array.from({ length: 8 }, (_, n) => {
      const hearer = new Hearer()
      const shard = outbox.join(hearer)
      if (n % 3 > 0) return hearer
      const push = hearer.push.bind(hearer)
      hearer.push = (chunk) => {
        push(chunk)
        outbox.leave(shard, hearer)
      }
      return hearer
    })
    outbox.append('a')
    while (turns.turn());
    outbox.append('b')
    while (turns.turn());
    expect(hearers.map(({ heard }) => heard.join(''))).toEqual(
      hearers.map((_, n) => (n % 3 > 0 ? 'ab' : 'a')),
    )
  })

  test.each([1, 2, 3, 4, 5, 6])(
    'everybody hears exactly what came after it joined (seed %i)',
    (seed) => {
      const random = createRandom(seed)
      const { outbox, turns } = setUp({ shardSize: 1 + random.below(4) })
      interface Member {
        readonly hearer: Hearer
        readonly shard: Shard<string, string>
        readonly from: number
      }
      const members: Member[] = []
      const gone: (Member & { readonly until: number })[] = []
      let number = 0
      const leave = (leaving: Member[]) => {
        for (const member of leaving) {
          outbox.leave(member.shard, member.hearer)
          gone.push({ ...member, until: number })
        }
      }
      for (let step = 0; step < 3_000; step += 1) {
        const dice = random.next()
        if (dice < 0.2) {
          const hearer = new Hearer()
          members.push({ hearer, shard: outbox.join(hearer), from: number })
        } else if (dice < 0.35 && members.length > 0) {
          leave(members.splice(random.below(members.length), 1))
        } else if (dice < 0.355) leave(members.splice(0))
        else if (dice < 0.7) outbox.append(String(number++))
        else turns.turn()
      }
      while (turns.turn());
      const range = (from: number, count: number) =>
        Array.from({ length: count }, (_, n) => `${from + n}`)
      for (const { hearer, from } of members) {
        expect(hearer.heard).toEqual(range(from, number - from))
      }
      expect(gone.length).toBeGreaterThan(100)
      for (const { hearer, from, until } of gone) {
        expect(hearer.heard).toEqual(range(from, hearer.heard.length))
        expect(from + hearer.heard.length).toBeLessThanOrEqual(until)
      }
    },
  )
})

describe('the pump', () => {
  const loaded = (costMs: number) => {
    const setting = setUp({ turnMs: 1_000 })
    const hearer = new Hearer()
    setting.outbox.join(hearer)
    hearer.push = (chunk) => {
      setting.turns.advance(costMs)
      hearer.chunks.push(chunk)
    }
    return { ...setting, hearer }
  }

  test.each([
    [4, 4],
    [50, 10],
  ] as const)('after writes of %i ms publications gather for %i ms', (costMs, windowMs) => {
    const { outbox, turns, hearer } = loaded(costMs)
    outbox.append('a')
    turns.turn()
    for (const frames of [
      ['b', 'c'],
      ['d', 'e'],
    ]) {
      for (const frame of frames) {
        outbox.append(frame)
        turns.turn()
        turns.advance(windowMs / 2 - 0.5)
      }
      expect(hearer.chunks.at(-1)).not.toContain(frames[0] ?? '')
      turns.advance(1)
      expect(hearer.chunks.at(-1)).toBe(frames.join())
    }
    // At rest: no load, no wait.
    turns.advance(windowMs)
    outbox.append('f')
    turns.turn()
    expect(hearer.chunks.at(-1)).toBe('f')
  })

  test('who publishes the next when the last is heard seldom waits', () => {
    const { outbox, turns, hearer } = loaded(20)
    let waits = 0
    for (let n = 0; n < 1_000; n += 1) {
      outbox.append(String(n))
      outbox.append('more of the same turn')
      turns.turn()
      if (hearer.chunks.length === n) {
        waits += 1
        turns.advance(10)
      }
      turns.advance(1)
    }
    expect(hearer.chunks).toHaveLength(1_000)
    expect(waits).toBeGreaterThan(5)
    expect(waits).toBeLessThan(30)
  })

  test('a listener of two topics is written to once a round', () => {
    const { outbox, pump, turns } = setUp({ turnMs: 1_000 })
    const other = outboxOf(pump)
    const writes: string[] = []
    let text = ''
    const flush = () => {
      if (text !== '') writes.push(text)
      text = ''
    }
    const both: Sink<string> = {
      push(chunk) {
        if (text === '') pump.gather({ flush })
        text += chunk
      },
    }
    outbox.join(both)
    other.join(both)
    outbox.append('a')
    other.append('b')
    turns.turn()
    expect(writes).toEqual(['ab'])
    expect(turns.turn()).toBeFalse()
    // Not later, though one of them has more to say.
    for (const _ of [1, 2]) outbox.append('x'.repeat(16_000))
    other.append('c')
    turns.turn()
    expect(writes.map(({ length }) => length)).toEqual([2, 16_001, 16_000])
  })

  test('pushes to some 1,000 in a turn, however little time they take', () => {
    const setting = setUp({ turnMs: 1_000, shardSize: 500 })
    let pushes = 0
    for (let n = 0; n < 5_000; n += 1) setting.outbox.join({ push: () => void (pushes += 1) })
    setting.outbox.append('a')
    for (const expected of [1_000, 2_000, 3_000, 4_000, 5_000]) {
      setting.turns.turn()
      expect(pushes).toBe(expected)
    }
  })

  test('flush delivers all that waits at once, and nothing runs after it', () => {
    const { outbox, pump, turns } = setUp()
    const hearers = Array.from({ length: 7 }, () => new Hearer())
    for (const hearer of hearers) outbox.join(hearer)
    outbox.append('a')
    pump.flush(Infinity)
    for (const { chunks } of hearers) expect(chunks).toEqual(['a'])
    while (turns.turn());
    for (const { chunks } of hearers) expect(chunks).toEqual(['a'])
  })

  test('is full of what nobody takes away, and empty again', () => {
    const { pump, turns } = setUp()
    let isLeft = true
    const outbox: Pumped = {
      isQueued: false,
      get isEmpty() {
        return !isLeft
      },
      step() {
        if (!isLeft) pump.forget(20 * 1024 * 1024)
        return 1
      },
    }
    pump.add(outbox, 20 * 1024 * 1024)
    expect(pump.isFull).toBeTrue()
    expect(pump.roomInMs).toBeGreaterThanOrEqual(50)
    expect(pump.roomInMs).toBeLessThanOrEqual(30_000)
    turns.turn()
    expect(pump.isFull).toBeTrue()
    isLeft = false
    while (turns.turn());
    expect(pump.isFull).toBeFalse()
  })
})
