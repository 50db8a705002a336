/**
 * From values to positions between 0 (low) and 1 (high), with the marks to draw. A price may lie
 * anywhere from -1,000 to 17,500 while most are near 60: a wide range is drawn on a scale that is linear
 * around zero and logarithmic beyond, and says so.
 */

export interface Scale {
  readonly kind: 'linear' | 'logarithmic'
  readonly low: number
  readonly high: number
  readonly marks: readonly number[]
  readonly toUnit: (value: number) => number
}

/** A day that spans more than this would press its usual prices into one flat line. */
const linearSpanMax = 1_500

/** Where the logarithmic scale stops being linear, AUD/MWh. */
const bend = 50

const logarithmicMarks = [-1_000, -300, -100, 0, 100, 300, 1_000, 3_000, 10_000, 20_000] as const

export function priceScale(values: readonly number[]): Scale {
  const [low, high] = extent(values, 0, 100)
  if (high - low <= linearSpanMax) return linearScale([low, high, 0], 5)
  const from = logarithmicMarks.findLast((mark) => mark <= low) ?? low
  const to = logarithmicMarks.find((mark) => mark >= high) ?? high
  const bottom = Math.asinh(from / bend)
  const top = Math.asinh(to / bend)
  return {
    kind: 'logarithmic',
    low: from,
    high: to,
    marks: logarithmicMarks.filter((mark) => mark >= from && mark <= to),
    toUnit: (value) => (Math.asinh(value / bend) - bottom) / (top - bottom),
  }
}

/** For a line without axis: the same choice of scale, filling the height, with no room for marks. */
export function sparkScale(values: readonly number[]): Scale {
  const [low, high] = extent(values, 0, 1)
  if (high - low > linearSpanMax) return priceScale(values)
  const span = high - low
  // A day at one price is a line in the middle.
  const toUnit = (value: number): number => (span === 0 ? 0.5 : (value - low) / span)
  return { kind: 'linear', low, high, marks: [], toUnit }
}

/** Ends on round numbers; about `count` steps. */
export function linearScale(values: readonly number[], count: number): Scale {
  const [low, high] = extent(values, 0, 1)
  const step = roundStep((high - low || Math.abs(high) || 1) / count)
  const from = Math.floor(low / step)
  const to = Math.max(from + 1, Math.ceil(high / step))
  const marks = Array.from({ length: to - from + 1 }, (_, index) => tidy((from + index) * step))
  const bottom = from * step
  const span = (to - from) * step
  return {
    kind: 'linear',
    low: tidy(bottom),
    high: tidy(to * step),
    marks,
    toUnit: (value) => (value - bottom) / span,
  }
}

const minuteMs = 60_000
const timeSteps = [5, 15, 30, 60, 120, 180, 240, 360, 720, 1_440].map((step) => step * minuteMs)

/** Whole market hours (or quarters) between two times, at most `count` of them. */
export function timeMarks(fromMs: number, toMs: number, count: number): number[] {
  const step =
    timeSteps.find((one) => (toMs - fromMs) / one <= count) ?? timeSteps[timeSteps.length - 1] ?? 1
  const offset = 10 * 60 * minuteMs
  const first = Math.ceil((fromMs + offset) / step) * step - offset
  const marks: number[] = []
  for (let at = first; at <= toMs; at += step) marks.push(at)
  return marks
}

function extent(values: readonly number[], low: number, high: number): [number, number] {
  if (values.length === 0) return [low, high]
  let least = Infinity
  let most = -Infinity
  for (const value of values) {
    if (value < least) least = value
    if (value > most) most = value
  }
  return [least, most]
}

/** The next of 1, 2, 5, 10 … */
function roundStep(size: number): number {
  const power = 10 ** Math.floor(Math.log10(size))
  const factor = [1, 2, 5, 10].find((one) => size <= one * power * (1 + 1e-9)) ?? 10
  return factor * power
}

/** 0.30000000000000004 is 0.3. */
const tidy = (value: number): number => Number(value.toPrecision(12))
