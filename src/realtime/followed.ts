/**
 * How far this node has followed the log. What another node says of a change waits for it: whoever hears of a change
 * and reads it here must not be given what was before.
 */
import type { Clock } from '../lib/clock.ts'
import type { Log } from '../observe/log.ts'

/** A node that does not hear from its database for so long tells all the same. */
const patienceMs = 5_000

interface Waiting {
  readonly seq: number
  readonly go: () => void
}

export interface Followed {
  /** Undefined: it has. */
  when(seq: number): Promise<void> | undefined
  reach(seq: number): void
}

/** Without a log to follow, everything is followed. */
export function createFollowed(clock: Clock, log: Log, isFollowing: boolean): Followed {
  let reached = isFollowing ? 0 : Infinity
  let waiting: Waiting[] = []

  const reach = (seq: number): void => {
    reached = Math.max(reached, seq)
    if (waiting.length === 0) return
    const due = waiting.filter((one) => one.seq <= reached)
    waiting = waiting.filter((one) => one.seq > reached)
    for (const { go } of due) go()
  }

  return {
    when(seq) {
      if (seq <= reached) return undefined
      return new Promise((resolve) => {
        const cancel = clock.after(patienceMs, () => {
          log.warn('realtime.log-not-followed', { seq, reached })
          reach(seq)
        })
        const go = (): void => {
          cancel()
          resolve()
        }
        waiting.push({ seq, go })
      })
    },
    reach,
  }
}
