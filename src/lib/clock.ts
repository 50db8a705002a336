/**
 * The only home of time. Rooms take a `Clock` and so can be tested without waiting
 * (`test/clock.ts` is the twin that moves by hand).
 */
export interface Clock {
  /** Wall clock, ms since 1970. May jump; use it for what leaves the process. */
  now(): number
  /** Monotonic ms with fractions; use it for durations. */
  tick(): number
  /** Calls once after `ms`. The result cancels. Never keeps the process alive. */
  after(ms: number, run: () => void): Cancel
  /** Calls each `ms` (at most 24 days). The result cancels. Never keeps the process alive. */
  every(ms: number, run: () => void): Cancel
  /** Calls once this turn of the event loop is over: what one turn produced can leave together. */
  soon(run: () => void): void
}

export type Cancel = () => void

/** A timer counts in 32 bits; a longer wait, 25 days, would be over at once. */
const timerMsMax = 2 ** 31 - 1

export const systemClock: Clock = {
  now: Date.now,
  tick: () => performance.now(),
  after(ms, run) {
    let timer: ReturnType<typeof setTimeout> | undefined
    const wait = (leftMs: number): void => {
      const stepMs = Math.min(leftMs, timerMsMax)
      timer = setTimeout(() => (leftMs > stepMs ? wait(leftMs - stepMs) : run()), stepMs)
      timer.unref()
    }
    wait(ms)
    return () => clearTimeout(timer)
  },
  every(ms, run) {
    const timer = setInterval(run, ms)
    timer.unref()
    return () => clearInterval(timer)
  },
  soon(run) {
    setImmediate(run)
  },
}

/** Waits, and keeps the process alive meanwhile: for the command line, which has nothing else to live for. */
export async function wait(ms: number): Promise<void> {
  await new Promise<void>((resolve) => void setTimeout(resolve, Math.min(ms, timerMsMax)))
}
