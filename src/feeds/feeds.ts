/**
 * Feeds: one clock, one upstream call, everybody hears what changed.
 *
 *   tick ─► load (one call, with a time-out) ─► rows ─► upsert: only changed ones are written ─► log ─► live
 *                                            └► value ─► published if it differs from the last one
 *
 * Invariants: a feed never overlaps itself; a failing tick changes nothing and the next one comes all
 * the same; what did not change is neither written nor published.
 */
import { Fault } from '../fault.ts'
import { parseDurationMs } from '../lib/duration.ts'
import type { Cancel, Clock } from '../lib/clock.ts'
import { detach, type Service } from '../lib/service.ts'
import type { Log } from '../observe/log.ts'
import type { CollectionPlan, Collections } from '../collections/collections.ts'
import type { ReadDb } from '../store/declare.ts'
import type { Env, FeedContext, FeedOptions, ServerStats } from './declare.ts'

/** A declared feed, checked. Made by the plan. */
export interface FeedPlan {
  readonly name: string
  readonly every: FeedOptions['every']
  readonly timeoutMs: number
  readonly load: FeedOptions['load']
  readonly into: readonly CollectionPlan[]
  /** `into` was one path: `load` returns its rows, not an object of rows by path. */
  readonly isSingle: boolean
  readonly publish: string | undefined
}

export interface FeedsDeps {
  readonly collections: Pick<Collections, 'upsert'>
  readonly publish: (topic: string, data: unknown) => void
  readonly db: ReadDb
  readonly stats: () => ServerStats
  readonly env: Env
  /** In an overload, ticks are so many times as far apart; left out: never. */
  readonly slowdown?: () => number
  readonly clock: Clock
  readonly log: Log
}

/** A tick costs a call upstream; faster than this is a mistake. */
export const everyMsMin = 100

/** Rows one tick may bring; more is a mistake or belongs in several ticks. */
const rowsPerTickMax = 10_000

/** So many ticks in a row may fail before the log says so again: an outage is one line a while, not a flood. */
const failuresPerLogLine = 30

export interface Feeds extends Service {
  start(): void
  stop(): Promise<void>
  /** One tick now; for tests. Throws what the tick threw. */
  tick(name: string): Promise<void>
  stats(): readonly FeedStats[]
}

export interface FeedStats {
  readonly name: string
  readonly ticks: number
  readonly failures: number
  readonly changes: number
}

interface Feed {
  readonly plan: FeedPlan
  readonly everyMs: number
  cancel: Cancel | undefined
  running: Promise<void> | undefined
  /** Of the tick that runs or ran last. */
  abort: AbortController | undefined
  ticks: number
  failures: number
  failuresInARow: number
  changes: number
  lastPublished: string | undefined
}

/** Faults: `invalid` for an `every` that is no duration in this environment. */
export function createFeeds(deps: FeedsDeps, plans: readonly FeedPlan[]): Feeds {
  const { clock, log, slowdown = () => 1 } = deps
  const feeds = plans.map((plan) => createFeed(plan, deps.env))
  let isStopped = false

  const tick = async (feed: Feed): Promise<void> => {
    const { plan } = feed
    feed.ticks++
    const abort = (feed.abort = new AbortController())
    const value = await untilAborted(plan, clock, abort, () =>
      plan.load(contextOf(deps, abort.signal)),
    )
    if (isStopped || value === null || value === undefined) return
    if (plan.into.length > 0) {
      const changes = await deps.collections.upsert(batchesOf(plan, value))
      feed.changes += changes.length
    }
    if (plan.publish !== undefined) publishChanged(feed, plan.publish, value)
  }

  const publishChanged = (feed: Feed, topic: string, value: unknown): void => {
    const text = JSON.stringify(value)
    if (text === feed.lastPublished) return
    feed.lastPublished = text
    feed.changes++
    deps.publish(topic, value)
  }

  const tickSafely = async (feed: Feed): Promise<void> => {
    try {
      await tick(feed)
      if (feed.failuresInARow > 0) log.info('feed.recovered', { feed: feed.plan.name })
      feed.failuresInARow = 0
    } catch (error) {
      if (isStopped) return
      feed.failures++
      if (feed.failuresInARow++ % failuresPerLogLine === 0) {
        log.warn('feed.failed', { feed: feed.plan.name, failures: feed.failuresInARow, error })
      }
    }
  }

  /** From start to start: a slow tick delays the next one, and never runs beside it. */
  const run = async (feed: Feed): Promise<void> => {
    const startedAt = clock.tick()
    feed.running = tickSafely(feed)
    await feed.running
    feed.running = undefined
    if (isStopped) return
    const waitMs = Math.max(0, feed.everyMs * slowdown() - (clock.tick() - startedAt))
    feed.cancel = clock.after(waitMs, () => launch(feed))
  }

  const launch = (feed: Feed): void => {
    detach(run(feed), (error) => log.error('feed.died', { feed: feed.plan.name, error }))
  }

  return {
    start() {
      feeds.forEach(launch)
    },
    async stop() {
      isStopped = true
      for (const { cancel, abort } of feeds) {
        cancel?.()
        abort?.abort(new Fault('unavailable', 'the server stops'))
      }
      for (const { running } of feeds) await running
    },
    async tick(name) {
      const feed = feeds.find(({ plan }) => plan.name === name)
      if (!feed) throw new Fault('not_found', `no feed ${name}`)
      await tick(feed)
    },
    stats: () =>
      feeds.map(({ plan, ticks, failures, changes }) => ({
        name: plan.name,
        ticks,
        failures,
        changes,
      })),
  }
}

function createFeed(plan: FeedPlan, env: Env): Feed {
  const every = typeof plan.every === 'function' ? plan.every(env) : plan.every
  const everyMs = parseDurationMs(every)
  if (everyMs === undefined || everyMs < everyMsMin) {
    const message = `gave ${String(every)}: a duration of at least ${everyMsMin}ms is needed`
    throw new Fault('invalid', 'the app file has one problem', {
      fields: [{ field: `feeds.${plan.name}.every`, message }],
    })
  }
  return {
    plan,
    everyMs,
    cancel: undefined,
    running: undefined,
    abort: undefined,
    ticks: 0,
    failures: 0,
    failuresInARow: 0,
    changes: 0,
    lastPublished: undefined,
  }
}

function contextOf(deps: FeedsDeps, signal: AbortSignal): FeedContext {
  return {
    fetch: (url, init) => fetch(url, { ...init, signal }),
    signal,
    env: deps.env,
    db: deps.db,
    now: deps.clock.now(),
    stats: deps.stats,
  }
}

/** A load that ignores its signal is left behind: the feed goes on without it. */
async function untilAborted(
  plan: FeedPlan,
  clock: Clock,
  abort: AbortController,
  load: () => unknown,
): Promise<unknown> {
  const aborted = Promise.withResolvers<never>()
  abort.signal.addEventListener('abort', () => aborted.reject(abort.signal.reason))
  const cancel = clock.after(plan.timeoutMs, () => {
    abort.abort(new Fault('timeout', `feed ${plan.name} took over ${plan.timeoutMs} ms`))
  })
  const loading = (async () => await load())()
  // Whichever loses the race may still reject, with nobody left to hear it.
  loading.catch(() => {})
  aborted.promise.catch(() => {})
  try {
    return await Promise.race([loading, aborted.promise])
  } finally {
    cancel()
  }
}

function batchesOf(
  plan: FeedPlan,
  value: unknown,
): { plan: CollectionPlan; rows: readonly Record<string, unknown>[] }[] {
  const batches = plan.into.map((into) => {
    const rows = plan.isSingle ? value : (value as Record<string, unknown>)[into.path]
    if (rows === undefined && !plan.isSingle) return { plan: into, rows: [] }
    if (!Array.isArray(rows)) {
      throw new Fault('invalid', `feed ${plan.name} gave no array of rows for ${into.path}`)
    }
    return { plan: into, rows: rows as Record<string, unknown>[] }
  })
  const count = batches.reduce((sum, { rows }) => sum + rows.length, 0)
  if (count > rowsPerTickMax) {
    throw new Fault('too_large', `feed ${plan.name} gave ${count} rows, at most ${rowsPerTickMax}`)
  }
  return batches
}
