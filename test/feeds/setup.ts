/** One feed on a clock that moves by hand, with all that it says to others written down. */
import type { CollectionPlan } from '../../src/collections/collections.ts'
import type { FeedContext } from '../../src/feeds/declare.ts'
import {
  createFeeds,
  type FeedPlan,
  type FeedsDeps,
  type KeyedPlan,
} from '../../src/feeds/feeds.ts'
import { createTestClock } from '../clock.ts'
import { createTestLog } from '../harness.ts'

export const prices = { path: 'prices' } as CollectionPlan

export const keyed: KeyedPlan = {
  pattern: 'price:{mint}',
  topicOf: (key) => `price:${key}`,
  keyOf: (topic) => /^price:([^:\s,]+)$/.exec(topic)?.[1],
  batch: 100,
  idleMs: 60_000,
}

export const plain: FeedPlan = {
  name: 'f',
  every: '1s',
  isAligned: false,
  jitterMs: 0,
  adaptive: undefined,
  timeoutMs: 500,
  load: () => null,
  into: [],
  isSingle: false,
  publish: undefined,
  isKept: false,
  budget: undefined,
  keyed: undefined,
  stream: undefined,
}

export function setUp(plan: Partial<FeedPlan>, deps: Partial<FeedsDeps> = {}) {
  const clock = createTestClock()
  const log = createTestLog()
  const upserts: unknown[] = []
  const published: [topic: string, data: unknown][] = []
  const feeds = createFeeds(
    {
      collections: {
        upsert: (batches) => {
          upserts.push(batches)
          return Promise.resolve([])
        },
      },
      publish: (topic, data) => void published.push([topic, data]),
      fetch: (url, init) => fetch(url, init),
      db: undefined as never,
      stats: () => ({ connections: 0, subscriptions: 0, cacheHitShare: 0, seq: 0 }),
      env: { UPSTREAM: 'x' },
      clock,
      log,
      ...deps,
    },
    [{ ...plain, ...plan }],
  )
  return { clock, log, feeds, upserts, published }
}

/** All that is due in this turn and the next ones, and all that awaits it. */
export async function turns(count = 3): Promise<void> {
  for (let n = 0; n < count; n += 1) await new Promise<void>((resolve) => setImmediate(resolve))
}

/** Moves the clock in small steps, with the turns that go with each. */
export async function pass(
  { clock }: Pick<ReturnType<typeof setUp>, 'clock'>,
  ms: number,
  stepMs = 50,
): Promise<void> {
  for (let left = ms; left > 0; left -= stepMs) {
    clock.advance(Math.min(stepMs, left))
    await turns(2)
  }
}

/** An upstream of prices that a test moves by hand. */
export function createPrices(start: Record<string, unknown> = {}) {
  const told = new Map(Object.entries(start))
  const calls: (readonly string[])[] = []
  const upstream = {
    calls,
    told,
    failure: undefined as Error | undefined,
    /** Until it resolves nobody is answered. */
    gate: undefined as Promise<void> | undefined,
    async load({ keys }: FeedContext): Promise<unknown> {
      calls.push(keys)
      await upstream.gate
      if (upstream.failure) throw upstream.failure
      return Object.fromEntries(
        keys.flatMap((key) => (told.has(key) ? [[key, told.get(key)]] : [])),
      )
    },
  }
  return upstream
}
