/**
 * Topics that are alive, and the one way a publication takes:
 *
 *   publish ─► encode once ─► offset, seq ─► history ─┬► outbox: one frame for all sockets
 *                                                     └► listeners: one event per group of streams
 *
 * Outboxes leave when the turn is over (`pump.ts`). Invariants: offsets of a topic's epoch have no hole;
 * whoever reads a history and joins in the same tick misses nothing and hears nothing twice. A topic nobody hears and that keeps nothing is
 * dropped; when its name comes back it has a new epoch, so that nobody takes its offsets for the old ones.
 */
import { Fault } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import type { Log } from '../observe/log.ts'
import type { User } from '../auth/declare.ts'
import { Crowd, inputsMany, Look, noSights, seenBy, type Sights } from './crowd.ts'
import { History, Shelf, type Publication } from './history.ts'
import { Outbox, type Shard, type Sink } from './outbox.ts'
import { isTopicName, type Params } from './pattern.ts'
import { eventHead, gapEvent, noEvent, publicationEvent, pushFrame, pushHead } from './protocol.ts'
import type { Pump } from './pump.ts'
import type { TopicPlan } from './realtime.ts'
import type { Position } from './recovery.ts'

/** Hears a topic's publications as frames: one protocol frame may hold several, one a line. */
export interface FrameSink extends Sink<string> {
  /** Whose rules say what it hears of rows. */
  readonly identity: { readonly user: User | null }
  /** It hears the topic from this seat on. */
  reseat(topic: Topic, seat: Seat): void
  /** The topic begins anew: publications that this sink has not heard may be missing. It has left the topic's outbox. */
  lose(topic: Topic): void
}

/** A frame sink's place among those that hear a topic (`home`); it leaves by it. */
export type Seat = Shard<Topic, string>

/** Hears the publications of a topic as events; a group of streams with the same topics. */
export interface Listener {
  /** Whose all of them are. */
  readonly user: User | null
  /** `topic` is where the event has brought it; `id` names the event in this process. */
  push(event: string, topic: Topic, id: string): void
}

export interface HubLimits {
  /** One publication's JSON. A socket's frame is not larger either. */
  readonly publicationBytesMax: number
  /** All histories together. */
  readonly historyBytesMax: number
  /** Topics alive at once: names come from clients. A topic without history costs about 500 bytes. */
  readonly topicsMax: number
  /** Listeners that are written to without a pause between them. */
  readonly shardSize: number
}

/** How long a topic nobody hears stays, so that who comes back at once finds its epoch unchanged. */
const idleMs = 60_000

/** Seconds in which the sweep has looked at every topic once. */
const sweepSeconds = 30

/** Topics looked at to make room for a new one when there are too many. */
const evictTries = 64

/** What a publisher waits when more waits to be delivered than memory should hold. */
const relieveMs = 20

export class Topic {
  readonly name: string
  readonly plan: TopicPlan
  readonly params: Params
  epoch: string
  readonly history: History
  readonly listeners = new Set<Listener>()
  /** From the first socket that joins on, but in a crowd. */
  outbox: Outbox<Topic, string> | undefined
  /** Sockets that do not all hear the same. */
  crowd: Crowd | undefined
  readonly pushHead: string
  readonly eventHead: string
  /** Of the last publication; 0 before the first. */
  offset = 0
  seq = 0
  sockets = 0
  streams = 0
  /** `clock.tick()` when it was last heard or spoken to. */
  usedAt: number

  constructor(
    name: string,
    plan: TopicPlan,
    params: Params,
    epoch: string,
    history: History,
    now: number,
  ) {
    this.name = name
    this.plan = plan
    this.params = params
    this.epoch = epoch
    this.history = history
    this.pushHead = pushHead(name)
    this.eventHead = eventHead(name)
    this.usedAt = now
  }

  get subscriptions(): number {
    return this.sockets + this.streams
  }

  /** Whether who sits there hears what is published next. */
  isHeardAt({ outbox }: Seat): boolean {
    return outbox === this.outbox || this.crowd?.has(outbox) === true
  }
}

export type Match = Pick<Topic, 'name' | 'plan' | 'params'>

export interface Encoded {
  readonly data: string
  readonly bytes: number
}

/** What a topic is elsewhere: in the store, on other nodes. */
export interface Kept extends Position {
  /** Oldest first, up to the offset. */
  readonly publications: readonly { readonly atMs: number; readonly data: string }[]
}

export interface Hub {
  /** Of the process: part of every epoch and of every event id. */
  readonly epoch: string
  /** Of the newest publication. */
  readonly seq: number
  /** The declared topic a name belongs to, alive or not. */
  match(name: string): Match | undefined
  /** The topic, alive from now on. Undefined: too many are, and none can go; or it is kept elsewhere, and not alive. */
  open(match: Match): Topic | undefined
  /** The topic as it is kept elsewhere; by default, as a new one. Undefined: as `open`. */
  revive(match: Match, kept?: Kept): Topic | undefined
  /** The topic counts on from another position. Those who heard it hear it no more: each has to `lose` it. */
  restart(topic: Topic, kept?: Kept): FrameSink[]
  peek(name: string): Topic | undefined
  alive(): Iterable<Topic>
  encode(data: unknown): Encoded
  /** Faults: `not_found`, `unavailable`, `too_many`. */
  publish(name: string, encoded: Encoded): Position
  /** The same, of a topic that is alive. Faults: `too_many`. */
  emit(topic: Topic, encoded: Encoded): Position
  /** Goes on after this offset: what was between is nowhere any more, and who resumes is told so. */
  skip(topic: Topic, offset: number): void
  /**
   * The sink hears what is published from now on; what was before, its answer must have told: up to `told`, where
   * what comes then is not for it. Default: all.
   */
  join(topic: Topic, sink: FrameSink, told?: number): Seat
  leave(seat: Seat, sink: FrameSink): void
  /** Its user has other claims now. */
  rejoin(seat: Seat, sink: FrameSink): void
  /** Of these, what the user may have, as rules are now: every way out of a history goes through here. */
  seen<Said extends { readonly data: string }>(
    user: User | null,
    publications: readonly Said[],
  ): readonly Said[]
  /** The same for the server's own tools. */
  whole(data: string): string | undefined
  /** Whether what is live differs from user to user. */
  readonly isByUser: boolean
  /** One more stream hears it, or one less. */
  count(topic: Topic, streams: 1 | -1): void
  eventId(seq: number): string
  /** A slice of the topics; each second. */
  sweep(): void
  readonly topics: number
  readonly publications: number
  readonly historyBytes: number
}

export interface HubDeps {
  readonly plans: readonly TopicPlan[]
  readonly clock: Clock
  readonly pump: Pump
  /** Topics that are kept elsewhere too: they come alive by `revive`. Default: the durable ones. */
  readonly isKept?: (plan: TopicPlan) => boolean
  /** Default: all hear the same. */
  readonly sights?: Sights | undefined
  readonly log?: Pick<Log, 'warn'> | undefined
  /** A topic has its first subscriber here, who is not told anything yet; or has none any more. */
  readonly onAudience?: Audience | undefined
}

export type Audience = (pattern: string, topic: string, isHeard: boolean) => void

export function createHub(
  {
    plans,
    clock,
    pump,
    isKept = ({ persist }) => persist !== undefined,
    sights = noSights,
    log,
    onAudience,
  }: HubDeps,
  limits: HubLimits,
): Hub {
  const epoch = crypto.randomUUID().slice(0, 8)
  const topics = new Map<string, Topic>()
  const shelf = new Shelf(limits.historyBytesMax)
  let seq = 0
  let incarnations = 0
  /** Newest publication among dropped topics: a name that comes back cannot vouch for anything older. */
  let forgottenSeq = 0
  let cursor = topics.values()

  const match = (name: string): Match | undefined => {
    const topic = topics.get(name)
    if (topic) return topic
    if (!isTopicName(name)) return undefined
    for (const plan of plans) {
      const params = plan.matcher.match(name)
      if (params) return { name, plan, params }
    }
    return undefined
  }

  const drop = (topic: Topic): void => {
    forgottenSeq = Math.max(forgottenSeq, topic.seq, topic.history.lostSeq)
    topic.history.clear()
    topics.delete(topic.name)
  }

  /** Oldest first, as a Map iterates: one that nobody hears loses its history rather than the new one its place. */
  const makeRoom = (): boolean => {
    let tries = evictTries
    for (const topic of topics.values()) {
      if (topic.subscriptions === 0) {
        drop(topic)
        return true
      }
      tries -= 1
      if (tries === 0) return false
    }
    return false
  }

  const open = (match: Match): Topic | undefined =>
    topics.get(match.name) ?? (isKept(match.plan) ? undefined : create(match))

  const nextEpoch = (): string => {
    incarnations += 1
    return `${epoch}${incarnations.toString(36)}`
  }

  const create = ({ name, plan, params }: Match): Topic | undefined => {
    if (topics.size >= limits.topicsMax && !makeRoom()) return undefined
    const history = new History(shelf, clock, { ...keepOf(plan), lostSeq: forgottenSeq })
    const topic = new Topic(name, plan, params, nextEpoch(), history, clock.tick())
    topics.set(name, topic)
    return topic
  }

  /** Said, as far as this process knows, at `saidSeq`. */
  const fill = (topic: Topic, { epoch, offset, publications }: Kept, saidSeq: number): void => {
    topic.epoch = epoch
    topic.offset = offset
    const first = offset - publications.length + 1
    for (const [index, { atMs, data }] of publications.entries()) {
      const at = clock.tick() - (clock.now() - atMs)
      const bytes = Buffer.byteLength(data)
      topic.history.append({ offset: first + index, seq: saidSeq, at, data, bytes })
    }
  }

  const revive = (match: Match, kept?: Kept): Topic | undefined => {
    const alive = topics.get(match.name)
    if (alive) return alive
    const topic = create(match)
    if (topic && kept) fill(topic, kept, forgottenSeq)
    return topic
  }

  const restart = (topic: Topic, kept?: Kept): FrameSink[] => {
    seq += 1
    topic.seq = seq
    topic.history.lose(seq)
    fill(topic, kept ?? { epoch: nextEpoch(), offset: 0, publications: [] }, seq)
    const event = gapEvent([topic.name])
    for (const listener of topic.listeners) listener.push(event, topic, eventId(seq))
    const sinks = [...(topic.outbox?.sinks() ?? []), ...(topic.crowd?.sinks() ?? [])]
    // What waits in the old one is from before, and may still be told.
    topic.outbox = undefined
    topic.crowd = undefined
    return sinks as FrameSink[]
  }

  const eventId = (at: number): string => `${epoch}:${at}`

  const publish = (name: string, encoded: Encoded): Position => {
    const found = match(name)
    if (!found) throw new Fault('not_found', `no declared topic matches ${name}`)
    const topic = open(found)
    if (!topic) throw new Fault('unavailable', `more than ${limits.topicsMax} topics are alive`)
    return emit(topic, encoded)
  }

  const emit = (topic: Topic, { data, bytes }: Encoded): Position => {
    if (pump.isFull) pump.flush(relieveMs)
    if (pump.isFull) {
      const text = 'publications come faster than they can leave'
      throw new Fault('too_many', text, { retryAfterMs: pump.roomInMs })
    }

    seq += 1
    topic.offset += 1
    topic.seq = seq
    topic.usedAt = clock.tick()
    const publication = { offset: topic.offset, seq, at: topic.usedAt, data, bytes }
    topic.history.append(publication)

    const sight = sights.of(data)
    if (sight || topic.crowd) {
      tellEach(topic, publication, sight && new Look(sight))
      return { offset: topic.offset, epoch: topic.epoch }
    }
    if (topic.sockets > 0) topic.outbox?.append(pushFrame(topic.pushHead, publication))
    if (topic.listeners.size > 0) {
      const event = publicationEvent(topic.eventHead, publication)
      const id = eventId(seq)
      for (const listener of topic.listeners) listener.push(event, topic, id)
    }
    return { offset: topic.offset, epoch: topic.epoch }
  }

  /** What each may have of it. */
  const tellEach = (topic: Topic, publication: Publication, look: Look | undefined): void => {
    if (look && topic.sockets > 0) crowdOf(topic, publication.offset - 1)
    const { crowd } = topic
    crowd?.tell(publication, look)
    if (crowd && crowd.inputs >= inputsMany && !crowd.isReported) {
      crowd.isReported = true
      log?.warn('realtime.many-inputs', { topic: topic.name, inputs: crowd.inputs })
    }
    const id = eventId(publication.seq)
    const events = new Map<string, string>()
    for (const listener of topic.listeners) {
      const data = look ? look.as(listener.user)?.(publication.data) : publication.data
      // Where it stands, without an event.
      if (data === undefined) listener.push(noEvent, topic, id)
      else {
        let event = events.get(data)
        if (event === undefined) {
          event = publicationEvent(topic.eventHead, { ...publication, data })
          events.set(data, event)
        }
        listener.push(event, topic, id)
      }
    }
  }

  /** `told`: up to where those have heard it who hear all alike so far. */
  const crowdOf = (topic: Topic, told: number): Crowd => {
    if (topic.crowd) return topic.crowd
    const crowd = (topic.crowd = new Crowd(topic, pump, packing))
    const { outbox } = topic
    topic.outbox = undefined
    if (outbox) crowd.take(outbox, told)
    return crowd
  }

  const left = (topic: Topic): void => {
    topic.usedAt = clock.tick()
    if (topic.subscriptions === 0) onAudience?.(topic.plan.pattern, topic.name, false)
  }

  const packing = {
    shardSize: limits.shardSize,
    pack: (frames: readonly string[]) => frames.join('\n'),
  }

  return {
    epoch,
    get seq() {
      return seq
    },
    match,
    open,
    revive,
    restart,
    peek: (name) => topics.get(name),
    alive: () => topics.values(),
    encode: (data) => encode(data, limits.publicationBytesMax),
    publish,
    emit,
    skip(topic, offset) {
      seq += 1
      topic.seq = seq
      topic.offset = offset
      topic.history.lose(seq)
    },
    eventId,
    join(topic, sink, told = topic.offset) {
      topic.sockets += 1
      if (topic.subscriptions === 1) onAudience?.(topic.plan.pattern, topic.name, true)
      // Who was not told all has more between what it knows and what comes than nothing.
      if (topic.crowd || told < topic.offset) return crowdOf(topic, topic.offset).join(sink, told)
      topic.outbox ??= new Outbox(topic, pump, packing)
      return topic.outbox.join(sink)
    },
    leave(seat, sink) {
      const topic = seat.home
      seat.outbox.leave(seat, sink)
      topic.crowd?.left(seat)
      topic.sockets -= 1
      left(topic)
    },
    count(topic, streams) {
      topic.streams += streams
      if (streams < 0) left(topic)
      else if (topic.subscriptions === 1) onAudience?.(topic.plan.pattern, topic.name, true)
    },
    rejoin(seat, sink) {
      seat.home.crowd?.rejoin(seat, sink)
    },
    seen: (user, publications) =>
      sights === noSights ? publications : seenBy(sights, user, publications),
    whole: sights.whole,
    isByUser: sights.isNeeded,
    sweep() {
      const before = clock.tick() - idleMs
      for (let left = Math.ceil(topics.size / sweepSeconds); left > 0; left -= 1) {
        const { value: topic, done } = cursor.next()
        if (done || !topic) {
          cursor = topics.values()
          continue
        }
        // Reading the length prunes: a topic nobody asks gives its old publications back here.
        const isEmpty = topic.history.length === 0
        if (isEmpty && topic.subscriptions === 0 && topic.usedAt <= before) drop(topic)
      }
    },
    get topics() {
      return topics.size
    },
    get publications() {
      return seq
    },
    get historyBytes() {
      return shelf.bytes
    },
  }
}

/** `last` without history is a history of one that does not age (0). */
export function keepOf({ historySize, historyTtlMs, last }: TopicPlan): {
  readonly size: number
  readonly ttlMs: number
} {
  if (historySize > 0) return { size: historySize, ttlMs: historyTtlMs }
  return { size: last ? 1 : 0, ttlMs: 0 }
}

/** Faults: `invalid` for what JSON cannot say, `too_large`. */
function encode(value: unknown, bytesMax: number): Encoded {
  let data: string | undefined
  try {
    data = JSON.stringify(value)
  } catch (cause) {
    throw new Fault('invalid', 'a publication must be JSON', { cause })
  }
  if (data === undefined) throw new Fault('invalid', 'a publication must be JSON')
  const bytes = Buffer.byteLength(data)
  if (bytes > bytesMax)
    throw new Fault('too_large', `a publication is larger than ${bytesMax} bytes`)
  return { data, bytes }
}
