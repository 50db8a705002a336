/**
 * The provider that is as unlucky for us as can be: it knows of each call only when it was sent and when it had ended,
 * and lets it arrive at the worst moment between.
 */

export interface Span {
  readonly sentMs: number
  /** It cannot arrive later. */
  readonly endMs: number
}

/**
 * Most calls that some window of this length, both ends counted, may hold: those that could arrive within it. A call
 * may be moved to any moment of its span, whatever others do, so that is what the worst provider reaches.
 */
export function worstWindow(spans: readonly Span[], windowMs: number): number {
  const starts = spans.map(({ sentMs }) => sentMs).toSorted((a, b) => a - b)
  const ends = spans.map(({ endMs }) => endMs).toSorted((a, b) => a - b)
  let most = 0
  let begun = 0
  for (const [over, endMs] of ends.entries()) {
    // The window that begins when this one has just not ended yet.
    while ((starts[begun] ?? Infinity) <= endMs + windowMs) begun++
    most = Math.max(most, begun - over)
  }
  return most
}
