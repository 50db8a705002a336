/** A feed on a clock, or of a stream: rows into collections, a value onto a topic, for each load or message. */
import { Fault } from '../fault.ts'
import type { Cancel } from '../lib/clock.ts'
import { detach } from '../lib/service.ts'
import type { CollectionPlan } from '../collections/collections.ts'
import { adaptedMs } from './adaptive.ts'
import { ask, failuresPerLogLine } from './ask.ts'
import type { Follower } from '../upstream/upstream.ts'
import type { FeedPlan, FeedsDeps, RunningFeed } from './feeds.ts'
import { createLeader } from './leader.ts'
import { createRelay } from './relay.ts'
import { isDueWithin, nextDueMs, type Schedule } from './schedule.ts'
import { streamOf } from './streamed.ts'
import {
  retellMs,
  silentMsOf,
  sumOf,
  textOf,
  toldOf,
  toldTextOf,
  valueLengthMax,
  type Value,
} from './values.ts'

/** Rows one tick may bring; more is a mistake or belongs in several ticks. */
const rowsPerTickMax = 10_000

/** How long a wait is trusted: the wall clock may be set meanwhile. */
const trustedMs = 60_000

/** How often it is looked whether anybody asks. */
const lookMs = 1_000

/** As long as taking over takes: what was due in it is made up for. */
const missedMs = 15_000

export function createTimedFeed(deps: FeedsDeps, plan: FeedPlan, schedule: Schedule): RunningFeed {
  const { clock, log, random = Math.random, slowdown = () => 1 } = deps
  const counts = { ticks: 0, failures: 0, changes: 0 }
  const topic = plan.publish
  let everyMs = schedule.kind === 'every' ? schedule.everyMs : 60_000
  let cancel: Cancel = () => {}
  let running: Promise<void> | undefined
  let abort: AbortController | undefined
  let failuresInARow = 0
  /** What the topic said last; `told` is undefined if it did not get through. */
  let value: Value | undefined
  let told: string | undefined
  let toldAt = 0
  let first: PromiseWithResolvers<void> | undefined
  /** `clock.tick()` when upstream, or the node that asks, was heard last. */
  let answeredAt = 0
  let cancelLook: Cancel = () => {}
  /** The moment by the wall clock that was ticked for last. */
  let dueMs: number | undefined
  let startedMs = 0
  let isStopped = false

  const load = (by: AbortController): Promise<unknown> =>
    ask(deps, plan, { keys: [], priority: 'normal', turn: undefined, abort: by })

  const tick = async (): Promise<void> => {
    counts.ticks++
    abort = new AbortController()
    const isAsking = leader.isLeading
    const isLate = (): boolean => isStopped || (isAsking && !leader.isLeading)
    const answer = await load(abort)
    if (isLate()) return
    const changes = answer === null || answer === undefined ? 0 : await take([answer], isLate)
    if (isLate()) return
    answeredAt = clock.tick()
    if (value?.isStale === true) recover()
    counts.changes += changes
    if (!plan.adaptive || schedule.kind === 'cron') return
    const heard = { asked: 1, changed: Math.min(1, changes), hasWaited: false }
    everyMs = adaptedMs(everyMs, plan.adaptive, heard)
  }

  /** `isLate`: another node asks by now, and what it says is newer. */
  const take = async (answers: readonly unknown[], isLate: () => boolean): Promise<number> => {
    let changes = 0
    if (plan.into.length > 0) {
      const batches = answers.flatMap((answer) => batchesOf(plan, answer))
      changes += (await deps.collections.upsert(batches)).length
    }
    if (isLate()) return changes
    for (const answer of answers) changes += say(answer)
    return changes
  }

  const say = (answer: unknown): number => {
    const text = topic === undefined ? undefined : textOf(answer)
    if (topic === undefined || text === undefined) return 0
    const changes = value?.text === text ? 0 : 1
    const asOfMs = clock.now()
    const isKnown = value?.text === text && !value.isStale
    value = { text, asOfMs, isStale: false }
    first?.resolve()
    tell(topic, value)
    const isShort = text.length <= valueLengthMax
    if (isShort && isKnown) relay?.tell({ unchanged: [[topic, sumOf(text)]] })
    else if (isShort) relay?.tell({ values: [[topic, text, asOfMs]] })
    return changes
  }

  /** It answered, with nothing new. */
  const recover = (): void => {
    if (!value || topic === undefined) return
    value.isStale = false
    value.asOfMs = clock.now()
    tell(topic, value)
    relay?.tell({ unchanged: [[topic, sumOf(value.text)]] })
  }

  const tell = (name: string, one: Value): void => {
    const text = toldTextOf(one)
    const now = clock.tick()
    const isRetelling = deps.shared?.redis.isUp === true && !plan.isKept
    if (text === told && !(isRetelling && now - toldAt >= retellMs)) return
    told = undefined
    toldAt = now
    try {
      deps.publish(name, toldOf(one))
      told = text
    } catch (error) {
      // It is tried again with the next answer; the clock, or the stream, goes on.
      log.warn('feed.not-published', { feed: plan.name, error })
    }
  }

  const failed = (error: unknown): void => {
    counts.failures++
    if (failuresInARow++ % failuresPerLogLine === 0) {
      log.warn('feed.failed', { feed: plan.name, failures: failuresInARow, error })
    }
    turnStale()
  }

  const turnStale = (): void => {
    first?.reject(new Fault('unavailable', `feed ${plan.name} has no value yet`))
    if (!value || value.isStale || topic === undefined) return
    value.isStale = true
    relay?.tell({ failed: [topic] })
    tell(topic, value)
  }

  const tickSafely = async (): Promise<void> => {
    try {
      await tick()
      if (failuresInARow > 0) log.info('feed.recovered', { feed: plan.name })
      failuresInARow = 0
    } catch (error) {
      if (isStopped || !leader.isLeading) return
      failed(error)
    }
  }

  /** From start to start: a slow tick delays the next one, and never runs beside it. */
  const run = async (): Promise<void> => {
    const startedAt = clock.tick()
    running = tickSafely()
    await running
    running = undefined
    if (isStopped || !leader.isLeading) return
    if (schedule.kind === 'every' && !schedule.isAligned) {
      const waitMs = Math.max(0, everyMs * slowdown() - (clock.tick() - startedAt))
      cancel = clock.after(waitMs + random() * plan.jitterMs, launch)
    } else waitFor()
  }

  /** The next moment of the plan, and a little later. */
  const waitFor = (): void => {
    const due = nextDueMs(schedule, clock.now(), dueMs)
    dueMs = due
    const atMs = due + random() * plan.jitterMs
    const wait = (): void => {
      const leftMs = atMs - clock.now()
      if (leftMs <= 0) launch()
      else cancel = clock.after(Math.min(leftMs, trustedMs), wait)
    }
    wait()
  }

  const launch = (): void => {
    detach(run(), (error) => log.error('feed.died', { feed: plan.name, error }))
  }

  const lead = (isLeading: boolean): void => {
    cancel()
    relay?.lead(isLeading)
    if (stream) return isLeading ? stream.start() : quit(stream)
    if (!isLeading) return abort?.abort(new Fault('unavailable', 'another node asks'))
    if (running) return
    const now = clock.now()
    // Whoever asked before may have ended just before the moment. One that came before this start is over.
    const isMissed = () => isDueWithin(schedule, Math.max(startedMs, now - missedMs), now)
    if (schedule.kind === 'every' || isMissed()) launch()
    else waitFor()
  }

  const isLost = (): boolean => !leader.isLeading
  const stream = streamOf(deps, plan, {
    async take(answers) {
      counts.ticks++
      counts.changes += await take(answers, isLost)
    },
    async catchUp(signal) {
      const own = new AbortController()
      signal.addEventListener('abort', () => own.abort(signal.reason))
      const answer = await load(own)
      if (isLost()) return
      if (answer !== null && answer !== undefined) counts.changes += await take([answer], isLost)
      if (!isLost() && value?.isStale === true) recover()
    },
    onLost() {
      counts.failures++
      turnStale()
    },
  })
  const quit = ({ stop }: Follower): void => {
    detach((async () => await stop())(), (error) =>
      log.error('feed.died', { feed: plan.name, error }),
    )
  }

  const leader = createLeader(deps, {
    feed: plan.name,
    isPublishing: topic !== undefined,
    inUse: () => (running ? 1 : 0),
    onChange: lead,
  })
  const relay =
    deps.shared && topic !== undefined
      ? createRelay(
          { clock, log, ...deps.shared },
          {
            feed: plan.name,
            onNews({ values = [], unchanged = [], failed: failures = [] }) {
              answeredAt = clock.tick()
              for (const [, text, asOfMs] of values) value = { text, asOfMs, isStale: false }
              for (const [, sum] of unchanged) {
                if (value && sumOf(value.text) === sum) {
                  value.asOfMs = clock.now()
                  value.isStale = false
                } else relay?.again(topic)
              }
              if (value && failures.length > 0) value.isStale = true
              if (!value) return
              told = toldTextOf(value)
              first?.resolve()
            },
            onWant(names, isWanted) {
              if (!isWanted || names.length === 0) return
              if (!value || value.text.length > valueLengthMax) return
              const { text, asOfMs, isStale } = value
              relay?.tell({ values: [[topic, text, asOfMs]], failed: isStale ? [topic] : [] })
            },
          },
        )
      : undefined

  /** No node asks, as while the primary is away: who leads is told of its own failures. */
  const look = (): void => {
    if (!value || schedule.kind === 'cron' || stream || leader.isLeading) return
    const silentMs = silentMsOf(everyMs * slowdown()) + plan.timeoutMs
    if (clock.tick() - answeredAt > silentMs) value.isStale = true
  }

  const waitForFirst = async (): Promise<Value | undefined> => {
    const waiting = (first ??= Promise.withResolvers<void>())
    waiting.promise.catch(() => {})
    const late = clock.after(plan.timeoutMs, () =>
      waiting.reject(new Fault('timeout', `feed ${plan.name} has no value yet`)),
    )
    try {
      await waiting.promise
      return value
    } finally {
      late()
      if (first === waiting) first = undefined
    }
  }

  return {
    plan,
    get intervalMs() {
      return everyMs
    },
    start() {
      relay?.start()
      if (topic !== undefined) relay?.want(topic, true)
      startedMs = clock.now()
      answeredAt = clock.tick()
      leader.start()
      if (topic !== undefined) cancelLook = clock.every(lookMs, look)
    },
    async stop() {
      isStopped = true
      cancel()
      cancelLook()
      abort?.abort(new Fault('unavailable', 'the server stops'))
      first?.reject(new Fault('unavailable', 'the server stops'))
      await running
      await stream?.stop()
      await leader.stop()
      relay?.stop()
    },
    tick,
    hear: () => undefined,
    read: (key) => (key === topic ? (value ?? waitForFirst()) : undefined),
    stats: () => ({
      name: plan.name,
      ...counts,
      keys: topic === undefined ? 0 : 1,
      stale: value?.isStale === true ? 1 : 0,
      isLeading: leader.isLeading,
    }),
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
