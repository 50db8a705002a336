/**
 * The promise of keyed feeds, on a clock that moves by hand: however keys come and go, each that is watched is asked
 * for within keys ÷ (rate × batch) and 20 %, or its interval and 20 % if the budget allows more than that takes.
 */
import { describe, expect, test } from 'bun:test'
import type { FeedContext } from '../../src/feeds/declare.ts'
import type { TurnAsk } from '../../src/feeds/feeds.ts'
import { must } from '../../src/lib/assert.ts'
import { createRandom } from '../lib/random.ts'
import { keyed, setUp, turns } from './setup.ts'

interface Run {
  readonly seed: number
  readonly keys: number
  readonly batch: number
  /** Leaves a second. */
  readonly rate: number
  readonly everyMs: number
  readonly latencyMs: number
  /** Keys that go, and as many that come, each second. */
  readonly churn: number
  readonly forMs: number
}

/** Leave at a pace, the urgent first; each by the clock. */
function createPace(clock: ReturnType<typeof setUp>['clock'], rate: number) {
  const waiting: { priority: string; grant: () => void }[] = []
  let next = 0
  const pump = (): void => {
    if (waiting.length === 0 || clock.tick() < next) return
    waiting.sort((a, b) => Number(b.priority === 'high') - Number(a.priority === 'high'))
    next = Math.max(next + 1_000 / rate, clock.tick())
    waiting.shift()?.grant()
    if (waiting.length > 0) clock.after(Math.max(1, Math.ceil(next - clock.tick())), pump)
  }
  return (_: string, { priority }: TurnAsk) =>
    new Promise<{ drop(): void }>((resolve) => {
      waiting.push({ priority, grant: () => resolve({ drop() {} }) })
      if (clock.tick() >= next) pump()
      else clock.after(Math.max(1, Math.ceil(next - clock.tick())), pump)
    })
}

async function run({ seed, keys, batch, rate, everyMs, latencyMs, churn, forMs }: Run) {
  const random = createRandom(seed)
  /** Since when each waits to be asked for. */
  const since = new Map<string, number>()
  const late: string[] = []
  let worst = 0
  let calls = 0
  const boundMs = 1.2 * Math.max(everyMs, (1_000 * keys) / (rate * batch))
  const look = (key: string, now: number): void => {
    const waited = now - (since.get(key) ?? now)
    worst = Math.max(worst, waited / boundMs)
    if (waited > boundMs) late.push(`${key} waited ${waited} of ${boundMs} ms at ${now}`)
  }
  const load = async (context: FeedContext): Promise<unknown> => {
    calls += 1
    const now = clock.tick()
    for (const key of context.keys) {
      look(key, now)
      if (since.has(key)) since.set(key, now)
    }
    const took = Promise.withResolvers<void>()
    clock.after(1 + random.below(2 * latencyMs), took.resolve)
    await took.promise
    return new Map(context.keys.map((key) => [key, 1]))
  }
  const pace: { turn?: ReturnType<typeof createPace> } = {}
  const feed = setUp(
    {
      every: `${everyMs}ms`,
      timeoutMs: 60_000,
      budget: 'b',
      keyed: { ...keyed, batch, idleMs: 1 },
      load,
    },
    { turn: (name, ask) => must(pace.turn, () => 'started')(name, ask) },
  )
  const { clock, feeds } = feed
  pace.turn = createPace(clock, rate)
  feeds.start()
  let names = 0
  const come = (): void => {
    const key = `k${(names += 1)}`
    since.set(key, clock.tick())
    feeds.heard(keyed.pattern, `price:${key}`, true)
  }
  const go = (): void => {
    const key = random.pick([...since.keys()])
    look(key, clock.tick())
    since.delete(key)
    feeds.heard(keyed.pattern, `price:${key}`, false)
  }
  for (let n = 0; n < keys; n += 1) come()
  const stepMs = 5
  let due = 0
  for (let at = 0; at < forMs; at += stepMs) {
    clock.advance(stepMs)
    for (due += (churn * stepMs) / 1_000; due >= 1; due -= 1) {
      go()
      come()
    }
    await turns(2)
  }
  for (const key of since.keys()) look(key, clock.tick())
  await feeds.stop()
  return { late, worst, calls }
}

describe('every watched key is asked for within its bound', () => {
  const runs: Run[] = [
    // The budget is the bound: 45 × 5 keys a second, 2.2 s a round.
    ...[1, 2, 3].map((seed) => ({
      ...{ seed, keys: 500, batch: 5, rate: 45, everyMs: 1_000 },
      ...{ latencyMs: 60, churn: 30, forMs: 15_000 },
    })),
    // More new keys than there are places beside the old ones.
    {
      seed: 9,
      keys: 300,
      batch: 6,
      rate: 20,
      everyMs: 500,
      latencyMs: 30,
      churn: 110,
      forMs: 20_000,
    },
    {
      seed: 4,
      keys: 300,
      batch: 6,
      rate: 20,
      everyMs: 500,
      latencyMs: 30,
      churn: 15,
      forMs: 20_000,
    },
    // One key a call.
    { seed: 5, keys: 60, batch: 1, rate: 20, everyMs: 500, latencyMs: 20, churn: 2, forMs: 20_000 },
    // The interval is the bound.
    {
      seed: 6,
      keys: 500,
      batch: 50,
      rate: 45,
      everyMs: 1_000,
      latencyMs: 40,
      churn: 100,
      forMs: 10_000,
    },
    // All fit a call.
    {
      seed: 7,
      keys: 20,
      batch: 100,
      rate: 45,
      everyMs: 1_000,
      latencyMs: 40,
      churn: 20,
      forMs: 10_000,
    },
    // A slow upstream: many calls at once.
    {
      seed: 8,
      keys: 400,
      batch: 10,
      rate: 40,
      everyMs: 1_000,
      latencyMs: 400,
      churn: 20,
      forMs: 15_000,
    },
  ]
  for (const one of runs) {
    const { keys, batch, rate, churn, latencyMs, seed } = one
    const name = `${keys} keys, ${batch} a call, ${rate} calls/s, ${churn} come and go a second, ${latencyMs} ms (${seed})`
    test(name, async () => {
      const { late, worst } = await run(one)
      if (process.env['SHOW']) console.log(name, worst)
      expect(late.slice(0, 5)).toEqual([])
      expect(worst).toBeGreaterThan(0.3)
    })
  }
})
