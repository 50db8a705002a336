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
import type { Log } from '../observe/log.ts'
import type { Redis } from '../store/store.ts'
import type { Broker } from './broker.ts'
import { createLane, type Job, type Way } from './broker-lane.ts'
import {
  hasCome,
  isForgetting,
  isTwice,
  keptOf,
  messageOf,
  type Message,
  type State,
} from './broker-state.ts'
import { compareMs, createRegister, type Has } from './broker-register.ts'
import type { Followed } from './followed.ts'
import type { Encoded, FrameSink, Hub, Match, Topic } from './hub.ts'
import type { Position } from './recovery.ts'

export type BrokerRedis = Pick<Redis, 'isUp' | 'script' | 'subscribe'>

export interface RedisBrokerDeps {
  readonly hub: Hub
  readonly redis: BrokerRedis
  /** Changes wait for it. */
  readonly followed: Followed
  readonly clock: Clock
  readonly log: Log
}

export interface RedisBrokerOptions {
  /** Of every key and of the channel: channels do not know databases by number. */
  readonly namespace: string
  /** Whose log `seq` counts in. Read at each use: it is known only later. */
  readonly source: string
  /** A Redis that is away for less is waited for. */
  readonly patienceMs?: number
  /** Longest rest before a topic that has gone alone is shared again; for tests. */
  readonly restMsMost?: number
}

/** A fork, a long script, a switch to another Redis: publications wait, and nobody is sent away. */
const patienceMsDefault = 2_000

/** How often it looks whether something is due. */
const lookMs = 250

/** A start looks so long for Redis; then topics go alone. */
const arriveMs = 1_000

/** Of a Redis that answers, but not this. */
const readTriesMax = 3

/** States on their way: half of what the connection takes is left for others. */
const readsMax = 256

/** Of messages that came while a state was read; beyond it is read again. */
const waitingMax = 1_000

/** From Redis to here, on the other connection, while this event loop is busy. */
const comingMs = 200

/** What is published in the moment in which subscribers are sent to come back waits for them. So much of it. */
const heldMs = 200
const heldMax = 1_000

/** Subscribers told between two turns of the event loop: about 5 ms. */
const toldAtOnce = 500

/** Before it is tried again after Redis has not taken a publication; doubled while that goes on. */
const restMsLeast = 1_000
const restMsMostDefault = 30_000

/** A topic on its way to being alive here. */
interface Loading {
  flight: Promise<void> | undefined
  /** What came meanwhile. */
  readonly waiting: Message[]
  /** Something may have been told that nobody heard here. */
  isDoubtful: boolean
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
  /** The last time its state was read; done when that is. */
  flight?: Promise<void>
  /** What was published while its subscribers are sent to come back. */
  held: Held[] | undefined
}

export function createRedisBroker(
  { hub, redis, followed, clock, log }: RedisBrokerDeps,
  options: RedisBrokerOptions,
): Broker {
  const { restMsMost = restMsMostDefault, patienceMs = patienceMsDefault } = options
  const follows = new WeakMap<Topic, Follow>()
  const loading = new Map<string, Loading>()
  /** To be read as soon as Redis answers: they may have missed something. */
  const behind = new Set<Topic>()
  const alone = new Set<Topic>()
  let reads = 0
  let names = 0
  let restMs = restMsLeast
  let restsUntil = -Infinity
  let sharedAt = -Infinity
  let awaySince: number | undefined
  let toCompare = 0
  let comparing = hub.alive()[Symbol.iterator]()
  /** Until Redis was found, or not found soon. */
  let arrival: PromiseWithResolvers<void> | undefined = Promise.withResolvers()
  let end: (() => void) | undefined
  let cancelLook: Cancel | undefined

  /** Nobody has used it, for a publication or for an epoch; the hub's own epochs have no dot. */
  const nextName = (): string => `${hub.epoch}.${(names += 1).toString(36)}`

  const register = createRegister({ redis, clock, nextName }, options)

  const read = async (match: Match, has?: Has): Promise<State> => {
    const state = await register.state(match, has)
    await followed.when(Math.max(0, ...state.entries.slice(-1).map(({ seq }) => seq)))
    return state
  }

  const readPatiently = async (match: Match): Promise<State | undefined> => {
    for (let tries = 1; ; tries += 1) {
      try {
        return await read(match)
      } catch (error) {
        log.debug('realtime.topic-not-read', { topic: match.name, error })
        if (redis.isUp ? tries >= readTriesMax : isAwayLong()) return undefined
        await new Promise<void>((resolve) => void clock.after(lookMs, resolve))
      }
    }
  }

  const openAlone = (match: Match): Topic | undefined => {
    const topic = hub.revive(match)
    if (!topic || follows.has(topic)) return topic
    follows.set(topic, { isShared: false, mark: '', waiting: undefined, held: undefined })
    alone.add(topic)
    return topic
  }

  const load = async (match: Match, loaded: Loading): Promise<void> => {
    const state = await readPatiently(match)
    if (!state) return void openAlone(match)
    // Something was published to it meanwhile, and Redis did not take that.
    if (hub.peek(match.name)) return
    const topic = hub.revive(match, keptOf(state))
    if (!topic) return
    const follow: Follow = { isShared: true, mark: state.mark, waiting: undefined, held: undefined }
    follows.set(topic, follow)
    for (const message of loaded.waiting) take(topic, follow, message)
    if (loaded.isDoubtful) behind.add(topic)
  }

  const hear = (text: string): void => {
    const { name, message } = messageOf(text, options.source)
    const loaded = loading.get(name)
    if (loaded && loaded.waiting.length < waitingMax) loaded.waiting.push(message)
    else if (loaded) loaded.isDoubtful = true
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
    const { epoch, offset } = message
    if (follow.waiting) follow.waiting.push(message)
    else if (epoch !== topic.epoch || offset > topic.offset + 1) catchUp(topic, follow, message)
    else if (isForgetting(message)) {
      if (offset === topic.offset) topic.history.clear()
    } else if (offset === topic.offset + 1) {
      const wait = followed.when(message.seq)
      if (wait) hold(topic, follow, message, wait)
      else tell(topic, follow, message)
    } else if (isTwice(topic, follow.mark, message)) catchUp(topic, follow, message)
  }

  const hold = (topic: Topic, follow: Follow, message: Message, wait: Promise<void>): void => {
    const waiting = (follow.waiting = [message])
    follow.flight = wait.then(() => {
      follow.waiting = undefined
      if (!follow.isShared || followOf(topic) !== follow) return
      for (const one of waiting) take(topic, follow, one)
    })
  }

  const tell = (
    topic: Topic,
    follow: Follow,
    { data, mark }: Pick<Message, 'data' | 'mark'>,
  ): void => {
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
    const done = compare(topic, follow).then(
      (state) => {
        const came = follow.waiting ?? []
        follow.waiting = undefined
        // If not, it went alone meanwhile, or is no more.
        if (followOf(topic) === follow && follow.isShared === wasShared) {
          if (state !== 'coming' && !state.isSame) join(topic, follow, state)
          else if (state !== 'coming') for (const one of state.entries) take(topic, follow, one)
          for (const message of came) take(topic, follow, message)
        }
        return true
      },
      (error) => {
        follow.waiting = undefined
        if (follow.isShared) behind.add(topic)
        log.debug('realtime.not-caught-up', { topic: topic.name, error })
        return false
      },
    )
    const next = done.then((isRead) => {
      reads -= 1
      // After a failure it waits for its time: trying at once would be a loop without a pause.
      if (isRead) look()
    })
    follow.flight = next.catch((error: unknown) => log.error('realtime.broker-failed', { error }))
  }

  /** `coming`: what is missing was on its way on the channel, and has come meanwhile. */
  const compare = async (topic: Topic, follow: Follow): Promise<State | 'coming'> => {
    if (!follow.isShared) return await read(topic)
    const state = await ask(topic, follow)
    if (state.isSame || state.epoch !== topic.epoch) return state
    // Not kept in Redis: before it is given up, what Redis has told may arrive.
    if (!hasCome(topic.offset, state, follow.waiting)) {
      await new Promise<void>((resolve) => void clock.after(comingMs, resolve))
    }
    return hasCome(topic.offset, state, follow.waiting) ? 'coming' : await ask(topic, follow)
  }

  const ask = async (topic: Topic, follow: Follow): Promise<State> => {
    // All that has been heard is there: Redis is asked after it was said.
    await Promise.resolve()
    const heard = follow.waiting?.length ?? 0
    const isBack = follow.waiting?.some((one) => isTwice(topic, follow.mark, one)) === true
    // Whoever is further than Redis can be makes it begin another epoch.
    const offset = isBack ? Number.MAX_SAFE_INTEGER : topic.offset
    const state = await read(topic, { epoch: topic.epoch, offset, mark: follow.mark })
    // What was heard of another epoch is over. It would be a reason to ask, again and again.
    const isOver = ({ epoch }: Message, index: number) => index < heard && epoch !== state.epoch
    follow.waiting = follow.waiting?.filter((one, index) => !isOver(one, index))
    return state
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

  const share = async ({ match, encoded, once }: Job): Promise<Position> => {
    const { data } = encoded
    const mark = nextName()
    const { epoch, offset, isTaken } = await register.publish(
      match,
      { data, mark, once },
      patienceMs / 2,
    )
    const topic = hub.peek(match.name)
    const follow = topic && follows.get(topic)
    // Mostly it is known before the channel says so. If not, what the channel says comes in order.
    const isNext = topic?.epoch === epoch && topic.offset + 1 === offset
    if (isTaken && isNext && follow?.isShared && !follow.waiting) {
      tell(topic, follow, { mark, data })
    }
    return { epoch, offset }
  }

  const wayOf = ({ name }: Match): Way => {
    const topic = hub.peek(name)
    if (topic && follows.get(topic)?.isShared === false) return 'alone'
    if (redis.isUp) return 'shared'
    return isAwayLong() ? 'alone' : 'wait'
  }

  const isAwayLong = (): boolean => {
    awaySince ??= clock.tick()
    return clock.tick() - awaySince >= patienceMs
  }

  const lane = createLane({ clock, wayOf, share, publishAlone })

  const look = (): void => {
    lane.go()
    if (!redis.isUp) return void isAwayLong()
    awaySince = undefined
    arrive()
    for (const topic of behind) {
      if (reads >= readsMax) return
      const follow = followOf(topic)
      if (follow?.waiting) continue
      if (follow?.isShared) catchUp(topic, follow)
      else behind.delete(topic)
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

  /** Somebody was at a node that is further: this one looks before it answers. */
  const level = (topic: Topic, { epoch, offset }: Position): Promise<void> | undefined => {
    const follow = follows.get(topic)
    const isBehind = epoch === topic.epoch && offset > topic.offset
    if (!isBehind || !follow?.isShared || !redis.isUp) return undefined
    if (!follow.waiting) catchUp(topic, follow)
    return follow.flight
  }

  const ready = (match: Match, since?: Position): Promise<void> | undefined => {
    const alive = hub.peek(match.name)
    if (alive) return since && level(alive, since)
    const known = loading.get(match.name)
    if (known) return known.flight
    if (arrival) return arrival.promise.then(() => ready(match, since))
    if (!redis.isUp && isAwayLong()) {
      openAlone(match)
      return undefined
    }
    const loaded: Loading = { flight: undefined, waiting: [], isDoubtful: false }
    loading.set(match.name, loaded)
    return (loaded.flight = load(match, loaded).finally(() => loading.delete(match.name)))
  }

  return {
    keeps: () => true,
    ready,
    publish(match, encoded, once) {
      const job = { match, encoded, once }
      return arrival ? arrival.promise.then(() => lane.publish(job)) : lane.publish(job)
    },
    async forget(match) {
      if (wayOf(match) !== 'alone') await register.forget(match)
      hub.peek(match.name)?.history.clear()
    },
    get alone() {
      return alone.size
    },
    settled: lane.settled,
    start() {
      clock.after(arriveMs, arrive)
      end ??= redis.subscribe(register.channel, hear, () => {
        for (const topic of hub.alive()) {
          const follow = follows.get(topic)
          // Also one that is coming back from being alone: what it reads may be from before.
          if (follow?.isShared || follow?.waiting) behind.add(topic)
        }
        for (const loaded of loading.values()) loaded.isDoubtful = true
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
