/** What an app declares of its users' tokens, compiled to a check that the verifier makes. */
import type { CheckClaims } from '../auth/auth.ts'
import type { AuthOptions } from '../auth/declare.ts'
import { problemsOf, validatorOf } from './message.ts'
import { checkOptions, type Report } from './report.ts'

const known = { served: ['claims', 'accounts'], notYet: [] }

/** `user.id` is the token's `sub`. */
const ownNames = ['id', 'sub']

export function compileClaims(
  auth: AuthOptions | undefined,
  report: Report,
): CheckClaims | undefined {
  if (auth === undefined) return undefined
  if (typeof auth !== 'object' || auth === null) {
    report('auth', 'must be { claims, accounts }, each of them optional')
    return undefined
  }
  checkOptions('auth.', auth, known, report)
  const { claims } = auth
  if (claims === undefined) return undefined
  const at = 'auth.claims'
  const validator = validatorOf(claims, at, report, true)
  if (!validator) return undefined
  const { type, properties, additionalProperties } = claims
  if (type !== 'object') report(at, 'must be a t.Object: claims have names')
  for (const name of ownNames) {
    if (name in ((properties ?? {}) as object)) report(`${at}.${name}`, 'is user.id, a text')
  }
  if (additionalProperties === false) report(at, 'must let other claims be: every token has some')
  if (validator.hasTransform) report(at, 'must not convert: a claim is what the token says')
  return (given) => {
    if (validator.Check(given)) return undefined
    const [first] = problemsOf(validator.Errors(given), '')
    return `the token's claim ${first?.field ?? ''} does not fit: ${first?.message ?? ''}`
  }
}
