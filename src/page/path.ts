/** Series → shapes. A price holds for its whole interval, so it is drawn in steps. */
import type { Point } from './wire.ts'

const intervalMs = 5 * 60_000

/** Two missing intervals are drawn through; more is a hole that the line must not cross. */
const gapMs = 3 * intervalMs

/** Runs of points without a hole. */
export function segments<P extends Pick<Point, 'at'>>(series: readonly P[]): P[][] {
  const runs: P[][] = []
  let previous: P | undefined
  for (const point of series) {
    if (previous && point.at - previous.at <= gapMs) runs.at(-1)?.push(point)
    else runs.push([point])
    previous = point
  }
  return runs
}

/** SVG path of steps. `x` and `y` give positions; a point covers the interval that ends at its `at`. */
export function stepPath(
  series: readonly Point[],
  x: (ms: number) => number,
  y: (price: number) => number,
): string {
  return segments(series)
    .map((run) =>
      run
        .map((point, index) => {
          const from = index === 0 ? point.at - intervalMs : (run[index - 1]?.at ?? point.at)
          const level = round(y(point.price))
          return `${index === 0 ? 'M' : 'L'}${round(x(from))} ${level}L${round(x(point.at))} ${level}`
        })
        .join(''),
    )
    .join('')
}

/** The point nearest in time, for a read-out under the finger. */
export function nearest<P extends Pick<Point, 'at'>>(series: readonly P[], ms: number): number {
  let best = -1
  let distance = Infinity
  series.forEach((point, index) => {
    const far = Math.abs(point.at - ms)
    if (far < distance) {
      distance = far
      best = index
    }
  })
  return best
}

const round = (value: number): number => Math.round(value * 100) / 100
