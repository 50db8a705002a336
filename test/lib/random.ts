/** Seeded chance for property tests: a failure names its seed and can be run again. */
export interface Random {
  /** 0 to 1. */
  next(): number
  /** Integer from 0 to `below` - 1. */
  below(below: number): number
  pick<T>(from: readonly T[]): T
}

/** mulberry32: small, and good enough to choose test cases. */
export function createRandom(seed: number): Random {
  let state = seed >>> 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
  const below = (limit: number): number => Math.floor(next() * limit)
  return {
    next,
    below,
    pick: <T>(from: readonly T[]): T => {
      if (from.length === 0) throw new Error('nothing to pick from')
      return from[below(from.length)] as T
    },
  }
}
