/**
 * Topics, and everybody who listens to them over WebSocket or server-sent events.
 *
 * Invariant: no gap and no duplicate, or an explicit "not recovered" (`recovered: false` on a socket,
 * `event: gap` on a stream). Each publication carries its offset, one more than the one before it in
 * the same epoch; a subscriber that comes back with its position gets exactly what it missed.
 *
 *   Publisher: message, limit, conflate
 *    └► Broker: the next number, here, of the store, or of Redis
 *        └► Hub ─► History (ring per topic, in memory)
 *            ├──► Outbox ──────┐ Pump, when the turn   ┌──► Connection (Centrifugo's protocol)
 *            └──► Group, Outbox ┘ is over, in slices ──┴──► EventStream (EventSource)
 *   clock, each second ─► Sweep: pings, pongs, expiry, slow readers, idle topics
 *
 * Knows no HTTP and no Bun: doors hand in sockets and requests' identities. History does not outlive
 * the process, but that of durable topics and of those that several nodes share; its epoch says so.
 */
import type { Identity, TopicVerdict, Verdict } from '../auth/auth.ts'
import { Fault } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import type { Service } from '../lib/service.ts'
import type { Credentials } from '../limits/limits.ts'
import type { Log } from '../observe/log.ts'
import type { Publications, Redis } from '../store/store.ts'
import { createAdmission } from './admission.ts'
import { bringAlive } from './alive.ts'
import { createAttendance } from './attendance.ts'
import { createMemoryBroker, type Broker } from './broker.ts'
import { createDurableBroker } from './broker-durable.ts'
import { createRedisBroker, type RedisBrokerOptions } from './broker-redis.ts'
import { Connection } from './connection.ts'
import { createControl, type NodeInfo } from './control.ts'
import { createNodesControl, type Control } from './control-nodes.ts'
import type { Sights } from './crowd.ts'
import type { TopicRule } from './declare.ts'
import { createDrain, type Guest } from './drain.ts'
import { createDurable, type Durable } from './durable.ts'
import { Emulated, type EmulationContext, type Framing } from './emulation.ts'
import { createFollowed, type Followed } from './followed.ts'
import type { Publication } from './history.ts'
import { createHub, type Audience, type Hub, type Topic } from './hub.ts'
import { limitsDefault, type Limits } from './limits.ts'
import { createOnlyNode, type Nodes } from './nodes.ts'
import { createRedisNodes } from './nodes-redis.ts'
import type { Matcher } from './pattern.ts'
import type { Call, Called, ConnectionContext } from './peer.ts'
import { createPresence, type Presence } from './presence.ts'
import { createRedisPresence } from './presence-redis.ts'
import { unsubscribes, type Close } from './protocol.ts'
import { createPublisher, type Publisher, type PublishPlan } from './publisher.ts'
import type { MakeLimits } from './publish-limit.ts'
import { createPump } from './pump.ts'
import { readHistory, type HistoryQuery, type Position } from './recovery.ts'
import { createReplay, type Replay } from './replay.ts'
import { checkHearing } from './rules.ts'
import { createStreamDoor, unknownTopic } from './stream-door.ts'
import { EventStream, type Group, type StreamContext } from './streams.ts'
import { createSweep } from './sweep.ts'
import { Users } from './users.ts'

export { compilePattern, validatePattern } from './pattern.ts'
export { historyQueryOf, positionOf } from './recovery.ts'
export type { Connection } from './connection.ts'
export type { Who } from './control.ts'
export type { Reach } from './control-nodes.ts'
export type { FrameSink } from './hub.ts'
export type { Matcher } from './pattern.ts'
export type { Framing } from './emulation.ts'
export type { Call, Called } from './peer.ts'
export type { Replayed, ReplayQuery } from './replay.ts'
export { repeatKeyLengthMax } from './repeats.ts'
export { laterEvent } from './streams.ts'
export type { CheckMessage } from './publisher.ts'
export type { HistoryQuery, Position } from './recovery.ts'
export type { Socket } from './socket.ts'

/** A declared topic, checked. Made by the plan. */
export interface TopicPlan extends PublishPlan {
  readonly pattern: string
  readonly matcher: Matcher
  readonly subscribe?: TopicRule | undefined
  readonly publish?: TopicRule | undefined
  /** 0: nothing is kept. */
  readonly historySize: number
  readonly historyTtlMs: number
  readonly last: boolean
  /** Who hears it is known, and told to subscribers who ask. */
  readonly presence?: boolean | undefined
}

/** The server's own read of a history: an operator's tool, so generous. */
const serverHistoryBytesMax = 16 * 1024 * 1024

export interface RealtimeDeps {
  readonly topics: readonly TopicPlan[]
  /** A bearer token. Synchronous when it is known. */
  readonly identify: (token: string, from: () => string) => Verdict | Promise<Verdict>
  /** A subscription token. Absent: none is good. */
  readonly identifyTopic?: (
    token: string,
    from: () => string,
  ) => TopicVerdict | Promise<TopicVerdict>
  /** What `rpc` calls: the app's own doors. Absent: `rpc` is not served. */
  readonly call?: (call: Call) => Promise<Called>
  readonly clock: Clock
  readonly log: Log
  /** Of tokens that are refused, at all doors. Absent: they are not counted. */
  readonly credentials?: Credentials | undefined
  /** Windows to count publications in. */
  readonly limits: MakeLimits
  /** Where durable topics are kept. Absent: none is declared. */
  readonly publications?: Publications | undefined
  /** What several nodes share. Absent: this one is alone. */
  readonly shared?: SharedTopics | undefined
  /** `followed` is told how far the log has been followed: changes that other nodes tell wait for it. */
  readonly isFollowing?: boolean
  /** Publications that are rows: what each hearer may have of them. Absent: everybody all. */
  readonly sights?: Sights | undefined
  /** A topic has its first subscriber here, who is not told anything yet; or has none any more. */
  readonly onAudience?: Audience
}

export interface SharedTopics extends RedisBrokerOptions {
  readonly redis: Redis
}

export interface RealtimeOptions {
  readonly limits?: Partial<Limits>
  /** In the reply to `connect`. */
  readonly version?: string
  /** Of the app, to operators. */
  readonly app?: string
}

export interface StreamRequest {
  readonly identity: Identity
  /** Of the peer. */
  readonly address: string
  readonly topics: readonly string[]
  /** Last-Event-ID; undefined on a first visit. */
  readonly lastEventId: string | undefined
}

/** A connection without a WebSocket. */
export interface EmulationRequest {
  readonly identity: Identity
  /** Of the peer. */
  readonly address: string
  readonly framing: Framing
  /** Its first commands, `connect` before all. */
  readonly data: string
}

export interface HistoryPage extends Position {
  readonly publications: readonly { readonly offset: number; readonly data: string }[]
}

interface Known {
  readonly identity: Identity
  end(close: Close): void
}

export interface SignedIn {
  /** Those of one user. A copy. */
  of(user: string): readonly Known[]
  users(): Iterable<string>
  /** Those that an API key opened, by its id: everybody is looked at. A copy. */
  holding(isWanted: (key: string) => boolean): readonly Known[]
}

export interface RealtimeStats {
  /** Sockets and streams. */
  readonly connections: number
  readonly sockets: number
  readonly streams: number
  readonly subscriptions: number
  /** Alive, heard or not. */
  readonly topics: number
  readonly publications: number
  /** Topics that are this node's alone because Redis is away. */
  readonly alone: number
  readonly historyBytes: number
  /** Readers cut because they did not keep up. */
  readonly slow: number
  /** `connect` commands in line. */
  readonly waiting: number
}

export interface Realtime extends Service {
  /** Names this process to clients and operators. */
  readonly node: string
  /** As the server: no rule is asked. Faults: `not_found`, `invalid`, `too_large`, `too_many`, `unavailable`. */
  readonly publish: Publisher['publish']
  /** As the server API: the topic's `message` is asked, too. Faults: the same. */
  readonly submit: Publisher['submit']
  /** One value to many topics, encoded once. Faults of the value are thrown, of a topic returned. */
  readonly broadcast: Publisher['broadcast']
  /** As the server. `data` is JSON text. Faults: `not_found`, `conflict` when `since` is not kept. */
  history(topic: string, query: HistoryQuery): HistoryPage
  /** Those of these that are kept elsewhere are read from there, if they are not yet. Faults: `unavailable`. */
  ready(topics: readonly string[]): Promise<void>
  /** Publications of a time, as `identity` or as the server. Faults: `not_found`, `denied`, `unavailable`. */
  readonly replay: Replay
  /** Whose topic this is, for who may subscribe to it. Faults: `not_found`, `denied`, `internal`. */
  check(identity: Identity, topic: string): Pick<TopicPlan, 'pattern' | 'subscribe'>
  /** What the topic keeps goes; it counts on. Faults: `not_found`, `unavailable`. */
  forget(topic: string): Promise<void>
  /** What the server does to who is connected, and asks about topics, at all nodes. */
  readonly control: Control
  /** For one socket, before it is upgraded. Faults: `unavailable`, `too_many`. */
  connection(identity: Identity, address: string): Connection
  /** At this node, those of one user, for what the server does to it. A copy. */
  connectionsOf(user: string): readonly Connection[]
  /** Sockets and streams of users, and of keys: who is sent away when a token or a key is revoked. */
  readonly signedIn: SignedIn
  /** Faults: `unavailable`, `too_many`, `not_found`, `denied`, `invalid`, `internal`. */
  stream(request: StreamRequest): ReadableStream<Uint8Array>
  /** What the server says to a connection without a WebSocket. Faults: `unavailable`, `too_many`. */
  emulate(request: EmulationRequest): ReadableStream<Uint8Array>
  /** What its client says. `gone`: it has ended. `elsewhere`: it is, or was, of another process. */
  receive(session: string, node: string, data: string): 'taken' | 'gone' | 'elsewhere'
  stats(): RealtimeStats
  /** Of the connections that may be open: 0 to 1. */
  connectionShare(): number
  start(): void
  /** The node has followed the log to here: what others say of it may be told. */
  followed(seq: number): void
  /** What was accepted for durable topics is committed, or refused. */
  settled(): Promise<void>
  /** No new connections; closes what is open, spread over `limits.drainMs`. */
  drain(): Promise<void>
  stop(): void
}

export function createRealtime(deps: RealtimeDeps, options: RealtimeOptions = {}): Realtime {
  const { topics: plans, identify, clock, log } = deps
  const limits: Limits = { ...limitsDefault, ...options.limits }
  const counts = { sockets: 0, streams: 0, subscriptions: 0, slow: 0 }
  let isOpen = true

  const pump = createPump(clock, limits)
  const { onAudience } = deps
  const isKept = (plan: TopicPlan) => broker.keeps(plan)
  const hub = createHub(
    { plans, clock, pump, log, isKept, onAudience, sights: deps.sights },
    limits,
  )
  const sweep = createSweep<Guest>(clock, () => hub.sweep())
  const admission = createAdmission(clock, limits)
  const drain = createDrain({ clock, sweep }, limits)
  const { publications } = deps
  /** Sockets subscribe again, streams come back: both find that they cannot recover. */
  const onGap = (topic: string): void =>
    sweep.forEach((guest) => {
      if (guest instanceof Connection) guest.unsubscribe(topic, unsubscribes.insufficient)
      else if (guest instanceof EventStream && guest.hears(topic)) guest.close()
    })
  const followed = createFollowed(clock, log, deps.isFollowing === true)
  const durable = publications && createDurable({ hub, clock, log, publications, followed, onGap })
  const broker = brokerOf(deps, { hub, durable, followed })
  const publisher = createPublisher(
    { hub, broker, clock, log, limits: deps.limits, call: deps.call },
    limits,
  )
  const users = new Users<Connection>()
  const readers = new Users<EventStream>()
  const presence = presenceOf(deps, hub.epoch)
  const attendance = createAttendance(clock, presence)
  const connectionContext: ConnectionContext = {
    hub,
    publisher,
    broker,
    pump,
    clock,
    log,
    sweep,
    limits,
    identify,
    identifyTopic: deps.identifyTopic,
    credentials: deps.credentials,
    call: deps.call,
    admission,
    attendance,
    users,
    counts,
    version: options.version ?? '0',
  }
  const groups = new Map<string, Group>()
  const streamContext: StreamContext = {
    hub,
    clock,
    sweep,
    admission,
    limits,
    groups,
    readers,
    counts,
  }

  const sessions = new Map<string, Emulated>()
  const emulation: EmulationContext = { sessions, slowBytes: limits.slowBytes }

  const stats = (): RealtimeStats => ({
    connections: counts.sockets + counts.streams,
    ...counts,
    waiting: admission.waiting,
    topics: hub.topics,
    publications: hub.publications,
    alone: broker.alone,
    historyBytes: hub.historyBytes,
  })

  const startedAt = clock.tick()
  const info = (): NodeInfo => {
    const { app = '', version = '0' } = options
    const { connections, subscriptions, topics } = stats()
    const uptimeMs = Math.round(clock.tick() - startedAt)
    const counted = { connections, users: users.size, subscriptions, topics }
    return { node: hub.epoch, app, version, ...counted, uptimeMs }
  }
  const own = createControl({ hub, broker, sweep, users, attendance, info })
  const nodes = nodesOf(deps, hub.epoch)

  const admit = (address: string, user: string | undefined): void => {
    if (!isOpen) throw new Fault('unavailable', 'the server is shutting down')
    if (sweep.size >= limits.connectionsMax) {
      throw new Fault('unavailable', `more than ${limits.connectionsMax} connections`)
    }
    admission.check(address, user)
  }

  const open = (name: string): Topic => {
    const match = hub.match(name)
    if (!match) throw unknownTopic(name)
    const topic = hub.open(match)
    if (topic) return topic
    throw new Fault('unavailable', 'too many topics are alive')
  }

  /** What is hidden from everybody is for no tool either. */
  const wholeOf = (publication: Publication): Publication[] => {
    const data = hub.whole(publication.data)
    return data === undefined ? [] : [{ ...publication, data }]
  }

  return {
    node: hub.epoch,
    publish: publisher.publish,
    submit: publisher.submit,
    broadcast: publisher.broadcast,
    history(name, query) {
      const topic = open(name)
      const bounds = { limitMax: limits.historyLimitMax, bytesMax: serverHistoryBytesMax }
      const publications = readHistory(topic, query, bounds, (some) => some.flatMap(wholeOf))
      if (!publications) throw new Fault('conflict', 'what comes after this position is not kept')
      return { publications, offset: topic.offset, epoch: topic.epoch }
    },
    async ready(names) {
      await bringAlive({ hub, broker }, names)
    },
    replay: createReplay({ hub, broker, durable, clock, log }),
    check(identity, name) {
      const match = hub.match(name)
      if (!match) throw unknownTopic(name)
      if (identity.kind !== 'key') checkHearing(log, identity, match)
      return match.plan
    },
    async forget(name) {
      await bringAlive({ hub, broker }, [name])
      await broker.forget(open(name))
    },
    control: createNodesControl({ own, nodes, log }),
    connection(identity, address) {
      // Its user is known for sure with its `connect`.
      admit(address, undefined)
      return new Connection(connectionContext, identity, address)
    },
    connectionsOf: (user) => users.of(user),
    signedIn: {
      of: (user) => [...users.of(user), ...readers.of(user)],
      users: () => new Set([...users.names(), ...readers.names()]),
      holding(isWanted) {
        const found: (Connection | EventStream)[] = []
        sweep.forEach((guest) => {
          if (!(guest instanceof Connection || guest instanceof EventStream)) return
          const key = keyOf(guest.identity)
          if (key !== undefined && isWanted(key)) found.push(guest)
        })
        return found
      },
    },
    stream: createStreamDoor({ context: streamContext, broker, pump, log, admit }, limits),
    emulate({ identity, address, framing, data }) {
      admit(address, undefined)
      const connection = new Connection(connectionContext, identity, address)
      const source = new Emulated(emulation, connection, { framing, address, first: data })
      return new ReadableStream<Uint8Array>(source)
    },
    receive(session, node, data) {
      if (node !== hub.epoch) return 'elsewhere'
      const emulated = sessions.get(session)
      emulated?.receive(data)
      return emulated ? 'taken' : 'gone'
    },
    stats,
    connectionShare: () => (counts.sockets + counts.streams) / limits.connectionsMax,
    start() {
      sweep.start()
      broker.start()
      // Before its first sign: who counts as alive is asked.
      nodes.start()
      presence.start()
    },
    followed: followed.reach,
    async settled() {
      await broker.settled()
    },
    async drain() {
      isOpen = false
      publisher.drain()
      await broker.settled()
      // What was accepted is told before anybody is sent away.
      pump.flush(Infinity)
      await drain.run()
    },
    stop() {
      isOpen = false
      pump.flush(Infinity)
      drain.stop()
      admission.stop()
      pump.stop()
      sweep.stop()
      broker.stop()
      nodes.stop()
      presence.stop()
    },
  }
}

/** The API key that somebody came in by, if it may be revoked. */
function keyOf(identity: Identity): string | undefined {
  return identity.kind === 'key' || identity.kind === 'scoped' ? identity.key : undefined
}

function brokerOf(
  { clock, log, shared }: RealtimeDeps,
  { hub, durable, followed }: { hub: Hub; durable: Durable | undefined; followed: Followed },
): Broker {
  const base = shared
    ? createRedisBroker({ hub, redis: shared.redis, followed, clock, log }, shared)
    : createMemoryBroker(hub)
  if (!durable) return base
  const namespace = shared?.namespace ?? ''
  return createDurableBroker({ hub, durable, base, redis: shared?.redis }, { namespace })
}

function presenceOf({ clock, log, shared }: RealtimeDeps, node: string): Presence {
  if (!shared) return createPresence()
  const { redis, namespace } = shared
  return createRedisPresence({ redis, clock, log }, { namespace, node })
}

function nodesOf({ clock, log, shared }: RealtimeDeps, node: string): Nodes {
  if (!shared) return createOnlyNode()
  const { redis, namespace } = shared
  return createRedisNodes({ redis, clock, log }, { namespace, node })
}
