/**
 * What one key has taken within its window: times, oldest first.
 *
 *   quota ≤ 512   every time by itself: exact
 *   above         takes within a 512th of the window are one run, which leaves as a whole when its LAST one does
 *
 * So no window of any place ever holds more than the quota, whatever it is, in at most 513 runs; the price of a
 * large quota is that a slot comes back up to 0.2 % of the window late. (A GCRA needs two numbers, but one that
 * lets a burst of the quota through lets nearly twice the quota into the window after it.)
 */

/** 4 KB for whoever keeps taking. */
export const runsMax = 512

/** What lies this close together, in ms, is one run. 0: nothing. */
export function grainOf(quota: number, windowMs: number): number {
  return quota <= runsMax ? 0 : windowMs / runsMax
}

export interface Run {
  readonly at: number
  readonly count: number
}

/** Gone times are cut off once they are as many as these, and half of all. */
const cutMin = 32

export class Runs {
  /** Of each run, its last. */
  readonly #times: number[] = []
  /** Of each run. Absent: all are 1. */
  #counts: number[] | undefined
  #head = 0
  #start = -Infinity
  #total = 0

  get total(): number {
    return this.#total
  }

  get length(): number {
    return this.#times.length - this.#head
  }

  get newest(): number | undefined {
    return this.length === 0 ? undefined : this.#times.at(-1)
  }

  /** `at`: not before what was added last. */
  add(at: number, count: number, grainMs: number): void {
    const last = this.#times.length - 1
    this.#total += count
    if (this.length > 0 && at - this.#start < grainMs) {
      this.#times[last] = at
      this.#countsOf()[last] = this.#countAt(last) + count
      return
    }
    this.#start = at
    this.#times.push(at)
    if (count === 1) this.#counts?.push(1)
    else this.#countsOf()[last + 1] = count
  }

  /** One that was added last, again. */
  takeBack(): void {
    if (this.length === 0) return
    const last = this.#times.length - 1
    const left = this.#countAt(last) - 1
    this.#total--
    if (left > 0) {
      this.#countsOf()[last] = left
      return
    }
    this.#times.pop()
    this.#counts?.pop()
    this.#start = -Infinity
  }

  /** Of what was taken then or before. */
  forget(untilMs: number): void {
    const times = this.#times
    while (this.#head < times.length && (times[this.#head] ?? 0) <= untilMs) {
      this.#total -= this.#countAt(this.#head)
      this.#head++
    }
    if (this.#head === times.length || (this.#head >= cutMin && this.#head * 2 > times.length)) {
      times.splice(0, this.#head)
      this.#counts?.splice(0, this.#head)
      this.#head = 0
    }
  }

  /** When so many of them were taken: they have left one window later. */
  takenBy(count: number): number {
    let left = count
    let at = this.#head
    for (; at < this.#times.length - 1; at++) {
      left -= this.#countAt(at)
      if (left <= 0) break
    }
    return this.#times[at] ?? -Infinity
  }

  /** Those since `fromMs`, as at most `max` runs: what is put together counts as its last. */
  since(fromMs: number, max: number): Run[] {
    const from = this.#times.findIndex((at, index) => index >= this.#head && at >= fromMs)
    if (from === -1) return []
    const size = Math.ceil((this.#times.length - from) / max)
    const runs: Run[] = []
    for (let start = from; start < this.#times.length; start += size) {
      const end = Math.min(start + size, this.#times.length)
      let count = 0
      for (let index = start; index < end; index++) count += this.#countAt(index)
      runs.push({ at: this.#times[end - 1] ?? 0, count })
    }
    return runs
  }

  #countAt(index: number): number {
    return this.#counts?.[index] ?? 1
  }

  #countsOf(): number[] {
    this.#counts ??= this.#times.map(() => 1)
    return this.#counts
  }
}
