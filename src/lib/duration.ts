/** Durations as people write them in an app file: `250ms`, `60s`, `5m`, `1h`, `7d`. */

const unitMs = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const

/** Longer than this is a typing mistake; it also keeps sums far below 2^53. */
const durationMsMax = 366 * unitMs.d

export type Duration = `${number}${keyof typeof unitMs}`

/** Milliseconds, or undefined when the text is not a positive duration of at most 366 days. */
export function parseDurationMs(text: unknown): number | undefined {
  if (typeof text !== 'string') return undefined
  const match = /^(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h|d)$/.exec(text)
  if (!match) return undefined
  const ms = Number(match[1]) * unitMs[match[2] as keyof typeof unitMs]
  return ms > 0 && ms <= durationMsMax ? ms : undefined
}
