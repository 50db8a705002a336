/** The first tier: encoded bytes in this process, bounded by entries and by bytes. LRU. */
import { LRUCache } from 'lru-cache'
import type { CacheEntry } from './cache.ts'

/** What an entry costs beside its body and key: object, tags, map slots. Estimated high. */
const entryOverheadBytes = 512

export interface TierOptions {
  readonly entriesMax: number
  readonly bytesMax: number
  /** A larger entry is served, and not kept: one must not push out a thousand. */
  readonly entryBytesMax: number
}

export interface Tier {
  get(key: string): CacheEntry | undefined
  set(key: string, entry: CacheEntry): void
  delete(key: string): void
  readonly size: number
  readonly bytes: number
}

/** lru-cache is storage only: time, validity and coalescing are ours (its `fetch` aborts loads on eviction, #320). */
export function createMemoryTier({ entriesMax, bytesMax, entryBytesMax }: TierOptions): Tier {
  const entries = new LRUCache<string, CacheEntry>({
    max: entriesMax,
    maxSize: bytesMax,
    maxEntrySize: entryBytesMax,
    sizeCalculation: (entry, key) => entry.body.byteLength + 2 * key.length + entryOverheadBytes,
  })
  return {
    get: (key) => entries.get(key),
    set: (key, entry) => void entries.set(key, entry),
    delete: (key) => void entries.delete(key),
    get size() {
      return entries.size
    },
    get bytes() {
      return entries.calculatedSize
    },
  }
}
