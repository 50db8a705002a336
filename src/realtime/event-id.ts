/**
 * The ids of a stream's events, from which an `EventSource` resumes. Two forms:
 *
 *   <epoch>:<seq>                        this process's count of all publications: resumes any topics, here
 *   <mark>-<offset>.<mark>-<offset>…     the place in each topic, in the order of their names: resumes at any node
 *                                        and after any restart, as far as the topic's epoch is known there
 *
 * A mark is a hash of the topic's name and epoch, so that offsets are never taken for those of another life. Every
 * event has a whole id, whatever it costs: a stream may be cut after any of them.
 */
import type { Publication } from './history.ts'
import type { Hub, Topic } from './hub.ts'
import type { Position } from './recovery.ts'

/** Topics of a stream that counts by place: each is about 10 characters of every event, 19 at most. */
export const placesMax = 16

/** 36 bits: one of 10¹¹ lives of a topic is taken for another. */
const markLength = 7
const marksMax = 36n ** BigInt(markLength)

/** No topic is there. */
const nowhere = `${'0'.repeat(markLength)}-0`

const seqPattern = /^([0-9a-z]{1,32}):(\d{1,15})$/
const placePattern = new RegExp(`^[0-9a-z]{${markLength}}-[0-9a-z]{1,11}$`)

/** What somebody resumes after. */
export type Since =
  | { readonly kind: 'seq'; readonly seq: number }
  /** One for each topic, in the order of their names. */
  | { readonly kind: 'places'; readonly places: readonly string[] }

/** −1, of another process or of no shape at all: everything since may be missing. `count`: of the stream's topics. */
export function parseEventId(id: string, hub: Pick<Hub, 'epoch' | 'seq'>, count: number): Since {
  const places = id.length > placesMax * 20 ? [] : id.split('.')
  if (places.length === count && places.every((place) => placePattern.test(place))) {
    return { kind: 'places', places }
  }
  const [, epoch, digits] = seqPattern.exec(id) ?? []
  const seq = Number(digits)
  return { kind: 'seq', seq: epoch === hub.epoch && seq <= hub.seq ? seq : -1 }
}

interface Marked {
  readonly epoch: string
  readonly mark: string
  /** The last one that was asked for: of one event, by every group that hears it. */
  offset: number
  place: string
}

const marks = new WeakMap<Topic, Marked>()

function markedOf(topic: Topic): Marked {
  const { name, epoch } = topic
  const known = marks.get(topic)
  if (known?.epoch === epoch) return known
  const hash = BigInt(Bun.hash(`${epoch} ${name}`)) % marksMax
  const mark = hash.toString(36).padStart(markLength, '0')
  const marked = { epoch, mark, offset: 0, place: `${mark}-0` }
  marks.set(topic, marked)
  return marked
}

function placeOf(topic: Topic, offset: number): string {
  const marked = markedOf(topic)
  if (marked.offset !== offset) {
    marked.offset = offset
    marked.place = `${marked.mark}-${offset.toString(36)}`
  }
  return marked.place
}

/** Undefined: of another life of the topic, or of another topic. */
export function positionAt(topic: Topic, place: string | undefined): Position | undefined {
  if (place?.slice(0, markLength) !== markedOf(topic).mark) return undefined
  return { epoch: topic.epoch, offset: Number.parseInt(place.slice(markLength + 1), 36) }
}

/** Where a group's streams are. */
export class Places {
  readonly #topics: readonly Topic[]
  readonly #places: string[]

  constructor(topics: readonly Topic[], places = topics.map((one) => placeOf(one, one.offset))) {
    this.#topics = topics
    this.#places = places
  }

  /** The topic has gone on, or begun anew. */
  move(topic: Topic, offset = topic.offset): void {
    this.#places[this.#topics.indexOf(topic)] = placeOf(topic, offset)
  }

  get id(): string {
    return this.#places.join('.')
  }
}

/** The ids of what a stream is told at its beginning. */
export interface Ids {
  readonly first: string
  after(topic: Topic, publication: Publication): string
}

/** Each event counts as soon as it is told; of what is missing nothing does before the end. */
export function placesOfReplay(
  topics: readonly Topic[],
  told: readonly { readonly topic: Topic; readonly publication: Publication }[],
  gaps: ReadonlySet<string>,
  since: Since | undefined,
): Ids {
  const firsts = new Map<Topic, number>()
  for (const { topic, publication } of told) {
    if (!firsts.has(topic)) firsts.set(topic, publication.offset)
  }
  const before = topics.map((topic, index) => {
    if (!gaps.has(topic.name)) return placeOf(topic, (firsts.get(topic) ?? topic.offset + 1) - 1)
    return since?.kind === 'places' ? (since.places[index] ?? nowhere) : nowhere
  })
  const places = new Places(topics, before)
  return {
    first: places.id,
    after(topic, { offset }) {
      if (!gaps.has(topic.name)) places.move(topic, offset)
      return places.id
    },
  }
}
