/**
 * Topics that outlive the process: a publication is committed before anybody hears it, and what is committed
 * is heard, or will be. So an offset that a subscriber has seen means the same after any crash.
 *
 *   publish ─► queue ─► [ all that waits: offsets, ONE commit ] ─► hub ─► the publishers are answered
 *                              │ refused: they are told; what may have happened all the same is read back
 *                              └ moved: another node was faster; what it said is read, then once more
 *
 * A topic comes alive from the store when it is first needed (`ready`), with its newest history in memory;
 * from then on reads and recovery are those of any other topic. Its epoch is the database's life.
 *
 * Limits: what waits is bounded (`unavailable` beyond); one commit is, too. Publications of another node are
 * heard here when this one publishes to the same topic.
 */
import { Fault, toFault } from '../fault.ts'
import { assert } from '../lib/assert.ts'
import type { Cancel, Clock } from '../lib/clock.ts'
import { detach } from '../lib/service.ts'
import type { Log } from '../observe/log.ts'
import type { Publications, StoredPublication } from '../store/store.ts'
import type { Encoded, Hub, Match, Topic } from './hub.ts'
import type { Position } from './recovery.ts'

/** How much is kept on disk. In memory it is the topic's history. */
export interface DurablePlan {
  readonly size: number
  readonly ttlMs: number
}

export interface Durable {
  /** Undefined: it is alive. Faults: `unavailable`. */
  ready(match: Match): Promise<void> | undefined
  /** Settles when it is committed and on its way. Faults: `unavailable`, and those of the store. */
  publish(match: Match, encoded: Encoded): Promise<Position>
  /** What is kept goes; the topic counts on. */
  forget(match: Match): Promise<void>
  range(match: Match, range: TimeRange): Promise<readonly StoredPublication[]>
  /** Nothing waits any more. */
  settled(): Promise<void>
  start(): void
  stop(): void
}

export interface TimeRange {
  readonly sinceMs: number
  /** Exclusive. */
  readonly untilMs: number
  /** Exclusive: later ones, or earlier ones when reversed. */
  readonly after: number | undefined
  readonly limit: number
  readonly reverse: boolean
}

/** Publications that wait for their commit: whoever is refused hears of it and may try again. */
const waitingMax = 10_000
const waitingBytesMax = 32 * 1024 * 1024

/** Of one commit: other writers wait meanwhile. */
const commitMax = 512
const commitBytesMax = 1024 * 1024

/** Another node may be faster; not forever. */
const triesMax = 5

/** After a commit of which nobody knows whether it happened. */
const mendMs = 1_000

/** Old publications are deleted with so many new ones, at least; reads leave them out before. */
const pruneEvery = 64

/** Topics that nobody publishes to are pruned by age: so many each time, of all that are kept. */
const tidyMs = 10_000
const tidyTopics = 500

interface Waiting {
  readonly match: Match
  readonly encoded: Encoded
  readonly resolve: (position: Position) => void
  readonly reject: (thrown: unknown) => void
}

interface Group {
  readonly topic: Topic
  readonly waiting: readonly Waiting[]
  readonly publications: readonly StoredPublication[]
}

/** Of a topic that is alive. */
interface State {
  /** Of its last publication. */
  atMs: number
  /** Publications since old ones were deleted. */
  unpruned: number
}

export interface DurableDeps {
  readonly hub: Hub
  readonly clock: Clock
  readonly log: Log
  readonly publications: Publications
}

export function createDurable({ hub, clock, log, publications: store }: DurableDeps): Durable {
  const loading = new Map<string, Promise<void>>()
  const states = new WeakMap<Topic, State>()
  /** By name: the store may know more of them than the hub. */
  const uncertain = new Map<string, Match>()
  let queue: Waiting[] = []
  let queuedBytes = 0
  let pumping: Promise<void> | undefined
  let cursor = ''
  let cancelTidy: Cancel | undefined
  let cancelMend: Cancel | undefined

  const planOf = ({ plan, name }: Pick<Match, 'plan' | 'name'>): DurablePlan => {
    assert(plan.persist, () => `${name} is durable`)
    return plan.persist
  }

  const load = async (match: Match): Promise<void> => {
    const { historySize, historyTtlMs } = match.plan
    const sinceMs = clock.now() - historyTtlMs
    const kept = await store.load(match.name, historySize, sinceMs)
    const topic = hub.revive(match, { epoch: epochOf(store), ...kept })
    if (!topic) throw new Fault('unavailable', 'too many topics are alive')
    states.set(topic, { atMs: kept.atMs, unpruned: pruneEvery })
  }

  const ready = (match: Match): Promise<void> | undefined => {
    if (hub.peek(match.name)) return undefined
    const known = loading.get(match.name)
    if (known) return known
    const flight = load(match).finally(() => loading.delete(match.name))
    loading.set(match.name, flight)
    return flight
  }

  const alive = async (match: Match): Promise<Topic> => {
    await ready(match)
    const topic = hub.peek(match.name)
    if (topic) return topic
    throw new Fault('unavailable', 'too many topics are alive')
  }

  /** What the store has beyond the hub: of a commit that failed and happened, or of another node. */
  const mend = async (match: Match): Promise<void> => {
    const topic = await alive(match)
    for (;;) {
      const missed = await store.after(match.name, topic.offset)
      if (missed.length === 0) break
      for (const { offset, atMs, data } of missed) {
        if (offset !== topic.offset + 1) skip(topic, offset - 1)
        hub.emit(topic, { data, bytes: Buffer.byteLength(data) })
        stateOf(topic).atMs = atMs
      }
    }
    uncertain.delete(match.name)
  }

  /** What was between is not kept any more: subscribers see it by the offset, and recovery knows. */
  const skip = (topic: Topic, offset: number): void => {
    log.warn('realtime.topic-gap', { topic: topic.name, from: topic.offset, to: offset })
    topic.history.clear()
    topic.offset = offset
  }

  const stateOf = (topic: Topic): State => {
    const state = states.get(topic)
    assert(state, () => `${topic.name} came from the store`)
    return state
  }

  const takeBatch = (): Waiting[] => {
    let bytes = 0
    let count = 0
    for (const { encoded } of queue) {
      bytes += encoded.bytes
      if (count > 0 && (count >= commitMax || bytes > commitBytesMax)) break
      count += 1
    }
    const batch = queue.slice(0, count)
    queue = queue.slice(count)
    for (const { encoded } of batch) queuedBytes -= encoded.bytes
    return batch
  }

  /** By topic; what has no topic is refused at once. */
  const groupsOf = async (batch: readonly Waiting[]): Promise<Group[]> => {
    const byName = Map.groupBy(batch, ({ match }) => match.name)
    const groupOf = async (waiting: readonly Waiting[]): Promise<Group[]> => {
      const [first] = waiting
      assert(first, () => 'a group has a publication')
      try {
        if (uncertain.has(first.match.name)) await mend(first.match)
        const topic = await alive(first.match)
        const atMs = Math.max(clock.now(), stateOf(topic).atMs)
        const publications = waiting.map(({ encoded: { data } }, index) => ({
          offset: topic.offset + index + 1,
          atMs,
          data,
        }))
        return [{ topic, waiting, publications }]
      } catch (thrown) {
        for (const one of waiting) one.reject(thrown)
        return []
      }
    }
    return (await Promise.all([...byName.values()].map(groupOf))).flat()
  }

  const prunedBy = ({ topic, publications }: Group) => {
    const { size, ttlMs } = planOf(topic)
    const state = stateOf(topic)
    state.unpruned += publications.length
    if (state.unpruned < Math.max(pruneEvery, size / 8)) return []
    state.unpruned = 0
    const top = publications.at(-1)?.offset ?? topic.offset
    return [{ topic: topic.name, upTo: top - size, beforeMs: clock.now() - ttlMs }]
  }

  const commit = async (batch: readonly Waiting[], tries = 1): Promise<void> => {
    const groups = await groupsOf(batch)
    if (groups.length === 0) return
    for (const { topic, waiting } of groups) {
      if (waiting[0]) uncertain.set(topic.name, waiting[0].match)
    }
    try {
      const rows = groups.map(({ topic, publications }) => ({ topic: topic.name, publications }))
      const outcome = await store.append(rows, groups.flatMap(prunedBy))
      if (outcome === 'appended') return groups.forEach(deliver)
      if (tries < triesMax)
        return await commit(
          groups.flatMap(({ waiting }) => waiting),
          tries + 1,
        )
      throw new Fault('unavailable', 'other nodes publish to the same topics at the same time')
    } catch (thrown) {
      for (const { waiting } of groups) for (const one of waiting) one.reject(thrown)
    }
  }

  const deliver = ({ topic, waiting, publications }: Group): void => {
    const isAlive = hub.peek(topic.name) === topic
    try {
      for (const [index, { encoded }] of waiting.entries()) {
        const { offset, atMs } = publications[index] ?? { offset: 0, atMs: 0 }
        // Dropped and loaded again meanwhile, it may know of this commit or not: it is left uncertain.
        if (isAlive) {
          const told = hub.emit(topic, encoded)
          assert(told.offset === offset, () => `${topic.name} counts as it is kept`)
          stateOf(topic).atMs = atMs
        }
        waiting[index]?.resolve({ offset, epoch: topic.epoch })
      }
      if (isAlive) uncertain.delete(topic.name)
    } catch (error) {
      // Committed is committed: it is told from the store as soon as there is room again.
      log.warn('realtime.told-later', { topic: topic.name, error })
      for (const [index, { offset }] of publications.entries()) {
        waiting[index]?.resolve({ offset, epoch: topic.epoch })
      }
    }
  }

  const run = async (): Promise<void> => {
    while (queue.length > 0) await commit(takeBatch())
    if (uncertain.size > 0) cancelMend ??= clock.after(mendMs, mendAll)
  }

  /** One at a time: two that read what was missed would tell it twice. */
  const pump = (work: () => Promise<void>): void => {
    pumping = work().finally(() => {
      pumping = undefined
      if (queue.length > 0) pump(run)
    })
    detach(pumping, (error) => log.error('realtime.durable-failed', { error }))
  }

  const mendAll = (): void => {
    cancelMend = undefined
    // Whoever pumps arms it again.
    if (pumping) return
    pump(async () => {
      for (const match of [...uncertain.values()]) {
        try {
          await mend(match)
        } catch (error) {
          log.debug('realtime.not-mended', { topic: match.name, error: toFault(error) })
          break
        }
      }
      await run()
    })
  }

  /** Topics nobody publishes to. */
  const tidy = async (): Promise<void> => {
    const found = await store.names(cursor, tidyTopics)
    cursor = found.length < tidyTopics ? '' : (found.at(-1)?.topic ?? '')
    const now = clock.now()
    const old = found.flatMap(({ topic, oldestMs = Infinity }) => {
      const persist = hub.match(topic)?.plan.persist
      if (!persist || oldestMs >= now - persist.ttlMs) return []
      return [{ topic, upTo: 0, beforeMs: now - persist.ttlMs }]
    })
    await store.prune(old)
  }

  return {
    ready,
    publish(match, encoded) {
      const isFull = queue.length >= waitingMax || queuedBytes + encoded.bytes > waitingBytesMax
      if (isFull) {
        const text = 'too many publications wait to be committed'
        return Promise.reject(new Fault('unavailable', text, { retryAfterMs: mendMs }))
      }
      queuedBytes += encoded.bytes
      return new Promise((resolve, reject) => {
        queue.push({ match, encoded, resolve, reject })
        if (!pumping) pump(run)
      })
    },
    async forget(match) {
      const topic = await alive(match)
      await store.prune([{ topic: match.name, upTo: topic.offset, beforeMs: 0 }])
      topic.history.clear()
    },
    async range(match, range) {
      const topic = await alive(match)
      const { size, ttlMs } = planOf(match)
      const oldest = topic.offset - size
      const { reverse, after } = range
      const found = await store.range(match.name, {
        ...range,
        sinceMs: Math.max(range.sinceMs, clock.now() - ttlMs),
        after: reverse ? after : Math.max(after ?? 0, oldest),
      })
      return reverse ? found.filter(({ offset }) => offset > oldest) : found
    },
    async settled() {
      while (pumping) await pumping.catch(() => {})
    },
    start() {
      const onTidy = () =>
        detach(tidy(), (error) => log.warn('realtime.not-tidied', { error: toFault(error) }))
      cancelTidy ??= clock.every(tidyMs, onTidy)
    },
    stop() {
      cancelTidy?.()
      cancelMend?.()
    },
  }
}

/** Two lives of one database, before and after a restore, do not share an epoch. */
function epochOf(store: Publications): string {
  return Bun.hash(store.identity()).toString(36)
}
