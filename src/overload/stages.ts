/**
 * From signals to one stage, without flapping: up when a signal has stood above its limit for a while, to where it
 * says; down one stage at a time, each after a calm.
 *
 *   value ≥ limit, twice in a row and for 100 ms ──► up
 *   value < limit × release for 3 s ───────────────► down by one; the next 3 s begin
 */
export const stageNames = ['normal', 'saving', 'refusing', 'closed'] as const

export type Stage = 0 | 1 | 2 | 3

export interface Signal {
  readonly name: string
  readonly value: number
  /** The better of the last two, where one alone says nothing. */
  readonly standing?: number
  /** Of stages 1, 2 and 3; Infinity: this signal alone never leads there. */
  readonly limits: readonly [number, number, number]
  /** Of a limit: what the value must stay below for calm. */
  readonly release: number
}

/** One late turn of the loop is a collection or a long call; two in a row are a queue. */
const looksMin = 2

/** CoDel's interval: a burst that is through by then was none. At three times the capacity it is 400 requests of 0.25 ms. */
export const risingMs = 100

/** From `closed` to `normal` in 9 s; what is let in again little by little needs as long to show what it does. */
export const calmMs = 3_000

export interface Stages {
  readonly stage: Stage
  /** The signal that led here, or `calm`. */
  readonly why: string
  /**
   * `since`: from when on these values stand. `isStrained`: something was refused for want of time, so that this is no
   * calm, however good the values are. Whether the stage is another now.
   */
  look(signals: readonly Signal[], at: { now: number; since: number; isStrained: boolean }): boolean
  /** Nothing of this look lets a stage go. */
  readonly isHeld: boolean
  /** When a look may lead to a higher stage; Infinity: nothing is rising. */
  readonly ripeAt: number
}

export function createStages(): Stages {
  let stage: Stage = 0
  let why = 'calm'
  let isHeld = false
  let looks = 0
  let risingSince = 0
  let calmSince = 0

  const move = (to: number, reason: string, now: number): true => {
    stage = to as Stage
    why = reason
    calmSince = now
    return true
  }

  return {
    get stage() {
      return stage
    },
    get why() {
      return why
    },
    get isHeld() {
      return isHeld
    },
    get ripeAt() {
      return looks === 0 ? Infinity : risingSince + risingMs
    },
    look(signals, { now, since, isStrained }) {
      const strained = isStrained ? 2 : 0
      const holds = signals.map(({ value, standing = value, limits, release }) =>
        stageOf(standing / release, limits),
      )
      isHeld = stage > 0 && Math.max(strained, ...holds) >= stage
      const most = signals.reduce((worst, one) =>
        stageOf(one.value, one.limits) > stageOf(worst.value, worst.limits) ? one : worst,
      )
      const wanted = stageOf(most.value, most.limits)
      if (wanted === 0) looks = 0
      else if (looks++ === 0) risingSince = since
      if (wanted > stage && looks >= looksMin && now - risingSince >= risingMs) {
        return move(wanted, most.name, now)
      }
      if (isHeld || wanted > stage) calmSince = now
      else if (stage > 0 && now - calmSince >= calmMs) return move(stage - 1, 'calm', now)
      return false
    },
  }
}

function stageOf(value: number, limits: Signal['limits']): Stage {
  if (value >= limits[2]) return 3
  if (value >= limits[1]) return 2
  return value >= limits[0] ? 1 : 0
}
