/** Declared accounts, checked. */
import { accountLimits, type AccountsPlan } from '../auth/auth.ts'
import type { AccountsOptions } from '../auth/declare.ts'
import type { NamedPolicies } from '../limits/limits.ts'
import { checkOptions, type Report } from './report.ts'

const known = { served: ['accounts'], notYet: [] }
const knownOfAccounts = { served: ['send', 'verify', 'signUp'], notYet: [] }

export function compileAccounts(
  declared: unknown,
  named: NamedPolicies,
  report: Report,
): AccountsPlan | undefined {
  if (declared === undefined) return undefined
  if (!isObject(declared)) {
    report('auth', 'must be { accounts: true }, or { accounts: { … } }')
    return undefined
  }
  checkOptions('auth.', declared, known, report)
  const { accounts = false } = declared
  if (accounts === false) return undefined
  if (accounts !== true && !isObject(accounts)) {
    report('auth.accounts', 'must be true or { send, verify, signUp }, each of them optional')
    return undefined
  }
  const options = accounts === true ? {} : accounts
  checkOptions('auth.accounts.', options, knownOfAccounts, report)
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
