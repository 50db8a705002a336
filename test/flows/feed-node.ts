/**
 * A node of the flow of feeds: one keyed feed under a budget, over somebody else's prices. Its wall clock may be wrong by
 * `SKEW_MS`. Prints `{"port":…}` once it serves.
 */
import { readConfig } from '../../src/config.ts'
import { app, budget, feed, topic } from '../../src/kit.ts'
import type { Duration } from '../../src/lib/duration.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { compilePlan } from '../../src/plan/plan.ts'
import { startServer } from '../../src/server.ts'
import { createTestLog } from '../harness.ts'

const { SKEW_MS = '0', BATCH = '100', EVERY = '1s' } = process.env

const plan = compilePlan(
  app({
    name: 'prices',
    topics: { 'price:{mint}': topic({ subscribe: 'public', last: true }) },
    budgets: { provider: budget({ rate: '45/s', burst: 5, timeout: '1s' }) },
    feeds: {
      prices: feed({
        ...{ every: EVERY as Duration, keyed: 'price:{mint}', batch: Number(BATCH), idle: '1s' },
        budget: 'provider',
        load: async ({ fetch, keys, env }) => {
          const response = await fetch(`${env['PRICES_URL']}/price/v3?ids=${keys.join(',')}`)
          if (!response.ok) throw new Error(`upstream answered ${response.status}`)
          return await response.json()
        },
      }),
    },
  }),
)

const server = await startServer({
  plan,
  config: readConfig(plan.name, { ...process.env, PORT: '0', HOST: '127.0.0.1' }),
  clock: { ...systemClock, now: () => Date.now() + Number(SKEW_MS) },
  log: process.env['LOG'] === undefined ? createTestLog() : undefined,
} as Parameters<typeof startServer>[0])

console.log(JSON.stringify({ port: server.port }))
