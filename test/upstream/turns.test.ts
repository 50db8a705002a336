/** Who goes first, who is refused, what a provider's answers and its quota do to a budget. */
import { describe, expect, test } from 'bun:test'
import { Fault } from '../../src/fault.ts'
import { createAllowances, createSharesAlone } from '../../src/store/store.ts'
import type { BudgetPlan, Grant, Priority } from '../../src/upstream/budget-port.ts'
import { createBudgets } from '../../src/upstream/budget.ts'
import { budgetGauges } from '../../src/upstream/gauges.ts'
import { toldBy } from '../../src/upstream/told.ts'
import { createTestClock, type TestClock } from '../clock.ts'
import { createTestLog, faultOf } from '../harness.ts'
import { createLedger, type Ledger } from './simulation.ts'

const base: BudgetPlan = {
  name: 'calls',
  rate: { quota: 10, windowMs: 1_000 },
  burst: 0,
  keys: undefined,
  header: 'x-api-key',
  queueMax: 500,
  quota: undefined,
  timeoutMs: 1_000,
}

interface Setup {
  readonly plan?: Partial<BudgetPlan>
  readonly env?: Record<string, string>
  readonly clock?: TestClock
  readonly ledger?: Ledger
}

/** Alone, and past the hold of its start. */
function openBudget({ plan, env = {}, clock = createTestClock(), ledger }: Setup = {}) {
  const log = createTestLog()
  const kept = ledger ?? createLedger(clock)
  const store = {
    read: async (...[query]: Parameters<Ledger['read']>) => kept.read(query),
    writeAside: async (...[ops]: Parameters<Ledger['write']>) => kept.write(ops),
  }
  const allowances = createAllowances({ store, clock })
  const budgets = createBudgets(
    { clock, log, env, shares: createSharesAlone(), allowances, isAlone: true },
    [{ ...base, ...plan }],
  )
  const granted: string[] = []
  const grants: Grant[] = []
  const take = async (name: string, priority: Priority, deadlineMs?: number): Promise<Grant> => {
    const grant = await budgets.take('calls', { priority, deadlineMs })
    granted.push(name)
    grants.push(grant)
    return grant
  }
  const pass = async (ms: number): Promise<void> => {
    for (let left = ms; left > 0; left -= 5) {
      clock.advance(Math.min(5, left))
      await new Promise((done) => setImmediate(done))
    }
  }
  const start = async (): Promise<void> => {
    await budgets.start?.()
    await pass(1_100)
  }
  const key = () => budgets.stats()[0]?.keys[0]
  return { clock, budgets, log, granted, grants, take, pass, start, key }
}

type Opened = ReturnType<typeof openBudget>

const answer = (status: number, headers: Record<string, string> = {}) => ({
  status,
  headers: new Headers(headers),
})

describe('turns', () => {
  test('a start waits a window for what its predecessor may have sent', async () => {
    const it = openBudget()
    await it.budgets.start?.()
    void it.take('a', 'high')
    await it.pass(1_000)
    expect(it.granted).toEqual([])
    await it.pass(20)
    expect(it.granted).toEqual(['a'])
  })

  test('evenly, a burst at once', async () => {
    const it = openBudget({ plan: { burst: 3 } })
    await it.start()
    for (let at = 0; at < 10; at++) void it.take(`${at}`, 'normal')
    await it.pass(5)
    expect(it.granted).toHaveLength(3)
    await it.pass(300)
    expect(it.granted).toHaveLength(6)
  })

  test('by priority; nobody is overtaken for ever; a near deadline is one class more urgent', async () => {
    const it = openBudget({ plan: { rate: { quota: 100, windowMs: 1_000 } } })
    await it.start()
    for (let at = 0; at < 3; at++) void it.take('first', 'normal')
    void it.take('low', 'low')
    void it.take('soon', 'low', 900)
    void it.take('normal', 'normal')
    void it.take('high', 'high')
    await it.pass(100)
    expect(it.granted).toEqual(['first', 'high', 'first', 'first', 'soon', 'normal', 'low'])

    void it.take('patient', 'low')
    for (let ms = 0; ms < 8_000; ms += 5) {
      // Twice as many as can be served are as urgent as can be.
      if (ms % 10 === 0)
        for (let more = 0; more < 2; more++) void it.take('urgent', 'high', 3_000).catch(() => {})
      await it.pass(5)
      if (it.granted.includes('patient')) break
    }
    expect(it.granted).toContain('patient')
  })

  test('refused: too late, too many; the least urgent makes room', async () => {
    const it = openBudget({ plan: { queueMax: 2 } })
    await it.start()
    await it.take('a', 'normal')
    const late = await faultOf(() => it.take('b', 'normal', 50))
    expect([late.code, late.retryAfterMs]).toEqual(['too_many', 95])
    const low = faultOf(() => it.take('low', 'low'))
    void it.take('c', 'normal')
    const full = await faultOf(() => it.take('low', 'low'))
    expect(full.code).toBe('too_many')
    expect(full.retryAfterMs).toBe(295)
    void it.take('d', 'normal')
    expect((await low).message).toContain('more urgent')
    await it.pass(300)
    expect(it.granted).toEqual(['a', 'c', 'd'])
    expect(it.budgets.stats()[0]).toMatchObject({ refused: 3, waiting: 0 })
  })

  test('without a queue, whoever cannot go at once is refused', async () => {
    const it = openBudget({ plan: { queueMax: 0, burst: 1 } })
    await it.start()
    await it.take('a', 'low')
    expect((await faultOf(() => it.take('b', 'high'))).code).toBe('too_many')
    await it.pass(100)
    await it.take('c', 'low')
    expect(it.granted).toEqual(['a', 'c'])
  })

  test('cancelled ones leave, a stop refuses the others', async () => {
    const it = openBudget()
    await it.start()
    await it.take('a', 'normal')
    const abort = new AbortController()
    const cancelled = it.budgets.take('calls', { priority: 'high', signal: abort.signal })
    const waiting = faultOf(() => it.take('b', 'normal'))
    const reason = new Error('enough')
    abort.abort(reason)
    expect(await cancelled.catch((error: unknown) => error)).toBe(reason)
    const again = it.budgets.take('calls', { priority: 'high', signal: abort.signal })
    expect(await again.catch((error: unknown) => error)).toBe(reason)
    expect(it.budgets.stats()[0]?.waiting).toBe(1)
    await it.budgets.stop()
    expect((await waiting).code).toBe('unavailable')
    expect((await faultOf(() => it.take('c', 'normal'))).code).toBe('unavailable')
  })

  test('a turn is good for as long as its call may take, counted from the turn', async () => {
    const it = openBudget()
    await it.start()
    const grant = await it.take('a', 'normal')
    expect(grant.timeoutMs).toBe(1_000)
    await it.pass(400)
    expect(grant.timeoutMs).toBe(600)
    await it.pass(700)
    expect(grant.timeoutMs).toBe(0)
  })

  test('who is not served in time is told so', async () => {
    const slow = openBudget({ plan: { rate: { quota: 1, windowMs: 1_000 } } })
    await slow.start()
    await slow.take('a', 'normal')
    // Its answer does not come, so the next one cannot go in time.
    const late = faultOf(() => slow.take('b', 'normal', 1_500))
    await slow.pass(1_100)
    expect((await late).code).toBe('too_many')

    // Nothing is known yet.
    const it = openBudget()
    const waiting = faultOf(() => it.take('a', 'normal', 1_500))
    await it.pass(1_600)
    expect((await waiting).code).toBe('timeout')
    expect(it.budgets.stats()[0]).toMatchObject({ timedOut: 1 })
  })
})

describe('what a provider says', () => {
  test('429 stops the key, for as long as it says, or longer each time', async () => {
    const it = openBudget({ plan: { rate: { quota: 100, windowMs: 1_000 } } })
    await it.start()
    const limited = async (headers: Record<string, string>): Promise<number> => {
      void it.take('x', 'normal')
      await it.pass(20)
      it.grants.at(-1)?.done(answer(429, headers))
      // Once, whatever is said.
      it.grants.at(-1)?.done(answer(429, headers))
      const { stoppedMs = 0 } = it.key() ?? {}
      await it.pass(stoppedMs)
      return stoppedMs
    }
    expect(await limited({ 'retry-after': '3' })).toBe(3_000)
    expect(await limited({ 'x-ratelimit-reset': '2' })).toBe(2_000)
    expect(await limited({ ratelimit: '"a";r=0;t=4' })).toBe(4_000)
    expect(await limited({})).toBe(8_000)
    expect(await limited({})).toBe(16_000)
    void it.take('y', 'normal')
    await it.pass(50)
    it.grants.at(-1)?.done(answer(200))
    await it.pass(50)
    expect(await limited({})).toBe(1_000)
    expect(it.key()).toMatchObject({ limited: 6, calls: 7 })
    expect(it.log.lines.filter(({ event }) => event === 'budget.limited')).toHaveLength(6)
  })

  test('who cannot be in time any more is told at once', async () => {
    const it = openBudget()
    await it.start()
    const first = await it.take('a', 'normal')
    const waiting = faultOf(() => it.take('b', 'normal', 5_000))
    void it.take('c', 'normal')
    first.done(answer(429, { 'retry-after': '20' }))
    expect((await waiting).retryAfterMs).toBe(20_000)
    await it.pass(20_100)
    expect(it.granted).toEqual(['a', 'c'])
  })

  test('what it says is left is obeyed before it is over', async () => {
    const it = openBudget({ plan: { rate: { quota: 100, windowMs: 1_000 } } })
    await it.start()
    ;(await it.take('a', 'normal')).done(answer(200, { ratelimit: '"a";r=0;t=2' }))
    expect(it.key()?.stoppedMs).toBe(2_000)
  })

  test('429 and 5xx halve the pace, once a second; it recovers by 5 % a second', async () => {
    const it = openBudget({ plan: { rate: { quota: 100, windowMs: 1_000 } } })
    await it.start()
    const grants = [it.take('a', 'normal'), it.take('b', 'normal')]
    await it.pass(50)
    for (const grant of grants) (await grant).done(answer(503))
    expect(it.key()?.pace).toBe(0.5)
    await it.pass(2_000)
    expect(it.key()?.pace).toBeCloseTo(0.6)
    ;(await it.take('c', 'normal')).done(answer(500))
    expect(it.key()?.pace).toBeCloseTo(0.3)
    await it.pass(60_000)
    expect(it.key()?.pace).toBe(1)
    expect(it.key()).toMatchObject({ failed: 3, calls: 3 })
  })

  test('of several keys the one with most left; a stopped one rests while others work', async () => {
    const it = openBudget({
      plan: { rate: { quota: 3, windowMs: 1_000 }, burst: 3, keys: (env) => env['KEYS'] },
      env: { KEYS: 'k1, k2,,k1' },
    })
    await it.start()
    const keys = async (count: number): Promise<string> => {
      const taken: Grant[] = []
      for (let at = 0; at < count; at++) taken.push(await it.take('x', 'normal'))
      for (const grant of taken) grant.done(answer(200))
      return taken.map(({ key }) => key).join(' ')
    }
    expect(await keys(4)).toBe('k1 k2 k1 k2')
    await it.pass(3_000)
    const banned = await it.take('x', 'normal')
    expect(banned.key).toBe('k1')
    banned.done(answer(429, { 'retry-after': '60' }))
    expect(await keys(3)).toBe('k2 k2 k2')
    await it.pass(3_000)
    // Its provider says more of k2's is gone than we know.
    await it.pass(60_000)
    const told = await it.take('x', 'normal')
    told.done(answer(200, { 'x-ratelimit-remaining': '9', 'x-ratelimit-reset': '30' }))
    await it.pass(3_000)
    expect((await it.take('x', 'normal')).key).not.toBe(told.key)
    const text = JSON.stringify([it.budgets.stats(), it.log.lines])
    expect(text).not.toContain('k1')
    expect(text).not.toContain('k2')
  })

  test('keys that no header can carry are refused without being told', () => {
    const open = () => openBudget({ plan: { keys: () => ['s3cret\nkey'] } })
    expect(open).toThrow('the app file has one problem')
    expect(open).not.toThrow('s3cret')
  })

  const nowMs = Date.UTC(2026, 0, 1)
  const nothing = { retryAfterMs: undefined, remaining: undefined, resetMs: undefined }
  const headers: [headers: Record<string, string>, told: object][] = [
    [{}, nothing],
    [{ 'retry-after': '1.5' }, { retryAfterMs: 1_500 }],
    [{ 'retry-after': 'Thu, 01 Jan 2026 00:00:10 GMT' }, { retryAfterMs: 10_000 }],
    [
      // Its clock is an hour ahead.
      {
        'retry-after': 'Thu, 01 Jan 2026 01:00:10 GMT',
        date: 'Thu, 01 Jan 2026 01:00:00 GMT',
      },
      { retryAfterMs: 10_000 },
    ],
    [{ 'retry-after': 'Thu, 01 Jan 2020 00:00:00 GMT' }, { retryAfterMs: 0 }],
    [{ 'retry-after': '99999999' }, { retryAfterMs: 86_400_000 }],
    [{ 'retry-after': '-5' }, nothing],
    [{ 'retry-after': 'soon' }, nothing],
    [{ ratelimit: '"a";r=50;t=30' }, { remaining: 50, resetMs: 30_000 }],
    [{ ratelimit: '"day";r=9;t=999, "a";r=3;t=1' }, { remaining: 3, resetMs: 1_000 }],
    [{ ratelimit: 'limit=10, remaining=4, reset=7' }, { remaining: 4, resetMs: 7_000 }],
    [
      { 'ratelimit-remaining': '4', 'ratelimit-reset': '7' },
      { remaining: 4, resetMs: 7_000 },
    ],
    [
      { 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': String(nowMs / 1_000 + 12) },
      { remaining: 0, resetMs: 12_000 },
    ],
    [{ 'x-ratelimit-reset': String(nowMs + 700) }, { resetMs: 700 }],
    [{ 'x-ratelimit-remaining': 'many', ratelimit: ';;r=;t=x' }, nothing],
  ]
  test.each(headers)('is read: %j', (given, told) => {
    expect(toldBy(new Headers(given), nowMs)).toEqual({ ...nothing, ...told })
  })
})

describe('a quota', () => {
  const plan = { rate: { quota: 100, windowMs: 1_000 }, quota: { count: 30, per: 'day' as const } }

  test('ends, is kept over restarts, and begins anew with the day', async () => {
    const clock = createTestClock(Date.UTC(2026, 0, 1, 23, 59))
    const ledger = createLedger(clock)
    const first = openBudget({ plan, clock, ledger })
    await first.start()
    for (let at = 0; at < 20; at++) (await take(first)).done(answer(200))
    await first.budgets.stop()
    const second = openBudget({ plan, clock, ledger })
    await second.start()
    for (let at = 0; at < 10; at++) (await take(second)).done(answer(200))
    await second.pass(1_000)
    const over = await faultOf(() => second.take('x', 'high'))
    expect(over.code).toBe('too_many')
    expect(over.retryAfterMs).toBeGreaterThan(40_000)
    expect(second.key()).toMatchObject({ calls: 10, quotaLeft: 0 })
    expect(second.log.lines.map(({ event }) => event)).toContain('budget.quota_ends')
    await second.pass(60_000)
    for (let at = 0; at < 30; at++) (await take(second)).done(answer(200))
    expect(second.key()?.calls).toBe(40)
    await second.pass(1_000)
    expect((await faultOf(() => second.take('x', 'high'))).code).toBe('too_many')
  })

  test('of a day that has begun nothing is sent before it is drawn', async () => {
    const clock = createTestClock(Date.UTC(2026, 0, 1, 23, 59))
    const kept = createLedger(clock)
    let isAway = false
    const away = () => {
      if (isAway) throw new Fault('unavailable', 'the primary database cannot be reached')
    }
    const ledger: Ledger = {
      read: (query) => (away(), kept.read(query)),
      write: (ops) => (away(), kept.write(ops)),
    }
    const it = openBudget({ plan, clock, ledger })
    await it.start()
    for (let at = 0; at < 30; at++) (await take(it)).done(answer(200))
    isAway = true
    await it.pass(60_000)
    const waiting = take(it)
    await it.pass(3_000)
    expect(it.key()).toMatchObject({ calls: 30, quotaLeft: 0 })
    isAway = false
    await it.pass(1_100)
    ;(await waiting).done(answer(200))
    expect(it.key()?.calls).toBe(31)
    await it.budgets.stop()
  })

  test('is of all nodes together, and what one that died has drawn is lost, not spent twice', async () => {
    const clock = createTestClock(Date.UTC(2026, 0, 10))
    const ledger = createLedger(clock)
    const month = { ...plan, quota: { count: 300, per: 'month' as const } }
    const nodes = [1, 2, 3].map(() => openBudget({ plan: month, clock, ledger }))
    for (const node of nodes) await node.start()
    const [first] = nodes as [Opened, Opened, Opened]
    let calls = 0
    for (let at = 0; at < 400; at++) {
      // The third is heard of no more.
      const node = nodes[at % (at < 50 ? 3 : 2)] ?? first
      try {
        const grant = await take(node)
        grant.done(answer(200))
        calls++
      } catch {
        break
      }
    }
    expect(calls).toBeLessThanOrEqual(300)
    // One part of 3 is all that the third may have taken along.
    expect(calls).toBeGreaterThanOrEqual(290)
  })

  async function take(it: Opened): Promise<Grant> {
    const taken = it.take('x', 'normal')
    let isSettled = false
    const settle = () => void (isSettled = true)
    taken.then(settle, settle)
    while (!isSettled) await it.pass(10)
    return await taken
  }
})

test('gauges by budget and key', async () => {
  const it = openBudget({ plan: { quota: { count: 5, per: 'day' } } })
  await it.start()
  ;(await it.take('a', 'high')).done(answer(429))
  const gauges = budgetGauges(it.budgets.stats())
  expect(gauges).toMatchObject({
    'belfry_budget_waiting{budget="calls"}': 0,
    'belfry_budget_calls_total{budget="calls",key="0"}': 1,
    'belfry_budget_limited_total{budget="calls",key="0"}': 1,
    'belfry_budget_units{budget="calls",key="0"}': 10,
    'belfry_budget_stopped_seconds{budget="calls",key="0"}': 1,
  })
})
