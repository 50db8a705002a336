/**
 * How long to wait before trying again: decorrelated jitter. Each wait is anything from the least to three times the
 * last one, so that those who failed together do not come back together.
 */
export interface Backoff {
  /** Ms until the next try. */
  next(): number
  /** It worked: begins again with the least. */
  reset(): void
}

export interface BackoffOptions {
  readonly leastMs: number
  readonly mostMs: number
  /** 0 to 1; tests pin it. */
  readonly random?: (() => number) | undefined
}

export function createBackoff({ leastMs, mostMs, random = Math.random }: BackoffOptions): Backoff {
  let lastMs = leastMs
  return {
    next() {
      lastMs = Math.min(mostMs, leastMs + random() * (lastMs * 3 - leastMs))
      return lastMs
    },
    reset: () => void (lastMs = leastMs),
  }
}
