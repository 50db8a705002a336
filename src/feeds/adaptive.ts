/**
 * How often a feed asks, between two bounds: faster while most of what it hears is new and the budget leaves room,
 * slower while next to nothing is. Slowly either way: one still minute does not make a busy market a quiet one.
 */
export interface AdaptivePlan {
  readonly minMs: number
  readonly maxMs: number
}

/** What the asking of one interval came to. */
export interface Heard {
  readonly asked: number
  readonly changed: number
  /** A call had to wait for its turn: to ask faster would only make the queue longer. */
  readonly hasWaited: boolean
}

const faster = 0.75
const slower = 1.25

/** Shares of what was asked that had changed. */
const busyShare = 0.5
const quietShare = 0.1

export function adaptedMs(
  intervalMs: number,
  { minMs, maxMs }: AdaptivePlan,
  { asked, changed, hasWaited }: Heard,
): number {
  if (asked === 0) return intervalMs
  const share = changed / asked
  let ms = intervalMs
  if (share >= busyShare) ms = hasWaited ? intervalMs : intervalMs * faster
  else if (share <= quietShare) ms = intervalMs * slower
  return Math.min(maxMs, Math.max(minMs, ms))
}
