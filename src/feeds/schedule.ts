/**
 * When a feed's next tick is, by the wall clock: after an interval, on whole multiples of it, or by cron (UTC).
 *
 * Invariant: a moment that was ticked for is not ticked for again, although the wall clock is set back a little.
 */
import { parseDurationMs } from '../lib/duration.ts'
import type { Cron } from './declare.ts'

export type Schedule =
  | { readonly kind: 'every'; readonly everyMs: number; readonly isAligned: boolean }
  | { readonly kind: 'cron'; readonly cron: string }

/** A clock is set back by no more than this but on purpose: then a job of that hour runs again. */
const backMsMax = 60_000

/** Undefined: no duration, and no expression that ever comes true. */
export function parseSchedule(every: unknown, isAligned: boolean): Schedule | undefined {
  if (isCron(every)) {
    return nextCronMs(every.cron, 0) === undefined ? undefined : { kind: 'cron', cron: every.cron }
  }
  const everyMs = parseDurationMs(every)
  return everyMs === undefined ? undefined : { kind: 'every', everyMs, isAligned }
}

export function isCron(every: unknown): every is Cron {
  return typeof every === 'object' && every !== null && 'cron' in every
}

/** The next moment after `nowMs`. `lastMs`: the one that was ticked for, undefined at first. */
export function nextDueMs(schedule: Schedule, nowMs: number, lastMs: number | undefined): number {
  const backMs = schedule.kind === 'cron' ? backMsMax : schedule.everyMs
  const isSetBack = lastMs !== undefined && lastMs > nowMs && lastMs - nowMs <= backMs
  const afterMs = isSetBack ? lastMs : nowMs
  if (schedule.kind === 'cron') return nextCronMs(schedule.cron, afterMs) ?? Infinity
  const { everyMs, isAligned } = schedule
  return isAligned ? (Math.floor(afterMs / everyMs) + 1) * everyMs : afterMs + everyMs
}

/** Whether a moment of the plan lies between, `fromMs` excluded. */
export function isDueWithin(schedule: Schedule, fromMs: number, toMs: number): boolean {
  return nextDueMs(schedule, fromMs, undefined) <= toMs
}

function nextCronMs(cron: unknown, afterMs: number): number | undefined {
  if (typeof cron !== 'string') return undefined
  try {
    return Bun.cron.parse(cron, afterMs, { tz: 'UTC' })?.getTime()
  } catch {
    return undefined
  }
}
