/**
 * Feeds: one clock, one upstream call, everybody hears what changed.
 *
 *   timed   tick ─► load ─┬► rows ─► upsert: only changed ones are written ─► log ─► live
 *                         └► value ─► published if it differs from the last one
 *   keyed   who subscribes, who reads ─► watch ─► rounds: up to `batch` keys a call, under the budget ─► load
 *              ─► values by key ─► changed ones are written, published, told to the other nodes
 *
 *   stream  connected ─► load, if there is one ─► upstream says something (`upstream/stream.ts`) ─► parse ─► as of a tick
 *
 * Invariants: a feed never overlaps itself, and no key is asked for twice at once; a failing call changes nothing
 * but that the last values are stale, and is made again all the same; what did not change is neither written nor
 * published. Of several nodes one asks (`leader.ts`); what it hears reaches the others by Redis (`relay.ts`).
 *
 * Limits: keys of a feed, the length of a value, calls on their way (`rounds.ts`).
 */
import { Fault } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import type { Service } from '../lib/service.ts'
import type { Log } from '../observe/log.ts'
import type { CollectionPlan, Collections } from '../collections/collections.ts'
import type { ReadDb } from '../store/declare.ts'
import type { StreamDeclaration, UpstreamInit } from '../upstream/declare.ts'
import type { Follower, StreamOptions, Turn } from '../upstream/upstream.ts'
import type { AdaptivePlan } from './adaptive.ts'
import type { Env, FeedOptions, FeedReads, FeedValue, ServerStats } from './declare.ts'
import { createKeyedFeed } from './keyed.ts'
import type { Lease } from './leader.ts'
import type { RelayRedis } from './relay.ts'
import { isCron, parseSchedule, type Schedule } from './schedule.ts'
import { createTimedFeed } from './timed.ts'
import { feedValueOf, toldOf, type Value } from './values.ts'

export type { Lease } from './leader.ts'
export { parseSchedule } from './schedule.ts'
export { streamKindOf } from './streamed.ts'

/** A declared feed, checked. Made by the plan. */
export interface FeedPlan {
  readonly name: string
  readonly every: FeedOptions['every']
  readonly isAligned: boolean
  readonly jitterMs: number
  readonly adaptive: AdaptivePlan | undefined
  readonly timeoutMs: number
  readonly load: FeedOptions['load']
  readonly into: readonly CollectionPlan[]
  /** `into` was one path: `load` returns its rows, not an object of rows by path. */
  readonly isSingle: boolean
  readonly publish: string | undefined
  /** What it publishes is kept in the database: each one is in the topic's history, also one that says nothing new. */
  readonly isKept: boolean
  readonly budget: string | undefined
  readonly keyed: KeyedPlan | undefined
  /** It does not ask, but listens. */
  readonly stream: StreamPlan | undefined
}

export interface StreamPlan extends Pick<
  StreamDeclaration,
  'url' | 'headers' | 'subscribe' | 'parse'
> {
  readonly silenceMs: number
  readonly lengthMax: number
  /** `load` tells what was said before a connection. */
  readonly isCatchingUp: boolean
}

export interface KeyedPlan {
  /** The declared topic's. */
  readonly pattern: string
  topicOf(key: string): string
  /** Undefined: not one of this pattern's topics. */
  keyOf(topic: string): string | undefined
  readonly batch: number
  readonly idleMs: number
}

export interface CallOptions {
  readonly budget: string | undefined
  readonly priority: 'high' | 'normal'
  /** Undefined: the call waits for its own. */
  readonly turn: Turn | undefined
}

export interface FeedsDeps {
  readonly collections: Pick<Collections, 'upsert'>
  readonly publish: (topic: string, data: unknown) => void
  /** Of the room that asks other people's servers. */
  readonly fetch: (url: string | URL, init: UpstreamInit, call: CallOptions) => Promise<Response>
  /** Faults: `too_many` with the time to wait, `timeout`. Absent: no budget is declared. */
  readonly turn?: ((budget: string, ask: TurnAsk) => Promise<Turn>) | undefined
  /** The right to ask, which one node has. Absent: this one is alone. */
  readonly lease?: ((name: string, inUse: () => number) => Lease) | undefined
  /** Absent: nodes tell each other nothing. */
  readonly shared?: { readonly redis: RelayRedis; readonly namespace: string } | undefined
  /** Of the same room. Absent: no feed has a stream. */
  readonly follow?: ((options: StreamOptions) => Follower) | undefined
  readonly db: ReadDb
  readonly stats: () => ServerStats
  readonly env: Env
  readonly clock: Clock
  readonly log: Log
  /** In an overload, ticks are so many times as far apart; left out: never. */
  readonly slowdown?: () => number
  /** 0 to 1. */
  readonly random?: () => number
}

export interface TurnAsk {
  readonly priority: 'high' | 'normal'
  readonly deadlineMs: number
  readonly signal: AbortSignal
}

/** A tick costs a call upstream; faster than this is a mistake. */
export const everyMsMin = 100

export interface Feeds extends Service, FeedReads {
  start(): void
  stop(): Promise<void>
  /** One tick now; for tests. Throws what the tick threw. */
  tick(name: string): Promise<void>
  /** A topic is heard by somebody, or by nobody any more. `pattern`: as it is declared. */
  heard(pattern: string, topic: string, isHeard: boolean): void
  /** What a topic said last. Undefined: it is no feed's. Faults: `not_found`, `unavailable`, `timeout`. */
  last(pattern: string, topic: string): Promise<Last> | undefined
  stats(): readonly FeedStats[]
}

/** The text is what is published: with `stale` and `as_of` when it is. */
export interface Last extends Value {
  /** It was there already. */
  readonly isHit: boolean
  /** How old it gets before it is asked for again. */
  readonly intervalMs: number
}

export interface FeedStats {
  readonly name: string
  /** Calls of `load`. */
  readonly ticks: number
  readonly failures: number
  readonly changes: number
  /** Watched now. */
  readonly keys: number
  /** Of them: the last value is stale. */
  readonly stale: number
  readonly isLeading: boolean
}

/** A feed that runs: timed or keyed. */
export interface RunningFeed {
  readonly plan: FeedPlan
  readonly intervalMs: number
  start(): void
  stop(): Promise<void>
  tick(): Promise<void>
  hear(topic: string, isHeard: boolean): void
  /** What is there already, or will be. Undefined: upstream does not know it, or the feed has no such key. */
  read(key: string): Value | undefined | Promise<Value | undefined>
  stats(): FeedStats
}

/** Faults: `invalid` for an `every` that is no duration in this environment. */
export function createFeeds(deps: FeedsDeps, plans: readonly FeedPlan[]): Feeds {
  const feeds = plans.map((plan): RunningFeed => {
    const schedule = scheduleOf(plan, deps.env)
    return plan.keyed
      ? createKeyedFeed(deps, { ...plan, keyed: plan.keyed }, everyMsOf(schedule))
      : createTimedFeed(deps, plan, schedule)
  })
  const byPattern = new Map<string, RunningFeed>()
  for (const feed of feeds) {
    const { keyed, publish } = feed.plan
    const topic = keyed?.pattern ?? publish
    if (topic !== undefined && !byPattern.has(topic)) byPattern.set(topic, feed)
  }

  const byName = (name: string): RunningFeed => {
    const feed = feeds.find(({ plan }) => plan.name === name)
    if (!feed) throw new Fault('not_found', `no feed ${name}`)
    return feed
  }

  const lastOf = async (feed: RunningFeed, topic: string): Promise<Last> => {
    const { keyed } = feed.plan
    const found = feed.read(keyed?.keyOf(topic) ?? topic)
    const value = await found
    if (!value) throw new Fault('not_found', `nothing is known of ${topic}`)
    const text = value.isStale ? JSON.stringify(toldOf(value)) : value.text
    const { intervalMs } = feed
    return { ...value, text, isHit: !(found instanceof Promise), intervalMs }
  }

  return {
    start() {
      for (const feed of feeds) feed.start()
    },
    async stop() {
      await Promise.all(feeds.map((feed) => feed.stop()))
    },
    tick: async (name) => await byName(name).tick(),
    heard(pattern, topic, isHeard) {
      byPattern.get(pattern)?.hear(topic, isHeard)
    },
    async read(name, keys) {
      const feed = byName(name)
      const found = await Promise.allSettled(keys.map(async (key) => await feed.read(key)))
      const values = new Map<string, FeedValue>()
      for (const [at, one] of found.entries()) {
        if (one.status === 'fulfilled' && one.value) {
          values.set(keys[at] ?? '', feedValueOf(one.value))
        }
      }
      // What is known is not withheld because of what is not.
      const failure = values.size === 0 && found.find(({ status }) => status === 'rejected')
      if (failure && failure.status === 'rejected') throw failure.reason
      return values
    },
    last(pattern, topic) {
      // A topic of its own name goes before a pattern that a feed publishes into.
      const feed = byPattern.get(topic) ?? byPattern.get(pattern)
      return feed && lastOf(feed, topic)
    },
    stats: () => feeds.map((feed) => feed.stats()),
  }
}

function scheduleOf({ name, every, isAligned, keyed }: FeedPlan, env: Env): Schedule {
  const given: unknown = typeof every === 'function' ? every(env) : every
  const schedule = parseSchedule(given, isAligned)
  const isFit = !keyed || schedule?.kind === 'every'
  if (schedule && isFit && everyMsOf(schedule) >= everyMsMin) return schedule
  const wanted = `a duration of at least ${everyMsMin}ms${keyed ? '' : ', or { cron },'} is needed`
  const shown = isCron(given) ? JSON.stringify(given) : String(given)
  throw new Fault('invalid', 'the app file has one problem', {
    fields: [{ field: `feeds.${name}.every`, message: `gave ${shown}: ${wanted}` }],
  })
}

/** The shortest time between two ticks. */
function everyMsOf(schedule: Schedule): number {
  return schedule.kind === 'cron' ? 60_000 : schedule.everyMs
}
