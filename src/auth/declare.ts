/**
 * Who asks, as rules see it. Built from a verified token: `id` is its `sub`, `role` its `role`
 * claim; every other claim is there under its own name, untyped.
 */
export interface User {
  readonly id: string
  readonly role?: string | undefined
  readonly [claim: string]: unknown
}

/** The part of a rule every room shares: open to all, to whoever has a valid token, or a function. */
export type Audience = 'public' | 'signed-in'
