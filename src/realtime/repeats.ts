/**
 * Publications under a key of the publisher's: the same key again, on the same topic, publishes nothing and
 * gets the first one's answer. So whoever is not sure that it got through may simply ask again.
 *
 * Kept for five minutes, in this process; above the bound the oldest key is forgotten. What was refused is not
 * kept: it may be tried again.
 */
import type { Clock } from '../lib/clock.ts'
import type { Position } from './recovery.ts'

const keptMs = 5 * 60_000

/** About 200 bytes each. */
const keysMax = 100_000

/** Longer keys are data. */
export const repeatKeyLengthMax = 255

type Answer = Position | Promise<Position>

export interface Repeats {
  /** `publish` runs if the key is new, or its publication was refused. */
  once(topic: string, key: string, publish: () => Answer): Answer
  readonly size: number
}

export function createRepeats(clock: Clock): Repeats {
  /** Oldest first: a key is put once. */
  const kept = new Map<string, { readonly untilMs: number; readonly answer: Answer }>()

  const forgetOld = (): void => {
    const now = clock.tick()
    for (const [id, { untilMs }] of kept) {
      if (untilMs > now && kept.size < keysMax) return
      kept.delete(id)
    }
  }

  return {
    once(topic, key, publish) {
      // No name of a topic has a space in it.
      const id = `${topic} ${key}`
      const known = kept.get(id)
      if (known && known.untilMs > clock.tick()) return known.answer
      kept.delete(id)
      const answer = publish()
      forgetOld()
      const entry = { untilMs: clock.tick() + keptMs, answer }
      kept.set(id, entry)
      if (answer instanceof Promise) {
        answer.catch(() => {
          if (kept.get(id) === entry) kept.delete(id)
        })
      }
      return answer
    },
    get size() {
      return kept.size
    },
  }
}
