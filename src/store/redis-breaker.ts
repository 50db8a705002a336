/**
 * Decides whether Redis is asked at all.
 *
 *   closed ──one time-out, or 5 failures in a row──► open ──after 1 s, a probe was answered──► closed
 *
 * The probe is nobody's request (`redis-link.ts` asks), so an outage costs what was waiting when it began
 * one time-out, and after that nothing. A Redis that answers probes and no commands costs one per window.
 */
import type { Clock } from '../lib/clock.ts'

export interface Breaker {
  readonly isClosed: boolean
  /** Open, and long enough. */
  readonly isProbeDue: boolean
  /** Times it has opened. */
  readonly opened: number
  /** A command was answered. */
  succeed(): void
  /** A command was answered by an error. True if that opened it. */
  fail(): boolean
  /** Opens for a whole window. */
  trip(): void
  /** Opens until the next probe: nothing is known yet, or any more. */
  doubt(): void
  /** A probe was answered. */
  close(): void
}

/** A few errors may be about a few keys. */
const failuresMax = 5

const windowMs = 1_000

export function createBreaker(deps: { readonly clock: Clock }): Breaker {
  const { clock } = deps
  let isClosed = false
  let probeDueMs = 0
  let failures = 0
  let opened = 0

  const open = (dueMs: number): void => {
    if (isClosed) opened++
    isClosed = false
    failures = 0
    probeDueMs = Math.max(probeDueMs, dueMs)
  }

  return {
    get isClosed() {
      return isClosed
    },
    get isProbeDue() {
      return !isClosed && clock.tick() >= probeDueMs
    },
    get opened() {
      return opened
    },
    succeed: () => void (failures = 0),
    fail() {
      if (!isClosed || ++failures < failuresMax) return false
      open(clock.tick() + windowMs)
      return true
    },
    trip: () => open(clock.tick() + windowMs),
    doubt: () => open(0),
    close: () => void (isClosed = true),
  }
}
