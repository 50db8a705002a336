/**
 * What is kept for whoever was away. One `History` per topic, bounded by count and age; one `Shelf`
 * over all of them, bounded by bytes: above that the oldest publication of the whole server goes,
 * whichever topic it belongs to.
 *
 * Invariant: a history is contiguous, offsets `first … last` without a hole, and `lostSeq` is the
 * newest publication of its topic that it does not have. Recovery stands on these two.
 */
import type { Clock } from '../lib/clock.ts'

export interface Publication {
  /** Counts within the topic's epoch, from 1. */
  readonly offset: number
  /** Counts all publications of the process: orders what several topics said. */
  readonly seq: number
  /** `clock.tick()`. */
  readonly at: number
  /** JSON text. */
  readonly data: string
  /** UTF-8 length of `data`. */
  readonly bytes: number
  /** Of one that is given to somebody: what lies between is not for him. Absent: nothing does. */
  readonly after?: number
}

interface Kept extends Publication {
  readonly history: History
  older: Kept | undefined
  newer: Kept | undefined
}

/** The object, its two links and the slot in the ring; data comes on top. */
const overheadBytes = 120

export interface HistoryOptions {
  readonly size: number
  readonly ttlMs: number
  /** For a new incarnation of a dropped topic: it cannot know what it missed up to here. */
  readonly lostSeq: number
}

/** The publications of the whole server in the order they came, oldest first. */
export class Shelf {
  readonly #bytesMax: number
  #bytes = 0
  #oldest: Kept | undefined
  #newest: Kept | undefined

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax
  }

  get bytes(): number {
    return this.#bytes
  }

  put(kept: Kept): void {
    kept.older = this.#newest
    if (this.#newest) this.#newest.newer = kept
    else this.#oldest = kept
    this.#newest = kept
    this.#bytes += kept.bytes + overheadBytes
    while (this.#bytes > this.#bytesMax && this.#oldest) this.#oldest.history.evict()
  }

  take(kept: Kept): void {
    if (kept.older) kept.older.newer = kept.newer
    else this.#oldest = kept.newer
    if (kept.newer) kept.newer.older = kept.older
    else this.#newest = kept.older
    this.#bytes -= kept.bytes + overheadBytes
  }
}

export class History {
  readonly #shelf: Shelf
  readonly #clock: Pick<Clock, 'tick'>
  readonly #size: number
  readonly #ttlMs: number
  /** From `#head` on; what is before it is gone and cut off now and then. */
  #items: (Kept | undefined)[] = []
  #head = 0
  #lostSeq: number

  constructor(shelf: Shelf, clock: Pick<Clock, 'tick'>, options: HistoryOptions) {
    this.#shelf = shelf
    this.#clock = clock
    this.#size = options.size
    this.#ttlMs = options.ttlMs
    this.#lostSeq = options.lostSeq
  }

  /** Newest publication of the topic that is not here any more, as `seq`. */
  get lostSeq(): number {
    this.#prune()
    return this.#lostSeq
  }

  get length(): number {
    this.#prune()
    return this.#items.length - this.#head
  }

  get newest(): Publication | undefined {
    return this.length === 0 ? undefined : this.#items.at(-1)
  }

  append(publication: Publication): void {
    if (this.#size === 0) {
      this.#lostSeq = publication.seq
      return
    }
    const kept: Kept = { ...publication, history: this, older: undefined, newer: undefined }
    if (this.length >= this.#size) this.evict()
    this.#items.push(kept)
    this.#shelf.put(kept)
  }

  /** All after `offset`, in order; undefined when one of them is gone. `top`: the topic's last. */
  after(offset: number, top: number): Publication[] | undefined {
    const count = top - offset
    const { length } = this
    if (count < 0 || count > length) return undefined
    return this.#slice(length - count)
  }

  /** All with a higher `seq`, in order. They are complete if `lostSeq` is not above it. */
  afterSeq(seq: number): Publication[] {
    let from = this.length
    while (from > 0 && (this.#items[this.#head + from - 1]?.seq ?? 0) > seq) from -= 1
    return this.#slice(from)
  }

  all(): Publication[] {
    this.#prune()
    return this.#slice(0)
  }

  /** Publications were made that nobody here has had: from `seq` back nothing is complete. */
  lose(seq: number): void {
    this.clear()
    this.#lostSeq = seq
  }

  clear(): void {
    while (this.#items.length > this.#head) this.evict()
  }

  /** Drops the oldest. */
  evict(): void {
    const kept = this.#items[this.#head]
    if (!kept) return
    this.#items[this.#head] = undefined
    this.#head += 1
    this.#lostSeq = kept.seq
    this.#shelf.take(kept)
    // Half of the array is holes: cut it. That is a copy of n after n evictions.
    if (this.#head * 2 >= this.#items.length) {
      this.#items = this.#items.slice(this.#head)
      this.#head = 0
    }
  }

  #slice(from: number): Publication[] {
    return this.#items.slice(this.#head + from) as Kept[]
  }

  #prune(): void {
    if (this.#ttlMs === 0) return
    const before = this.#clock.tick() - this.#ttlMs
    for (let kept = this.#items[this.#head]; kept && kept.at <= before;) {
      this.evict()
      kept = this.#items[this.#head]
    }
  }
}
