/**
 * A token is verified once and then recognised by its hash: 0.7 µs instead of 53 to 98 µs.
 *
 *   token ─ SHA-256 of ALL of it ─► good?  ─ same configuration and keys, exp and nbf again, not revoked ─► identity
 *                                ─► bad?   ─ the same ─► the refusal it got
 *                                ─► being verified? ─ join
 *                                ─► verify, keep min(exp, 5 min)
 *
 * Only the whole token is a safe key (CVE-2026-35030 and -35039 were keys of parts of it), and only together with
 * what it was verified against (the verifier's `version`; within the hash it would cost a third more). Bad tokens
 * live in a small cache of their own: garbage cannot push out the good.
 */
import { LRUCache } from 'lru-cache'
import { Fault } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import type { Revocations } from './revocations.ts'
import { isCanonical, neither, tokenLengthMax, type Verified, type Verifier } from './token.ts'

/** About 500 bytes each. */
const goodMax = 50_000
const badMax = 2_000

/** So long a verdict is kept at most: the bound on what a change of keys takes to be noticed. */
const keepMs = 5 * 60_000

/** A refusal is kept shortly: the issuer may publish a key. */
const keepRefusalMs = 10_000

/** When the wall clock is set back further, what was verified since is verified again. */
const setBackMsMax = 60_000

/** Each holds a token of up to 8 KB, for as long as its issuer's keys take. */
const verifyingMax = 10_000

interface Kept {
  readonly verified: Verified
  /** Of the verifier. */
  readonly version: string
  readonly fromMs: number
  readonly untilMs: number
  /** Of the revocations when it was last looked for among them. */
  revision: number
}

interface Unknown {
  readonly token: string
  readonly version: string
  readonly from: () => string
}

const nowhere = (): string => ''

interface Verifying {
  readonly version: string
  readonly outcome: Promise<Verified>
}

export interface TokenCache {
  /** Synchronous when known: a hot request makes no promise. `from`: the address. Faults: `unavailable`, `overloaded`. */
  verify(token: string, from?: () => string): Verified | Promise<Verified>
  readonly verifications: number
}

export interface TokenCacheDeps {
  readonly clock: Clock
  /** What is said to a token that is not even spelled as one. */
  readonly malformed: Verified
  readonly revocations: Pick<Revocations, 'revision' | 'has'>
  /** Called with each token that is found good. */
  readonly seen?: (verified: Verified) => void
}

const revoked = neither('the token was revoked')

export function createTokenCache(
  deps: TokenCacheDeps,
  verifier: Pick<Verifier, 'version' | 'verify'>,
): TokenCache {
  const { clock, malformed, revocations, seen } = deps
  const good = new LRUCache<string, Kept>({ max: goodMax })
  const bad = new LRUCache<string, Kept>({ max: badMax })
  const verifying = new Map<string, Verifying>()
  let verifications = 0

  const isRevoked = ({ marks }: Verified): boolean => marks !== undefined && revocations.has(marks)

  const keepBad = (key: string, kept: Kept): Verified => {
    bad.set(key, kept)
    return kept.verified
  }

  const verifyNow = async (key: string, { token, version, from }: Unknown): Promise<Verified> => {
    try {
      verifications++
      const now = clock.now()
      const verified = await verifier.verify(token, now, from)
      // What keys were looked for meanwhile is in its own version: the next one verifies again.
      if (!isGood(verified)) return keepBad(key, keptOf(verified, version, now))
      // Looked for now, not when it began: it may have been revoked meanwhile.
      if (isRevoked(verified)) return keepBad(key, keptOf(revoked, version, now))
      good.set(key, { ...keptOf(verified, version, now), revision: revocations.revision })
      seen?.(verified)
      return verified
    } finally {
      // Another one may have begun, with other keys.
      if (verifying.get(key)?.version === version) verifying.delete(key)
    }
  }

  /** Undefined: to be verified. */
  const known = (key: string, version: string): Verified | undefined => {
    const now = clock.now()
    const one = good.get(key)
    if (one && isCurrent(one, version, now)) {
      if (one.revision === revocations.revision) return one.verified
      if (isRevoked(one.verified)) {
        good.delete(key)
        return keepBad(key, keptOf(revoked, version, now))
      }
      one.revision = revocations.revision
      return one.verified
    }
    const other = bad.get(key)
    return other && isCurrent(other, version, now) ? other.verified : undefined
  }

  return {
    verify(token, from = nowhere) {
      if (token.length > tokenLengthMax) return malformed
      const { version } = verifier
      const key = Bun.SHA256.hash(token, 'base64')
      const kept = known(key, version)
      if (kept) return kept
      const pending = verifying.get(key)
      if (pending?.version === version) return pending.outcome
      // Not even kept: there are more misspellings than room.
      if (!isCanonical(token)) return malformed
      if (verifying.size >= verifyingMax) {
        return Promise.reject(
          new Fault('overloaded', 'too many tokens are being verified', { retryAfterMs: 1_000 }),
        )
      }
      const outcome = verifyNow(key, { token, version, from })
      verifying.set(key, { version, outcome })
      return outcome
    },
    get verifications() {
      return verifications
    },
  }
}

function isCurrent(kept: Kept, version: string, now: number): boolean {
  return now < kept.untilMs && now >= kept.fromMs && kept.version === version
}

/** `exp` bounds what is kept of a good token, whatever else its claims are (fast-jwt asked `iat` first). */
function keptOf(verified: Verified, version: string, now: number): Kept {
  const { expiresAtMs = Infinity, notBeforeMs = -Infinity } = verified
  if (isGood(verified)) {
    const fromMs = Math.max(notBeforeMs, now - setBackMsMax)
    return { verified, version, fromMs, untilMs: Math.min(now + keepMs, expiresAtMs), revision: 0 }
  }
  // One that is not valid yet is looked at again when it is.
  const untilMs =
    notBeforeMs > now ? Math.min(now + keepRefusalMs, notBeforeMs) : now + keepRefusalMs
  return { verified, version, fromMs: now - setBackMsMax, untilMs, revision: 0 }
}

/** For the server or for a topic. */
function isGood({ verdict, topic }: Verified): boolean {
  return verdict.ok || topic.ok
}
