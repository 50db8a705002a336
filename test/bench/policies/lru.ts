/** Least recently used leaves first. lru-cache is storage only: its `fetch` aborts loads on eviction (#320). */
import { LRUCache } from 'lru-cache'
import type { Bounds, Policy } from '../../../src/cache/policy.ts'

export function createLru<V>({ entriesMax, bytesMax, entryBytesMax }: Bounds): Policy<V> {
  let evictions = 0
  // A box, because lru-cache wants objects.
  const entries = new LRUCache<string, { readonly value: V }>({
    max: entriesMax,
    maxSize: bytesMax,
    maxEntrySize: Math.min(entryBytesMax, bytesMax),
    dispose(_value, _key, reason) {
      if (reason === 'evict') evictions++
    },
  })
  return {
    get: (key) => entries.get(key)?.value,
    set: (key, value, bytes) => void entries.set(key, { value }, { size: bytes }),
    delete: (key) => entries.delete(key),
    get size() {
      return entries.size
    },
    get bytes() {
      return entries.calculatedSize
    },
    get evictions() {
      return evictions
    },
    keys: () => entries.keys(),
  }
}
