/** A clock that moves by hand: `advance(ms)` runs what falls due, in order. No test waits. */
import { systemClock, type Cancel, type Clock } from '../src/lib/clock.ts'

export interface TestClock extends Clock {
  advance(ms: number): void
  /** As after a pause of the process: what fell due meanwhile runs late, at the end of it. */
  jump(ms: number): void
}

interface Timer {
  at: number
  readonly everyMs: number | undefined
  readonly run: () => void
}

export function createTestClock(startMs = Date.UTC(2026, 0, 1)): TestClock {
  let now = startMs
  const timers = new Set<Timer>()
  /** None is due before. */
  let earliest = Infinity

  const add = (timer: Timer): Cancel => {
    timers.add(timer)
    earliest = Math.min(earliest, timer.at)
    return () => void timers.delete(timer)
  }

  const nextDue = (untilMs: number): Timer | undefined => {
    if (untilMs < earliest) return undefined
    let due: Timer | undefined
    for (const timer of timers) if (!due || timer.at < due.at) due = timer
    earliest = due?.at ?? Infinity
    return earliest <= untilMs ? due : undefined
  }

  return {
    now: () => now,
    tick: () => now - startMs,
    after: (ms, run) => add({ at: now + ms, everyMs: undefined, run }),
    every: (ms, run) => add({ at: now + ms, everyMs: ms, run }),
    soon: (run) => void setImmediate(run),
    advance(ms) {
      const until = now + ms
      for (let timer = nextDue(until); timer; timer = nextDue(until)) {
        now = timer.at
        if (timer.everyMs === undefined) timers.delete(timer)
        else timer.at += timer.everyMs
        timer.run()
      }
      // What ran may have moved it further itself.
      now = Math.max(now, until)
    },
    jump(ms) {
      now += ms
      const until = now
      for (let timer = nextDue(until); timer; timer = nextDue(until)) {
        if (timer.everyMs === undefined) timers.delete(timer)
        else timer.at = now + timer.everyMs
        timer.run()
      }
    },
  }
}

/** A time of day that stands, `by` ms ahead, which a test may change; what waits waits as ever. */
export function shiftedClock(): Clock & { by: number } {
  const startMs = systemClock.now()
  const clock = { ...systemClock, by: 0, now: () => startMs + clock.by }
  return clock
}
