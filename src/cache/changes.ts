/**
 * The last changes of each group (a table), for answers that depend on more than the rows in them: a list's
 * page changes when a row comes to lie between its ends, and no tag can name that row before it is there.
 *
 *   group posts:  … 41 42 44 47        an answer proven good up to 42 looks at 44 and 47, once each
 *                 ▲ floor: what is older is forgotten, and whoever would need it counts as changed
 *
 * Bounded by changes and bytes: a flood of writes makes lists of that group stale, as one tag for all would.
 */

/** Of one group. At 50 writes a second these are the last forty seconds, in which a page is asked for or cold. */
const changesMax = 2_048

/** Of all groups together, by the texts in their rows. */
const bytesMax = 16 * 1024 * 1024

/** As much as is looked at here; what else is in it is for whoever asked (`Source.touches`). */
export interface Change {
  readonly op: 'create' | 'update' | 'remove'
  readonly key: string
  /** None: it cannot say what it changed. */
  readonly row: readonly unknown[]
}

export interface Changes {
  /** Of a log entry with these tags. */
  note(seq: number, tags: readonly string[], change: Change | undefined): void
  /** Nothing before `seq` is known any more. */
  raise(seq: number): void
  /** Whether any change of the group after `since` passes the test, or may have. */
  any(group: string, since: number, test: (change: Change) => boolean): boolean
  /** All of the group after `since`, oldest first; undefined if one is forgotten or cannot say what it changed. */
  since(group: string, since: number): readonly Change[] | undefined
}

interface Noted {
  readonly seq: number
  readonly change: Change | undefined
  readonly bytes: number
}

/** `groups`: tags; of others nothing is known, and `any` says yes. */
export function createChanges(groups: readonly string[]): Changes {
  const rings = new Map(groups.map((group) => [group, new Ring(bytesMax / groups.length)]))
  return {
    note(seq, tags, change) {
      for (const tag of tags) rings.get(tag)?.push(seq, change)
    },
    raise(seq) {
      for (const ring of rings.values()) ring.raise(seq)
    },
    any: (group, since, test) => rings.get(group)?.any(since, test) ?? true,
    since(group, since) {
      const found: Change[] = []
      const isUnknown = rings.get(group)?.any(since, (change) => found.push(change) === 0) ?? true
      return isUnknown ? undefined : found.reverse()
    },
  }
}

class Ring {
  readonly #bytesMax: number
  /** From `#first` on, oldest first. */
  #noted: Noted[] = []
  #first = 0
  #bytes = 0
  #floor = 0

  constructor(max: number) {
    this.#bytesMax = max
  }

  push(seq: number, change: Change | undefined): void {
    const bytes = change ? bytesOf(change) : 0
    this.#noted.push({ seq, change, bytes })
    this.#bytes += bytes
    while (this.#noted.length - this.#first > changesMax || this.#bytes > this.#bytesMax) {
      const oldest = this.#noted[this.#first]
      if (!oldest) break
      this.#first++
      this.#bytes -= oldest.bytes
      this.#floor = Math.max(this.#floor, oldest.seq)
    }
    // What is before `#first` is cut off when it is half of all.
    if (this.#first > changesMax) {
      this.#noted = this.#noted.slice(this.#first)
      this.#first = 0
    }
  }

  raise(seq: number): void {
    this.#floor = Math.max(this.#floor, seq)
  }

  any(since: number, test: (change: Change) => boolean): boolean {
    if (since < this.#floor) return true
    for (let at = this.#noted.length - 1; at >= this.#first; at--) {
      const noted = this.#noted[at]
      if (!noted || noted.seq <= since) return false
      const { change } = noted
      if (!change || change.row.length === 0 || test(change)) return true
    }
    return false
  }
}

/** Numbers and the object itself. */
const changeOverheadBytes = 200

function bytesOf({ row }: Change): number {
  let bytes = changeOverheadBytes
  for (const value of row) if (typeof value === 'string') bytes += 2 * value.length
  return bytes
}
