/**
 * The one error class. Decisions are returned as unions, failures are thrown as `Fault`, bugs are
 * asserted (lib/assert.ts). A fault's message may be shown to the caller; whatever is not a Fault
 * becomes `internal` at a door, is logged with the request id, and is never shown.
 */

/** Closed table: what happened, whether trying again may help, and how loud the log is. */
export const faultCodes = {
  invalid: { meaning: 'the request is malformed', retryable: false, level: 'debug' },
  unauthenticated: { meaning: 'who asks is not known', retryable: false, level: 'debug' },
  denied: { meaning: 'a rule says no', retryable: false, level: 'debug' },
  not_found: { meaning: 'there is no such thing', retryable: false, level: 'debug' },
  not_allowed: { meaning: 'this is not done to this thing', retryable: false, level: 'debug' },
  conflict: { meaning: 'it clashes with what is stored', retryable: false, level: 'debug' },
  precondition: { meaning: 'it is not as the request expects', retryable: false, level: 'debug' },
  reused: { meaning: 'a key was used for another request', retryable: false, level: 'debug' },
  too_large: { meaning: 'a size limit is exceeded', retryable: false, level: 'debug' },
  too_many: { meaning: 'a rate or a count limit is exceeded', retryable: true, level: 'debug' },
  unavailable: { meaning: 'something needed is down or full', retryable: true, level: 'warn' },
  overloaded: {
    meaning: 'more is asked than can be done',
    retryable: true,
    level: 'debug',
  },
  timeout: { meaning: 'something needed took too long', retryable: true, level: 'warn' },
  internal: { meaning: 'a bug or an unknown failure', retryable: false, level: 'error' },
} as const

export type FaultCode = keyof typeof faultCodes

/** One thing wrong with one named field of the input. */
export interface FieldProblem {
  readonly field: string
  readonly message: string
}

export interface FaultDetails {
  /** Every wrong field at once, so that a caller mends them in one go. */
  readonly fields?: readonly FieldProblem[] | undefined
  readonly retryAfterMs?: number | undefined
  /** For the operator: what to do about it. Logged and printed by the CLI, never sent. */
  readonly hint?: string | undefined
  readonly cause?: unknown
}

export class Fault extends Error {
  override readonly name = 'Fault'
  readonly code: FaultCode
  readonly fields: readonly FieldProblem[] | undefined
  readonly retryAfterMs: number | undefined
  readonly hint: string | undefined

  /** `message`: lower case, no full stop, names the thing. */
  constructor(code: FaultCode, message: string, details: FaultDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    this.code = code
    this.fields = details.fields
    this.retryAfterMs = details.retryAfterMs
    this.hint = details.hint
  }
}

/** What is safe to show of anything that was thrown. */
export function toFault(thrown: unknown): Fault {
  const fault = unwrapped(thrown)
  if (fault instanceof Fault) return fault
  return new Fault('internal', 'internal error', { cause: thrown })
}

/** Drizzle wraps what a query failed with; ours is what the caller is to know. */
export function unwrapped(thrown: unknown): unknown {
  const isWrapped =
    thrown instanceof Error && !(thrown instanceof Fault) && thrown.cause instanceof Fault
  return isWrapped ? thrown.cause : thrown
}
