/**
 * Decides whether somebody who fails is asked at all.
 *
 *   closed ──failing at once, or often in a row──► open ──after a window, a probe was answered──► closed
 *
 * Open, nobody is asked but by a probe, one for each window. Whoever owns a breaker says what a failure is and
 * who probes: of Redis nobody's request (store/redis-link.ts asks), of an upstream the next call that is due.
 */
import type { Clock } from './clock.ts'

export interface Breaker {
  readonly isClosed: boolean
  /** Open, and long enough. */
  readonly isProbeDue: boolean
  /** Until then; 0 when it is due, or closed. */
  readonly probeInMs: number
  /** Times it has opened. */
  readonly opened: number
  /** It was answered. */
  succeed(): void
  /** It was answered by an error, or not. True if that opened it. */
  fail(): boolean
  /** Opens for a whole window. */
  trip(): void
  /** Opens until the next probe: nothing is known yet, or any more. */
  doubt(): void
  /** A probe was answered. */
  close(): void
}

export interface BreakerOptions {
  /** In a row: a few errors may be about a few questions. */
  readonly failuresMax: number
  readonly windowMs: number
  /** Whether it may be asked before anything is known. */
  readonly isClosed: boolean
}

export function createBreaker(deps: { readonly clock: Clock }, options: BreakerOptions): Breaker {
  const { clock } = deps
  const { failuresMax, windowMs } = options
  let { isClosed } = options
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
    get probeInMs() {
      return isClosed ? 0 : Math.max(0, probeDueMs - clock.tick())
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
