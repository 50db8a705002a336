/** A hub with a broker, as a node of several has it; without sockets. It remembers what its listeners heard. */
import { systemClock, type Clock } from '../../src/lib/clock.ts'
import { createMemoryBroker, type Broker, type Once } from '../../src/realtime/broker.ts'
import { createRedisBroker, type BrokerRedis } from '../../src/realtime/broker-redis.ts'
import { createFollowed, type Followed } from '../../src/realtime/followed.ts'
import {
  createHub,
  type Hub,
  type HubLimits,
  type Seat,
  type Topic,
} from '../../src/realtime/hub.ts'
import { createPump } from '../../src/realtime/pump.ts'
import { readHistory, recover, type Position } from '../../src/realtime/recovery.ts'
import { must } from '../../src/lib/assert.ts'
import { openRedis, type TestRedis } from '../cache/redis.ts'
import { createTestLog, patientMs } from '../harness.ts'
import { plansOf } from './serve.ts'

export interface Node extends AsyncDisposable {
  readonly hub: Hub
  readonly broker: Broker
  /** Of the log. */
  readonly followed: Followed
  readonly redis: TestRedis | undefined
  publish(name: string, data: unknown, once?: Once): Promise<Position>
  open(name: string): Promise<Topic>
  /** As a socket that subscribes. */
  listen(name: string, since?: Position): Promise<Ear>
}

export interface Told {
  readonly offset: number
  readonly data: unknown
}

/** What one subscriber heard of one topic. */
export interface Ear {
  /** Where it began. */
  readonly start: Position
  readonly recovered: boolean
  readonly told: Told[]
  /** Sent to come back. */
  isLost: boolean
  leave(): void
}

export interface NodeOptions {
  readonly clock?: Clock
  readonly limits?: Partial<HubLimits>
  readonly isFollowing?: boolean
}

type Declared = Parameters<typeof plansOf>[0]

const limitsDefault: HubLimits = {
  publicationBytesMax: 64 * 1024,
  historyBytesMax: 64 * 1024 * 1024,
  topicsMax: 10_000,
  shardSize: 500,
}

function startNode(
  declared: Declared,
  { clock = systemClock, limits, isFollowing = false }: NodeOptions,
  brokerOf: (hub: Hub, followed: Followed) => Broker,
  redis?: TestRedis,
): Node {
  const pump = createPump(clock, { turnMs: 8 })
  const hub = createHub(
    { plans: plansOf(declared), clock, pump, isKept: () => redis !== undefined },
    { ...limitsDefault, ...limits },
  )
  const followed = createFollowed(clock, createTestLog(), isFollowing)
  const broker = brokerOf(hub, followed)
  broker.start()
  const matchOf = (name: string) => must(hub.match(name), () => `${name} is declared`)
  const open = async (name: string): Promise<Topic> => {
    await broker.ready(matchOf(name))
    return must(hub.open(matchOf(name)), () => `${name} is alive`)
  }
  return {
    hub,
    broker,
    followed,
    redis,
    open,
    publish: async (name, data, once) =>
      await broker.publish(matchOf(name), hub.encode(data), once),
    async listen(name, since) {
      await broker.ready(matchOf(name), since)
      const topic = await open(name)
      const missed = since && recover(topic, since, Infinity)
      const ear: Ear = {
        start: { epoch: topic.epoch, offset: missed && since ? since.offset : topic.offset },
        recovered: missed !== undefined,
        told: (missed ?? []).map(({ offset, data }) => ({ offset, data: JSON.parse(data) })),
        isLost: false,
        leave: () => hub.leave(seat, sink),
      }
      const sink = {
        push(frame: string) {
          if (ear.isLost) throw new Error('told after it was sent away')
          for (const line of frame.split('\n')) ear.told.push(JSON.parse(line).push.pub)
        },
        lose() {
          ear.isLost = true
          hub.leave(seat, sink)
        },
        identity: { user: null },
        reseat(_: Topic, other: Seat) {
          seat = other
        },
      }
      let seat = hub.join(topic, sink)
      return ear
    },
    async [Symbol.asyncDispose]() {
      broker.stop()
      pump.stop()
      await redis?.[Symbol.asyncDispose]()
    },
  }
}

export function memoryNode(declared: Declared, options: NodeOptions = {}): Node {
  return startNode(declared, options, createMemoryBroker)
}

export interface RedisNodeOptions extends NodeOptions {
  readonly port: number
  readonly namespace?: string
  readonly source?: string
  /** Stands between the broker and Redis. */
  readonly tamper?: (redis: BrokerRedis) => BrokerRedis
  readonly isUp?: boolean
  readonly patienceMs?: number
  readonly commandMs?: number
}

export async function redisNode(declared: Declared, options: RedisNodeOptions): Promise<Node> {
  const { port, namespace = 'belfry:test', source = 'db', tamper = (redis) => redis } = options
  const { clock = systemClock, isUp = true } = options
  // A busy machine is no Redis that is away; who wants to be alone soon says so.
  const { patienceMs = 20_000, commandMs = patientMs } = options
  const opened = await openRedis(port, { clock, isUp, commandMs })
  const log = createTestLog()
  return startNode(
    declared,
    options,
    (hub, followed) =>
      createRedisBroker(
        { hub, redis: tamper(opened.redis), followed, clock, log },
        { namespace, source, patienceMs },
      ),
    opened,
  )
}

/** All that a topic keeps here. */
export function historyOf(topic: Topic): Told[] {
  const all = { limit: -1, since: undefined, reverse: false }
  const found = readHistory(topic, all, { limitMax: 10_000, bytesMax: Infinity }) ?? []
  return found.map(({ offset, data }) => ({ offset, data: JSON.parse(data) }))
}
