/** No window at the provider is ever overfull, whatever happens, and everybody who waits is answered. */
import { describe, expect, test } from 'bun:test'
import { parseRate } from '../../src/lib/rate.ts'
import { shareBounds } from '../../src/store/shares.ts'
import { takeOverMsMax } from '../../src/store/store.ts'
import type { BudgetPlan } from '../../src/upstream/budget-port.ts'
import { settleMsOf } from '../../src/upstream/slots.ts'
import { createRandom, type Random } from '../lib/random.ts'
import { worstWindow } from './adversary.ts'
import { requestMs, simulate, type Simulation } from './simulation.ts'

const priorities = ['high', 'normal', 'low'] as const

function planOf(random: Random, changed: Partial<BudgetPlan> = {}): BudgetPlan {
  return {
    name: 'calls',
    rate: { quota: 1 + random.below(60), windowMs: random.pick([200, 1_000, 3_000]) },
    burst: random.pick([0, 0, 5, 20]),
    keys: undefined,
    header: 'x-api-key',
    queueMax: random.pick([5, 50, 500]),
    quota: undefined,
    timeoutMs: random.pick([300, 1_000, 5_000]),
    ...changed,
  }
}

/** Sometimes nothing, sometimes more than can be. */
function load(simulation: Simulation, random: Random, plan: BudgetPlan): void {
  const living = simulation.nodes.filter(({ isDead, isPaused }) => !isDead && !isPaused)
  if (living.length === 0 || random.next() > 0.3) return
  const asks = random.next() < 0.02 ? plan.rate.quota * 2 : random.below(4)
  for (let at = 0; at < asks; at++) {
    simulation.ask(random.pick(living), {
      priority: random.pick(priorities),
      ...(random.next() < 0.3 ? { deadlineMs: random.below(3_000) } : {}),
      ...(random.next() < 0.1 ? { cancelMs: random.below(500) } : {}),
    })
  }
}

function expectKept({ calls }: Simulation, plan: BudgetPlan, seed: number): void {
  const byKey = Map.groupBy(calls, ({ key }) => key)
  for (const [key, of] of byKey) {
    const most = worstWindow(of, plan.rate.windowMs)
    expect(
      `seed ${seed} ${key}: ${Math.max(0, most - plan.rate.quota - plan.burst)} too many`,
    ).toBe(`seed ${seed} ${key}: 0 too many`)
  }
}

async function drain(simulation: Simulation): Promise<void> {
  for (let ms = 0; simulation.open > 0 && ms < 40_000; ms += 100) await simulation.step(100)
}

test('the adversary finds the worst window', () => {
  const spans = [
    { sentMs: 0, endMs: 10 },
    { sentMs: 5, endMs: 5 },
    { sentMs: 20, endMs: 30 },
    { sentMs: 41, endMs: 41 },
  ]
  expect(worstWindow(spans, 10)).toBe(2)
  expect(worstWindow(spans, 15)).toBe(3)
  expect(worstWindow(spans, 35)).toBe(3)
  expect(worstWindow(spans, 36)).toBe(4)
})

/** More with `SEEDS=200`. */
const seeds = Array.from({ length: Number(process.env['SEEDS'] ?? 20) }, (_, at) => at + 1)

describe('one node', () => {
  test.each(seeds)('seed %d', async (seed) => {
    const random = createRandom(seed)
    const plan = planOf(random, { keys: random.pick([undefined, () => 'a, b,c']) })
    const simulation = simulate({ random, plan, isShared: false })
    simulation.join()
    let waitingMost = 0
    for (let step = 0; step < 1_500; step++) {
      load(simulation, random, plan)
      await simulation.step(1 + random.below(10))
      waitingMost = Math.max(waitingMost, simulation.nodes[0]?.budgets.stats()[0]?.waiting ?? 0)
    }
    await drain(simulation)
    expect(simulation.open).toBe(0)
    expect(waitingMost).toBeLessThanOrEqual(plan.queueMax)
    expect(simulation.calls.length).toBeGreaterThan(0)
    expectKept(simulation, plan, seed)
  })
})

describe('nodes on one ledger', () => {
  /** A node that is cut off and dies may have made none; all of them together have. */
  let calls = 0

  test.each(seeds)(
    'joining, dying, cut off, paused, on clocks of their own: seed %d',
    async (seed) => {
      const random = createRandom(seed)
      const plan = planOf(random, { keys: random.pick([undefined, () => 'a,b']) })
      const simulation = simulate({ random, plan, isShared: true })
      for (let at = 0; at < 2; at++) simulation.join()
      for (let step = 0; step < 3_000; step++) {
        load(simulation, random, plan)
        trouble(simulation, random)
        await simulation.step(1 + random.below(20))
      }
      for (const node of simulation.nodes) node.isCut = node.isPaused = false
      await drain(simulation)
      // Who died is not waiting any more.
      if (simulation.nodes.every(({ isDead }) => !isDead)) expect(simulation.open).toBe(0)
      calls += simulation.calls.length
      expectKept(simulation, plan, seed)
    },
  )

  test.each(seeds)(
    'all of them asking for more than there is, in turns, over a bad network: seed %d',
    async (seed) => {
      const random = createRandom(1_000 + seed)
      const plan = planOf(random, {
        ...{ rate: { quota: 10, windowMs: random.pick([300, 3_000]) }, burst: 10 },
        queueMax: 20,
        timeoutMs: random.pick([50, 300]),
      })
      const simulation = simulate({
        ...{ random, plan, isShared: true, isSlow: true },
        ...{ trouble: random.pick([0, 0.03]), networkMs: random.pick([100, 1_000]) },
      })
      const { nodes } = simulation
      for (let at = 0; at < 3; at++) simulation.join()
      let busy: readonly boolean[] = []
      for (let step = 0; step < 2_000; step++) {
        if (step % 100 === 0) busy = nodes.map(() => random.next() < 0.5)
        for (const [at, node] of nodes.entries()) {
          if (random.next() < (node.isCut ? 0.003 : 0.002)) node.isCut = !node.isCut
          if (random.next() < (node.isPaused ? 0.03 : 0.001)) node.isPaused = !node.isPaused
          const { waiting = 0 } = node.budgets.stats()[0] ?? {}
          if (node.isPaused || !busy[at]) continue
          for (let more = waiting; more < 5; more++) simulation.ask(node, { priority: 'normal' })
        }
        await simulation.step(20)
      }
      calls += simulation.calls.length
      expectKept(simulation, plan, seed)
    },
  )

  /** Of all runs together: of calls that came late enough after a 429. */
  let rested = 0

  test.each(seeds)(
    'a key that one was told to leave alone is left alone by all, a lease later: seed %d',
    async (seed) => {
      const random = createRandom(2_000 + seed)
      const plan = planOf(random, { timeoutMs: random.pick([300, 1_000]) })
      const simulation = simulate({ random, plan, isShared: true, limited: 0.02 })
      for (let at = 0; at < 3; at++) simulation.join()
      for (let step = 0; step < 3_000; step++) {
        load(simulation, random, plan)
        trouble(simulation, random)
        await simulation.step(1 + random.below(20))
      }
      // Whoever has a unit has read the ledger within a lease, by a clock of its own.
      const knownMs = shareBounds.leaseMs * 1.001
      for (const { writtenMs, untilMs } of simulation.rests) {
        const early = simulation.calls.filter(
          ({ sentMs }) => sentMs > writtenMs + knownMs && sentMs < untilMs,
        )
        expect(`seed ${seed}: ${early.length} too early`).toBe(`seed ${seed}: 0 too early`)
        if (untilMs > writtenMs + knownMs) rested++
      }
      calls += simulation.calls.length
      expectKept(simulation, plan, seed)
    },
  )

  test('keys were left alone at all', () => {
    expect(rested).toBeGreaterThan(seeds.length / 2)
  })

  test('calls were made at all', () => {
    expect(calls).toBeGreaterThan(seeds.length * 200)
  })

  test('fewer units than nodes: they go round', async () => {
    const random = createRandom(7)
    const plan = planOf(random, {
      ...{ rate: { quota: 2, windowMs: 1_000 }, burst: 0, timeoutMs: 300 },
    })
    const simulation = simulate({ random, plan, isShared: true, trouble: 0 })
    for (let at = 0; at < 4; at++) simulation.join()
    for (let step = 0; step < 700; step++) {
      for (const node of simulation.nodes) {
        const { waiting = 0 } = node.budgets.stats()[0] ?? {}
        if (waiting === 0) simulation.ask(node, { priority: 'normal' })
      }
      await simulation.step(100)
    }
    const served = Map.groupBy(simulation.calls, ({ node }) => node)
    expect([0, 1, 2, 3].map((at) => (served.get(at)?.length ?? 0) > 5)).toEqual([
      true,
      true,
      true,
      true,
    ])
    expectKept(simulation, plan, 7)
  })

  test.each([1, 2, 3, 4, 5])(
    'a dead one’s units are others’ within the bound: seed %d',
    async (seed) => {
      const random = createRandom(seed)
      const plan = planOf(random, {
        rate: parseRate('45/s') ?? { quota: 0, windowMs: 0 },
        burst: 5,
      })
      const simulation = simulate({ random, plan, isShared: true, trouble: 0 })
      const nodes = [simulation.join(), simulation.join(), simulation.join()]
      const until = async (what: () => boolean, withinMs: number): Promise<number> => {
        const startedMs = simulation.nowMs
        while (!what() && simulation.nowMs - startedMs <= withinMs) await simulation.step(20)
        expect(what()).toBe(true)
        return simulation.nowMs - startedMs
      }
      const unitsOf = (at: number) => nodes[at]?.budgets.stats()[0]?.keys[0]?.units ?? 0
      await until(() => [0, 1, 2].every((at) => unitsOf(at) >= 16), 10_000)
      expect(simulation.units()).toBe(50)
      nodes[0]!.isDead = true
      const settleMs = settleMsOf({ windowMs: 1_000, timeoutMs: plan.timeoutMs })
      // A request of the simulation takes 400 ms at most.
      await until(() => unitsOf(1) + unitsOf(2) === 50, takeOverMsMax(settleMs, 400))
      expect(requestMs).toBeGreaterThan(400)
    },
  )
})

function trouble({ nodes, join }: Simulation, random: Random): void {
  const chance = random.next()
  const node = random.pick(nodes)
  if (chance < 0.002) node.isCut = !node.isCut
  else if (chance < 0.003 && nodes.length < 4) join()
  else if (chance < 0.0035) node.isDead = true
  else if (chance < 0.0055) node.isPaused = !node.isPaused
  // Long enough to lose the lease, at times.
  else if (chance < 0.02) node.isPaused = false
}
