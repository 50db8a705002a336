/**
 * Which entries a log entry makes invalid: the smallest file with the hardest rule.
 *
 *   seq:      … 41   42   43   44 …          applied = 44
 *   tag spot:      42        44              last(spot) = 44
 *   entry:    asOf=43, tags [spot]           43 < 44  → stale, dropped
 *
 * An entry (or a load in flight) carries `asOf`, the last `seq` applied before its load began. It is
 * valid only while no tag of it has a newer entry. Log numbers, no clocks: nothing to skew.
 *
 * The number of tags remembered is bounded: forgetting a tag raises `floor` to its seq, and whatever
 * is older than the floor counts as stale. That is safe and costs only extra misses.
 */
import { LRUCache } from 'lru-cache'

export interface Tags {
  /** The last `seq` applied. */
  readonly applied: number
  apply(seq: number, tags: readonly string[]): void
  /** Everything loaded before `seq` is stale, whatever its tags. */
  raise(seq: number): void
  isValid(asOf: number, tags: readonly string[]): boolean
  /** The last change under any of these tags, as far as is remembered: what a load of them must have seen. */
  since(tags: readonly string[]): number
}

/** Tags remembered: about 100 bytes each, so 10 MB. */
export const tagsMax = 100_000

export function createTags(max = tagsMax): Tags {
  let applied = 0
  let floor = 0
  // Not a Map in order of use: whoever deletes and sets again leaves a hole, and looking for the first
  // that is left walks over all holes (measured: 150 µs a write at 100,000 tags, 800 beyond; 1 here).
  const last = new LRUCache<string, number>({
    max,
    dispose(seq, _, reason) {
      if (reason === 'evict') floor = Math.max(floor, seq)
    },
  })

  return {
    get applied() {
      return applied
    },
    apply(seq, tags) {
      applied = Math.max(applied, seq)
      for (const tag of tags) last.set(tag, seq)
    },
    raise(seq) {
      applied = Math.max(applied, seq)
      floor = Math.max(floor, seq)
    },
    since: (tags) => tags.reduce((seq, tag) => Math.max(seq, last.peek(tag) ?? 0), floor),
    isValid(asOf, tags) {
      if (asOf < floor) return false
      for (const tag of tags) {
        const changedAt = last.peek(tag)
        if (changedAt !== undefined && changedAt > asOf) return false
      }
      return true
    },
  }
}
