/** What accounts are given, checked, and what they show of themselves. All that is wrong is told at once. */
import { Fault, type FieldProblem } from '../fault.ts'
import { canonicalEmail } from './email.ts'
import { canonicalPassword, passwordLength } from './passwords.ts'
import type { Account } from './users.ts'

/** As clients see it. */
export interface AccountView {
  readonly id: string
  readonly email: string
  readonly role: string | null
  readonly isVerified: boolean
  /** ISO 8601. */
  readonly createdAt: string
}

/** As operators see it. */
export interface AccountEntry extends AccountView {
  readonly isDisabled: boolean
}

export function viewOf({ id, email, role, verifiedMs, createdMs }: Account): AccountView {
  return {
    ...{ id, email, role: role ?? null, isVerified: verifiedMs !== undefined },
    createdAt: new Date(createdMs).toISOString(),
  }
}

export function entryOf(account: Account): AccountEntry {
  return { ...viewOf(account), isDisabled: account.disabledMs !== undefined }
}

const rolePattern = /^[\w:.-]{1,64}$/
const emailProblem = { field: 'email', message: 'must be an e-mail address' }
const lengthText = `must have ${passwordLength.least} to ${passwordLength.most} characters`

/** Faults: `invalid`, with all that is wrong. */
export function checked(givenEmail: string, givenPassword: string) {
  const email = canonicalEmail(givenEmail)
  const password = canonicalPassword(givenPassword)
  if (email !== undefined && password !== undefined) return { email, password }
  throw invalids([
    ...(email === undefined ? [emailProblem] : []),
    ...(password === undefined ? [{ field: 'password', message: lengthText }] : []),
  ])
}

export function checkedEmail(given: string): string {
  const email = canonicalEmail(given)
  if (email !== undefined) return email
  throw invalids([emailProblem])
}

export function checkedPassword(field: string, given: string): string {
  const password = canonicalPassword(given)
  if (password !== undefined) return password
  throw invalid(field, lengthText)
}

export function checkedRole(role: string | undefined): string | undefined {
  if (role === undefined || rolePattern.test(role)) return role
  throw invalid('role', 'must be 1 to 64 letters, digits, _ - . and :')
}

export function invalid(field: string, message: string): Fault {
  return invalids([{ field, message }])
}

function invalids(fields: readonly FieldProblem[]): Fault {
  return new Fault('invalid', 'the request is not valid', { fields })
}

export function overFault(): Fault {
  return new Fault('invalid', 'the token is not valid any more', {
    fields: [{ field: 'token', message: 'was used, is too old, or never was one' }],
  })
}

export function takenOr(thrown: unknown): unknown {
  if (!(thrown instanceof Fault) || thrown.code !== 'conflict') return thrown
  return new Fault('conflict', 'there is an account of this address', {
    fields: [{ field: 'email', message: 'is taken' }],
  })
}
