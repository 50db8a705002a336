/** Declared accounts, checked. */
import { accountLimits, type AccountsPlan, type CheckClaims } from '../auth/auth.ts'
import type { AccountsOptions, AuthOptions } from '../auth/declare.ts'
import type { NamedPolicies } from '../limits/limits.ts'
import { checkOptions, type Report } from './report.ts'

const known = { served: ['send', 'verify', 'signUp'], notYet: [] }

/** Of an account that was just made. */
const leastClaims = { sub: 'id', sid: 'session', email_verified: false }

/** `auth` that is no object is reported with its claims. */
export function compileAccounts(
  auth: AuthOptions | undefined,
  { named, claims }: { readonly named: NamedPolicies; readonly claims: CheckClaims | undefined },
  report: Report,
): AccountsPlan | undefined {
  const accounts: unknown = auth?.accounts ?? false
  if (accounts === false) return undefined
  if (accounts !== true && !isObject(accounts)) {
    report('auth.accounts', 'must be true or { send, verify, signUp }, each of them optional')
    return undefined
  }
  const options = accounts === true ? {} : accounts
  checkOptions('auth.accounts.', options, known, report)
  const { send, verify = false, signUp = true } = options
  if (send !== undefined && typeof send !== 'function') {
    report('auth.accounts.send', 'must be a function of a message')
  }
  for (const [name, value] of Object.entries({ verify, signUp })) {
    if (typeof value !== 'boolean') report(`auth.accounts.${name}`, 'must be true or false')
  }
  if (verify === true && send === undefined) {
    report('auth.accounts.verify', 'needs send: nobody could verify an address')
  }
  const problem = claims?.(leastClaims)
  if (problem !== undefined) {
    report('auth.claims', `accounts say sid, email_verified and perhaps role: ${problem}`)
  }
  const { login, signUp: signUps, mail } = accountLimits
  return {
    send: send as AccountsOptions['send'],
    mustVerify: verify === true,
    isOpen: signUp === true,
    limits: {
      login: named.get(login.name) ?? login,
      signUp: named.get(signUps.name) ?? signUps,
      mail: named.get(mail.name) ?? mail,
    },
  }
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
