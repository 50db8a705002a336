/** What keeps the sum of shared units: one thing after another, with the network in our hands. */
import { expect, test } from 'bun:test'
import {
  createAllowances,
  createShares,
  type Query,
  type RawRow,
  type Share,
  type ShareOptions,
} from '../../src/store/store.ts'
import { divide, type Claim } from '../../src/store/shares-divide.ts'
import { createTestClock, type TestClock } from '../clock.ts'
import { createTestLog, until } from '../harness.ts'
import { createLedger, type Ledger } from '../upstream/simulation.ts'

interface Held {
  readonly run: () => unknown
  readonly answer: () => void
}

/** Requests are done and answered at once, or held back for the test to do. */
function nodeOn(ledger: Ledger, clock: TestClock) {
  const held: Held[] = []
  let isHolding = false
  const request = <T>(run: () => T): Promise<T> =>
    new Promise((resolve) => {
      if (!isHolding) return resolve(run())
      let result: T | undefined
      held.push({
        run: () => (result = run()),
        answer: () => resolve(result as T),
      })
    })
  const store = {
    read: (query: Query): Promise<RawRow[]> => request(() => ledger.read(query)),
    writeAside: (ops: readonly Query[]) => request(() => ledger.write(ops)),
  }
  const shares = createShares({ store, clock, log: createTestLog() }, { isShared: true })
  return {
    ...{ store, held },
    stop: async () => await shares.stop(),
    hold: (whether: boolean) => void (isHolding = whether),
    join: (options: Partial<ShareOptions> = {}) =>
      shares.join('calls', {
        ...{ capacity: 10, demand: () => 10, inUse: () => 0, settleMs: 1_000, ...options },
      }),
  }
}

/** Time goes on, and what was asked meanwhile is answered. */
async function pass(clock: TestClock, ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= 50) {
    clock.advance(Math.min(50, left))
    for (let turns = 0; turns < 3; turns++) await new Promise((done) => setImmediate(done))
  }
}

const rowsOf = (ledger: Ledger) =>
  ledger.read({ sql: 'select units from belfry_shares order by units desc', params: [] }).flat()

test('who is to have fewer uses fewer at once, and gives them away when they are not in use', async () => {
  const clock = createTestClock()
  const ledger = createLedger(clock)
  let inUse = 9
  const first = nodeOn(ledger, clock).join({ inUse: () => inUse })
  await pass(clock, 100)
  expect(first.units).toBe(10)
  const second = nodeOn(ledger, clock).join()
  await pass(clock, 4_000)
  expect([first.units, second.units]).toEqual([5, 1])
  expect(rowsOf(ledger)).toEqual([9, 1])
  inUse = 5
  await pass(clock, 2_000)
  expect([first.units, second.units]).toEqual([5, 5])
})

test('a lease is counted from before it was asked for, however late the answer', async () => {
  const clock = createTestClock()
  const ledger = createLedger(clock)
  const node = nodeOn(ledger, clock)
  node.hold(true)
  const share = node.join()
  await pass(clock, 50)
  node.held[0]?.run()
  await pass(clock, 4_000)
  node.hold(false)
  node.held[0]?.answer()
  node.hold(true)
  await until(() => share.units === 10 || node.held.length > 1, 'the answer')
  node.held[1]?.run()
  node.held[1]?.answer()
  await pass(clock, 50)
  expect(share.units).toBe(10)
  const told = new Promise<void>((resolve) => share.onChange(resolve))
  await pass(clock, 950)
  expect(share.units).toBe(0)
  await told
  // It is not another's yet: what was begun last may still have an effect.
  const other = nodeOn(ledger, clock).join()
  await pass(clock, 500)
  expect(other.units).toBe(0)
  await pass(clock, 1_500)
  expect(other.units).toBe(10)
})

test('a rest is every node’s from its next renewal on, the longest that was said, whoever goes', async () => {
  const clock = createTestClock()
  const kept = createLedger(clock)
  let rests = 0
  const ledger: Ledger = {
    read: kept.read,
    write(ops) {
      kept.write(ops)
      if (ops.length === 3) rests++
    },
  }
  const [one, two] = [nodeOn(ledger, clock), nodeOn(ledger, clock)]
  const [first, second] = [one.join(), two.join()]
  await pass(clock, 4_000)
  const leftOf = (share: Share): number => Math.max(0, share.restsUntil - clock.tick())
  let told = 0
  second.onChange(() => void told++)
  const startedAt = clock.tick()
  first.rest(10_000)
  expect(leftOf(second)).toBe(0)
  await pass(clock, 50)
  // Told at once, and heard with a renewal.
  expect(rowsOf(ledger)).toEqual([5, 5, 0])
  await pass(clock, 1_500)
  expect([leftOf(first), leftOf(second)]).toEqual([8_450, 8_450])
  expect(told).toBe(1)
  await pass(clock, 3_000)
  expect(rests).toBe(1)
  // Less is nothing new; more is, whoever is heard of last.
  second.rest(1_000)
  await pass(clock, 1_550)
  expect(Math.max(leftOf(first), leftOf(second))).toBe(startedAt + 10_000 - clock.tick())
  first.rest(20_000)
  second.rest(15_000)
  const longer = clock.tick() + 20_000
  await pass(clock, 3_050)
  expect([leftOf(first), leftOf(second)]).toEqual(Array(2).fill(longer - clock.tick()))
  // It takes nobody's units, and is there when those who said so are not.
  expect(rowsOf(ledger)).toEqual([5, 5, 0])
  await one.stop()
  await two.stop()
  const third = nodeOn(ledger, clock).join()
  await pass(clock, 2_000)
  expect(leftOf(third)).toBe(longer - clock.tick())
  await pass(clock, 20_000)
  expect(leftOf(third)).toBe(0)
  expect(rowsOf(ledger)).toEqual([10])
})

test('a rest that could not be told is told when it can be, as what is left of it', async () => {
  const clock = createTestClock()
  const ledger = createLedger(clock)
  const node = nodeOn(ledger, clock)
  const [first, second] = [node.join(), nodeOn(ledger, clock).join()]
  await pass(clock, 4_000)
  node.hold(true)
  await pass(clock, 1_500)
  first.rest(10_000)
  const until = clock.tick() + 10_000
  await pass(clock, 3_000)
  expect(second.restsUntil).toBe(-Infinity)
  node.hold(false)
  for (const { run, answer } of node.held.splice(0)) {
    run()
    answer()
  }
  await pass(clock, 2_000)
  expect(second.restsUntil).toBe(until)
})

test('a draw that arrives after a later one undoes nothing', async () => {
  const clock = createTestClock()
  const ledger = createLedger(clock)
  const { store } = nodeOn(ledger, clock)
  const allowances = createAllowances({ store, clock })
  const draw = { name: 'calls', capacity: 10, units: 2, endsAtMs: clock.now() + 1e6 }
  const late: (readonly Query[])[] = []
  const lost = createAllowances({
    store: {
      read: store.read,
      async writeAside(ops) {
        if (late.length > 0) await store.writeAside(ops)
        late.push(ops)
      },
    },
    clock,
  })
  expect(await lost.draw(draw)).toEqual({ units: 0, left: 10 })
  expect(await lost.draw({ ...draw, units: 8 })).toEqual({ units: 8, left: 2 })
  await store.writeAside(late[0] ?? [])
  expect(await allowances.draw({ ...draw, units: 5 })).toEqual({ units: 2, left: 0 })
})

test('a renewal that arrives after a later one undoes nothing', async () => {
  const clock = createTestClock()
  const ledger = createLedger(clock)
  const node = nodeOn(ledger, clock)
  let demand = 1
  const other = nodeOn(ledger, clock).join({ demand: () => 10 })
  const share = node.join({ demand: () => demand, capacity: 10 })
  await pass(clock, 6_000)
  expect([other.units, share.units]).toEqual([9, 1])
  // Its next one is on its way for long.
  node.hold(true)
  await pass(clock, 1_500)
  const [stuck] = node.held.splice(0)
  demand = 10
  node.hold(false)
  stuck?.answer()
  await pass(clock, 4_000)
  expect([other.units, share.units]).toEqual([5, 5])
  stuck?.run()
  expect(rowsOf(ledger)).toEqual([5, 5])
  await pass(clock, 3_000)
  expect([other.units, share.units]).toEqual([5, 5])
})

test('what nobody wants any more is given up before it is looked what is in use', async () => {
  const clock = createTestClock()
  const ledger = createLedger(clock)
  const node = nodeOn(ledger, clock)
  let demand = 10
  const share = node.join({ demand: () => demand })
  await pass(clock, 50)
  expect(share.units).toBe(10)
  demand = 0
  node.hold(true)
  await pass(clock, 1_500)
  // Nothing may be begun while the ledger is told.
  expect(share.units).toBe(0)
})

test('a stop does not wait for a primary that is away', async () => {
  const clock = createTestClock()
  const node = nodeOn(createLedger(clock), clock)
  const share = node.join()
  await pass(clock, 50)
  node.hold(true)
  let isStopped = false
  const stopped = node.stop().then(() => (isStopped = true))
  await pass(clock, 900)
  expect([share.units, isStopped]).toEqual([0, false])
  await pass(clock, 150)
  await stopped
})

const claim = (holder: string, wants: number, units = 0): Claim => ({ holder, wants, units })
const divided = (capacity: number, claims: readonly Claim[], turn?: number) =>
  Object.fromEntries(divide(capacity, claims, turn))

test('units are divided by what is wanted, at least one each while they last', () => {
  expect(divided(10, [claim('a', 10), claim('b', 10)])).toEqual({ a: 5, b: 5 })
  expect(divided(50, [claim('a', 50), claim('b', 1)])).toEqual({ a: 49, b: 1 })
  expect(divided(10, [claim('a', 1), claim('b', 1)])).toEqual({ a: 5, b: 5 })
  expect(divided(10, [claim('a', 8), claim('b', 0)])).toEqual({ a: 10 })
  expect(divided(11, [claim('c', 3), claim('a', 2), claim('b', 9)])).toEqual({ a: 2, c: 3, b: 6 })
  expect(divided(1, [claim('a', 1), claim('b', 1, 1)])).toEqual({ b: 1 })
  expect(divided(0, [claim('a', 1)])).toEqual({})
  const three = [claim('a', 1, 1), claim('b', 1, 1), claim('c', 1)]
  expect(divided(2, three)).toEqual({ a: 1, b: 1 })
  // In turns, everybody comes.
  expect([0, 1, 2].map((turn) => Object.keys(divided(2, three, turn)).join(''))).toEqual([
    'ab',
    'ca',
    'bc',
  ])
})

test('nothing is divided twice or lost', () => {
  for (let capacity = 0; capacity < 30; capacity++) {
    for (let count = 1; count < 8; count++) {
      const claims = Array.from({ length: count }, (_, at) =>
        claim(`n${at}`, (capacity * at) % 7, at % 2),
      )
      const shares = [...divide(capacity, claims).values()]
      const sum = shares.reduce((total, units) => total + units, 0)
      const wanting = claims.filter(({ wants }) => wants > 0).length
      expect(sum).toBe(wanting === 0 ? 0 : capacity)
      if (capacity >= wanting) expect(Math.min(1, ...shares)).toBe(1)
    }
  }
})
