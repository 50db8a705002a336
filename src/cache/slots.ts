/** Doubly linked lists whose links are in what they hold: moving from one to the other makes nothing. */
export class Slot<V> {
  readonly key: string
  value: V
  bytes: number
  /** How often asked for, as far as the policy counts. */
  uses = 0
  list: Slots<V> | undefined = undefined
  before: Slot<V> | undefined = undefined
  after: Slot<V> | undefined = undefined

  constructor(key: string, value: V, bytes: number) {
    this.key = key
    this.value = value
    this.bytes = bytes
  }
}

/** First: the newest. Last: the next to leave. */
export class Slots<V> {
  first: Slot<V> | undefined = undefined
  last: Slot<V> | undefined = undefined
  size = 0
  bytes = 0

  /** `slot` must be in no list. */
  add(slot: Slot<V>): void {
    slot.list = this
    slot.before = undefined
    slot.after = this.first
    if (this.first) this.first.before = slot
    else this.last = slot
    this.first = slot
    this.size++
    this.bytes += slot.bytes
  }

  /** `slot` must be in this list. */
  remove(slot: Slot<V>): void {
    if (slot.before) slot.before.after = slot.after
    else this.first = slot.after
    if (slot.after) slot.after.before = slot.before
    else this.last = slot.before
    slot.list = slot.before = slot.after = undefined
    this.size--
    this.bytes -= slot.bytes
  }
}
