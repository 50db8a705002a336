/** Two nodes on a real primary, under one budget, calling a provider that bans on the 51st call of any second. */
import { expect, test } from 'bun:test'
import { systemClock } from '../../src/lib/clock.ts'
import { createAllowances, createShares, type Store } from '../../src/store/store.ts'
import type { BudgetPlan } from '../../src/upstream/budget-port.ts'
import { createBudgets } from '../../src/upstream/budget.ts'
import { createTestLog, openStore, until } from '../harness.ts'
import { startFakeUpstream } from '../lib/upstream.ts'
import { requireService, startSqld } from '../services.ts'

const plan: BudgetPlan = {
  name: 'calls',
  rate: { quota: 45, windowMs: 1_000 },
  burst: 5,
  keys: () => 'k1',
  header: 'x-api-key',
  queueMax: 500,
  quota: { count: 400, per: 'day' },
  timeoutMs: 1_000,
}

/** As in life, in smaller steps. */
const bounds = { leaseMs: 1_500, renewMs: 300, hurryMs: 50 }

const clock = systemClock

function nodeOn(store: Store, url: string) {
  let isDead = false
  let calls = 0
  const faults: unknown[] = []
  const live = {
    read: (...asked: Parameters<Store['read']>) =>
      isDead ? new Promise<never>(() => {}) : store.read(...asked),
    writeAside: (...asked: Parameters<Store['writeAside']>) =>
      isDead ? new Promise<never>(() => {}) : store.writeAside(...asked),
  }
  const deps = { store: live, clock, log: createTestLog() }
  const budgets = createBudgets(
    {
      ...{ clock, log: deps.log, env: {}, isAlone: false },
      shares: createShares(deps, { isShared: true }, bounds),
      allowances: createAllowances(deps),
    },
    [plan],
  )
  const callOnce = async (): Promise<void> => {
    const { key = '', done, timeoutMs } = await budgets.take('calls', { priority: 'normal' })
    calls++
    try {
      const { status, headers } = await fetch(`${url}/price/v3?ids=a`, {
        headers: { 'x-api-key': key },
        signal: AbortSignal.timeout(timeoutMs),
      })
      done({ status, headers })
    } catch (failed) {
      done({ failed })
    }
  }
  const callOn = async (): Promise<void> => {
    while (!isDead) await callOnce()
  }
  return {
    budgets,
    faults,
    get calls() {
      return calls
    },
    get units() {
      return budgets.stats()[0]?.keys[0]?.units ?? 0
    },
    /** As much as it may. */
    begin: () =>
      void Array.from({ length: 60 }, () => callOn().catch((error: unknown) => faults.push(error))),
    die: () => void (isDead = true),
  }
}

test.skipIf(!requireService('sqld'))(
  'no ban, the whole rate together, a dead one’s part to the other, a quota that ends for both',
  async () => {
    await using primary = await startSqld()
    await using upstream = startFakeUpstream({ latencyMs: () => Math.random() * 60 })
    const database = { kind: 'remote' as const, primary: { url: primary.url }, replicas: [] }
    await using one = await openStore(database, [])
    await using two = await openStore(database, [])
    const [a, b] = [nodeOn(one, upstream.url), nodeOn(two, upstream.url)]
    await a.budgets.start?.()
    await b.budgets.start?.()
    await until(() => a.units > 10 && b.units > 10, 'units for both')
    a.begin()
    b.begin()
    // No more than that: the quota must last until the units have changed hands.
    await until(() => Math.min(a.calls, b.calls) > 20, 'calls by both')

    b.die()
    await until(() => a.units === 50, 'all units for the one that is left', 20_000)
    const before = a.calls
    await until(() => a.faults.length > 0, 'the end of the quota', 30_000)
    expect(a.calls - before).toBeGreaterThan(30)
    expect(a.faults[0]).toMatchObject({ code: 'too_many' })
    expect(upstream.busiest()).toBeLessThanOrEqual(50)
    expect(upstream.bans).toBe(0)
    // What the dead one had drawn is lost.
    expect(upstream.arrivals.length).toBeLessThanOrEqual(400)
    expect(upstream.arrivals.length).toBeGreaterThan(380)
    await a.budgets.stop()
  },
  60_000,
)
