/**
 * What the cache keeps its entries in: a tier in memory, which is asked on every read and answers at once,
 * and one that all processes share, which may be slow, full, away or wrong, and must not show.
 *
 * A tier knows nothing of validity: whatever it gives is checked by who asked (tags.ts).
 */
export interface CacheEntry {
  readonly body: Uint8Array
  /** Strong, quoted, of `body`. */
  readonly etag: string
  readonly asOf: number
  readonly tags: readonly string[]
  /** Of a table's rows: which others would change it, in the words of whoever asked. Absent: none. */
  readonly range?: string
  readonly storedAtMs: number
  readonly freshUntilMs: number
  readonly staleUntilMs: number
  /** A remembered "not found". */
  readonly isAbsent?: boolean
  /** `body` under other content codings. Counted when the entry is set: set it again when one is added. */
  readonly variants?: readonly { readonly coding: string; readonly body: Uint8Array }[]
}

/** In this process, synchronous, bounded by entries, bytes and entry size; what goes first is its own policy. */
export interface MemoryTier<Entry extends CacheEntry = CacheEntry> {
  get(key: string): Entry | undefined
  set(key: string, entry: Entry): void
  delete(key: string): void
  readonly size: number
  readonly bytes: number
  readonly evictions: number
  /** Hottest first, as far as the policy knows: for warming. Sorts: not for the hot path. */
  keys(): Iterable<string>
}

export interface SharedTierStats {
  readonly hits: number
  readonly misses: number
  readonly sets: number
  /** Asked, and no good answer: too late, refused, lost, or not to be understood. */
  readonly failures: number
  /** Not asked: it is away, takes no sets for a while, or the value is too large. */
  readonly skipped: number
  readonly isUp: boolean
}

/** Shared, asynchronous, may be away. Never rejects: trouble is a miss or a set that is dropped, and is counted. */
export interface SharedTier {
  readonly isUp: boolean
  get(key: string): Promise<CacheEntry | undefined>
  set(key: string, entry: CacheEntry, ttlMs: number): void
  delete(key: string): void
  /** True for one of all processes, for `ms`; true for everyone while nobody can be asked. For efficiency only. */
  lease(key: string, ms: number): Promise<boolean>
  stats(): SharedTierStats
  start(): Promise<void>
  stop(): Promise<void>
}
