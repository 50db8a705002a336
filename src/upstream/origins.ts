/**
 * What is known of each origin: whether it is asked at all, and how it did.
 *
 *   closed ──5 failures in a row──► open ──after half a second, one call goes through──► answered: closed, else open
 */
import { LRUCache } from 'lru-cache'
import { Fault } from '../fault.ts'
import { createBreaker, type Breaker, type BreakerOptions } from '../lib/breaker.ts'
import type { Clock } from '../lib/clock.ts'
import type { Log } from '../observe/log.ts'

/** A probe each half second costs an upstream nothing, and a feed of each second is back with its next tick. */
export const upstreamBreaker: BreakerOptions = { failuresMax: 5, windowMs: 500, isClosed: true }

/** Remembered; redirects may lead to any number. */
const originsMax = 256

export interface OriginStats {
  readonly origin: string
  /** Requests that were sent. */
  readonly calls: number
  /** Of them: not answered, or by a 5xx. */
  readonly failures: number
  readonly isOpen: boolean
  /** Times that the breaker opened. */
  readonly opened: number
}

export interface Origin {
  /** Faults: `unavailable`, while it is not to be asked. */
  check(): void
  /** The same, for a call that is made now: it has to tell how it went. */
  enter(): void
  answered(status: number): void
  failed(): void
}

export interface Origins {
  of(url: URL): Origin
  stats(): readonly OriginStats[]
}

interface State {
  readonly breaker: Breaker
  calls: number
  failures: number
}

export function createOrigins({ clock, log }: { clock: Clock; log: Log }): Origins {
  const states = new LRUCache<string, State>({ max: originsMax })

  const stateOf = (origin: string): State => {
    let state = states.get(origin)
    if (!state) {
      state = { breaker: createBreaker({ clock }, upstreamBreaker), calls: 0, failures: 0 }
      states.set(origin, state)
    }
    return state
  }

  return {
    of({ origin, host }) {
      const state = stateOf(origin)
      const { breaker } = state
      const failed = (): void => {
        state.failures++
        if (breaker.fail()) log.warn('upstream.away', { origin })
      }
      const check = (): void => {
        if (breaker.isClosed || breaker.isProbeDue) return
        const retryAfterMs = breaker.probeInMs
        throw new Fault('unavailable', `${host} has failed too often just now`, { retryAfterMs })
      }
      return {
        check,
        enter() {
          check()
          // This call is the probe; the next one may be when a window is over.
          if (!breaker.isClosed) breaker.trip()
          state.calls++
        },
        answered(status) {
          if (status >= 500) return failed()
          if (!breaker.isClosed) log.info('upstream.back', { origin })
          breaker.close()
          breaker.succeed()
        },
        failed,
      }
    },
    stats: () =>
      [...states].map(([origin, { breaker, calls, failures }]) => ({
        ...{ origin, calls, failures },
        isOpen: !breaker.isClosed,
        opened: breaker.opened,
      })),
  }
}
