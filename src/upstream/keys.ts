/**
 * One API key of a budget, or the one lane of calls without any: its slots (`slots.ts`: the proof), its pace (GCRA, so
 * that calls do not bunch), what its provider told (429, `Retry-After`, `RateLimit`), its quota.
 *
 * Pace follows what goes wrong: halved by 429 and 5xx, at most once a second, up again by 5 % of the declared one a second.
 */
import type { Clock } from '../lib/clock.ts'
import type { Log } from '../observe/log.ts'
import type { Share } from '../store/store.ts'
import type { BudgetPlan, GrantOutcome, KeyStats } from './budget-port.ts'
import type { Quota } from './quota.ts'
import type { Sent, Slots } from './slots.ts'
import { toldBy } from './told.ts'

/** A timer that is late does not slow the pace by it. */
const lateMs = 5

const paceMin = 1 / 32
const recoveryPerMs = 0.05 / 1_000
const slowEachMs = 1_000

/** After a 429 that says nothing of when: doubled with each in a row. */
const backoffMs = 1_000
const backoffMsMax = 60_000

export interface Lane {
  readonly index: number
  readonly key: string | undefined
  /** When a call may be sent, as far as is known; not after `now`: at once. Infinity: something else will tell. */
  readyAt(now: number): number
  /** Only when ready. */
  send(now: number): Sent
  end(sent: Sent, outcome: GrantOutcome): void
  used(now: number): number
  /** Calls a ms, at its pace. */
  perMs(now: number): number
  /** So many may go at once. */
  readonly atOnce: number
  /** What to prefer: slots, then what the provider said, then the quota. */
  left(now: number): readonly number[]
  stats(): KeyStats
}

export interface LaneDeps {
  readonly clock: Clock
  readonly log: Log
  readonly share: Share
  readonly slots: Slots
  readonly quota: Quota | undefined
}

export interface LaneOptions {
  readonly plan: BudgetPlan
  readonly index: number
  readonly key: string | undefined
}

/** Calls in a window, at most. */
export function capacityOf({ rate, burst }: Pick<BudgetPlan, 'rate' | 'burst'>): number {
  return rate.quota + burst
}

export function createLane(deps: LaneDeps, { plan, index, key }: LaneOptions): Lane {
  const { clock, log, share, slots, quota } = deps
  const capacity = capacityOf(plan)
  const counts = { calls: 0, limited: 0, failed: 0, lost: 0 }
  /** GCRA's theoretical arrival time: of the next call if calls were evenly spaced. */
  let nextAt = 0
  let stoppedUntil = 0
  let limitedInARow = 0
  let slowed = { at: -Infinity, to: 1 }
  let told: { remaining: number; until: number } | undefined

  const pace = (now: number): number =>
    Math.min(1, slowed.to + Math.max(0, now - slowed.at) * recoveryPerMs)

  const perMs = (now: number): number =>
    (plan.rate.quota / plan.rate.windowMs) * (share.units / capacity) * pace(now)

  const atOnce = (): number => Math.max(1, (plan.burst * share.units) / capacity)

  const slow = (now: number): void => {
    if (now - slowed.at < slowEachMs) return
    slowed = { at: now, to: Math.max(paceMin, pace(now) / 2) }
  }

  const hear = ({ status, headers }: { status: number; headers: Headers }, now: number): void => {
    const said = toldBy(headers, clock.now())
    const { remaining, resetMs } = said
    if (remaining !== undefined) told = { remaining, until: now + (resetMs ?? 0) }
    if (remaining === 0) stop(now + (resetMs ?? 0))
    if (status === 429) {
      counts.limited++
      const backedOffMs = Math.min(backoffMsMax, backoffMs * 2 ** limitedInARow++)
      const waitMs = said.retryAfterMs ?? resetMs ?? backedOffMs
      stop(now + waitMs)
      log.warn('budget.limited', { budget: plan.name, key: index, waitMs })
    } else if (status < 400) limitedInARow = 0
    if (status >= 500) {
      counts.failed++
      stop(now + (said.retryAfterMs ?? 0))
    }
    if (status === 429 || status >= 500) slow(now)
  }

  const stop = (until: number): void => {
    stoppedUntil = Math.max(stoppedUntil, until)
    share.rest(until - clock.tick())
  }

  return {
    index,
    key,
    readyAt(now) {
      const { units } = share
      if (units === 0) return Infinity
      if (quota && quota.left === 0) return quota.readyAt
      const paced = nextAt - (atOnce() - 1) / perMs(now)
      const at = Math.max(now, stoppedUntil, share.restsUntil, paced)
      return slots.used(now) < units ? at : Math.max(at, slots.freeAt(now))
    },
    send(now) {
      counts.calls++
      quota?.spend()
      if (told) told.remaining--
      const everyMs = 1 / perMs(now)
      nextAt = Math.max(nextAt, now - Math.min(lateMs, everyMs)) + everyMs
      return slots.send(now)
    },
    end(sent, outcome) {
      const now = clock.tick()
      if ('failed' in outcome) {
        counts.lost++
        slots.end(sent, outcome.isOver ? 'arrived' : 'lost', now)
        return
      }
      slots.end(sent, 'arrived', now)
      hear(outcome, now)
    },
    used: slots.used,
    perMs,
    get atOnce() {
      return atOnce()
    },
    left(now) {
      const remaining = told && told.until > now ? told.remaining : Infinity
      return [share.units - slots.used(now), remaining, quota?.left ?? Infinity]
    },
    stats() {
      const now = clock.tick()
      return {
        ...{ index, ...counts, units: share.units, inUse: slots.used(now), pace: pace(now) },
        stoppedMs: Math.max(0, Math.max(stoppedUntil, share.restsUntil) - now),
        quotaLeft: quota?.left,
      }
    },
  }
}
