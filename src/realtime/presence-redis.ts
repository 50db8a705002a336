/**
 * Presence that several nodes share. Each node knows its own members and says who has come and gone:
 *
 *   add, remove ─► changes of the turn ─► one script per topic ─► hash of the topic ─► channel ─► other nodes' observers
 *
 * A node gives a sign every 5 s. One that has not for 15 s is dead: whoever notices first removes its members and
 * says so. So members of a node that died are there for 20 s at most; those of a node that only slept are told to
 * have gone, and to have come again.
 *
 * What Redis does not take is not kept as changes: the topic's whole list is given when it answers again. Meanwhile
 * this node answers for its own members only.
 */
import type { Cancel, Clock } from '../lib/clock.ts'
import { detach } from '../lib/service.ts'
import type { Log } from '../observe/log.ts'
import type { Redis } from '../store/store.ts'
import { createPresence, type Member, type Presence } from './presence.ts'
import {
  beatScript,
  buryScript,
  changeScript,
  listScript,
  statsScript,
  topicsScript,
} from './presence-scripts.ts'

/** Without a sign for so long, a node is dead. */
const nodeMsDefault = 15_000

/** Signs in that time. */
const signs = 3

/** Whole lists are given again, so that none ends that is in use. */
const renewMs = 10 * 60_000

const lookMs = 250

/** Topics told in one turn; the rest has its turn next. */
const topicsAtOnce = 500

export interface RedisPresenceDeps {
  readonly redis: Pick<Redis, 'isUp' | 'script' | 'subscribe'>
  readonly clock: Clock
  readonly log: Log
}

export interface RedisPresenceOptions {
  readonly namespace: string
  /** No other node, now or before, has this name. */
  readonly node: string
  readonly nodeMs?: number
}

/** Undefined: has left. `whole`: all of this node's members are to be given. */
type Changes = Map<string, Member | undefined> | 'whole'

export function createRedisPresence(
  { redis, clock, log }: RedisPresenceDeps,
  { namespace, node, nodeMs = nodeMsDefault }: RedisPresenceOptions,
): Presence {
  const channel = `${namespace}:presence`
  const nodesKey = `${namespace}:nodes`
  const beatMs = nodeMs / signs
  const own = createPresence()
  const rooms = new Map<string, Map<string, Member>>()
  let changes = new Map<string, Changes>()
  let tell: Parameters<Presence['hear']>[0] = () => {}
  let isDue = false
  let toRenew = 0
  let renewing = rooms.keys()
  let cancels: Cancel[] = []

  const hereOf = (topic: string): string => `${namespace}:{${encodeURIComponent(topic)}}:here`
  const nodeOf = (name: string): string => `${namespace}:node:${name}`

  const change = (topic: string, client: string, member: Member | undefined): void => {
    const known = changes.get(topic)
    if (known === 'whole') return
    if (known) known.set(client, member)
    else changes.set(topic, new Map([[client, member]]))
    if (isDue) return
    isDue = true
    clock.soon(flush)
  }

  const flush = (): void => {
    isDue = false
    const due = changes
    changes = new Map()
    let left = topicsAtOnce
    for (const [topic, what] of due) {
      if (redis.isUp && left > 0) give(topic, what)
      else changes.set(topic, left > 0 ? 'whole' : what)
      left -= 1
    }
  }

  const give = (topic: string, what: Changes): void => {
    const here = rooms.get(topic)
    const isWhole = what === 'whole'
    const list: Iterable<[string, Member | undefined]> = isWhole ? (here ?? []) : what
    const args = [channel, node, topic, isWhole ? 1 : 0, here ? 0 : 1]
    const pairs = [...list].flatMap(([client, member]) => [client, member ? valueOf(member) : ''])
    const keys = [hereOf(topic), nodeOf(node), nodesKey]
    detach(redis.script(changeScript, keys, [...args, ...pairs]), (error) => {
      changes.set(topic, 'whole')
      log.debug('realtime.presence-not-told', { topic, error })
    })
  }

  const valueOf = ({ user, info }: Member): string => `${node}\n${JSON.stringify(user)}\n${info}`

  const hear = (text: string): void => {
    const [head = '', ...lines] = text.split('\n')
    const [by, topic = ''] = head.split(' ')
    if (by === node) return
    for (const line of lines) tell(topic, line[0] === '+' ? 'join' : 'leave', line.slice(1))
  }

  const giveAll = (): void => {
    for (const topic of rooms.keys()) changes.set(topic, 'whole')
  }

  const beat = async (): Promise<void> => {
    const answer = await redis.script(beatScript, [nodesKey], [node, nodeMs])
    const [isKnown, dead] = answer as [number, string[]]
    // New, emptied, or taken for dead.
    if (isKnown === 0) giveAll()
    toRenew += (rooms.size * beatMs) / renewMs
    for (; toRenew >= 1; toRenew -= 1) {
      const { value: topic, done } = renewing.next()
      if (done) renewing = rooms.keys()
      else changes.set(topic, 'whole')
    }
    flush()
    for (const name of dead) if (name !== node) await bury(name)
  }

  /** Any node may do it, and two at once. */
  const bury = async (name: string): Promise<void> => {
    const topics = (await redis.script(topicsScript, [nodeOf(name)], [])) as string[]
    for (const topic of topics) {
      const keys = [hereOf(topic), nodeOf(name), nodesKey]
      await redis.script(changeScript, keys, [channel, name, topic, 1, 1])
    }
    await redis.script(buryScript, [nodeOf(name), nodesKey], [name, 0])
    log.info('realtime.node-gone', { node: name, topics: topics.length })
  }

  const ask = async <T>(run: () => Promise<T>, orElse: () => T | Promise<T>): Promise<T> => {
    // In the order of the calls: who has just come is there.
    flush()
    try {
      return await run()
    } catch (error) {
      log.debug('realtime.presence-own-only', { error })
      return await orElse()
    }
  }

  return {
    add(topic, member) {
      own.add(topic, member)
      const room = rooms.get(topic)
      if (room) room.set(member.client, member)
      else rooms.set(topic, new Map([[member.client, member]]))
      change(topic, member.client, member)
    },
    remove(topic, client) {
      own.remove(topic, client)
      const room = rooms.get(topic)
      if (!room?.delete(client)) return
      if (room.size === 0) rooms.delete(topic)
      change(topic, client, undefined)
    },
    list: (topic) =>
      ask<readonly Member[]>(
        async () => membersOf(await redis.script(listScript, [hereOf(topic)], [])),
        () => own.list(topic),
      ),
    stats: (topic) =>
      ask(
        async () => {
          const answer = await redis.script(statsScript, [hereOf(topic)], [])
          const [clients, users] = answer as [number, number]
          return { clients, users }
        },
        () => own.stats(topic),
      ),
    hear: (told) => void (tell = told),
    start() {
      const sign = () => {
        if (redis.isUp) detach(beat(), (error) => log.debug('realtime.no-sign', { error }))
      }
      const look = () => {
        if (changes.size > 0 && redis.isUp) flush()
      }
      cancels = [
        redis.subscribe(channel, hear, sign),
        clock.every(beatMs, sign),
        clock.every(lookMs, look),
      ]
    },
    stop() {
      flush()
      for (const cancel of cancels) cancel()
      cancels = []
      if (!redis.isUp || rooms.size > 0) return
      detach(redis.script(buryScript, [nodeOf(node), nodesKey], [node, 1]), () => undefined)
    },
  }
}

function membersOf(answer: unknown): Member[] {
  const pairs = answer as string[]
  const members: Member[] = []
  for (let at = 0; at + 1 < pairs.length; at += 2) {
    const [client = '', value = ''] = [pairs[at], pairs[at + 1]]
    const [, user = '""', info = '{}'] = value.split('\n')
    members.push({ client, user: JSON.parse(user) as string, info })
  }
  return members
}
