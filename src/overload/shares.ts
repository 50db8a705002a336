/**
 * Who is let in while more is asked than can be done. Each request knows how long whoever comes now has to wait; the
 * lower its priority, the less it waits. So the highest have what they need, and those below them the rest of the
 * machine: exactly as much as keeps the wait at what they put up with, whatever a request costs.
 *
 *   wait, ms   0 ──── 5 ────────── 15 ─────►
 *   low        in   ✗
 *   normal     in     ✗
 *   high       in                   ✗
 *
 * Where some are refused that way, turn after turn, all below them get nothing, and then little by little their share
 * again: else a low one that comes early in a turn of the loop would take the place of a high one that comes late.
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
  loop: [2, 5, 15],
  reads: [5, 15, 50],
  writes: [20, 50, 150],
}

/** So many of a turn are let in however late it is: where each of them takes long, some must get through. */
const leastPerTurn = 4

/** From nothing to all, once nobody above is refused any more. Of low ones: in as long as a stage's calm. */
const rampMs = [3_000, 1_000] as const

export interface Shares {
  /** `waitMs`: how long the turn has been answering others. */
  admits(priority: Priority, waitMs: number, now: number): boolean
  /** Of one that is admitted: whether it waits in a queue that is so long. */
  awaits(priority: Priority, queue: Queue, waitMs: number): boolean
  /** Another turn of the loop. */
  turn(): void
  /** Whether others than low ones had to wait too long, both since the last look and before it: one pause is no queue. */
  look(now: number): boolean
  /** The low ones get nothing, and then little by little. */
  hurt(now: number): void
  readonly refused: Readonly<Record<Priority, number>>
}

export function createShares(): Shares {
  const refused = { low: 0, normal: 0, high: 0 }
  /** Of low and normal ones: when their ramps began. */
  const hurtAt = [-Infinity, -Infinity]
  const credits = [0, 0]
  let inTurn = 0
  /** Refused because of a wait, by rank: since the last look, and between the two before. */
  let late = [0, 0, 0]
  let before = late

  const isInShare = (rank: Rank, now: number): boolean => {
    if (rank === 2) return true
    const share = (now - (hurtAt[rank] ?? 0)) / rampMs[rank]
    if (share >= 1) return true
    const credit = (credits[rank] ?? 0) + share
    credits[rank] = credit >= 1 ? credit - 1 : credit
    return credit >= 1
  }

  const isPatient = (rank: Rank, queue: Queue, waitMs: number): boolean => {
    const isFirst = queue === 'loop' && inTurn++ < leastPerTurn
    if (isFirst || waitMs <= patienceMs[queue][rank]) return true
    late[rank] = (late[rank] ?? 0) + 1
    return false
  }

  return {
    refused,
    admits(priority, waitMs, now) {
      const rank = ranks[priority]
      if (isInShare(rank, now) && isPatient(rank, 'loop', waitMs)) return true
      refused[priority]++
      return false
    },
    awaits(priority, queue, waitMs) {
      if (isPatient(ranks[priority], queue, waitMs)) return true
      refused[priority]++
      return false
    },
    turn: () => void (inTurn = 0),
    look(now) {
      const isStrained = (rank: Rank): boolean => !!late[rank] && !!before[rank]
      const [normal, high] = [isStrained(1), isStrained(2)]
      if (normal || high) hurtAt[0] = now
      if (high) hurtAt[1] = now
      before = late
      late = [0, 0, 0]
      return normal || high
    },
    hurt: (now) => void (hurtAt[0] = now),
  }
}
