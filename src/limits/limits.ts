/**
 * Inbound limits: a true sliding window per policy and key.
 *
 *   quota 3 per 60 s      ├─────────── window ───────────┤ now
 *   taken at            · │ ·        ·               ·   │ ?  → 3 taken → refused until the first leaves
 *
 * A fixed window lets twice the quota through around its edge; this one never lets more than the quota into
 * ANY window. Refused requests are not counted: a client that waits gets in.
 *
 * A request asks for all its policies at once, and takes one of each or of none. Whoever is refused is refused
 * again from memory until the reset. Time is monotonic, never the wall clock.
 *
 * With Redis all nodes count in one place (`shared.ts`); without, and while it is away, each by itself (`alone.ts`).
 */
import type { Clock } from '../lib/clock.ts'
import { createAlone } from './alone.ts'
import { createShared, type SharedOptions, type SharedPort } from './shared.ts'
import { slotKey, type Ask, type LimitPolicy, type LimitsDecision } from './policy.ts'
import { Windows, type WindowsOptions } from './windows.ts'

export { createCredentials, type Credentials } from './credentials.ts'
export type { Ask, LimitPolicy, LimitsDecision, Verdict } from './policy.ts'
export { policiesOf, policyNamePattern, policyOf, type NamedPolicies } from './uses.ts'

export type LimitDecision =
  | { readonly ok: true; readonly left: number; readonly resetMs: number }
  | { readonly ok: false; readonly left: 0; readonly resetMs: number }

/** One policy, in this process. */
export interface Limits {
  /** Takes one slot for `key`, or says how long until one is free. */
  take(key: string): LimitDecision
  /** The slot that `key` took last is free again: nothing came of it. */
  giveBack(key: string): void
  readonly policy: LimitPolicy
  readonly keys: number
}

export function createLimits(
  deps: { readonly clock: Clock },
  policy: LimitPolicy,
  options?: WindowsOptions,
): Limits {
  const windows = new Windows(options)
  const alone = createAlone(deps, windows)
  return {
    policy,
    get keys() {
      return windows.keys
    },
    take(key) {
      const asks = [{ policy, key }]
      const { ok, verdicts } = alone.blocked(asks) ?? alone.take(asks)
      const { left = 0, resetMs = 0 } = verdicts[0] ?? {}
      return ok ? { ok, left, resetMs } : { ok, left: 0, resetMs }
    },
    giveBack: (key) => windows.takeBack(slotKey({ policy, key })),
  }
}

export interface LimiterStats {
  /** By policy. */
  readonly taken: ReadonlyMap<string, number>
  /** By policy; a shadow's would have been. */
  readonly refused: ReadonlyMap<string, number>
  readonly keys: number
  /** Decisions made here because the shared counter was away. */
  readonly alone: number
}

/** All policies of the server. */
export interface Limiter {
  /** One of each, or of none. A promise only where a shared counter is asked. */
  take(asks: readonly Ask[]): LimitsDecision | Promise<LimitsDecision>
  /** That they would be refused, if it is known without asking anybody. */
  blocked(asks: readonly Ask[]): LimitsDecision | undefined
  /** What a take would be told, as far as this process knows; nothing is taken, and it counts as no refusal. */
  look(asks: readonly Ask[]): LimitsDecision
  stats(): LimiterStats
}

export interface LimiterDeps {
  readonly clock: Clock
  readonly shared?: SharedPort | undefined
}

export function createLimiter(
  { clock, shared }: LimiterDeps,
  options: WindowsOptions & Partial<SharedOptions> = {},
): Limiter {
  const { namespace = 'belfry' } = options
  const windows = new Windows(options)
  const alone = createAlone({ clock }, windows)
  const asking =
    shared && createShared({ clock, windows, alone, shared }, { ...options, namespace })
  const taken = new Map<string, number>()
  const refused = new Map<string, number>()
  let decidedAlone = 0

  const noted = (decision: LimitsDecision): LimitsDecision => {
    for (const { policy, ok } of decision.verdicts) {
      // Of a refused request only who refused it: nothing was asked of the others.
      if (!decision.ok && (ok || policy.isShadow === true)) continue
      const counts = ok ? taken : refused
      counts.set(policy.name, (counts.get(policy.name) ?? 0) + 1)
    }
    return decision
  }

  return {
    take(asks) {
      const known = alone.blocked(asks)
      if (known) return noted(known)
      if (!asking) return noted(alone.take(asks))
      if (!shared.isUp) {
        decidedAlone++
        return noted(alone.take(asks))
      }
      return asking(asks).then(({ decision, isAlone }) => {
        if (isAlone) decidedAlone++
        return noted(decision)
      })
    },
    blocked(asks) {
      const decision = alone.blocked(asks)
      return decision && noted(decision)
    },
    look: (asks) => alone.look(asks),
    stats: () => ({ taken, refused, keys: windows.keys, alone: decidedAlone }),
  }
}
