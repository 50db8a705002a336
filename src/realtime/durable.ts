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
 * Several nodes share the offsets, because the database gives them. What another node has published is heard
 * here within half a second (`followMs`), at once by whoever publishes, or comes with a later position. A change
 * that every node tells by itself is told by the first: its number in the log is committed with it, as a key that is
 * taken from then on. The others tell it when they have followed the log to there.
 *
 * Limits: what waits is bounded (`too_many` beyond); one commit is, too.
 */
import { Fault, toFault } from '../fault.ts'
import { assert } from '../lib/assert.ts'
import type { Cancel, Clock } from '../lib/clock.ts'
import { Pace } from '../lib/pace.ts'
import { detach } from '../lib/service.ts'
import type { Log } from '../observe/log.ts'
import type { Publications, StoredPublication } from '../store/store.ts'
import type { Once } from './broker.ts'
import { Claims, split, type Teller } from './durable-once.ts'
import type { Followed } from './followed.ts'
import type { Encoded, Hub, Match, Topic } from './hub.ts'
import type { Position } from './recovery.ts'

/** How much is kept on disk. In memory it is the topic's history. */
export interface DurablePlan {
  readonly size: number
  readonly ttlMs: number
}

export interface Durable {
  /**
   * Undefined: it is alive, and not behind `since`, which somebody may have from another node.
   * Faults: `unavailable`.
   */
  ready(match: Match, since?: Position): Promise<void> | undefined
  /** Settles when it is committed and on its way. Faults: `unavailable`, `too_many`, and those of the store. */
  publish(match: Match, encoded: Encoded, once?: Once): Promise<Position>
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

/** Between two looks at where other nodes are, and topics asked for at once. */
const followMs = 500
const followTopics = 5_000

/** Topics read back at the same time. */
const mendsAtOnce = 32

/** After a commit of which nobody knows whether it happened. */
const mendMs = 1_000

/** Of a commit, until it is known. */
const msPerPublicationAtFirst = 0.1

/** Old publications are deleted with so many new ones, at least; reads leave them out before. */
const pruneEvery = 64

/** Topics that nobody publishes to are pruned by age: so many each time, of all that are kept. */
const tidyMs = 10_000
const tidyTopics = 500

interface Waiting extends Teller {
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

/** Somebody says that the store knows more. */
interface Asked {
  readonly match: Match
  readonly done: () => void
}

/** Of a topic that is alive. */
interface State {
  /** Of its last publication. */
  atMs: number
  /** Publications since old ones were deleted. */
  unpruned: number
  readonly claims: Claims
}

export interface DurableDeps {
  readonly hub: Hub
  readonly clock: Clock
  readonly log: Log
  readonly publications: Publications
  /** What other nodes tell of changes waits for it. */
  readonly followed: Followed
  /** Who hears the topic has missed something for good, and must be told before it hears on. */
  readonly onGap: (topic: string) => void
}

export function createDurable(deps: DurableDeps): Durable {
  const { hub, clock, log, publications: store, followed: logFollowed, onGap } = deps
  const loading = new Map<string, Promise<void>>()
  const states = new WeakMap<Topic, State>()
  /** By name: the store may know more of them than the hub. */
  const uncertain = new Map<string, Match>()
  const asked: Asked[] = []
  let queue: Waiting[] = []
  let queuedBytes = 0
  let pumping: Promise<void> | undefined
  let cursor = ''
  let followed = 0
  let isFollowing = false
  let cancelFollow: Cancel | undefined
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
    await logFollowed.when(kept.seq)
    const topic = hub.revive(match, { epoch: epochOf(store), ...kept })
    if (!topic) throw new Fault('unavailable', 'too many topics are alive')
    states.set(topic, { atMs: kept.atMs, unpruned: pruneEvery, claims: new Claims() })
  }

  const ready = (match: Match, since?: Position): Promise<void> | undefined => {
    const topic = hub.peek(match.name)
    if (topic) {
      const isBehind = since && since.epoch === topic.epoch && since.offset > topic.offset
      return isBehind ? catchUp(match) : undefined
    }
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
      const { publications: missed, seq } = await store.after(match.name, topic.offset)
      if (missed.length === 0) break
      await logFollowed.when(seq)
      for (const { offset, atMs, data } of missed) {
        if (offset !== topic.offset + 1) skip(topic, offset - 1)
        hub.emit(topic, { data, bytes: Buffer.byteLength(data) })
        stateOf(topic).atMs = atMs
      }
    }
    uncertain.delete(match.name)
  }

  /** What was between is not kept any more, and who listens cannot have it. */
  const skip = (topic: Topic, offset: number): void => {
    log.warn('realtime.topic-gap', { topic: topic.name, from: topic.offset, to: offset })
    hub.skip(topic, offset)
    onGap(topic.name)
  }

  const stateOf = (topic: Topic): State => {
    const state = states.get(topic)
    assert(state, () => `${topic.name} came from the store`)
    return state
  }

  const pace = new Pace(msPerPublicationAtFirst)

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

  /** Without the changes that other nodes have told; those are heard here, too, then. */
  const newOf = async (topic: Topic, waiting: readonly Waiting[]): Promise<readonly Waiting[]> => {
    const { fresh, told } = await split(store, topic.name, waiting)
    if (told.length > 0) await mend(topic)
    for (const { resolve } of told) resolve({ offset: topic.offset, epoch: topic.epoch })
    return fresh
  }

  /** By topic; what has no topic is refused at once. */
  const groupsOf = async (batch: readonly Waiting[]): Promise<Group[]> => {
    const byName = Map.groupBy(batch, ({ match }) => match.name)
    const groupOf = async (all: readonly Waiting[]): Promise<Group[]> => {
      const [first] = all
      assert(first, () => 'a group has a publication')
      try {
        if (uncertain.has(first.match.name)) await mend(first.match)
        const topic = await alive(first.match)
        const waiting = await newOf(topic, all)
        if (waiting.length === 0) return []
        const atMs = Math.max(clock.now(), stateOf(topic).atMs)
        const publications = waiting.map(({ encoded: { data } }, index) => ({
          offset: topic.offset + index + 1,
          atMs,
          data,
        }))
        return [{ topic, waiting, publications }]
      } catch (thrown) {
        for (const one of all) one.reject(thrown)
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
      const rows = groups.map(({ topic, publications, waiting }) => ({
        ...{ topic: topic.name, publications },
        ...(store.isShared ? stateOf(topic).claims.of(waiting, clock.tick()) : {}),
      }))
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

  const catchUp = (match: Match): Promise<void> =>
    new Promise((done) => {
      asked.push({ match, done })
      if (!pumping) pump(run)
    })

  const mendAsked = async (): Promise<void> => {
    // Two that read back the same topic at the same time would tell it twice.
    const byName = Map.groupBy(asked.splice(0, mendsAtOnce), ({ match }) => match.name)
    const mended = [...byName].map(async ([name, some]) => {
      const [first] = some
      assert(first, () => 'somebody asked')
      uncertain.set(name, first.match)
      try {
        await mend(first.match)
      } catch (error) {
        log.debug('realtime.not-mended', { topic: name, error: toFault(error) })
      }
      for (const { done } of some) done()
    })
    await Promise.all(mended)
  }

  const run = async (): Promise<void> => {
    while (asked.length > 0 || queue.length > 0) {
      // In turns: any client can say that it has been further, again and again.
      if (asked.length > 0) await mendAsked()
      if (queue.length === 0) continue
      const [batch, startedAt] = [takeBatch(), clock.tick()]
      await commit(batch)
      pace.took(batch.length, clock.tick() - startedAt)
    }
    if (uncertain.size > 0) cancelMend ??= clock.after(mendMs, mendAll)
  }

  /** One at a time: two that read what was missed would tell it twice. */
  const pump = (work: () => Promise<void>): void => {
    pumping = work().finally(() => {
      pumping = undefined
      if (queue.length > 0 || asked.length > 0) pump(run)
    })
    detach(pumping, (error) => log.error('realtime.durable-failed', { error }))
  }

  const mendAll = (): void => {
    cancelMend = undefined
    for (const match of uncertain.values()) detach(catchUp(match), () => {})
  }

  /** Where other nodes are: some of the topics that are alive, in turn. */
  const follow = async (): Promise<void> => {
    const names: string[] = []
    let skipped = 0
    let isMore = false
    for (const { name, plan } of hub.alive()) {
      if (!plan.persist || skipped++ < followed) continue
      isMore = names.length === followTopics
      if (isMore) break
      names.push(name)
    }
    followed = isMore ? followed + names.length : 0
    if (names.length === 0) return
    for (const [name, offset] of await store.offsets(names)) {
      const topic = hub.peek(name)
      if (topic && topic.offset < offset) detach(catchUp(topic), () => {})
    }
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
    publish(match, encoded, once) {
      const isFull = queue.length >= waitingMax || queuedBytes + encoded.bytes > waitingBytesMax
      if (isFull) {
        const text = 'too many publications wait to be committed'
        const retryAfterMs = pace.waitMs(queue.length)
        return Promise.reject(new Fault('too_many', text, { retryAfterMs }))
      }
      queuedBytes += encoded.bytes
      return new Promise((resolve, reject) => {
        const change = once === 'differs' ? undefined : once
        queue.push({ match, encoded, change, resolve, reject })
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
      if (!store.isShared) return
      const onFollow = () => {
        if (isFollowing) return
        isFollowing = true
        const done = follow().finally(() => (isFollowing = false))
        // The store says that it cannot be read, and topics are not told anything wrong.
        detach(done, (error) => log.debug('realtime.not-followed', { error: toFault(error) }))
      }
      cancelFollow ??= clock.every(followMs, onFollow)
    },
    stop() {
      cancelTidy?.()
      cancelFollow?.()
      cancelMend?.()
    },
  }
}

/** Two lives of one database, before and after a restore, do not share an epoch. */
function epochOf(store: Publications): string {
  return Bun.hash(store.identity()).toString(36)
}
