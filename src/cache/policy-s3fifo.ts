/**
 * S3-FIFO (Yang et al., SOSP '23): most keys are asked for once, so newcomers have to show themselves.
 *
 *   set ─► small (10 %) ── asked for twice ──► main (90 %) ─┐ asked for since: another round
 *             │ else                            ▲ │  ▲──────┘
 *             ▼                                 │ ▼ else
 *          leaves, a ghost ──── set again ──────┘ leaves
 *
 * A crawler that visits every page once passes through `small` and pushes nothing out of `main`. A hit
 * counts to three and moves nothing: cheaper than LRU. Measured against LRU, SIEVE, W-TinyLFU and
 * Bélády in `test/bench/policy.bench.ts`; shares and counts are the paper's, not fitted to our traces.
 *
 * Our own: what is deleted is not unpopular. A deleted key that had shown itself becomes a ghost, so that
 * a hot answer is back in `main` with its first load after an invalidation.
 */
import { createGhosts } from './ghosts.ts'
import type { Bounds, Policy } from './policy.ts'
import { Slot, Slots } from './slots.ts'

const smallShare = 0.1
/** Uses in `small` that show a key is wanted. */
const wantedUses = 2
/** Rounds in `main` that uses can earn. */
const usesMax = 3
/**
 * Entries looked at for one to leave. On average it is few, as each round was earned by a `get`; but when
 * all are hot the paper's rule walks three times over all, 30,000 steps in one `set` at 10,000 entries.
 */
const stepsMax = 100

/** `onLeave` hears once of each value that was set and is not kept (any more), for whatever reason. */
export function createS3Fifo<V>(bounds: Bounds, onLeave?: (value: V) => void): Policy<V> {
  const { entriesMax, bytesMax } = bounds
  const entryBytesMax = Math.min(bounds.entryBytesMax, bytesMax)
  const smallMax = Math.max(1, Math.round(entriesMax * smallShare))
  const smallBytesMax = bytesMax * smallShare
  const slots = new Map<string, Slot<V>>()
  const small = new Slots<V>()
  const main = new Slots<V>()
  const ghosts = createGhosts(entriesMax - smallMax)
  let evictions = 0

  const bytes = (): number => small.bytes + main.bytes
  const drop = (slot: Slot<V>): void => {
    slot.list?.remove(slot)
    slots.delete(slot.key)
    onLeave?.(slot.value)
  }
  const evict = (slot: Slot<V>): void => {
    drop(slot)
    evictions++
  }
  const toMain = (slot: Slot<V>, uses: number): void => {
    slot.list?.remove(slot)
    slot.uses = uses
    main.add(slot)
  }

  const evictFromMain = (): void => {
    for (let steps = 0; main.last && main.last.uses > 0 && steps < stepsMax; steps++) {
      toMain(main.last, main.last.uses - 1)
    }
    if (main.last) evict(main.last)
  }
  const evictFromSmall = (): void => {
    for (let steps = 0; small.last && small.last.uses >= wantedUses; steps++) {
      if (steps === stepsMax) return evictFromMain()
      toMain(small.last, 0)
    }
    if (!small.last) return
    ghosts.add(small.last.key)
    evict(small.last)
  }
  const makeRoom = (entries: number, size: number): void => {
    while (slots.size + entries > entriesMax || bytes() + size > bytesMax) {
      const isSmallFull = small.size >= smallMax || small.bytes >= smallBytesMax
      if (isSmallFull || !main.last) evictFromSmall()
      else evictFromMain()
    }
  }

  const replace = (slot: Slot<V>, value: V, size: number): void => {
    // Loaded anew, not asked for anew: it keeps its place.
    if (slot.list) slot.list.bytes += size - slot.bytes
    onLeave?.(slot.value)
    slot.value = value
    slot.bytes = size
    makeRoom(0, 0)
  }
  const add = (key: string, value: V, size: number): void => {
    // When bytes are the tighter bound there are fewer entries than could be, and ghosts in proportion.
    const queue = ghosts.take(key, slots.size) ? main : small
    makeRoom(1, size)
    const slot = new Slot(key, value, size)
    slots.set(key, slot)
    queue.add(slot)
  }

  return {
    get(key) {
      const slot = slots.get(key)
      if (!slot) return undefined
      if (slot.uses < usesMax) slot.uses++
      return slot.value
    },
    set(key, value, size) {
      const slot = slots.get(key)
      if (size > entryBytesMax) {
        if (slot) drop(slot)
        onLeave?.(value)
      } else if (slot) replace(slot, value, size)
      else add(key, value, size)
    },
    delete(key) {
      const slot = slots.get(key)
      if (!slot) return false
      if (slot.list === main || slot.uses >= wantedUses) ghosts.add(key)
      drop(slot)
      return true
    },
    get size() {
      return slots.size
    },
    get bytes() {
      return bytes()
    },
    get evictions() {
      return evictions
    },
    // Whoever is in main has shown itself; uses tell the rest, and the newest of equals come first.
    keys: () =>
      [...slotsOf(main), ...slotsOf(small)]
        .toSorted((a, b) => b.uses - a.uses)
        .map(({ key }) => key),
  }
}

function* slotsOf<V>({ first }: Slots<V>): Generator<Slot<V>> {
  for (let slot = first; slot; slot = slot.after) yield slot
}
