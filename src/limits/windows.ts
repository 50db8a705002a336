/**
 * The windows of all keys in this process, in bounded memory.
 *
 *   first take ─► once ──second take──► again          refused ─► blocked, until its reset
 *                  └ a flood of new addresses flushes this one only
 *
 * Beyond the bounds whoever was not seen longest is forgotten, first among those who took once: that favours
 * newcomers, never one who keeps knocking. (One Map of 100,000 kept in order of use took 14 µs per newcomer.)
 */
import { LRUCache } from 'lru-cache'
import { Runs } from './runs.ts'

/** Of each kind. A key that took once costs 0.3 KB: 30 MB while ten million addresses come by. */
const keysMax = 100_000

/** Of all keys together: 8 bytes each, 16 where takes were put together. */
const runsOfAllMax = 4_000_000

export interface Slot {
  readonly runs: Runs
  /** Taken through other nodes, as the shared counter said last; all of them by `foreignAt`. */
  foreign: number
  foreignAt: number
  /** Which log of the shared counter this slot agrees with. */
  born: number | undefined
  /** What was taken since then the shared counter does not know. */
  unsentFrom: number | undefined
  isForeignUnsent: boolean
  /** Questions under way: each may have taken one. */
  pending: number
}

export interface WindowsOptions {
  readonly keysMax?: number
  readonly runsOfAllMax?: number
}

export class Windows {
  readonly #once: LRUCache<string, Slot>
  readonly #again: LRUCache<string, Slot>
  readonly #blocked: LRUCache<string, number>
  readonly #runsOfAllMax: number
  #runs = 0

  constructor(options: WindowsOptions = {}) {
    const max = options.keysMax ?? keysMax
    const dispose = (slot: Slot, _: string, reason: string): void => {
      if (reason === 'evict') this.#runs -= slot.runs.length
    }
    this.#once = new LRUCache({ max, dispose })
    this.#again = new LRUCache({ max, dispose })
    this.#blocked = new LRUCache({ max })
    this.#runsOfAllMax = options.runsOfAllMax ?? runsOfAllMax
  }

  get keys(): number {
    return this.#once.size + this.#again.size
  }

  get runs(): number {
    return this.#runs
  }

  get(key: string): Slot | undefined {
    return this.#again.get(key) ?? this.#once.get(key)
  }

  /** Without what left the window at `untilMs`. */
  current(key: string, untilMs: number): Slot | undefined {
    const slot = this.get(key)
    if (!slot) return undefined
    const before = slot.runs.length
    slot.runs.forget(untilMs)
    this.#runs += slot.runs.length - before
    if (slot.foreignAt <= untilMs) slot.foreign = 0
    return slot
  }

  add(key: string, at: number, grainMs: number): Slot {
    let slot = this.#again.get(key)
    if (!slot) {
      slot = this.#once.get(key)
      if (slot) {
        this.#once.delete(key)
        this.#again.set(key, slot)
      } else {
        slot = newSlot()
        this.#once.set(key, slot)
      }
    }
    const before = slot.runs.length
    slot.runs.add(at, 1, grainMs)
    this.#runs += slot.runs.length - before
    if (this.#runs > this.#runsOfAllMax) this.#shrink()
    return slot
  }

  takeBack(key: string): void {
    const slot = this.get(key)
    if (!slot) return
    const before = slot.runs.length
    slot.runs.takeBack()
    this.#runs += slot.runs.length - before
    this.#blocked.delete(key)
  }

  /** For keys whose slots are elsewhere too. */
  learn(key: string): Slot {
    let slot = this.get(key)
    if (!slot) this.#once.set(key, (slot = newSlot()))
    return slot
  }

  block(key: string, untilMs: number): void {
    this.#blocked.set(key, untilMs)
  }

  blockedUntil(key: string, now: number): number | undefined {
    const until = this.#blocked.get(key)
    if (until === undefined || until > now) return until
    this.#blocked.delete(key)
    return undefined
  }

  #shrink(): void {
    while (this.#runs > this.#runsOfAllMax) {
      if (!this.#once.pop() && !this.#again.pop()) return
    }
  }
}

function newSlot(): Slot {
  return {
    runs: new Runs(),
    foreign: 0,
    foreignAt: -Infinity,
    born: undefined,
    unsentFrom: undefined,
    isForeignUnsent: false,
    pending: 0,
  }
}
