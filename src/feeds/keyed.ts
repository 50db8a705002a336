/**
 * A feed of many keys, of which those are asked for that somebody wants:
 *
 *   heard, read here ─┐                          ┌► published, if heard     ┌► who waits for a first value
 *                     ├► watch ─► rounds ─► load ─┼► written (`into`)        │
 *   wanted elsewhere ─┘                          └► value of the key ───────┴► the other nodes' values
 *
 * Invariant: while upstream fails, whoever has a value keeps it, and is told once that it is stale; once it answers, it
 * is told once what it is. A node that does not ask has the values of its keys from the one that does.
 */
import { Fault } from '../fault.ts'
import type { Cancel } from '../lib/clock.ts'
import type { Turn } from '../upstream/upstream.ts'
import { ask, failuresPerLogLine } from './ask.ts'
import type { FeedPlan, FeedsDeps, KeyedPlan, RunningFeed } from './feeds.ts'
import { createLeader } from './leader.ts'
import { createRelay, type News } from './relay.ts'
import { createRounds, type Priority } from './rounds.ts'
import {
  retellMs,
  silentMsOf,
  sumOf,
  textOf,
  toldOf,
  toldTextOf,
  valueLengthMax,
  type Value,
} from './values.ts'
import { Watch, type Key } from './watch.ts'

/** Watched at once; names come from clients. With 300 bytes each and their values, some 20 MB. */
const keysMaxDefault = 20_000

/** Idle keys are forgotten, and silence is noticed, within this. */
const lookMs = 1_000

/** A key that could not be asked for is not asked for by each reader. */
const againMs = 1_000

export interface KeyedFeedPlan extends FeedPlan {
  readonly keyed: KeyedPlan
}

/** In a row: it is not the keys. */
const refusedAloneMax = 3

export function createKeyedFeed(
  deps: FeedsDeps,
  plan: KeyedFeedPlan,
  everyMs: number,
  keysMax = keysMaxDefault,
): RunningFeed {
  const { clock, log } = deps
  const { keyed, budget } = plan
  const counts = { ticks: 0, failures: 0, changes: 0 }
  const aborts = new Set<AbortController>()
  let failuresInARow = 0
  let answeredAt = 0
  /** Whether a key that is refused is looked for among those that were; how many were so alone since any was not. */
  let isSearching = true
  let refusedAlone = 0
  /**
   * Heard here or wanted elsewhere, for which there was no room: they come in as soon as there is. Bounded by who listens,
   * here and elsewhere.
   */
  const outside = new Map<string, { isHeard: boolean; isWanted: boolean }>()
  let isStopped = false
  let cancel: Cancel = () => {}

  const watch = new Watch({
    keysMax,
    idleMs: keyed.idleMs,
    absentMs: Math.min(keyed.idleMs, everyMs),
    onGone: (key) => relay?.want(key.name, false),
  })

  const turn = async (priority: Priority, signal: AbortSignal): Promise<Turn | undefined> => {
    if (budget === undefined || !deps.turn) return undefined
    return await deps.turn(budget, { priority, deadlineMs: plan.timeoutMs, signal })
  }

  const askFor = async (
    keys: readonly Key[],
    own: Turn | undefined,
    priority: Priority,
  ): Promise<number | undefined> => {
    const abort = new AbortController()
    aborts.add(abort)
    counts.ticks++
    let isRefused = false
    const onRefused = (): void => void (isRefused = true)
    try {
      const names = keys.map(({ name }) => name)
      const answer = await ask(deps, plan, { keys: names, priority, turn: own, abort, onRefused })
      return await take(keys, answer)
    } catch (error) {
      // Neither upstream nor the app's code is at fault.
      if (isStopped || !leader.isLeading) return undefined
      if (isRefused) refused(keys, error)
      else failed(keys, error)
      return undefined
    } finally {
      aborts.delete(abort)
    }
  }

  const take = async (keys: readonly Key[], answer: unknown): Promise<number> => {
    const valueOf = readerOf(plan, answer)
    const texts = keys.map(({ name }) => textOf(valueOf(name)))
    const isOther = keys.map(
      ({ value }, at) => texts[at] !== undefined && value?.text !== texts[at],
    )
    const rows = keys.filter((_, at) => isOther[at]).map(({ name }) => valueOf(name))
    const [into] = plan.into
    if (into && rows.length > 0) {
      await deps.collections.upsert([{ plan: into, rows: rows as Record<string, unknown>[] }])
    }
    if (isStopped || !leader.isLeading) return 0
    const news = emptyNews()
    const now = clock.now()
    for (const [at, key] of keys.entries()) {
      const text = texts[at]
      if (text === undefined || text.length > valueLengthMax) {
        if (text !== undefined) log.warn('feed.value-too-long', { feed: plan.name, key: key.name })
        news.absent.push(key.name)
        setAbsent(key)
      } else if (key.value?.text === text) {
        news.unchanged.push([key.name, sumOf(text)])
        setValue(key, { text, asOfMs: now, isStale: false })
      } else {
        news.values.push([key.name, text, now])
        setValue(key, { text, asOfMs: now, isStale: false })
      }
    }
    for (const key of keys) {
      watch.clear(key)
      tell(key)
    }
    relay?.tell(news)
    answered()
    counts.changes += rows.length
    return rows.length
  }

  /** One of these, or whatever is asked for: then there is nothing to find. */
  const refused = (keys: readonly Key[], error: unknown): void => {
    const [key] = keys
    if (!isSearching || !key) return failed(keys, error)
    watch.refuse(keys, clock.tick())
    if (keys.length > 1 || answeredAt <= key.refusedAt) {
      if (keys.length === 1 && ++refusedAlone >= refusedAloneMax) {
        isSearching = false
        watch.clearAll()
      }
      return failed(keys, error)
    }
    watch.rest(key, clock.tick())
    // Names come from clients: no more than they can make of it.
    log.debug('feed.key-refused', { feed: plan.name, key: key.name, forMs: key.restMs, error })
    setAbsent(key)
    tell(key)
    relay?.tell({ absent: [key.name] })
  }

  const answered = (): void => {
    refusedAlone = 0
    isSearching = true
    answeredAt = clock.tick()
    if (failuresInARow > 0) log.info('feed.recovered', { feed: plan.name })
    failuresInARow = 0
  }

  const setValue = (key: Key, value: Value): void => {
    key.value = value
    key.isAbsent = false
    key.failedAt = -Infinity
    key.first?.resolve()
    key.first = undefined
  }

  /** Upstream has nothing to say of it: that is no reason to take back what it said before. */
  const setAbsent = (key: Key): void => {
    if (key.value) key.value.isStale = true
    key.isAbsent = key.value === undefined
    key.first?.resolve()
    key.first = undefined
  }

  const setFailed = (key: Key, fault: Fault): void => {
    key.failedAt = clock.tick()
    if (key.value) key.value.isStale = true
    key.first?.reject(fault)
    key.first = undefined
  }

  const failed = (keys: readonly Key[], error: unknown): void => {
    counts.failures++
    if (failuresInARow++ % failuresPerLogLine === 0) {
      log.warn('feed.failed', { feed: plan.name, failures: failuresInARow, error })
    }
    const fault = noValue(error)
    for (const key of keys) {
      setFailed(key, fault)
      tell(key)
    }
    relay?.tell({ failed: keys.map(({ name }) => name) })
  }

  const noValue = (cause: unknown): Fault => {
    const isTimeout = cause instanceof Fault && cause.code === 'timeout'
    const retryAfterMs = cause instanceof Fault ? cause.retryAfterMs : undefined
    const message = `feed ${plan.name} has no value of this key yet`
    return new Fault(isTimeout ? 'timeout' : 'unavailable', message, { cause, retryAfterMs })
  }

  const isRetelling = (): boolean => deps.shared?.redis.isUp === true && !plan.isKept

  /** To its subscribers, if it is not what they were told last. */
  const tell = (key: Key): void => {
    const { value } = key
    if (!value || !leader.isLeading || !key.isHeardSomewhere) return
    const text = toldTextOf(value)
    const now = clock.tick()
    const isAgain = isRetelling() && now - key.toldAt >= retellMs
    if (key.told === text && !isAgain) return
    key.told = undefined
    key.toldAt = now
    try {
      deps.publish(keyed.topicOf(key.name), toldOf(value))
      key.told = text
    } catch (error) {
      // It is tried again with the next answer.
      log.warn('feed.not-published', { feed: plan.name, key: key.name, error })
    }
  }

  const rounds = createRounds(
    {
      clock,
      watch,
      slowdown: deps.slowdown,
      isLeading: () => leader.isLeading && !isStopped,
      turn,
      ask: askFor,
      refused(error) {
        // Those that are new: of the others there is a value.
        const fault = noValue(error)
        const waiting = [...watch.all()].filter(({ first }) => first !== undefined)
        if (failuresInARow++ % failuresPerLogLine === 0) {
          log.warn('feed.no-turn', { feed: plan.name, waiting: waiting.length, error })
        }
        for (const key of waiting) setFailed(key, fault)
      },
    },
    { everyMs, batch: keyed.batch, adaptive: plan.adaptive },
  )

  const hearNews = (news: News): void => {
    const { values = [], unchanged = [], absent = [], failed: failures = [] } = news
    const now = clock.now()
    const learn = (name: string, run: (key: Key) => void): void => {
      const key = watch.get(name)
      if (!key || key.isAsked) return
      run(key)
      key.told = key.value && toldTextOf(key.value)
      watch.settle(key, clock.tick())
    }
    for (const [name, text, asOfMs] of values) {
      learn(name, (key) => setValue(key, { text, asOfMs, isStale: false }))
    }
    for (const [name, sum] of unchanged) {
      learn(name, (key) => {
        const { value } = key
        if (value && sumOf(value.text) === sum) {
          setValue(key, { ...value, asOfMs: now, isStale: false })
        } else relay?.again(name)
      })
    }
    for (const name of absent) learn(name, setAbsent)
    for (const name of failures) learn(name, (key) => setFailed(key, noValue(undefined)))
    answeredAt = clock.tick()
  }

  const relay =
    deps.shared &&
    createRelay(
      { clock, log, ...deps.shared },
      {
        feed: plan.name,
        onNews: hearNews,
        onWant: (names, isWanted) => (isWanted ? wanted(names) : unwanted(names)),
      },
    )

  /** By another node, perhaps again: it is told what is known. */
  const wanted = (names: readonly string[]): void => {
    const news = emptyNews()
    for (const name of names) {
      const key = add(name)
      if (!key) {
        leaveOutside(name, { isWanted: true })
        continue
      }
      key.isWanted = true
      if (key.value) {
        const { text, asOfMs, isStale } = key.value
        tell(key)
        news.values.push([name, text, asOfMs])
        if (isStale) news.failed.push(name)
      } else if (key.isAbsent) news.absent.push(name)
      else rounds.lookSoon()
    }
    relay?.tell(news)
  }

  const unwanted = (names: readonly string[]): void => {
    for (const name of names) {
      const key = watch.get(name)
      if (!key) {
        leaveOutside(name, { isWanted: false })
        continue
      }
      key.isWanted = false
      key.usedAt = clock.tick()
    }
  }

  const lead = (isLeading: boolean): void => {
    relay?.lead(isLeading)
    if (isLeading) return rounds.look()
    const reason = new Fault('unavailable', 'another node asks')
    rounds.rest(reason)
    for (const abort of aborts) abort.abort(reason)
  }

  const leader = createLeader(deps, {
    feed: plan.name,
    isPublishing: true,
    inUse: () => (aborts.size > 0 ? 1 : 0),
    onChange: lead,
  })

  const add = (name: string): Key | undefined => {
    const key = watch.add(name, clock.tick())
    const before = key && outside.get(name)
    if (!key || !before) return key
    outside.delete(name)
    key.isHeard ||= before.isHeard
    key.isWanted ||= before.isWanted
    if (before.isHeard) relay?.want(name, true)
    rounds.lookSoon()
    return key
  }

  const leaveOutside = (name: string, as: Partial<Pick<Key, 'isHeard' | 'isWanted'>>): void => {
    const now = { isHeard: false, isWanted: false, ...outside.get(name), ...as }
    if (!now.isHeard && !now.isWanted) return void outside.delete(name)
    if (outside.size === 0) log.warn('feed.full', { feed: plan.name, keys: watch.size })
    outside.set(name, now)
  }

  const letIn = (): void => {
    for (const name of outside.keys()) if (!add(name)) return
  }

  const addOwn = (name: string): Key | undefined => {
    const key = add(name)
    if (key) relay?.want(name, true)
    return key
  }

  const look = (): void => {
    const now = clock.tick()
    watch.sweep(now)
    letIn()
    if (watch.size === 0) answeredAt = now
    if (now - answeredAt <= silentMsOf(rounds.intervalMs)) return
    for (const key of watch.all()) {
      if (!key.value || key.value.isStale) continue
      key.value.isStale = true
      tell(key)
    }
  }

  const firstOf = async (key: Key): Promise<Value | undefined> => {
    let { first } = key
    if (!first) {
      const waiting = (first = key.first = Promise.withResolvers<void>())
      const late = clock.after(plan.timeoutMs, () => {
        if (key.first === waiting) key.first = undefined
        waiting.reject(noValue(new Fault('timeout', 'no answer')))
      })
      waiting.promise.then(late, late)
      watch.renew(key)
      rounds.lookSoon()
    }
    await first.promise
    return key.value
  }

  return {
    plan,
    get intervalMs() {
      return rounds.intervalMs
    },
    start() {
      answeredAt = clock.tick()
      relay?.start()
      leader.start()
      cancel = clock.every(lookMs, look)
    },
    async stop() {
      isStopped = true
      cancel()
      const reason = new Fault('unavailable', 'the server stops')
      rounds.rest(reason)
      for (const abort of aborts) abort.abort(reason)
      for (const { first } of watch.all()) first?.reject(reason)
      await rounds.settled()
      await leader.stop()
      relay?.stop()
    },
    async tick() {
      rounds.look()
      await rounds.settled()
    },
    hear(topic, isHeard) {
      const name = keyed.keyOf(topic)
      if (name === undefined) return
      const key = isHeard ? addOwn(name) : watch.get(name)
      if (!key) return leaveOutside(name, { isHeard })
      key.isHeard = isHeard
      if (!isHeard) key.usedAt = clock.tick()
      // Not in the turn in which somebody is about to listen.
      else if (key.value) clock.soon(() => tell(key))
      else rounds.lookSoon()
    },
    read(name) {
      if (keyed.keyOf(keyed.topicOf(name)) !== name) return undefined
      const key = addOwn(name)
      if (!key) throw new Fault('unavailable', `feed ${plan.name} watches too many keys`)
      key.usedAt = clock.tick()
      if (key.value) return key.value
      if (key.isAbsent) return undefined
      if (clock.tick() - key.failedAt < againMs) throw noValue(undefined)
      return firstOf(key)
    },
    stats() {
      let stale = 0
      for (const { value } of watch.all()) if (value?.isStale === true) stale += 1
      const { isLeading } = leader
      return { name: plan.name, ...counts, keys: watch.size, stale, isLeading }
    },
  }
}

function emptyNews() {
  return {
    values: [] as [string, string, number][],
    unchanged: [] as [string, string][],
    absent: [] as string[],
    failed: [] as string[],
  }
}

function readerOf({ name }: FeedPlan, answer: unknown): (key: string) => unknown {
  if (answer instanceof Map) return (key) => answer.get(key) as unknown
  if (typeof answer === 'object' && answer !== null && !Array.isArray(answer)) {
    const values = answer as Readonly<Record<string, unknown>>
    return (key) => (Object.hasOwn(values, key) ? values[key] : undefined)
  }
  throw new Fault('invalid', `feed ${name} gave no object or Map of values by key`)
}
