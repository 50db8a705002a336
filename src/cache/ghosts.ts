/**
 * Keys that were here lately and are not any more, as hashes: four bytes and a place in a map for each,
 * whatever the key's length. Two keys of one hash are taken for one: that costs a worse guess, nothing else.
 */
export interface Ghosts {
  add(key: string): void
  /** Whether `key` is among the last `within` added; it is forgotten then. */
  take(key: string, within: number): boolean
}

/** `seed`: keys come from outside, and who knew it could make them collide. */
export function createGhosts(max: number, seed = Math.floor(Math.random() * 2 ** 32)): Ghosts {
  const ring = new Int32Array(max)
  const addedAt = new Map<number, number>()
  let added = 0
  // Signed: JavaScriptCore keeps 32-bit integers without a box.
  const hashOf = (key: string): number => Bun.hash.xxHash32(key, seed) | 0

  return {
    add(key) {
      if (max === 0) return
      const at = added % max
      const oldest = ring[at] as number
      // Taken since, or added again later, it is not this one's to forget.
      if (addedAt.get(oldest) === added - max) addedAt.delete(oldest)
      const hash = hashOf(key)
      ring[at] = hash
      addedAt.set(hash, added++)
    },
    take(key, within) {
      const hash = hashOf(key)
      const at = addedAt.get(hash)
      if (at === undefined) return false
      addedAt.delete(hash)
      return added - at <= within
    },
  }
}
