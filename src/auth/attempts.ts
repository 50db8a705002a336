/**
 * How often somebody may be wrong: failures count, by address and by account, and whoever is beyond the limit is refused
 * before any work is done for him, whatever he knows by then.
 *
 *   attempt ─► in turn with others of its address and of its account ─► room in both windows? ─► the work ─ wrong: take
 *
 * In turn, so that of a thousand tries at once no more are looked at than the limit says: the next begins when what
 * came of the one before has been counted. Each further node may look at one try more (it learns from its refusal).
 */
import { Fault } from '../fault.ts'
import type { Ask, Limiter, LimitPolicy, LimitsDecision } from '../limits/limits.ts'
import { sha256 } from './api-keys.ts'

export interface Attempts {
  /** Runs when those before it, under any of these keys, have ended. Faults: `too_many`. */
  inTurn<T>(keys: readonly string[], run: () => Promise<T>): Promise<T>
  /** Faults: `too_many`, if a failure would be one too many. */
  check(asks: readonly Ask[]): void
  /** One failure. Faults: `too_many`, if it was one too many already. */
  failed(asks: readonly Ask[]): Promise<void>
  /** One of each, wrong or not. Faults: `too_many`. */
  take(asks: readonly Ask[]): Promise<void>
}

/** Tries that wait under one key; with a check of some 50 ms each the last of them waits for seconds. */
const waitingMax = 50
const retryAfterMs = 2_000

export function createAttempts(limiter: Pick<Limiter, 'look' | 'take'>): Attempts {
  const lines = new Map<string, { last: Promise<void>; length: number }>()

  const join = (key: string, turn: Promise<void>): Promise<void> => {
    const line = lines.get(key) ?? { last: Promise.resolve(), length: 0 }
    const { last } = line
    lines.set(key, { last: turn, length: line.length + 1 })
    return last
  }

  const leave = (key: string): void => {
    const line = lines.get(key)
    if (line && line.length > 1) line.length--
    else lines.delete(key)
  }

  const take = async (asks: readonly Ask[]): Promise<void> => {
    const decision = await limiter.take(asks)
    if (!decision.ok) throw tooManyFault(decision)
  }

  return {
    async inTurn(keys, run) {
      const own = [...new Set(keys)]
      if (own.some((key) => (lines.get(key)?.length ?? 0) >= waitingMax)) {
        throw new Fault('too_many', 'too many attempts at once', { retryAfterMs })
      }
      // All lines are joined in one tick, so everybody is before or behind everybody else: nobody waits in a circle.
      const { promise: turn, resolve: end } = Promise.withResolvers<void>()
      const before = own.map((key) => join(key, turn))
      try {
        await Promise.all(before)
        return await run()
      } finally {
        end()
        for (const key of own) leave(key)
      }
    },
    check(asks) {
      const decision = limiter.look(asks)
      if (!decision.ok) throw tooManyFault(decision)
    },
    failed: take,
    take,
  }
}

/** `id` may be somebody's address: counters, in Redis too, have its hash. */
export function askOf(
  policy: LimitPolicy,
  kind: 'address' | 'account' | 'password',
  id: string,
): Ask {
  return { policy, key: `${kind}:${kind === 'address' ? id : sha256(id).toString('base64url')}` }
}

function tooManyFault({ verdicts }: LimitsDecision): Fault {
  const refusing = verdicts.filter(({ ok, policy }) => !ok && policy.isShadow !== true)
  const names = refusing.map(({ policy }) => `${policy.quota} (${policy.name})`)
  const times = refusing.map(({ resetMs }) => resetMs)
  return new Fault('too_many', `more attempts than ${names.join(' and ')}`, {
    retryAfterMs: Math.max(...times),
  })
}
