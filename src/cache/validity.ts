/**
 * Whether an answer is still right: the one place that decides it.
 *
 *   an answer depends on ─┬─ tags: nothing newer may carry one of them (tags.ts)
 *                         └─ a range (a list's page, an absent row): no change of its group since may have
 *                            entered it (changes.ts), which the one who asked can tell
 *
 * What was found good is remembered with the answer as the `seq` up to which it is proven: a look at it costs
 * a comparison while nothing is written, a look-up for each table while others are, and what has changed since
 * is looked at once. An entry's own tags are seldom looked up: a page of twenty rows has sixty.
 */
import { createChanges, type Change } from './changes.ts'
import { createTags } from './tags.ts'
import type { CacheEntry } from './tier.ts'

/** How an answer is loaded, and what it depends on beyond its tags. */
export interface Source {
  /** The tag of the table whose rows its range is about. */
  readonly group: string
  /** What is read must be at least as new as the log entry `minSeq`. */
  load(minSeq: number): Promise<Loaded>
  /** Whether this change may have entered the range; what leaves it is in the tags. `range`: as it was loaded. */
  touches(change: Change, range: string): boolean
  /** Of an answer's tags those that say nothing of its group's rows. */
  others(tags: readonly string[]): readonly string[]
  /** The answer's body as a load would give it after these changes of its group; undefined: load it. */
  repair(entry: CacheEntry, changes: readonly Change[]): Uint8Array | undefined
}

export interface Loaded {
  /** Undefined: there is no such thing. */
  readonly body: Uint8Array | undefined
  /** All that this very answer depends on; left out: what was asked for with it. */
  readonly tags?: readonly string[] | undefined
  readonly range?: string | undefined
}

/** An answer, and up to where in the log it was found good. */
export interface Proven extends CacheEntry {
  provenSeq: number
  /** Of the state of all that is known: the same state, the same answer. */
  provenIn: number
}

export interface Validity {
  /** The last `seq` applied. */
  readonly applied: number
  apply(seq: number, tags: readonly string[], change: Change | undefined): void
  /** Everything loaded before `seq` is stale. */
  raise(seq: number): void
  /** The last change under any of these tags, as far as is remembered. */
  since(tags: readonly string[]): number
  /** By tags alone: of what has no range, and of a load under way. */
  isUntouched(asOf: number, tags: readonly string[]): boolean
  /** `tags`: those of whoever asks, which name at least all tables that the answer is from. */
  isGood(entry: Proven, tags: readonly string[], source: Source | undefined): boolean
  /** What became of it through the changes that made it bad, where they say enough. */
  repaired(entry: Proven, source: Source): Uint8Array | undefined
}

export function createValidity(groups: readonly string[]): Validity {
  const tags = createTags()
  const changes = createChanges(groups)
  let state = 0

  const isUnentered = ({ range, provenSeq }: Proven, source: Source | undefined): boolean => {
    if (range === undefined) return true
    return (
      source !== undefined &&
      !changes.any(source.group, provenSeq, (change) => source.touches(change, range))
    )
  }

  return {
    get applied() {
      return tags.applied
    },
    apply(seq, changed, change) {
      state++
      tags.apply(seq, changed)
      changes.note(seq, changed, change)
    },
    raise(seq) {
      state++
      tags.raise(seq)
      changes.raise(seq)
    },
    since: tags.since,
    isUntouched: tags.isValid,
    isGood(entry, asked, source) {
      if (entry.provenIn === state) return true
      const { provenSeq } = entry
      // Whoever gives no source may ask with other tags each time: the entry's own decide.
      const isGood =
        (source !== undefined && tags.isValid(provenSeq, asked)) ||
        (tags.isValid(provenSeq, entry.tags) && isUnentered(entry, source))
      if (!isGood) return false
      // What another node left may know of more than has been applied here.
      entry.provenSeq = Math.max(provenSeq, tags.applied)
      entry.provenIn = state
      return true
    },
    repaired(entry, source) {
      const { provenSeq } = entry
      if (!tags.isValid(provenSeq, source.others(entry.tags))) return undefined
      const since = changes.since(source.group, provenSeq)
      return since && source.repair(entry, since)
    },
  }
}
