/**
 * W-TinyLFU: a newcomer must have been asked for more often than whoever would leave for it.
 *
 *   set ─► window (1 %, LRU) ─► asked for more often than probation's last? ─► probation ◄─┐
 *                                     no: leaves                                │ get      │ full
 *                                                                               ▼          │
 *                                                                      protected (80 %) ───┘
 *
 * How often is told by a sketch, which also remembers keys that are no longer here: a crawler that
 * visits every page once pushes nothing out. Bench only: see `policy.bench.ts`.
 */
import type { Bounds, Policy } from '../../../src/cache/policy.ts'
import { createSketch } from './sketch.ts'
import { Slot, Slots } from '../../../src/cache/slots.ts'

/** Newcomers have this share to be asked for again in. */
const windowShare = 0.01
/** Of the rest: those asked for again since they came out of the window. */
const protectedShare = 0.8

interface Kept<V> {
  value: V
  /** Of the key. */
  readonly hash: number
}

/** The same tables in every run. */
const seed = 1

export function createTinyLfu<V>(bounds: Bounds, share = windowShare): Policy<V> {
  const { entriesMax, bytesMax } = bounds
  const entryBytesMax = Math.min(bounds.entryBytesMax, bytesMax)
  const windowMax = Math.max(1, Math.round(entriesMax * share))
  const windowBytesMax = bytesMax * share
  const protectedMax = Math.floor((entriesMax - windowMax) * protectedShare)
  const protectedBytesMax = (bytesMax - windowBytesMax) * protectedShare

  const slots = new Map<string, Slot<Kept<V>>>()
  const window = new Slots<Kept<V>>()
  const probation = new Slots<Kept<V>>()
  const guarded = new Slots<Kept<V>>()
  const sketch = createSketch(entriesMax)
  let evictions = 0

  const bytes = (): number => window.bytes + probation.bytes + guarded.bytes

  const drop = (slot: Slot<Kept<V>>): void => {
    slot.list?.remove(slot)
    slots.delete(slot.key)
  }
  const evict = (slot: Slot<Kept<V>>): void => {
    drop(slot)
    evictions++
  }
  const move = (slot: Slot<Kept<V>>, to: Slots<Kept<V>>): void => {
    if (to.first === slot) return
    slot.list?.remove(slot)
    to.add(slot)
  }

  /** Makes room for `candidate`, the newest in probation, or sends it away. */
  const contest = (candidate: Slot<Kept<V>>): void => {
    const count = sketch.count(candidate.value.hash)
    let [entriesOver, bytesOver] = [slots.size - entriesMax, bytes() - bytesMax]
    let [cost, victims] = [0, 0]
    // A large newcomer needs the room of many, and must have been asked for more often than all of them
    // together. At most 15 steps: whoever was never asked for lately leaves at once, whoever wins.
    let victim = probation.last
    while (entriesOver > 0 || bytesOver > 0) {
      if (victim === candidate) victim = guarded.last
      if (!victim) return evict(candidate)
      const next: Slot<Kept<V>> | undefined = victim.before
      const asked = sketch.count(victim.value.hash)
      entriesOver--
      bytesOver -= victim.bytes
      cost += asked
      if (asked === 0) evict(victim)
      else if (cost >= count) return evict(candidate)
      else victims++
      victim = next
    }
    for (; victims > 0; victims--) {
      const last = probation.last === candidate ? guarded.last : probation.last
      if (last) evict(last)
    }
  }

  const settle = (): void => {
    while (window.size > windowMax || window.bytes > windowBytesMax) {
      const candidate = window.last as Slot<Kept<V>>
      move(candidate, probation)
      contest(candidate)
    }
    while (slots.size > entriesMax || bytes() > bytesMax) {
      evict((probation.last ?? guarded.last ?? window.last) as Slot<Kept<V>>)
    }
  }

  const use = (slot: Slot<Kept<V>>): void => {
    sketch.add(slot.value.hash)
    if (slot.list !== probation) return slot.list && move(slot, slot.list)
    move(slot, guarded)
    while (guarded.size > protectedMax || guarded.bytes > protectedBytesMax) {
      move(guarded.last as Slot<Kept<V>>, probation)
    }
  }

  return {
    get(key) {
      const slot = slots.get(key)
      if (!slot) return undefined
      use(slot)
      return slot.value.value
    },
    set(key, value, size) {
      const old = slots.get(key)
      if (size > entryBytesMax) {
        if (old) drop(old)
        return
      }
      if (old) {
        // Loaded anew, not asked for anew: it keeps its place.
        if (old.list) old.list.bytes += size - old.bytes
        old.value.value = value
        old.bytes = size
      } else {
        const slot = new Slot(key, { value, hash: Bun.hash.xxHash32(key, seed) }, size)
        sketch.add(slot.value.hash)
        slots.set(key, slot)
        window.add(slot)
      }
      settle()
    },
    delete(key) {
      const slot = slots.get(key)
      if (slot) drop(slot)
      return slot !== undefined
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
    keys: () =>
      [...slots.values()]
        .map(({ key, value }) => ({ key, count: sketch.count(value.hash) }))
        .toSorted((a, b) => b.count - a.count)
        .map(({ key }) => key),
  }
}
