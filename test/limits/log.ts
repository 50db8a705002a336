/** The brute-force log that limits are held against. */

/** The most that any half-open window of that length holds. `times`: when something was let through. */
export function mostInAnyWindow(times: readonly number[], windowMs: number): number {
  const sorted = times.toSorted((a, b) => a - b)
  let most = 0
  let from = 0
  for (const [at, time] of sorted.entries()) {
    while (time - (sorted[from] ?? 0) >= windowMs) from++
    most = Math.max(most, at - from + 1)
  }
  return most
}
