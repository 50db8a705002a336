/** `limits.take` of the app's own routes. */
import { Fault } from '../fault.ts'
import type { LimitUse } from '../limits/declare.ts'
import { policiesOf, type Limiter, type NamedPolicies } from '../limits/limits.ts'
import { tooMany } from './gates.ts'

/** Apart from what the gates count by: a key may look like theirs. */
const ownPrefix = 'own:'

export function createTaking(limiter: Limiter, named: NamedPolicies) {
  return async (limit: LimitUse, key: string): Promise<void> => {
    const policies = policiesOf(named, limit, 'own')
    if (typeof policies === 'string') throw new Fault('internal', `limits.take: ${policies}`)
    const decision = await limiter.take(
      policies.map((policy) => ({ policy, key: `${ownPrefix}${key}` })),
    )
    if (!decision.ok) throw tooMany(decision)
  }
}
