/**
 * Several nodes, one order: each publication is numbered, kept and told in one step of Redis.
 *
 *   publish ─► script ─► …:log (stream) ─► channel ─► every node that has the topic alive: next number? ─► Hub.emit
 *                                                      │ numbers missing: read from the stream
 *                                                      └ not kept there, or another epoch: Hub.restart
 *
 *   shared ──a publication that Redis did not take──► alone (an own epoch; 2500) ──Redis answers──► shared (2500)
 *
 * A topic follows Redis as long as nothing is published to it here while Redis is away: then it is only late, reads
 * what it missed when Redis is back, and nobody notices. If something is, its subscribers here are told to come back
 * (2500) and are served by this node alone, under an epoch that is nobody else's; what is said then stays here.
 *
 * Limits: topics of which a state is read at once; publications that wait for subscribers to come back. What a topic
 * keeps beyond 4 MB is not read by a node that opens it later.
 */
import { Fault } from '../fault.ts'
import type { Cancel, Clock } from '../lib/clock.ts'
import { detach } from '../lib/service.ts'
import type { Log } from '../observe/log.ts'
import type { Redis } from '../store/store.ts'
import type { Broker } from './broker.ts'
import { createLane, type Job } from './broker-lane.ts'
import { publishScript, stateScript, forgetScript } from './broker-scripts.ts'
import { keepOf, type Encoded, type FrameSink, type Hub, type Match, type Topic } from './hub.ts'
import type { Position } from './recovery.ts'

export type BrokerRedis = Pick<Redis, 'isUp' | 'run' | 'subscribe'>

export interface RedisBrokerDeps {
  readonly hub: Hub
  readonly redis: BrokerRedis
  readonly clock: Clock
  readonly log: Log
}

export interface RedisBrokerOptions {
  /** Of every key and of the channel: channels do not know databases by number. */
  readonly namespace: string
  /** Whose log `seq` counts in. Read at each use: it is known only later. */
  readonly source: string
}

/** How often it looks whether something is due. */
const lookMs = 250

/** A start looks so long for Redis; then topics go alone. */
const arriveMs = 1_000

/** In which every topic is compared with Redis once, whatever happens: a lost message of a quiet topic comes to light. */
const compareMs = 5 * 60_000

/** A topic that nobody publishes to keeps its number in Redis three times as long as it is compared. */
const quietMs = 3 * compareMs

/** A topic keeps its number so long after its last publication, or twice as long as its history. */
const spokenMs = 24 * 3_600_000

/** States on their way: half of what the connection takes is left for others. */
const readsMax = 256

/** Of one answer; Redis does nothing else meanwhile. */
const stateBytesMax = 4 * 1024 * 1024

/** Of messages that came while a state was read; beyond it is read again. */
const waitingMax = 1_000

/** What is published in the moment in which subscribers are sent to come back waits for them. So much of it. */
const heldMs = 200
const heldMax = 1_000

/** Subscribers told between two turns of the event loop: about 5 ms. */
const toldAtOnce = 500

/** Before it is tried again after Redis has not taken a publication; doubled while that goes on. */
const restMsLeast = 1_000
const restMsMost = 30_000

interface Message {
  readonly epoch: string
  readonly offset: number
  readonly mark: string
  readonly data: string
}

interface Held {
  readonly encoded: Encoded
  readonly resolve: (position: Position) => void
  readonly reject: (thrown: unknown) => void
}

/** How a topic that is alive here follows. */
interface Follow {
  /** False: it counts alone. */
  isShared: boolean
  /** Of its last publication. */
  mark: string
  /** What came while its state is read. */
  waiting: Message[] | undefined
  /** What was published while its subscribers are sent to come back. */
  held: Held[] | undefined
}

interface State extends Position {
  readonly mark: string
  /** `entries` go on where the asker was. Otherwise they are the newest. */
  readonly isSame: boolean
  readonly entries: readonly (Message & { readonly atMs: number })[]
}

export function createRedisBroker(
  { hub, redis, clock, log }: RedisBrokerDeps,
  options: RedisBrokerOptions,
): Broker {
  const { namespace } = options
  const channel = `${namespace}:topics`
  const follows = new WeakMap<Topic, Follow>()
  const loading = new Map<string, { readonly flight: Promise<void>; readonly waiting: Message[] }>()
  /** To be read as soon as Redis answers: they may have missed something. */
  const behind = new Set<Topic>()
  const alone = new Set<Topic>()
  let reads = 0
  let names = 0
  let restMs = restMsLeast
  let restsUntil = -Infinity
  let sharedAt = -Infinity
  let toCompare = 0
  let comparing = hub.alive()[Symbol.iterator]()
  /** Until Redis was found, or not found soon. */
  let arrival: PromiseWithResolvers<void> | undefined = Promise.withResolvers()
  let end: (() => void) | undefined
  let cancelLook: Cancel | undefined

  /** Nobody has used it: for a publication, for an epoch. */
  const nextName = (): string => `${hub.epoch}${(names += 1).toString(36)}`

  const keysOf = (name: string): [meta: string, log: string, seen: string] => {
    const base = `${namespace}:{${encodeURIComponent(name)}}`
    return [`${base}:meta`, `${base}:log`, `${base}:seen:${options.source}`]
  }

  const read = async ({ name, plan }: Match, since?: Topic): Promise<State> => {
    const [meta, entries] = keysOf(name)
    const mark = (since && follows.get(since)?.mark) ?? ''
    const has = since ? [since.epoch, since.offset, mark] : ['', 0, '']
    const bounds = [keepOf(plan).size, stateBytesMax, quietMs]
    const args = [channel, name, nextName(), ...bounds, ...has]
    return stateOf(await redis.run(stateScript, [meta, entries], args), clock.now())
  }

  const openAlone = (match: Match): Topic | undefined => {
    const topic = hub.revive(match)
    if (!topic || follows.has(topic)) return topic
    follows.set(topic, { isShared: false, mark: '', waiting: undefined, held: undefined })
    alone.add(topic)
    return topic
  }

  const load = async (match: Match, waiting: Message[]): Promise<void> => {
    let state: State
    try {
      state = await read(match)
    } catch (error) {
      log.debug('realtime.topic-alone', { topic: match.name, error })
      openAlone(match)
      return
    }
    // Something was published to it meanwhile, and Redis did not take that.
    if (hub.peek(match.name)) return
    const topic = hub.revive(match, keptOf(state))
    if (!topic) return
    const follow: Follow = { isShared: true, mark: state.mark, waiting: undefined, held: undefined }
    follows.set(topic, follow)
    for (const message of waiting) take(topic, follow, message)
  }

  const hear = (text: string): void => {
    const line = text.indexOf('\n')
    const [epoch = '', number, mark = '', name = ''] = text.slice(0, line).split(' ')
    const message = { epoch, offset: Number(number), mark, data: text.slice(line + 1) }
    loading.get(name)?.waiting.push(message)
    const topic = hub.peek(name)
    const follow = topic && follows.get(topic)
    if (!topic || !follow) return
    if (follow.waiting) {
      if (follow.waiting.length < waitingMax) follow.waiting.push(message)
      else behind.add(topic)
    } else if (follow.isShared) take(topic, follow, message)
  }

  /** In order, or not at all. */
  const take = (topic: Topic, follow: Follow, message: Message): void => {
    const { epoch, offset, mark } = message
    if (follow.waiting) follow.waiting.push(message)
    else if (epoch !== topic.epoch || offset > topic.offset + 1) catchUp(topic, follow, message)
    else if (mark === '-') {
      if (offset === topic.offset) topic.history.clear()
    } else if (offset === topic.offset + 1) tell(topic, follow, message)
    // A number given twice: Redis has gone back, to before it.
    else if (offset === topic.offset && mark !== follow.mark) catchUp(topic, follow, message)
  }

  const tell = (topic: Topic, follow: Follow, { data, mark }: Message): void => {
    try {
      hub.emit(topic, { data, bytes: Buffer.byteLength(data) })
      follow.mark = mark
    } catch (error) {
      // More than can leave: it is told from the stream as soon as there is room again.
      log.debug('realtime.told-later', { topic: topic.name, error })
      behind.add(topic)
    }
  }

  /** Reads what Redis has beyond the copy. One at a time for a topic; what comes meanwhile waits. */
  const catchUp = (topic: Topic, follow: Follow, ...waiting: Message[]): void => {
    const wasShared = follow.isShared
    behind.delete(topic)
    follow.waiting = waiting
    reads += 1
    let isRead = false
    const done = read(topic, wasShared ? topic : undefined).then(
      (state) => {
        isRead = true
        const came = follow.waiting ?? []
        follow.waiting = undefined
        // It went alone meanwhile, or is no more.
        if (hub.peek(topic.name) !== topic || follow.isShared !== wasShared) return
        if (state.isSame) goOn(topic, follow, state)
        else join(topic, follow, state)
        for (const message of came) take(topic, follow, message)
      },
      (error) => {
        follow.waiting = undefined
        if (wasShared) behind.add(topic)
        log.debug('realtime.not-caught-up', { topic: topic.name, error })
      },
    )
    const next = done.finally(() => {
      reads -= 1
      // After a failure it waits for its time: trying at once would be a loop without a pause.
      if (isRead) look()
    })
    detach(next, (error) => log.error('realtime.broker-failed', { error }))
  }

  const goOn = (topic: Topic, follow: Follow, { entries }: State): void => {
    for (const entry of entries) {
      if (entry.offset === topic.offset + 1) tell(topic, follow, entry)
    }
  }

  /** From now on it is what Redis says. */
  const join = (topic: Topic, follow: Follow, state: State): void => {
    follow.isShared = true
    follow.mark = state.mark
    alone.delete(topic)
    sharedAt = clock.tick()
    sendAway(topic, hub.restart(topic, keptOf(state)))
  }

  /** From now on it is what this node says. */
  const part = (topic: Topic, follow: Follow): void => {
    if (alone.size === 0) {
      log.warn('realtime.alone', { topic: topic.name })
      const isAgain = clock.tick() - sharedAt < 2 * restMs
      restMs = isAgain ? Math.min(restMsMost, restMs * 2) : restMsLeast
    }
    follow.isShared = false
    follow.mark = ''
    behind.delete(topic)
    alone.add(topic)
    restsUntil = clock.tick() + restMs
    const sinks = hub.restart(topic)
    if (sinks.length === 0) return
    follow.held = []
    sendAway(topic, sinks, () => clock.after(heldMs, () => release(topic, follow)))
  }

  const release = (topic: Topic, follow: Follow): void => {
    const { held = [] } = follow
    follow.held = undefined
    for (const { encoded, resolve, reject } of held) {
      try {
        resolve(hub.emit(topic, encoded))
      } catch (thrown) {
        reject(thrown)
      }
    }
  }

  /** They come back, and are told what they have missed, or that they have. */
  const sendAway = (topic: Topic, sinks: readonly FrameSink[], then?: () => void): void => {
    if (sinks.length === 0) return then?.()
    clock.soon(() => {
      for (const sink of sinks.slice(0, toldAtOnce)) sink.lose(topic)
      sendAway(topic, sinks.slice(toldAtOnce), then)
    })
  }

  const publishAlone = ({ match, encoded }: Job): Position | Promise<Position> => {
    const topic = hub.peek(match.name) ?? openAlone(match)
    const follow = topic && follows.get(topic)
    if (!topic || !follow) throw new Fault('unavailable', 'too many topics are alive')
    if (follow.isShared) part(topic, follow)
    if (follow.held && follow.held.length >= heldMax) release(topic, follow)
    const { held } = follow
    if (!held) return hub.emit(topic, encoded)
    return new Promise((resolve, reject) => held.push({ encoded, resolve, reject }))
  }

  const share = async ({ match, encoded, seq }: Job): Promise<Position> => {
    const { name, plan } = match
    const { data } = encoded
    const mark = nextName()
    const { size, ttlMs } = keepOf(plan)
    const metaMs = Math.max(spokenMs, 2 * ttlMs)
    const kept = [size, ttlMs > 0 ? ttlMs : metaMs, metaMs]
    const args = [channel, name, data, mark, nextName(), ...kept, seq ?? '']
    const answer = await redis.run(publishScript, keysOf(name), args)
    const [epoch, offset, isTaken] = answer as [string, number, number]
    const topic = hub.peek(name)
    const follow = topic && follows.get(topic)
    // Mostly it is known before the channel says so. If not, what the channel says comes in order.
    const isNext = topic?.epoch === epoch && topic.offset + 1 === offset
    if (isTaken === 1 && isNext && follow?.isShared && !follow.waiting) {
      tell(topic, follow, { epoch, offset, mark, data })
    }
    return { epoch, offset }
  }

  const isShared = ({ name }: Match): boolean => {
    const topic = hub.peek(name)
    return redis.isUp && !(topic && follows.get(topic)?.isShared === false)
  }

  const lane = createLane({ isShared, share, publishAlone })

  const look = (): void => {
    if (!redis.isUp) return
    arrive()
    for (const topic of behind) {
      if (reads >= readsMax) return
      const follow = followOf(topic)
      if (!follow) behind.delete(topic)
      else if (!follow.waiting) catchUp(topic, follow)
    }
    if (clock.tick() < restsUntil) return
    for (const topic of alone) {
      if (reads >= readsMax) return
      const follow = followOf(topic)
      if (!follow) alone.delete(topic)
      else if (!follow.waiting && !follow.held) catchUp(topic, follow)
    }
  }

  const arrive = (): void => {
    arrival?.resolve()
    arrival = undefined
  }

  const followOf = (topic: Topic): Follow | undefined =>
    hub.peek(topic.name) === topic ? follows.get(topic) : undefined

  const compareSome = (): void => {
    toCompare += (hub.topics * lookMs) / compareMs
    for (; toCompare >= 1; toCompare -= 1) {
      const { value: topic, done } = comparing.next()
      if (done) comparing = hub.alive()[Symbol.iterator]()
      else if (follows.get(topic)?.isShared) behind.add(topic)
    }
  }

  const ready = (match: Match): Promise<void> | undefined => {
    if (hub.peek(match.name)) return undefined
    const known = loading.get(match.name)
    if (known) return known.flight
    if (arrival) return arrival.promise.then(() => ready(match))
    if (!redis.isUp) {
      openAlone(match)
      return undefined
    }
    const waiting: Message[] = []
    const flight = load(match, waiting).finally(() => loading.delete(match.name))
    loading.set(match.name, { flight, waiting })
    return flight
  }

  return {
    keeps: () => true,
    ready,
    publish(match, encoded, seq) {
      const job = { match, encoded, seq }
      return arrival ? arrival.promise.then(() => lane.publish(job)) : lane.publish(job)
    },
    async forget(match) {
      const [meta, entries] = keysOf(match.name)
      if (isShared(match)) await redis.run(forgetScript, [meta, entries], [channel, match.name])
      hub.peek(match.name)?.history.clear()
    },
    settled: lane.settled,
    start() {
      clock.after(arriveMs, arrive)
      end ??= redis.subscribe(channel, hear, () => {
        for (const topic of hub.alive()) if (follows.get(topic)?.isShared) behind.add(topic)
        look()
      })
      cancelLook ??= clock.every(lookMs, () => {
        compareSome()
        look()
      })
    },
    stop() {
      arrive()
      end?.()
      cancelLook?.()
    },
  }
}

function keptOf({ epoch, offset, entries }: State) {
  return { epoch, offset, publications: entries }
}

type Entry = [id: string, fields: [...unknown[]]]

/** `nowMs`: times of Redis become times of here. */
function stateOf(answer: unknown, nowMs: number): State {
  const [epoch, offset, mark, time, same, found] = answer as [
    ...[string, number, string, string, number],
    Entry[],
  ]
  const isSame = same === 1
  const entries = found.map(([id, fields]) => ({
    epoch,
    offset: Number(id.slice(0, -2)),
    atMs: nowMs - (Number(time) - Number(fields[1])),
    mark: String(fields[3]),
    data: String(fields[7]),
  }))
  return { epoch, offset, mark, isSame, entries: isSame ? entries : entries.reverse() }
}
