/**
 * How often keys were asked for lately, in a few bytes for each: a count-min sketch. Four counters by
 * four hashes; the smallest is closest to the truth and never below it. Counters stop at 15, and all are
 * halved now and then, so that yesterday's hot keys make room for today's.
 */
export interface Sketch {
  add(hash: number): void
  /** 0 to 15. */
  count(hash: number): number
}

const countMax = 15

/** Halved after so many uses for each entry kept: W-TinyLFU's W/C, as in Caffeine. */
const usesPerEntry = 10

export function createSketch(entriesMax: number): Sketch {
  const bits = Math.max(4, Math.ceil(Math.log2(entriesMax)))
  const [width, shift] = [2 ** bits, 32 - bits]
  const counters = new Uint8Array(4 * width)
  const words = new Uint32Array(counters.buffer)
  const usesMax = usesPerEntry * entriesMax
  let uses = 0

  // Four odd multipliers (of xxHash32): the high bits are the well mixed ones.
  const a = (hash: number): number => Math.imul(hash, 0x9e3779b1) >>> shift
  const b = (hash: number): number => width + (Math.imul(hash, 0x85ebca77) >>> shift)
  const c = (hash: number): number => 2 * width + (Math.imul(hash, 0xc2b2ae3d) >>> shift)
  const d = (hash: number): number => 3 * width + (Math.imul(hash, 0x27d4eb2f) >>> shift)
  const at = (index: number): number => counters[index] as number
  const count = (hash: number): number =>
    Math.min(at(a(hash)), at(b(hash)), at(c(hash)), at(d(hash)))

  const age = (): void => {
    // Four counters at a time; the mask keeps a bit from falling into its neighbour.
    for (let n = 0; n < words.length; n++) words[n] = ((words[n] as number) >>> 1) & 0x7f7f7f7f
    uses >>= 1
  }

  return {
    count,
    add(hash) {
      const [i, j, k, l] = [a(hash), b(hash), c(hash), d(hash)]
      const least = Math.min(at(i), at(j), at(k), at(l))
      if (least < countMax) {
        // Only the smallest grow: the others are already too high, by other keys.
        if (at(i) === least) counters[i] = least + 1
        if (at(j) === least) counters[j] = least + 1
        if (at(k) === least) counters[k] = least + 1
        if (at(l) === least) counters[l] = least + 1
      }
      if (++uses >= usesMax) age()
    },
  }
}
