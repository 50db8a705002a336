/**
 * Server-sent events. Streams with the same topics form a group; what one turn of the event loop
 * publishes is joined to one chunk per group, and the same bytes go to every stream of it:
 *
 *   push ─► the group's outbox ─► (turn is over) ─► encode once ─► enqueue to each stream
 *
 * Invariant: one id, `<epoch>:<seq>`, resumes any set of topics. What came after it is replayed in
 * order, merged over the topics; if a topic does not keep all of it, an `event: gap` says so by name.
 */
import type { Identity } from '../auth/auth.ts'
import type { Clock } from '../lib/clock.ts'
import type { Publication } from './history.ts'
import type { Admission, Guest as Waiting } from './admission.ts'
import type { Guest } from './drain.ts'
import type { Hub, Listener, Topic } from './hub.ts'
import { Outbox, type Shard, type Sink } from './outbox.ts'
import { gapEvent, heartbeat, positionEvent, publicationEvent, retryEvent } from './protocol.ts'
import type { Pump } from './pump.ts'
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

function drawnRetryMs(): number {
  const { least, most } = retryMs
  return least + Math.floor(Math.random() * (most - least))
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
  readonly topics: readonly Topic[]
  readonly outbox: Outbox<Group, Uint8Array>
  streams = 0

  constructor(key: string, topics: readonly Topic[], pump: Pump, shardSize: number) {
    this.key = key
    this.topics = topics
    this.outbox = new Outbox(this, pump, { shardSize, pack })
  }

  push(event: string): void {
    this.outbox.append(event)
  }
}

function pack(events: readonly string[]): Uint8Array {
  return encoder.encode(events.join(''))
}

/** `since`: the `seq` to resume after; undefined for a first visit. */
interface Visitor {
  readonly identity: Identity
  readonly address: string
  readonly since: number | undefined
}

/** An `UnderlyingSource`; one per stream, so: few fields, no closures. */
export class EventStream implements Guest, Sink<Uint8Array> {
  bucket = -1
  slot = -1
  readonly identity: Identity
  readonly #context: StreamContext
  #address: string
  readonly #group: Group
  #since: number | undefined
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
    if (identity.kind !== 'user' || identity.expiresAtMs === undefined) return
    const { clock, limits } = this.#context
    if (clock.now() > identity.expiresAtMs + limits.expiryGraceMs) this.close()
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
    const { topics } = this.#group
    const replay =
      this.#since === undefined
        ? { events: latestOf(topics), gaps: [] }
        : replayOf(topics, this.#since, limits.replayBytesMax)
    let text = retryEvent(drawnRetryMs())
    const now = hub.eventId(hub.seq)
    if (replay.gaps.length > 0) {
      // At the position it resumed from: were the stream cut before the next event, it is told again.
      text += gapEvent(hub.eventId(Math.max(0, this.#since ?? 0)), replay.gaps)
    }
    for (const { topic, publication } of replay.events) {
      text += publicationEvent(hub.eventId(publication.seq), topic.eventHead, publication)
    }
    return text + positionEvent(now)
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
    controller.enqueue(encoder.encode(retryEvent(drawnRetryMs())))
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

function replayOf(topics: readonly Topic[], since: number, bytesMax: number): Replay {
  const isComplete = (topic: Topic) => topic.history.lostSeq <= since
  const complete = topics.filter(isComplete)
  const events = complete.flatMap((topic) =>
    topic.history.afterSeq(since).map((publication) => ({ topic, publication })),
  )
  let bytes = 0
  for (const { topic, publication } of events) bytes += publication.bytes + topic.name.length + 64
  if (bytes > bytesMax) return gapOf(topics)
  const gaps = topics.filter((topic) => !isComplete(topic))
  return {
    events: inOrder([...events, ...latestOf(gaps)]),
    gaps: gaps.map(({ name }) => name),
  }
}

function gapOf(topics: readonly Topic[]): Replay {
  return { events: latestOf(topics), gaps: topics.map(({ name }) => name) }
}

/** The latest publication of those that declare `last`. */
function latestOf(topics: readonly Topic[]): Said[] {
  const said: Said[] = []
  for (const topic of topics) {
    const publication = topic.plan.last ? topic.history.newest : undefined
    if (publication) said.push({ topic, publication })
  }
  return inOrder(said)
}

function inOrder(said: Said[]): Said[] {
  return said.sort((a, b) => a.publication.seq - b.publication.seq)
}

/**
 * What an id stands for: a `seq` of this process. −1 for an id of another process or of no shape at
 * all: everything since may be missing.
 */
export function parseEventId(id: string, hub: Pick<Hub, 'epoch' | 'seq'>): number {
  const match = /^([0-9a-z]{1,32}):(\d{1,15})$/.exec(id)
  const seq = Number(match?.[2])
  return match?.[1] === hub.epoch && seq <= hub.seq ? seq : -1
}
