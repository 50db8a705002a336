/**
 * What the server does to those who are connected to this node, and asks about topics: this node's half of what
 * `control-nodes.ts` has all nodes do. No rule is asked. A user is each of the user's connections; the empty user
 * is every visitor.
 *
 * Event streams are anonymous readers of a fixed list: they are counted, and not named here.
 */
import { Fault } from '../fault.ts'
import { isLike } from '../lib/like.ts'
import { bringAlive } from './alive.ts'
import type { Attendance } from './attendance.ts'
import { Connection } from './connection.ts'
import type { Broker } from './broker.ts'
import type { Hub, Match } from './hub.ts'
import type { Member, PresenceStats } from './presence.ts'
import { closes, unsubscribes, type Close, type Unsubscribe } from './protocol.ts'
import type { Position } from './recovery.ts'
import type { Sweep, Swept } from './sweep.ts'
import type { Users } from './users.ts'

/** Whose connections: of a user, or one of them, or one by its id alone. */
export interface Who {
  readonly user?: string | undefined
  readonly client?: string | undefined
}

export interface ConnectionInfo {
  readonly client: string
  readonly user: string
  readonly address: string
  readonly topics: readonly string[]
  /** `clock.now()`; undefined: never. */
  readonly expiresAtMs: number | undefined
}

export interface TopicInfo {
  readonly name: string
  readonly clients: number
}

export interface NodeInfo {
  /** Names this process. */
  readonly node: string
  readonly app: string
  readonly version: string
  /** Sockets and streams. */
  readonly connections: number
  /** Who are signed in. */
  readonly users: number
  readonly subscriptions: number
  readonly topics: number
  readonly uptimeMs: number
}

export interface OwnControl {
  /** Faults: `not_found`. */
  check(topic: string): void
  /** Whose connection has the topic already keeps it. Faults: `not_found`, `unavailable`. */
  subscribe(who: Who, topic: string, since?: Position): Promise<void>
  /** Faults: `not_found`. */
  unsubscribe(who: Who, topic: string, why?: Unsubscribe): void
  /** All but `except`, ids of connections. */
  disconnect(who: Who, close?: Close, except?: readonly string[]): void
  /** Another end of the token; undefined: none. One that is over closes the connection. */
  refresh(who: Who, expiresAtMs: number | undefined): void
  /** At most `max`, of `who` or of everybody. */
  connections(who: Who | undefined, max: number): ConnectionInfo[]
  /** Faults: `not_found`, `invalid` where the topic declares none. */
  presence(topic: string): readonly Member[] | Promise<readonly Member[]>
  presenceStats(topic: string): PresenceStats | Promise<PresenceStats>
  /** Topics that somebody hears, at most `max`; in `pattern` a `*` stands for any characters. */
  channels(pattern: string, max: number): TopicInfo[]
  info(): NodeInfo
}

export interface ControlDeps {
  readonly hub: Hub
  readonly broker: Broker
  readonly sweep: Sweep<Swept>
  readonly users: Users<Connection>
  readonly attendance: Attendance
  readonly info: () => NodeInfo
}

export function createControl(deps: ControlDeps): OwnControl {
  const { hub, broker, sweep, users, attendance, info } = deps

  /** A copy: what is done to one may make it leave. */
  const everybody = (isWanted: (one: Connection) => boolean, max: number): Connection[] => {
    const found: Connection[] = []
    sweep.forEach((member) => {
      if (found.length >= max || !(member instanceof Connection)) return
      if (member.state === 'connected' && isWanted(member)) found.push(member)
    })
    return found
  }

  const select = ({ user, client }: Who, max = Infinity): Connection[] => {
    const isOne = (one: Connection): boolean => client === undefined || one.client === client
    if (user !== undefined && user !== '') return users.of(user).filter(isOne).slice(0, max)
    const isVisitor = user === ''
    return everybody((one) => isOne(one) && (!isVisitor || one.identity.user === null), max)
  }

  const matchOf = (name: string): Match => {
    const match = hub.match(name)
    if (match) return match
    throw new Fault('not_found', `no declared topic matches ${name}`)
  }

  const attended = (name: string): string => {
    if (matchOf(name).plan.presence === true) return name
    throw new Fault('invalid', `${name} declares no presence`, {
      fields: [{ field: 'channel', message: 'declares no presence' }],
    })
  }

  return {
    check: (topic) => void matchOf(topic),
    async subscribe(who, topic, since) {
      matchOf(topic)
      await bringAlive({ hub, broker }, [topic])
      for (const one of select(who)) one.subscribe(topic, since)
    },
    unsubscribe(who, topic, why = unsubscribes.ended) {
      matchOf(topic)
      for (const one of select(who)) one.unsubscribe(topic, why)
    },
    disconnect(who, close = closes.disconnected, except = []) {
      for (const one of select(who)) if (!except.includes(one.client)) one.end(close)
    },
    refresh(who, expiresAtMs) {
      for (const one of select(who)) one.refresh(expiresAtMs)
    },
    connections: (who, max) =>
      (who ? select(who, max) : everybody(() => true, max)).map(
        ({ client, identity, address, seats }) => ({
          client,
          user: identity.user?.id ?? '',
          address,
          topics: seats.map(({ home }) => home.name),
          expiresAtMs: identity.kind === 'user' ? identity.expiresAtMs : undefined,
        }),
      ),
    presence: (topic) => attendance.presence.list(attended(topic)),
    presenceStats: (topic) => attendance.presence.stats(attended(topic)),
    channels(pattern, max) {
      const found: TopicInfo[] = []
      const parts = pattern.split('*')
      const isAll = pattern === ''
      for (const topic of hub.alive()) {
        if (found.length >= max) break
        if (topic.subscriptions === 0 || !(isAll || isLike(topic.name, parts))) continue
        found.push({ name: topic.name, clients: topic.subscriptions })
      }
      return found
    },
    info,
  }
}
