/**
 * Who asks for an event stream: whether they may hear its topics, bringing those alive, and the group they join.
 */
import type { Identity } from '../auth/auth.ts'
import type { User } from '../auth/declare.ts'
import { Fault } from '../fault.ts'
import { must } from '../lib/assert.ts'
import type { Log } from '../observe/log.ts'
import { bringAlive } from './alive.ts'
import type { Broker } from './broker.ts'
import { parseEventId, placesMax, positionAt } from './event-id.ts'
import type { Topic } from './hub.ts'
import { isTopicName } from './pattern.ts'
import type { Pump } from './pump.ts'
import type { StreamRequest } from './realtime.ts'
import type { Position } from './recovery.ts'
import { checkHearing } from './rules.ts'
import { EventStream, Group, LateStream, type StreamContext } from './streams.ts'

export interface StreamDoorDeps {
  readonly context: StreamContext
  readonly broker: Broker
  readonly pump: Pump
  readonly log: Log
  /** Faults: `unavailable`, `too_many`. */
  readonly admit: (address: string, user: string | undefined) => void
}

export interface StreamDoorLimits {
  readonly topicsPerConnectionMax: number
  readonly shardSize: number
}

/** Faults: `unavailable`, `too_many`, `not_found`, `denied`, `invalid`, `internal`. */
export function createStreamDoor(
  { context, broker, pump, log, admit }: StreamDoorDeps,
  { topicsPerConnectionMax, shardSize }: StreamDoorLimits,
): (request: StreamRequest) => ReadableStream<Uint8Array> {
  const { hub, groups } = context

  const check = (identity: Identity, names: readonly string[]): void => {
    if (names.length === 0 || names.length > topicsPerConnectionMax) {
      throw new Fault('invalid', `a stream has 1 to ${topicsPerConnectionMax} topics`)
    }
    for (const name of names) {
      const match = hub.match(name)
      if (!match) throw unknownTopic(name)
      checkHearing(log, identity, match)
    }
  }

  const groupOf = (names: readonly string[], asker: User | null): Group => {
    const user = hub.isByUser ? asker : null
    const key = names.join(',') + (user ? `\n${JSON.stringify(user)}` : '')
    const alive = groups.get(key)
    if (alive) return alive
    const topics: Topic[] = []
    for (const name of names) {
      const topic = hub.open(must(hub.match(name), () => `${name} was checked`))
      if (topic) topics.push(topic)
    }
    // To make room for the last one an earlier one may have gone.
    const isWhole = topics.length === names.length && topics.every((t) => hub.peek(t.name) === t)
    if (!isWhole) throw new Fault('unavailable', 'too many topics are alive')
    const isKept = topics.some(({ plan }) => broker.keeps(plan))
    const hasPlaces = isKept && topics.length <= placesMax
    return new Group({ key, user, topics, hasPlaces }, pump, shardSize)
  }

  return ({ identity, address, topics, lastEventId }) => {
    const user = identity.user?.id
    admit(address, user)
    const names = [...new Set(topics)].toSorted()
    check(identity, names)
    const since =
      lastEventId === undefined ? undefined : parseEventId(lastEventId, hub, names.length)
    const make = () =>
      new EventStream(context, groupOf(names, identity.user), { identity, address, since })
    const late = new LateStream(() => {
      // Others have come meanwhile, or the drain.
      admit(address, user)
      return make()
    })
    const turn = context.admission.enter(late)
    if (turn === 'full') throw new Fault('unavailable', 'too many are connecting')
    const placeIn = (topic: Topic): Position | undefined =>
      since?.kind === 'places'
        ? positionAt(topic, since.places[names.indexOf(topic.name)])
        : undefined
    const load = () =>
      late.state === 'closed' ? undefined : bringAlive({ hub, broker }, names, placeIn)
    const begins = turn === 'now' ? load() : turn.then(load)
    if (!begins) return new ReadableStream<Uint8Array>(make())
    late.begins = begins
    return new ReadableStream<Uint8Array>(late)
  }
}

export function unknownTopic(name: string): Fault {
  const shown = isTopicName(name) ? name : 'this name'
  return new Fault('not_found', `no declared topic matches ${shown}`)
}
