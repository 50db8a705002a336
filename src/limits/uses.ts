/** What an app file says of limits, as policies. */
import { parseRate } from '../lib/rate.ts'
import type { LimitUse, RateLimit } from './declare.ts'
import type { LimitPolicy } from './policy.ts'

export type NamedPolicies = ReadonlyMap<string, LimitPolicy>

/** Its name in headers, keys and metrics. */
export const policyNamePattern = /^[a-z][a-z0-9-]{0,29}$/

/** Policies of one request. */
const usesMax = 4

/** The policy that a rate is, by `name`; or what is wrong with it. */
export function policyOf(name: string, declared: unknown): LimitPolicy | string {
  const options: Partial<RateLimit> | undefined =
    typeof declared === 'string'
      ? { rate: declared as RateLimit['rate'] }
      : typeof declared === 'object' && declared !== null
        ? declared
        : undefined
  if (!options) return noRate(declared)
  const { rate, shadow = false, by, ...rest } = options
  const [unknown] = Object.keys(rest)
  if (unknown !== undefined) return `${unknown} is no option of a limit (rate, shadow, by)`
  if (typeof shadow !== 'boolean') return 'shadow must be true or false'
  if (by !== undefined && by !== 'address') return "by must be 'address', or absent"
  const parsed = parseRate(rate)
  if (!parsed) return noRate(rate)
  return { name, ...parsed, ...(shadow ? { isShadow: true } : {}), ...(by ? { by } : {}) }
}

/**
 * What `use` names, or what is wrong with it. A rate of its own is named by `place`, a path or the like.
 */
export function policiesOf(
  named: NamedPolicies,
  use: LimitUse,
  place: string,
): readonly LimitPolicy[] | string {
  const uses: readonly unknown[] = Array.isArray(use) ? use : [use]
  if (uses.length === 0) return 'limits nothing: leave it out, or give it a name or a rate'
  if (uses.length > usesMax) return `has more than ${usesMax} limits`
  const policies: LimitPolicy[] = []
  for (const one of uses) {
    const known = typeof one === 'string' ? named.get(one) : undefined
    const policy = known ?? policyOf(nameOf(place, policies.length), one)
    if (typeof policy === 'string') {
      const isName = typeof one === 'string' && policyNamePattern.test(one)
      return isName
        ? `${one} is none of the app's limits (${[...named.keys()].join(', ')})`
        : policy
    }
    if (policies.some(({ name }) => name === policy.name)) return `has ${policy.name} twice`
    policies.push(policy)
  }
  return policies
}

/** As a header may hold it. */
function nameOf(place: string, index: number): string {
  const name = place.replaceAll(/[^a-zA-Z0-9/.:_-]+/g, '-')
  return index === 0 ? name : `${name}-${index + 1}`
}

function noRate(text: unknown): string {
  return `${JSON.stringify(text)} is no rate like 5/10s, 100/min`
}
