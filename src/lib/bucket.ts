/** A token bucket: so many at once after a rest, so many a second in the long run. */
import type { Clock } from './clock.ts'

export interface BucketOptions {
  readonly perSecond: number
  readonly most: number
}

export class Bucket {
  readonly #clock: Pick<Clock, 'tick'>
  readonly #options: BucketOptions
  #left: number
  #filledAt: number

  constructor(clock: Pick<Clock, 'tick'>, options: BucketOptions) {
    this.#clock = clock
    this.#options = options
    this.#left = options.most
    this.#filledAt = clock.tick()
  }

  /** With what has come since the last time: once for whatever is decided in a turn. */
  fill(): void {
    const { perSecond, most } = this.#options
    const now = this.#clock.tick()
    this.#left = Math.min(most, this.#left + ((now - this.#filledAt) * perSecond) / 1_000)
    this.#filledAt = now
  }

  get isEmpty(): boolean {
    return this.#left < 1
  }

  take(): void {
    this.#left -= 1
  }

  giveBack(): void {
    this.#left = Math.min(this.#options.most, this.#left + 1)
  }
}
