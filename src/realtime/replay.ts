/**
 * What a topic said in a time: of a durable topic from the store, of any other from its history in memory.
 * In order of offset; a page ends with where the next one begins.
 */
import type { Identity } from '../auth/auth.ts'
import { Fault } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import type { Log } from '../observe/log.ts'
import { loadBytesMax } from '../store/store.ts'
import { bringAlive } from './alive.ts'
import type { Broker } from './broker.ts'
import type { Durable, TimeRange } from './durable.ts'
import type { Hub, Topic } from './hub.ts'
import type { Position } from './recovery.ts'
import { checkHearing } from './rules.ts'

export type ReplayQuery = TimeRange

export interface Replayed extends Position {
  readonly publications: readonly {
    readonly offset: number
    readonly atMs: number
    readonly data: string
  }[]
  /** The `after` of the next page; undefined: this is the last one. */
  readonly next: number | undefined
}

/** Whoever may subscribe may ask, and the holder of the API key. */
export type Replay = (identity: Identity, topic: string, query: ReplayQuery) => Promise<Replayed>

export interface ReplayDeps {
  readonly hub: Hub
  readonly broker: Broker
  readonly durable: Durable | undefined
  readonly clock: Clock
  readonly log: Log
}

export function createReplay({ hub, broker, durable, clock, log }: ReplayDeps): Replay {
  const inMemory = ({ history }: Topic, query: ReplayQuery): Replayed['publications'] => {
    const { sinceMs, untilMs, after, limit, reverse } = query
    const found = history
      .all()
      .map(({ offset, at, data }) => ({ offset, data, atMs: clock.now() - (clock.tick() - at) }))
      .filter(({ atMs }) => atMs >= sinceMs && atMs < untilMs)
    if (reverse) found.reverse()
    const isNext = (offset: number): boolean =>
      after === undefined || (reverse ? offset < after : offset > after)
    return found.filter(({ offset }) => isNext(offset)).slice(0, limit)
  }

  const wholeOf = (one: Replayed['publications'][number]): Replayed['publications'] => {
    const data = hub.whole(one.data)
    return data === undefined ? [] : [{ ...one, data }]
  }

  return async (identity, name, query) => {
    const match = hub.match(name)
    if (!match) throw new Fault('not_found', 'no declared topic has this name')
    const { plan } = match
    if (identity.kind !== 'key') checkHearing(log, identity, match)
    await bringAlive({ hub, broker }, [name])
    const topic = hub.open(match)
    if (!topic) throw new Fault('unavailable', 'too many topics are alive')
    // One more than asked tells that there is a next page; so does a page that is full of bytes.
    const wanted = { ...query, limit: query.limit + 1 }
    const found =
      plan.persist && durable ? await durable.range(match, wanted) : inMemory(topic, wanted)
    const page = found.slice(0, query.limit)
    const isMore = found.length > query.limit || bytesOf(found) >= loadBytesMax
    return {
      // What is not for whoever asks makes the page shorter, and the next one no nearer.
      publications: identity.kind === 'key' ? page.flatMap(wholeOf) : hub.seen(identity.user, page),
      next: isMore ? page.at(-1)?.offset : undefined,
      offset: topic.offset,
      epoch: topic.epoch,
    }
  }
}

function bytesOf(publications: Replayed['publications']): number {
  let bytes = 0
  for (const { data } of publications) bytes += Buffer.byteLength(data)
  return bytes
}
