/** The last day of a token, as a line from candle to candle to now. */
export interface Point {
  /** Ms since 1970. */
  readonly at: number
  readonly price: number
}

/** As the page's SVG has it. */
const size = { width: 600, height: 260, margin: 12 } as const

export interface Line {
  readonly line: string
  readonly area: string
  readonly low: number
  readonly high: number
}

/** Paths through the points, oldest first; undefined for fewer than two. */
export function lineOf(points: readonly Point[]): Line | undefined {
  const [first] = points
  const last = points.at(-1)
  if (!first || !last || last.at <= first.at) return undefined
  let low = Infinity
  let high = -Infinity
  for (const { price } of points) {
    low = Math.min(low, price)
    high = Math.max(high, price)
  }
  // What never moved is drawn in the middle.
  const span = high - low || 1
  const floor = high === low ? low - 0.5 : low
  const x = (at: number): string =>
    (((at - first.at) / (last.at - first.at)) * size.width).toFixed(1)
  const y = (price: number): string => {
    const height = size.height - 2 * size.margin
    return (size.margin + height * (1 - (price - floor) / span)).toFixed(1)
  }
  const line = `M${points.map(({ at, price }) => `${x(at)},${y(price)}`).join('L')}`
  return { line, area: `${line}L${size.width},${size.height}L0,${size.height}Z`, low, high }
}
