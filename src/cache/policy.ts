/**
 * An eviction policy: what is kept when not all can be. Bounded three ways, because entries alone are no
 * bound (10,000 answers of 100 KB are a gigabyte). Every operation is O(1), and `get` allocates nothing.
 */
export interface Bounds {
  readonly entriesMax: number
  readonly bytesMax: number
  /** A larger entry is served, and not kept: one must not push out a thousand. */
  readonly entryBytesMax: number
}

export interface Policy<V> {
  /** Counts as a use. */
  get(key: string): V | undefined
  /**
   * Replaces what was under `key`. Whether the new value is still there afterwards is the policy's
   * decision; what was there before never is.
   */
  set(key: string, value: V, bytes: number): void
  delete(key: string): boolean
  readonly size: number
  readonly bytes: number
  /** Those who had to leave, or were not let in, for want of room. Deleted and replaced ones are not counted. */
  readonly evictions: number
  /** Hottest first, as far as the policy knows. Not for the hot path. */
  keys(): Iterable<string>
}

export type CreatePolicy = <V>(bounds: Bounds) => Policy<V>
