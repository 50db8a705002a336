/**
 * The way down: everybody is sent away over a few seconds, and told when to come back, so that they do
 * not come together either:
 *
 *   left at     |1···2···3···4|            spread over `drainMs`
 *   back at                     restart |1··2··3··4|   no faster than `connect` is served
 *
 * The stock client obeys the close code and waits by its own jitter; ours obeys `reconnect_after_ms`, and
 * an `EventSource` obeys `retry`.
 */
import type { Cancel, Clock } from '../lib/clock.ts'
import type { Sweep, Swept } from './sweep.ts'

export interface DrainLimits {
  readonly drainMs: number
  readonly connectsPerSecond: number
}

/** Who is connected, as the drain sees it. Leaves the sweep when it is sent away. */
export interface Guest extends Swept {
  dismiss(reconnectAfterMs: number): void
}

/** Between two groups that are sent away. */
const stepMs = 100

/** So few that spreading them would only be waiting. */
const stepLeast = 100

/** What a restart takes, generously. */
const restartMs = 1_000

/** They come back at this share of what is served, so that new visitors get in, too. */
const returnShare = 0.8

export interface Drain {
  /** Resolves when everybody is gone. */
  run(): Promise<void>
  /** Who is left, now. */
  stop(): void
}

export function createDrain(
  { clock, sweep }: { readonly clock: Clock; readonly sweep: Sweep<Guest> },
  { drainMs, connectsPerSecond }: DrainLimits,
): Drain {
  let cancel: Cancel | undefined
  let goneCount = 0

  const dismiss = (count: number, leftMs: number): void => {
    let left = count
    sweep.forEach((guest) => {
      if (left <= 0) return
      left -= 1
      const turnMs = (goneCount * 1_000) / (connectsPerSecond * returnShare)
      goneCount += 1
      guest.dismiss(Math.round(leftMs + restartMs + turnMs))
    })
  }

  return {
    async run() {
      const perStep = Math.max(stepLeast, Math.ceil(sweep.size / (drainMs / stepMs)))
      let leftMs = (Math.ceil(sweep.size / perStep) - 1) * stepMs
      dismiss(perStep, leftMs)
      if (sweep.size === 0) return
      await new Promise<void>((resolve) => {
        cancel = clock.every(stepMs, () => {
          leftMs = Math.max(0, leftMs - stepMs)
          dismiss(perStep, leftMs)
          if (sweep.size > 0) return
          cancel?.()
          resolve()
        })
      })
    },
    stop() {
      cancel?.()
      dismiss(Infinity, 0)
    },
  }
}
