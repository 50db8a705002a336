/**
 * Who is let in while more is asked than can be done. Each request knows how long whoever comes now has to wait; the
 * lower its priority, the less it waits. So the highest have what they need, and those below them the rest of the
 * machine: exactly as much as keeps the wait at what they put up with, whatever a request costs.
 *
 *   wait, ms   0 ── 1 ── 2 ──────────────── 10 ─────►
 *   low        in   ✗
 *   normal     in        ✗
 *   high       in                           ✗
 *
 * Where many are refused that way, all below them get nothing, and then little by little their share again: else a low
 * one that comes early in a turn of the loop would take the place of a high one that comes late.
 */
import type { Priority } from './declare.ts'

const ranks: Record<Priority, Rank> = { low: 0, normal: 1, high: 2 }
type Rank = 0 | 1 | 2

/** What is waited for: the loop's turn, and then a thread of the store, or the writer. */
export type Queue = 'loop' | 'reads' | 'writes'

/**
 * In ms, by rank, while there is an overload. A turn of the loop is waited for about twice; a read's wait is an
 * estimate; writes wait for a commit in any case, 2 to 20 ms.
 */
const patienceMs: Record<Queue, readonly [number, number, number]> = {
  loop: [1, 2, 10],
  reads: [5, 20, 60],
  writes: [20, 50, 150],
}

/** From nothing to all, once nobody above is refused any more. Of low ones: in as long as a stage's calm. */
const rampMs = [3_000, 1_000] as const

/** More than so many of a kind lately, and more than such a share, are a strain. */
const strainedMin = 5
const strainedShare = 0.1

/** What is left of the counts after a look: half of them after 0.14 s. */
const memory = 0.95

export interface Shares {
  /** `waitMs`: of whoever comes now, for the loop. */
  admits(priority: Priority, waitMs: number, now: number): boolean
  /** Of one that is admitted: whether it waits in a queue that is so long. */
  awaits(priority: Priority, queue: Queue, waitMs: number): boolean
  /**
   * Whether others than low ones have had to wait too long of late: one pause is no queue. `isLoopFull`: all who come are
   * more than the loop can do; else those who would have waited for it came together, and there is room between them.
   */
  look(now: number, isLoopFull?: boolean): boolean
  /** The low ones get nothing, and then little by little. */
  hurt(now: number): void
  readonly refused: Readonly<Record<Priority, number>>
}

export function createShares(): Shares {
  const refused = { low: 0, normal: 0, high: 0 }
  /** Of low and normal ones: when their ramps began. */
  const hurtAt = [-Infinity, -Infinity]
  const credits = [0, 0]
  /** By rank, lately: how many asked, and how many of these would have had to wait too long. */
  const asked = [0, 0, 0]
  const late = [0, 0, 0]
  /** Of these, for the loop. */
  const lateLoop = [0, 0, 0]

  const isInShare = (rank: Rank, now: number): boolean => {
    if (rank === 2) return true
    const share = (now - (hurtAt[rank] ?? 0)) / rampMs[rank]
    if (share >= 1) return true
    const credit = (credits[rank] ?? 0) + share
    credits[rank] = credit >= 1 ? credit - 1 : credit
    return credit >= 1
  }

  const isPatient = (rank: Rank, queue: Queue, waitMs: number): boolean => {
    if (waitMs <= patienceMs[queue][rank]) return true
    late[rank] = (late[rank] ?? 0) + 1
    if (queue === 'loop') lateLoop[rank] = (lateLoop[rank] ?? 0) + 1
    return false
  }

  const isStrained = (rank: Rank, isLoopFull: boolean): boolean => {
    const count = (late[rank] ?? 0) - (isLoopFull ? 0 : (lateLoop[rank] ?? 0))
    return count > Math.max(strainedMin, strainedShare * (asked[rank] ?? 0))
  }

  return {
    refused,
    admits(priority, waitMs, now) {
      const rank = ranks[priority]
      asked[rank] = (asked[rank] ?? 0) + 1
      if (isInShare(rank, now) && isPatient(rank, 'loop', waitMs)) return true
      refused[priority]++
      return false
    },
    awaits(priority, queue, waitMs) {
      if (isPatient(ranks[priority], queue, waitMs)) return true
      refused[priority]++
      return false
    },
    look(now, isLoopFull = true) {
      const [normal, high] = [isStrained(1, isLoopFull), isStrained(2, isLoopFull)]
      if (normal || high) hurtAt[0] = now
      if (high) hurtAt[1] = now
      for (const counts of [asked, late, lateLoop]) {
        for (const [rank, count] of counts.entries()) counts[rank] = count * memory
      }
      return normal || high
    },
    hurt: (now) => void (hurtAt[0] = now),
  }
}
