/**
 * Server-sent events. Streams with the same topics form a group; what one turn of the event loop
 * publishes is joined to one chunk per group, and the same bytes go to every stream of it:
 *
 *   push ─► the group's outbox ─► (turn is over) ─► encode once ─► enqueue to each stream
 *
 * Invariant: one id resumes all topics of the stream (`event-id.ts`: a count of this process, or a place in each topic
 * where one of them is kept elsewhere too). What came after it is replayed in order, merged over the topics; if a topic
 * does not keep all of it, an `event: gap` says so by name.
 */
import type { Identity } from '../auth/auth.ts'
import type { User } from '../auth/declare.ts'
import type { Clock } from '../lib/clock.ts'
import type { Publication } from './history.ts'
import type { Admission, Guest as Waiting } from './admission.ts'
import type { Guest } from './drain.ts'
import { Places, placesOfReplay, positionAt, type Ids, type Since } from './event-id.ts'
import type { Hub, Listener, Topic } from './hub.ts'
import { Outbox, type Shard, type Sink } from './outbox.ts'
import {
  gapEvent,
  heartbeat,
  positionEvent,
  publicationEvent,
  retryEvent,
  withId,
} from './protocol.ts'
import type { Pump } from './pump.ts'
import { latestIn, type Seen } from './recovery.ts'
import type { Sweep } from './sweep.ts'
import type { Users } from './users.ts'

export interface StreamLimits {
  /** Queued beyond what the kernel took; above it the stream is cut, and the browser resumes. */
  readonly streamBufferBytesMax: number
  /** What a resumed stream is given at once; more is a gap. Half of the buffer. */
  readonly replayBytesMax: number
  /** After a token's `exp`, as for sockets. */
  readonly expiryGraceMs: number
}

/** Browsers wait this long before they reconnect; drawn per stream, so that they do not come together. */
const retryMs = { least: 1_000, most: 5_000 } as const

/**
 * An `EventSource` gives up for ever on any status but 200. Where there is no room now it is told when to come back, and
 * the stream is over: after what is in line, or a restart, spread over as much again and more.
 */
const laterMs = { least: 4_000, most: 12_000 } as const

function drawnRetry({ least, most }: { readonly least: number; readonly most: number }): string {
  return retryEvent(least + Math.floor(Math.random() * (most - least)))
}

/** All that a stream is told that finds no room. */
export function laterEvent(): string {
  return drawnRetry(laterMs)
}

/** Given to a stream without a look at its queue. */
const askBytes = 32 * 1024

/** As much of a stream's as is used. */
export interface Controller {
  enqueue(chunk: Uint8Array): void
  close(): void
  error(reason?: unknown): void
  readonly desiredSize: number | null
}

const encoder = new TextEncoder()
const heartbeatBytes = encoder.encode(heartbeat)

export interface StreamContext {
  readonly hub: Hub
  readonly clock: Clock
  readonly sweep: Sweep<Guest>
  readonly admission: Admission
  readonly limits: StreamLimits
  readonly groups: Map<string, Group>
  /** Streams of signed-in users. */
  readonly readers: Users<EventStream>
  readonly counts: { streams: number; subscriptions: number; slow: number }
}

/** Streams that hear exactly the same, so that one chunk serves them all. */
export class Group implements Listener {
  readonly key: string
  /** Whose all of them are, where it matters. */
  readonly user: User | null
  readonly topics: readonly Topic[]
  readonly outbox: Outbox<Group, Uint8Array>
  /** Where its streams are; undefined: ids are this process's. Made with its first stream. */
  readonly places: Places | undefined
  streams = 0

  constructor({ key, user, topics, hasPlaces }: GroupPlan, pump: Pump, shardSize: number) {
    this.key = key
    this.user = user
    this.topics = topics
    this.places = hasPlaces ? new Places(topics) : undefined
    this.outbox = new Outbox(this, pump, { shardSize, pack })
  }

  push(event: string, topic: Topic, id: string): void {
    this.places?.move(topic)
    this.outbox.append(withId(this.places?.id ?? id, event))
  }
}

export interface GroupPlan {
  readonly key: string
  readonly user: User | null
  /** In the order of their names. */
  readonly topics: readonly Topic[]
  readonly hasPlaces: boolean
}

function pack(events: readonly string[]): Uint8Array {
  return encoder.encode(events.join(''))
}

interface Visitor {
  readonly identity: Identity
  readonly address: string
  /** Undefined for a first visit. */
  readonly since: Since | undefined
}

/** An `UnderlyingSource`; one per stream, so: few fields, no closures. */
export class EventStream implements Guest, Sink<Uint8Array> {
  bucket = -1
  slot = -1
  readonly identity: Identity
  readonly #context: StreamContext
  #address: string
  readonly #group: Group
  #since: Since | undefined
  /** Given to the stream since its queue was last seen to be short: at least what is in it. */
  #queuedBytes = 0
  #lastBytes = 0
  #controller: Controller | undefined
  #seat: Shard<Group, Uint8Array> | undefined

  constructor(context: StreamContext, group: Group, { identity, address, since }: Visitor) {
    this.#context = context
    this.#group = group
    this.#since = since
    this.identity = identity
    this.#address = address
  }

  /** Replay and first live publication meet here, in one tick: nothing comes between them. */
  start(controller: Controller): void {
    const { admission, counts, groups, hub, readers, sweep } = this.#context
    const group = this.#group
    const { user } = this.identity
    this.#controller = controller
    this.#address = admission.addresses.add(this.#address)
    if (user) {
      admission.users.add(user.id)
      readers.add(user.id, this)
    }
    groups.set(group.key, group)
    controller.enqueue(encoder.encode(this.#opening()))
    this.#since = undefined
    if (group.streams === 0) for (const topic of group.topics) topic.listeners.add(group)
    group.streams += 1
    this.#seat = group.outbox.join(this)
    for (const topic of group.topics) hub.count(topic, 1)
    counts.streams += 1
    counts.subscriptions += group.topics.length
    sweep.add(this)
  }

  /** The reader went away. */
  cancel(): void {
    this.#leave()
  }

  push(chunk: Uint8Array): void {
    const controller = this.#controller
    if (!controller) return
    // Asked only when it may matter: it costs a tenth of a delivery.
    if (this.#queuedBytes > askBytes) this.#account(controller)
    this.#lastBytes = chunk.byteLength
    this.#queuedBytes += chunk.byteLength
    controller.enqueue(chunk)
    if (this.#queuedBytes <= this.#context.limits.streamBufferBytesMax) return
    this.#context.counts.slow += 1
    this.#leave()
    // Not `close`: that would keep the queue until the reader has read it, or never does. Without a
    // reason: Bun prints one to stderr.
    controller.error()
  }

  /**
   * Chunks in the queue: without a strategy of its own a stream counts them, not their bytes. One that
   * counts bytes would cost 4 KB per stream (measured: 7.9 against 3.8 KB).
   */
  #account(controller: Controller): void {
    const queued = 1 - (controller.desiredSize ?? 1)
    if (queued <= 0) this.#queuedBytes = 0
    else if (queued === 1) this.#queuedBytes = this.#lastBytes
  }

  hears(topic: string): boolean {
    return this.#group.topics.some(({ name }) => name === topic)
  }

  /** Ends it in good order; the browser reconnects after its `retry`. */
  close(): void {
    const controller = this.#controller
    if (!controller) return
    this.#leave()
    controller.close()
  }

  /** Its token was revoked: a browser comes back once, and gives up when it is refused. */
  end(): void {
    this.close()
  }

  /** This server goes away. */
  dismiss(reconnectAfterMs: number): void {
    this.push(encoder.encode(retryEvent(reconnectAfterMs)))
    this.close()
  }

  beat(): void {
    this.push(heartbeatBytes)
  }

  late(): void {}

  check(): void {
    const { identity } = this
    if (identity.kind === 'anonymous' || identity.expiresAtMs === undefined) return
    const { clock, limits } = this.#context
    const graceMs = identity.kind === 'user' ? limits.expiryGraceMs : 0
    if (clock.now() > identity.expiresAtMs + graceMs) this.close()
  }

  #leave(): void {
    if (!this.#controller) return
    this.#controller = undefined
    const { admission, counts, groups, hub, readers, sweep } = this.#context
    const { user } = this.identity
    admission.addresses.remove(this.#address)
    if (user) {
      admission.users.remove(user.id)
      readers.remove(user.id, this)
    }
    const group = this.#group
    group.streams -= 1
    if (this.#seat) group.outbox.leave(this.#seat, this)
    this.#seat = undefined
    for (const topic of group.topics) {
      hub.count(topic, -1)
      if (group.streams === 0) topic.listeners.delete(group)
    }
    if (group.streams === 0) groups.delete(group.key)
    counts.streams -= 1
    counts.subscriptions -= group.topics.length
    sweep.remove(this)
  }

  #opening(): string {
    const { hub, limits } = this.#context
    const { topics, places, user } = this.#group
    const view: Viewed = { topics, seen: (some) => hub.seen(user, some) }
    const since = this.#since
    const { events, gaps } =
      since === undefined
        ? { events: latestOf(view), gaps: [] }
        : replayOf(view, since, limits.replayBytesMax)
    const ids = places
      ? placesOfReplay(topics, events, new Set(gaps), since)
      : seqsOfReplay(hub, since)
    let text = drawnRetry(retryMs)
    // At the position it resumed from: were the stream cut before the next event, it is told again.
    if (gaps.length > 0) text += withId(ids.first, gapEvent(gaps))
    for (const { topic, publication } of events) {
      const event = publicationEvent(topic.eventHead, publication)
      text += withId(ids.after(topic, publication), event)
    }
    return text + positionEvent(places?.id ?? hub.eventId(hub.seq))
  }
}

function seqsOfReplay(hub: Hub, since: Since | undefined): Ids {
  return {
    first: hub.eventId(since?.kind === 'seq' ? Math.max(0, since.seq) : 0),
    after: (_, { seq }) => hub.eventId(seq),
  }
}

/** A stream that begins later: it stands in line, or its topics come from the store first. */
export class LateStream implements Waiting {
  readonly #make: () => EventStream
  /** What it waits for. */
  begins: Promise<unknown> = Promise.resolve()
  #stream: EventStream | undefined
  state: 'opened' | 'closed' = 'opened'

  constructor(make: () => EventStream) {
    this.#make = make
  }

  /** Not awaited by whoever reads: the head of the answer has left. A failure ends the stream, and browsers come back. */
  async start(controller: Controller): Promise<void> {
    // At once: Bun sends no head before the first byte.
    controller.enqueue(encoder.encode(drawnRetry(retryMs)))
    try {
      await this.begins
      if (this.state === 'closed') return
      this.#stream = this.#make()
      this.#stream.start(controller)
    } catch {
      controller.close()
    }
  }

  cancel(): void {
    this.state = 'closed'
    this.#stream?.cancel()
  }
}

interface Said {
  readonly topic: Topic
  readonly publication: Publication
}

interface Replay {
  /** Ordered by `seq`. */
  readonly events: readonly Said[]
  /** Names of topics that do not keep all of it. */
  readonly gaps: readonly string[]
}

interface Viewed {
  /** In the order of their names. */
  readonly topics: readonly Topic[]
  /** What of their publications these streams may have. */
  readonly seen: Seen
}

function replayOf({ topics, seen }: Viewed, since: Since, bytesMax: number): Replay {
  const events: Said[] = []
  const gaps: Topic[] = []
  let bytes = 0
  for (const [index, topic] of topics.entries()) {
    const missed = missedOf(topic, since, index)
    if (!missed) gaps.push(topic)
    for (const publication of missed ? seen(missed) : []) {
      bytes += publication.bytes + topic.name.length + 64
      events.push({ topic, publication })
    }
  }
  if (bytes > bytesMax) return gapOf({ topics, seen })
  return {
    events: inOrder([...events, ...latestOf({ topics: gaps, seen })]),
    gaps: gaps.map(({ name }) => name),
  }
}

/** Undefined: it does not keep all of it, or nobody knows. */
function missedOf(topic: Topic, since: Since, index: number): Publication[] | undefined {
  const { history, offset } = topic
  if (since.kind === 'seq')
    return history.lostSeq <= since.seq ? history.afterSeq(since.seq) : undefined
  const position = positionAt(topic, since.places[index])
  return position && history.after(position.offset, offset)
}

function gapOf(view: Viewed): Replay {
  return { events: latestOf(view), gaps: view.topics.map(({ name }) => name) }
}

/** The latest publication of those that declare `last`. */
function latestOf({ topics, seen }: Viewed): Said[] {
  const said: Said[] = []
  for (const topic of topics) {
    const publication = topic.plan.last ? latestIn(topic.history, seen) : undefined
    if (publication) said.push({ topic, publication })
  }
  return inOrder(said)
}

function inOrder(said: Said[]): Said[] {
  return said.sort((a, b) => a.publication.seq - b.publication.seq)
}
