/**
 * Where a subscriber stands in a topic, and whether what comes next is what should: the server numbers every
 * publication, also where it keeps no history, so whatever is missing can be seen.
 *
 *   subscribed(reply) ─► resumed exactly, or behind by n ─► publication ─► next | again | n are missing
 *
 * Pure: no socket, no time.
 */

export interface Position {
  readonly epoch: string
  readonly offset: number
}

/** Publications that this subscriber will never get: refetch what depends on them. */
export interface Gap {
  /** `epoch`: offsets began anew (a restart without memory), so nobody can say how many. */
  readonly reason: 'missed' | 'epoch'
  readonly missed: number | undefined
}

/** A reply to `subscribe`. */
export interface Subscribed {
  readonly recovered: boolean
  /** Where the topic stands; after a recovery, where the subscriber was. */
  readonly position: Position | undefined
  /** Not recovered, but the topic's latest publication follows (`last: true`). */
  readonly hasLatest: boolean
}

export class Tracker {
  #position: Position | undefined
  /** The latest publication, at the position or before it, is still to come, if it is beyond this one. */
  #latestAfter: number | undefined

  /** `since`: where an earlier subscriber was, to go on from. */
  constructor(since?: Position) {
    this.#position = since
  }

  get position(): Position | undefined {
    return this.#position
  }

  subscribed({ recovered, position, hasLatest }: Subscribed): Gap | undefined {
    const before = this.#position
    this.#latestAfter = undefined
    // What was missed follows, from where this subscriber was.
    if (recovered || !position) return undefined
    this.#position = position
    const isSame = before?.epoch === position.epoch && before.offset === position.offset
    if (hasLatest) this.#latestAfter = before?.epoch === position.epoch ? before.offset : -1
    if (!before || isSame) return undefined
    if (before.epoch !== position.epoch) return { reason: 'epoch', missed: undefined }
    const missed = position.offset - before.offset - (hasLatest ? 1 : 0)
    return missed === 0 ? undefined : { reason: 'missed', missed }
  }

  /** `again`: it was heard before. `after`: what lies between that and this one is not for this subscriber. */
  heard(offset: number | undefined, after?: number): Gap | 'next' | 'again' {
    const at = this.#position
    if (offset === undefined || !at) return 'next'
    const isLatest = this.#latestAfter !== undefined && offset > this.#latestAfter
    this.#latestAfter = undefined
    if (offset <= at.offset) return isLatest ? 'next' : 'again'
    const missed = Math.max(0, (after ?? offset - 1) - at.offset)
    this.#position = { epoch: at.epoch, offset }
    return missed === 0 ? 'next' : { reason: 'missed', missed }
  }
}
