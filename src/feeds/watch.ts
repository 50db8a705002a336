/**
 * Which keys of a feed are watched, and whose turn it is:
 *
 *   heard, wanted, read ─► line: the one that came, or was asked for, longest ago first ─► pick ─► its end
 *                      └─► new: never asked for; they go first ──────────────────────────┘
 *
 * Invariants: no key is asked for twice at once. Of the places of a call the new get a sixth out of turn, all of them
 * if nobody in the line is overdue: so whoever is in the line waits a fifth longer at most than if there were none, however
 * many come: keys ÷ (calls × batch) and 20 %. What nobody subscribes to and nobody has read for `idleMs` is forgotten, and what
 * upstream does not know sooner.
 *
 * Names come from clients, and one that upstream refuses has all refused that are asked for with it. Those are asked for
 * apart from the others, in halves, until it is alone; then it rests, for a minute and ever longer, while its like are
 * answered. Limits: a round is longer by the calls that this takes; a key that is refused now and then is found late.
 */
import type { Value } from './values.ts'

/** Of the places of a call, while somebody in the line is overdue. */
const newShare = 1 / 6

/** Of a key that is refused alone; the longest is what it takes to be known again where upstream knows it by now. */
const restMsMin = 60_000
const restMsMax = 60 * 60_000

export class Key {
  readonly name: string
  /** Somebody subscribes to its topic, here. */
  isHeard = false
  /** Another node wants it. */
  isWanted = false
  /** `clock.tick()` of the last read, or end of a subscription. */
  usedAt: number
  /** When it was asked for last; of a new one when it came. */
  askedAt: number
  isAsked = false
  value: Value | undefined
  /** Upstream does not know it, so it said the last time. */
  isAbsent = false
  /** `clock.tick()` of the last call that failed, if none has come through since. */
  failedAt = -Infinity
  /** So many at most are asked for together with it, itself among them, and none that is not like this. */
  mostWith = Infinity
  /** `clock.tick()` of when it was refused first, if it is still. */
  refusedAt = Infinity
  /** The last time that it rested. */
  restMs = 0
  /** What its subscribers were told last; undefined: nothing, or it did not get through. */
  told: string | undefined
  toldAt = 0
  /** For whoever reads it before there is a value. */
  first: PromiseWithResolvers<void> | undefined

  constructor(name: string, now: number) {
    this.name = name
    this.usedAt = now
    this.askedAt = now
  }

  get isHeardSomewhere(): boolean {
    return this.isHeard || this.isWanted
  }
}

export interface WatchOptions {
  readonly keysMax: number
  readonly idleMs: number
  /** The same, of what upstream does not know: names come from clients, and one that is made up is asked for once. */
  readonly absentMs: number
  /** It is not watched any more. */
  readonly onGone: (key: Key) => void
}

export interface Picking {
  readonly now: number
  /** As many as are due in a steady round. */
  readonly count: number
  /** As many as fit a call: filled with what is overdue. */
  readonly most: number
  /** Whoever was asked for so long ago is overdue. */
  readonly overdueMs: number
  /** One that was asked for since is not asked for again, although there is room. */
  readonly youngMs: number
}

export class Watch {
  readonly #options: WatchOptions
  readonly #keys = new Map<string, Key>()
  /** By `askedAt`; those on their way too. */
  readonly #line = new Set<Key>()
  /** Of the line: not asked for yet. */
  readonly #new = new Set<Key>()
  /** In no line until `clock.tick()` is this. */
  readonly #resting = new Map<Key, number>()
  /** Those with a `mostWith`: asked for apart from others, or resting. */
  readonly #suspects = new Set<Key>()
  /** Places that new keys have saved up. */
  #credit = 0

  constructor(options: WatchOptions) {
    this.#options = options
  }

  get size(): number {
    return this.#keys.size
  }

  get newCount(): number {
    return this.#new.size
  }

  /** That one round takes. */
  callsOf(batch: number): number {
    let apart = 0
    for (const key of this.#suspects) if (!this.#resting.has(key)) apart += 1 / key.mostWith
    const others = this.#keys.size - this.#suspects.size
    return Math.max(1, Math.ceil(others / batch) + Math.ceil(apart))
  }

  /** Undefined: all are on their way. */
  get oldestAskedAt(): number | undefined {
    for (const key of this.#line) if (!key.isAsked) return key.askedAt
    return undefined
  }

  get(name: string): Key | undefined {
    return this.#keys.get(name)
  }

  all(): Iterable<Key> {
    return this.#keys.values()
  }

  /** The key, watched from now on. Undefined: too many are. */
  add(name: string, now: number): Key | undefined {
    const known = this.#keys.get(name)
    if (known) return known
    if (this.#keys.size >= this.#options.keysMax && !this.#makeRoom()) return undefined
    const key = new Key(name, now)
    this.#keys.set(name, key)
    this.#line.add(key)
    this.#new.add(key)
    return key
  }

  /** Those whose turn it is; they are on their way until they are put back. */
  pick({ now, count, most, overdueMs, youngMs }: Picking): Key[] {
    const oldest = this.oldestAskedAt
    const isOverdue = oldest !== undefined && now - oldest > overdueMs
    this.#credit = isOverdue ? Math.min(most, this.#credit + most * newShare) : most
    const picked: Key[] = []
    let room = most
    let isApart = false
    const fits = (key: Key): boolean => {
      if (picked.length === 0) return true
      return isSuspect(key) === isApart && picked.length < key.mostWith
    }
    const take = (key: Key): void => {
      if (!this.#take(key, now)) return
      isApart = isSuspect(key)
      room = Math.min(room, key.mostWith)
      picked.push(key)
    }
    for (const key of this.#new) {
      if (picked.length + 1 > Math.min(this.#credit, room)) break
      if (fits(key)) take(key)
    }
    this.#credit -= picked.length
    for (const key of this.#line) {
      if (key.isAsked || !fits(key)) continue
      const ageMs = now - key.askedAt
      const isNew = this.#new.has(key)
      if (picked.length >= room || (ageMs < youngMs && !isNew)) break
      if (picked.length >= count && ageMs <= overdueMs && !isNew) break
      take(key)
    }
    return picked
  }

  /** These were refused together. */
  refuse(keys: readonly Key[], now: number): void {
    const mostWith = Math.ceil(keys.length / 2)
    for (const key of keys) {
      key.mostWith = Math.min(key.mostWith, mostWith)
      key.refusedAt = Math.min(key.refusedAt, now)
      if (this.#keys.has(key.name)) this.#suspects.add(key)
    }
  }

  /** It may be asked for with any other. */
  clear(key: Key): void {
    key.mostWith = key.refusedAt = Infinity
    key.restMs = 0
    this.#suspects.delete(key)
  }

  clearAll(): void {
    for (const key of this.#suspects) if (!this.#resting.has(key)) this.clear(key)
  }

  /** It is refused, alone. */
  rest(key: Key, now: number): void {
    if (!this.#keys.has(key.name)) return
    key.restMs = Math.min(restMsMax, Math.max(restMsMin, key.restMs * 2))
    this.#line.delete(key)
    this.#new.delete(key)
    this.#resting.set(key, now + key.restMs)
  }

  /** It has been asked for, or was not after all. */
  put(key: Key): void {
    key.isAsked = false
  }

  /** It is to be asked for like a new one. */
  renew(key: Key): void {
    if (!key.isAsked && !this.#resting.has(key)) this.#new.add(key)
  }

  /** It is known from elsewhere. */
  settle(key: Key, now: number): void {
    this.#resting.delete(key)
    this.#new.delete(key)
    this.#line.delete(key)
    this.#line.add(key)
    key.askedAt = now
  }

  /** Forgets what nobody has wanted for long; each second or so. */
  sweep(now: number): void {
    for (const key of this.#keys.values()) if (this.#isIdle(key, now)) this.#remove(key)
    for (const [key, until] of this.#resting) if (now >= until) this.settle(key, now)
  }

  #take(key: Key, now: number): boolean {
    if (this.#isIdle(key, now)) {
      this.#remove(key)
      return false
    }
    this.settle(key, now)
    key.isAsked = true
    return true
  }

  #isIdle(key: Key, now: number): boolean {
    const idleMs = key.isAbsent ? this.#options.absentMs : this.#options.idleMs
    const isUsed = key.isHeardSomewhere || key.isAsked || now - key.usedAt < idleMs
    return !isUsed && key.first === undefined
  }

  #remove(key: Key): void {
    this.#keys.delete(key.name)
    this.#new.delete(key)
    this.#line.delete(key)
    this.#resting.delete(key)
    this.#suspects.delete(key)
    this.#options.onGone(key)
  }

  /** The one of the idle that was asked for longest ago. */
  #makeRoom(): boolean {
    for (const key of this.#line) {
      if (key.isHeardSomewhere || key.isAsked || key.first) continue
      this.#remove(key)
      return true
    }
    return false
  }
}

function isSuspect({ mostWith }: Key): boolean {
  return mostWith !== Infinity
}
