/**
 * The first tier: encoded answers in this process, bounded by entries, by bytes and by entry size. Who
 * leaves when it is full is the policy's affair; here is counted what an entry costs, and seen to it
 * that what has left does not lie about in memory.
 */
import type { Bounds } from './policy.ts'
import { createS3Fifo } from './policy-s3fifo.ts'
import type { CacheEntry, MemoryTier } from './tier.ts'

/**
 * The entry, its ETag and times, its slot, its places in the map and among the ghosts: 1,220 bytes by
 * RSS for an empty body with three tags, of 10,000 entries (Bun 1.4.5).
 */
const entryOverheadBytes = 1100
/** A string's head, and its place in an array. */
const tagOverheadBytes = 32
/** A typed array's head, and the object that names its coding. */
const variantOverheadBytes = 160

/**
 * Bodies from this size on are collected by us. JavaScriptCore lets garbage grow to the size of all that
 * lives, and more while it is busy: 100,000 answers of 100 KB weighed 4 times the bound before it came
 * round. Small ones turn over slowly, and are left to it.
 */
const largeBytes = 16 * 1024
/** Large bodies taken in between two collections, as a share of the bound: what can lie about. */
const garbageShare = 1 / 16

export interface MemoryTierOptions {
  /** Frees what nobody holds any more, at once. */
  readonly collect?: () => void
}

export function createMemoryTier<Entry extends CacheEntry = CacheEntry>(
  bounds: Bounds,
  options: MemoryTierOptions = {},
): MemoryTier<Entry> {
  const { collect = () => Bun.gc(true) } = options
  const entries = createS3Fifo<Entry>(bounds)
  const garbageMax = bounds.bytesMax * garbageShare
  let largeSince = 0

  return {
    get: entries.get,
    set(key, entry) {
      const bytes = bytesOf(key, entry)
      entries.set(key, entry, bytes)
      if (bytes < largeBytes) return
      // Also if it was too large to be kept: its body is garbage as soon as it is sent.
      largeSince += bytes
      if (largeSince < garbageMax) return
      largeSince = 0
      collect()
    },
    delete: (key) => void entries.delete(key),
    get size() {
      return entries.size
    },
    get bytes() {
      return entries.bytes
    },
    get evictions() {
      return entries.evictions
    },
    keys: entries.keys,
  }
}

/** What `entry` holds of this process's memory under `key`. */
export function bytesOf(key: string, { body, tags, range, variants }: CacheEntry): number {
  let bytes = entryOverheadBytes + key.length + (range?.length ?? 0) + allocated(body.byteLength)
  for (const tag of tags) bytes += tagOverheadBytes + tag.length
  if (variants) {
    for (const one of variants) bytes += variantOverheadBytes + allocated(one.body.byteLength)
  }
  return bytes
}

/** The allocator (mimalloc) has four sizes to each doubling: 2,049 bytes take 2,560, 100 KB take 112. */
function allocated(bytes: number): number {
  if (bytes <= 64) return 64
  const step = 2 ** (29 - Math.clz32(bytes - 1))
  return Math.ceil(bytes / step) * step
}
