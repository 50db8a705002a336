/**
 * Inbound limits: a true sliding window per key, in this process.
 *
 *   quota 3 per 60 s      ├─────────── window ───────────┤ now
 *   taken at            · │ ·        ·               ·   │ ?  → 3 taken → refused until the first leaves
 *
 * A fixed window lets twice the quota through around its edge; this one never lets more than the
 * quota into ANY window. Refused requests are not counted: a client that waits gets in.
 *
 * Memory is bounded: `quota` times per key, and `keysMax` keys; above that the key least recently
 * seen is forgotten, which favours the newcomer, never a client that keeps knocking.
 */
import type { Clock } from '../lib/clock.ts'

export interface LimitPolicy {
  /** Names the policy in headers and problems. */
  readonly name: string
  readonly quota: number
  readonly windowMs: number
}

export type LimitDecision =
  | { readonly ok: true; readonly left: number; readonly resetMs: number }
  | { readonly ok: false; readonly left: 0; readonly resetMs: number }

/** A key costs about 100 bytes and 8 per taken slot: with 600 slots at most 500 MB, typically 20 MB. */
const keysMax = 100_000

export interface Limits {
  /** Takes one slot for `key`, or says how long until one is free. */
  take(key: string): LimitDecision
  /** The slot that `key` took last is free again: nothing came of it. */
  giveBack(key: string): void
  readonly policy: LimitPolicy
  readonly keys: number
}

export function createLimits(deps: { readonly clock: Clock }, policy: LimitPolicy): Limits {
  const { clock } = deps
  /** Times taken, oldest first; the map's order is by last use. */
  const taken = new Map<string, number[]>()

  return {
    policy,
    get keys() {
      return taken.size
    },
    take(key) {
      const now = clock.tick()
      const times = taken.get(key) ?? []
      const firstInside = times.findIndex((at) => at > now - policy.windowMs)
      times.splice(0, firstInside === -1 ? times.length : firstInside)

      taken.delete(key)
      taken.set(key, times)
      if (taken.size > keysMax) {
        const oldest = taken.keys().next()
        if (!oldest.done) taken.delete(oldest.value)
      }

      const isFree = times.length < policy.quota
      if (isFree) times.push(now)
      const resetMs = policy.windowMs - (now - (times[0] ?? now))
      return isFree
        ? { ok: true, left: policy.quota - times.length, resetMs }
        : { ok: false, left: 0, resetMs }
    },
    giveBack(key) {
      taken.get(key)?.pop()
    },
  }
}
