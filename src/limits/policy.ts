/** What is asked of a limit, and what it says. */

export interface LimitPolicy {
  /** Names the policy in headers, problems and metrics. */
  readonly name: string
  readonly quota: number
  readonly windowMs: number
  /** Counts, and refuses nobody. */
  readonly isShadow?: boolean | undefined
  /** Whom it counts. Absent: the user or the key, and the address of whoever has neither. */
  readonly by?: 'address' | undefined
}

export interface Ask {
  readonly policy: LimitPolicy
  /** Who is counted: `user:ann`, `address:192.0.2.7`. */
  readonly key: string
}

export interface Verdict {
  readonly policy: LimitPolicy
  readonly ok: boolean
  /** After this one. */
  readonly left: number
  /** Until more is free than now. */
  readonly resetMs: number
}

export interface LimitsDecision {
  /** Nothing was taken otherwise. Shadows have no say in it. */
  readonly ok: boolean
  /** Of a refusal, perhaps only of those that refused. */
  readonly verdicts: readonly Verdict[]
}

/** Longer ones are of a token's making: they count by their hash. */
const keyLengthMax = 128

/** Apart by what they allow: a policy of the same name and another rate begins anew. */
export function slotKey({ policy, key }: Ask): string {
  const short = key.length <= keyLengthMax ? key : hashOf(key)
  return `${policy.name}:${policy.quota}/${policy.windowMs}:${short}`
}

function hashOf(text: string): string {
  return new Bun.CryptoHasher('sha256').update(text).digest('base64url')
}
