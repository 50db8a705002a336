/**
 * Hearers of one topic who do not all hear the same: rows, of which each may have what its collection's rules give.
 *
 *   publication ─► rules, once for each distinct input ─► the text, less of it, or nothing ─► one frame for each text
 *   hearers ─► parts: those with the same input, each part with its outbox
 *
 * A topic has a crowd from the first such publication on, and no outbox of its own; topics without such rows have none.
 * Invariant: nobody is told what the rules, asked at that moment, do not give. Offsets stay those of the topic: what a
 * part was not told, its next frame names (`tags.after`: all between was not for it), so that it is no gap.
 *
 * Limits: as many parts as there are distinct inputs, each 1 KB and 2 µs of every publication (of three inputs among
 * 10,000 hearers nothing is to be seen). A rule that looks at `user.id` has one for each user: 10,000 of them hold the
 * loop for 20 ms, and from there on it is a warning.
 */
import type { User } from '../auth/declare.ts'
import type { Publication } from './history.ts'
import type { FrameSink, Seat, Topic } from './hub.ts'
import { Outbox, type OutboxOptions } from './outbox.ts'
import { pushFrame } from './protocol.ts'
import type { Pump } from './pump.ts'

/** What of a publication a user may have; undefined: nothing. */
export type Lens = (data: string) => string | undefined

/** A kind of publications that not everybody hears alike: rows of a collection. */
export interface Sight {
  /** Counts up when its rules are seen to look at more of a user: inputs are others from then on. */
  readonly version: number
  /** Who has the same sees the same. */
  inputOf(user: User | null): string
  /** Asks the rules, now. Undefined: nothing of this kind is for this user. */
  lensOf(user: User | null): Lens | undefined
}

/** Known by their text alone, which is all that comes back from elsewhere. The root fits it. */
export interface Sights {
  /** Undefined: everybody hears it as it is. */
  of(data: string): Sight | undefined
  /** As the server API may have it. Undefined: nothing of it. */
  whole(data: string): string | undefined
  /** Some publications are of such a kind. */
  readonly isNeeded: boolean
}

/** Where every publication is for all who may hear its topic. */
export const noSights: Sights = { of: () => undefined, whole: (data) => data, isNeeded: false }

/** Asks once for each input, for as long as one publication is told. */
export class Look {
  readonly sight: Sight
  readonly #known = new Map<string, Lens | undefined>()
  #version: number

  constructor(sight: Sight) {
    this.sight = sight
    this.#version = sight.version
  }

  as(user: User | null, input = this.sight.inputOf(user)): Lens | undefined {
    const { sight } = this
    if (this.#known.has(input)) return this.#known.get(input)
    const lens = sight.lensOf(user)
    if (sight.version === this.#version) this.#known.set(input, lens)
    else {
      // What is known was known of inputs that are too coarse.
      this.#known.clear()
      this.#version = sight.version
      this.#known.set(sight.inputOf(user), lens)
    }
    return lens
  }
}

/** Publications as this user may have them. The rules are asked once. */
export function seenBy<Said extends { readonly data: string }>(
  sights: Sights,
  user: User | null,
  publications: readonly Said[],
): Said[] {
  const looks = new Map<Sight, Look>()
  const seen: Said[] = []
  for (const publication of publications) {
    const sight = sights.of(publication.data)
    if (!sight) {
      seen.push(publication)
      continue
    }
    let look = looks.get(sight)
    if (!look) looks.set(sight, (look = new Look(sight)))
    const data = look.as(user)?.(publication.data)
    if (data === publication.data) seen.push(publication)
    else if (data !== undefined) seen.push({ ...publication, data })
  }
  return seen
}

interface Part {
  readonly input: string
  /** The same for each sight, in their order. */
  readonly inputs: readonly string[]
  readonly outbox: Outbox<Topic, string>
  /** One of those who have this input. */
  readonly user: User | null
  members: number
  /** Offset of what it was told last, or from where on it hears. */
  told: number
}

/** Distinct inputs of a topic that are worth a warning: 20 ms of each publication. */
export const inputsMany = 10_000

export class Crowd {
  /** It was warned of. */
  isReported = false
  readonly #topic: Topic
  readonly #pump: Pump
  readonly #options: OutboxOptions<string>
  readonly #sights = new Set<Sight>()
  #parts = new Map<string, Part>()
  readonly #byOutbox = new WeakMap<object, Part>()
  /** Of all sights when parts were made. */
  #version = 0

  constructor(topic: Topic, pump: Pump, options: OutboxOptions<string>) {
    this.#topic = topic
    this.#pump = pump
    this.#options = options
  }

  get inputs(): number {
    return this.#parts.size
  }

  /** `told`: up to where it has heard, or has been told in its answer. */
  join(sink: FrameSink, told: number): Seat {
    const part = this.#partOf(sink.identity.user, told)
    part.told = Math.min(part.told, told)
    part.members += 1
    return part.outbox.join(sink)
  }

  /** It has left its seat. */
  left({ outbox }: Seat): void {
    const part = this.#byOutbox.get(outbox)
    if (!part) return
    part.members -= 1
    if (part.members === 0 && this.#parts.get(part.input) === part) this.#parts.delete(part.input)
  }

  has(outbox: object): boolean {
    return this.#byOutbox.has(outbox)
  }

  sinks(): FrameSink[] {
    return [...this.#parts.values()].flatMap(({ outbox }) => outbox.sinks() as FrameSink[])
  }

  /** Its user has other claims than when it joined. */
  rejoin(seat: Seat, sink: FrameSink): void {
    const part = this.#byOutbox.get(seat.outbox)
    if (!part || part.input === this.#inputsOf(sink.identity.user).join('\n')) return
    drain(part.outbox)
    // It may have been too slow for what it was told just now.
    if (!part.outbox.sinks().includes(sink)) return
    part.outbox.leave(seat, sink)
    this.left(seat)
    sink.reseat(this.#topic, this.join(sink, part.told))
  }

  /** Takes over those who heard a topic's own outbox, up to `told`. */
  take(outbox: Outbox<Topic, string>, told: number): void {
    drain(outbox)
    for (const sink of outbox.sinks() as FrameSink[]) {
      sink.reseat(this.#topic, this.join(sink, told))
    }
  }

  /** `look`: undefined for what everybody hears alike. */
  tell({ offset, data }: Publication, look: Look | undefined): void {
    if (look && !this.#sights.has(look.sight)) {
      this.#sights.add(look.sight)
      this.#part()
    }
    const lenses = look && this.#settle(look)
    const frames = new Map<string, Map<number, string>>()
    let at = 0
    for (const part of this.#parts.values()) {
      const text = lenses ? lenses[at++]?.(data) : data
      if (text === undefined) continue
      const after = part.told
      part.told = offset
      let byAfter = frames.get(text)
      if (!byAfter) frames.set(text, (byAfter = new Map()))
      let frame = byAfter.get(after)
      if (frame === undefined) {
        const wire = after < offset - 1 ? { offset, data: text, after } : { offset, data: text }
        byAfter.set(after, (frame = pushFrame(this.#topic.pushHead, wire)))
      }
      part.outbox.append(frame)
    }
  }

  /** For each part. All are asked before anybody is told: who is taken for another must not hear what that one may. */
  #settle(look: Look): (Lens | undefined)[] {
    const at = [...this.#sights].indexOf(look.sight)
    for (;;) {
      if (this.#versionNow() !== this.#version) this.#part()
      const lenses: (Lens | undefined)[] = []
      for (const { user, inputs } of this.#parts.values()) lenses.push(look.as(user, inputs[at]))
      if (this.#versionNow() === this.#version) return lenses
    }
  }

  #versionNow(): number {
    let version = 0
    for (const sight of this.#sights) version += sight.version
    return version
  }

  /** Everybody to the part of his input, as inputs are by now. */
  #part(): void {
    const before = [...this.#parts.values()]
    for (const { outbox } of before) drain(outbox)
    this.#parts = new Map()
    this.#version = this.#versionNow()
    for (const { outbox, told } of before) {
      this.#byOutbox.delete(outbox)
      for (const sink of outbox.sinks() as FrameSink[]) {
        sink.reseat(this.#topic, this.join(sink, told))
      }
    }
  }

  #inputsOf(user: User | null): string[] {
    return Array.from(this.#sights, (sight) => sight.inputOf(user))
  }

  #partOf(user: User | null, told: number): Part {
    const inputs = this.#inputsOf(user)
    const input = inputs.join('\n')
    let part = this.#parts.get(input)
    if (!part) {
      const outbox = new Outbox<Topic, string>(this.#topic, this.#pump, this.#options)
      part = { input, inputs, outbox, user, members: 0, told }
      this.#parts.set(input, part)
      this.#byOutbox.set(outbox, part)
    }
    return part
  }
}

/** What waits leaves now, so that who hears another outbox from here on is told in order. Seldom. */
function drain(outbox: Outbox<Topic, string>): void {
  while (!outbox.isEmpty) outbox.step()
}
