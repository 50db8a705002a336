/**
 * Whoever shows credentials that are refused too often is not looked at for a while, so that a flood of forged tokens
 * costs no signatures. By address, and by one count for all doors and sockets. What is genuine and merely over does
 * not count: a house full of clients that come back with tokens of yesterday is no attack.
 */
import type { Clock } from '../lib/clock.ts'
import type { Ask, LimitPolicy, LimitsDecision } from './policy.ts'

export interface Credentials {
  /** Somebody may be refused. Otherwise nobody need pay for the question. `now`: the clock's tick. */
  isOnGuard(now: number): boolean
  /** What comes from there is not to be looked at. */
  blocked(address: string): LimitsDecision | undefined
  /** What came from there was refused. Not `ok`: once too often. */
  refused(address: string): LimitsDecision | Promise<LimitsDecision>
}

export interface CredentialsDeps {
  readonly clock: Clock
  readonly limiter: {
    take(asks: readonly Ask[]): LimitsDecision | Promise<LimitsDecision>
    blocked(asks: readonly Ask[]): LimitsDecision | undefined
  }
}

/** A browser that keeps an old token tries it a few times a minute; a guesser does not stop at that. */
const policyDefault: LimitPolicy = { name: 'credentials', quota: 60, windowMs: 60_000 }

export function createCredentials(
  { clock, limiter }: CredentialsDeps,
  policy: LimitPolicy = policyDefault,
): Credentials {
  let guardedUntil = 0
  const asksOf = (address: string): readonly Ask[] => [{ policy, key: `address:${address}` }]
  const noted = (decision: LimitsDecision): LimitsDecision => {
    if (decision.ok) return decision
    const resetMs = Math.max(...decision.verdicts.map((verdict) => verdict.resetMs))
    guardedUntil = Math.max(guardedUntil, clock.tick() + resetMs)
    return decision
  }

  return {
    isOnGuard: (now) => now < guardedUntil,
    blocked: (address) => limiter.blocked(asksOf(address)),
    refused(address) {
      const decision = limiter.take(asksOf(address))
      return decision instanceof Promise ? decision.then(noted) : noted(decision)
    },
  }
}
