/**
 * SIEVE (NSDI '24): one queue in order of arrival; a hand walks from the oldest, spares whoever was asked
 * for since it last came by, and sends the next one away. Bench only: see `policy.bench.ts`.
 */
import type { Bounds, Policy } from '../../../src/cache/policy.ts'
import { Slot, Slots } from '../../../src/cache/slots.ts'

export function createSieve<V>(bounds: Bounds): Policy<V> {
  const { entriesMax, bytesMax } = bounds
  const entryBytesMax = Math.min(bounds.entryBytesMax, bytesMax)
  const slots = new Map<string, Slot<V>>()
  const queue = new Slots<V>()
  let hand: Slot<V> | undefined
  let evictions = 0

  const drop = (slot: Slot<V>): void => {
    if (hand === slot) hand = slot.before
    queue.remove(slot)
    slots.delete(slot.key)
  }
  const evictOne = (): void => {
    let slot = hand ?? queue.last
    while (slot && slot.uses > 0) {
      slot.uses = 0
      slot = slot.before ?? queue.last
    }
    hand = slot
    if (!slot) return
    drop(slot)
    evictions++
  }

  return {
    get(key) {
      const slot = slots.get(key)
      if (!slot) return undefined
      slot.uses = 1
      return slot.value
    },
    set(key, value, size) {
      const old = slots.get(key)
      if (size > entryBytesMax) {
        if (old) drop(old)
        return
      }
      if (old) {
        queue.bytes += size - old.bytes
        old.bytes = size
        old.value = value
        while (queue.bytes > bytesMax) evictOne()
        return
      }
      while (queue.size >= entriesMax || queue.bytes + size > bytesMax) evictOne()
      const slot = new Slot(key, value, size)
      slots.set(key, slot)
      queue.add(slot)
    },
    delete(key) {
      const slot = slots.get(key)
      if (slot) drop(slot)
      return slot !== undefined
    },
    get size() {
      return queue.size
    },
    get bytes() {
      return queue.bytes
    },
    get evictions() {
      return evictions
    },
    keys: () => [...slots.values()].toSorted((a, b) => b.uses - a.uses).map(({ key }) => key),
  }
}
