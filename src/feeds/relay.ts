/**
 * What the nodes of a feed tell each other, over Redis:
 *
 *   every node ──its own keys: a set that ends 15 s after its last sign──► Redis ──hint──► who asks
 *   who asks ──values, as they come──► channel ──► every node, which keeps those it watches
 *
 * Invariant: hints may be lost. Who asks reads all sets every 5 s, a node gives its whole set when Redis does not know
 * it, and a value is told again to whoever begins to want it. What Redis had no time for is tried again within a second
 * of its return, given or read. Ages travel, not times: clocks differ.
 *
 * Limits: a node's keys are those it may watch; messages are cut to what Redis takes at once.
 */
import type { Cancel, Clock } from '../lib/clock.ts'
import { detach } from '../lib/service.ts'
import type { Log } from '../observe/log.ts'
import { scriptOf, type Redis, type Script } from '../store/store.ts'

export type RelayRedis = Pick<Redis, 'isUp' | 'script' | 'publish' | 'subscribe'>

export interface RelayDeps {
  readonly clock: Clock
  readonly log: Log
  readonly redis: RelayRedis
  readonly namespace: string
}

/** What upstream has said, by key. */
export interface News {
  /** Key, JSON, when. */
  readonly values?: readonly (readonly [string, string, number])[]
  /** Have not changed: key, and what the value is (`sumOf`), for whoever has missed it. */
  readonly unchanged?: readonly (readonly [string, string])[]
  /** Upstream does not know them. */
  readonly absent?: readonly string[]
  /** Could not be asked for. */
  readonly failed?: readonly string[]
}

export interface RelayOptions {
  readonly feed: string
  /** Of the node that asks. */
  readonly onNews: (news: News) => void
  /** While this node asks: others want these, perhaps again; or none any more. */
  readonly onWant: (keys: readonly string[], isWanted: boolean) => void
  readonly nodeMs?: number
}

export interface Relay {
  /** This node watches it, or no more. */
  want(key: string, isWanted: boolean): void
  /** What was told of it has been missed here. */
  again(key: string): void
  /** As the node that asks. */
  tell(news: News): void
  /** Whether this node asks. */
  lead(isLeading: boolean): void
  start(): void
  stop(): void
}

/** Without a sign for so long, a node wants nothing any more. */
const nodeMsDefault = 15_000

/** Signs in that time. */
const signs = 3

/** How soon what Redis had no time for is tried again. */
const againMs = 500

/** All sets at once, up to 20,000 keys each, may take longer than what is usually waited for. */
const readMsMax = 1_000

/** Kept for a Redis that is away; of more, all keys are given when it is back. */
const changesMax = 1_000

/** Keys given in one step of Redis: a hint of them fits a message, however long they are. */
const keysAtOnce = 100

/** Of a message, in characters; one value is not longer (`valueLengthMax`). */
const messageLengthMax = 56 * 1024

/**
 * KEYS set, nodes · ARGV node, ms it lives, 1 if these are all its keys, channel, hint or nothing, how many to add, those,
 * then those to take away. Answers 0 if Redis had no such set.
 */
const wantScript = scriptOf(`
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local isKnown = redis.call('EXISTS', KEYS[1])
if ARGV[3] == '1' then redis.call('DEL', KEYS[1]) end
local adds = tonumber(ARGV[6])
if adds > 0 then redis.call('SADD', KEYS[1], unpack(ARGV, 7, 6 + adds)) end
if #ARGV > 6 + adds then redis.call('SREM', KEYS[1], unpack(ARGV, 7 + adds, #ARGV)) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('ZADD', KEYS[2], now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
if ARGV[5] ~= '' then redis.call('PUBLISH', ARGV[4], ARGV[5]) end
return isKnown
`)

/** KEYS nodes · ARGV start of the sets' names. Answers node, its keys, the next node … of those that live. */
const allScript = scriptOf(`
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local answer = {}
for _, node in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  answer[#answer + 1] = node
  answer[#answer + 1] = redis.call('SMEMBERS', ARGV[1] .. node)
end
return answer
`)

/** Of a node. */
interface Hint {
  readonly by: string
  readonly adds: readonly string[]
  readonly removes: readonly string[]
}

/** As it travels: values as they are, ages instead of times. */
type Told = Omit<News, 'values'> & {
  readonly by: string
  readonly values?: readonly (readonly [string, unknown, number])[]
}

export function createRelay(deps: RelayDeps, options: RelayOptions): Relay {
  const { feed, onNews, onWant, nodeMs = nodeMsDefault } = options
  const { clock, log, redis } = deps
  const node = crypto.randomUUID().slice(0, 8)
  // The braces keep a feed's keys on one server of a cluster.
  const base = `${deps.namespace}:feed:{${feed}}`
  const [wants, news, nodes] = [`${base}:wants`, `${base}:news`, `${base}:nodes`]
  const setOf = (name: string): string => `${base}:keys:${name}`

  const own = new Set<string>()
  /** Not given to Redis yet. */
  let changes = new Map<string, boolean>()
  let isWhole = true
  let isDue = false
  let isLeading = false
  let isReading = false
  /** The sets are to be read. */
  let isUnread = true
  /** Others' keys, by node. */
  let others = new Map<string, Set<string>>()
  /** Since the sets were asked for. */
  let hinted: Hint[] = []
  let heardAt = 0
  let cancels: Cancel[] = []

  const giveSoon = (): void => {
    if (isDue) return
    isDue = true
    clock.soon(() => {
      isDue = false
      give()
    })
  }

  /** What has changed since the last time, or all. */
  const give = (): void => {
    if (!redis.isUp) return
    const adds = isWhole ? [...own] : [...changes].filter(([, is]) => is).map(([key]) => key)
    const removes = isWhole ? [] : [...changes].filter(([, is]) => !is).map(([key]) => key)
    let isFirst = isWhole
    isWhole = false
    changes = new Map()
    do {
      const hint: Hint = {
        by: node,
        adds: adds.splice(0, keysAtOnce),
        removes: removes.splice(0, keysAtOnce),
      }
      const head = [node, nodeMs, isFirst ? 1 : 0, wants, JSON.stringify(hint), hint.adds.length]
      isFirst = false
      send(wantScript, [setOf(node), nodes], [...head, ...hint.adds, ...hint.removes])
    } while (adds.length + removes.length > 0)
  }

  const send = (
    script: Script,
    keys: readonly string[],
    args: readonly (string | number)[],
    onAnswer: (answer: unknown) => void = () => undefined,
  ): void => {
    detach(redis.script(script, keys, args).then(onAnswer), (error) => {
      // What of it has arrived is not known.
      isWhole = true
      changes.clear()
      log.debug('feed.keys-not-told', { feed, error })
    })
  }

  /** What is still to be given and read. */
  const look = (): void => {
    if (!redis.isUp) return
    if (isWhole || changes.size > 0) give()
    if (isUnread) readAll()
  }

  const beat = (): void => {
    isUnread = true
    if (!redis.isUp) {
      if (clock.tick() - heardAt > nodeMs) learn(new Map())
      return
    }
    if (!isWhole && changes.size === 0) {
      send(wantScript, [setOf(node), nodes], [node, nodeMs, 0, wants, '', 0], (isKnown) => {
        if (isKnown === 1 || own.size === 0) return
        isWhole = true
        give()
      })
    }
    look()
  }

  const readAll = (): void => {
    if (!isLeading || !redis.isUp || isReading) return
    isReading = true
    isUnread = false
    const since = (hinted = [])
    const read = redis.script(allScript, [nodes], [setOf('')], readMsMax).then((answer) => {
      const pairs = answer as (string | string[])[]
      const all = new Map<string, Set<string>>()
      for (let at = 0; at + 1 < pairs.length; at += 2) {
        if (pairs[at] !== node) all.set(pairs[at] as string, new Set(pairs[at + 1]))
      }
      // Hints come by another way, and may be the newer.
      for (const { by, adds } of since) all.set(by, (all.get(by) ?? new Set()).union(new Set(adds)))
      if (isLeading) learn(all)
    })
    detach(
      read.finally(() => (isReading = false)),
      (error) => {
        isUnread = true
        log.debug('feed.keys-not-read', { feed, error })
      },
    )
  }

  const isWantedBySome = (key: string): boolean => {
    for (const keys of others.values()) if (keys.has(key)) return true
    return false
  }

  const learn = (all: Map<string, Set<string>>): void => {
    heardAt = clock.tick()
    const before = others
    others = all
    const had = new Set([...before.values()].flatMap((keys) => [...keys]))
    const has = new Set([...all.values()].flatMap((keys) => [...keys]))
    onWant([...has.difference(had)], true)
    onWant([...had.difference(has)], false)
  }

  const hearWants = (text: string): void => {
    if (!isLeading) return
    const hint = JSON.parse(text) as Hint
    const { by, adds, removes } = hint
    if (by === node) return
    hinted.push(hint)
    let keys = others.get(by)
    if (!keys) others.set(by, (keys = new Set()))
    for (const key of adds) keys.add(key)
    onWant(adds, true)
    const gone = removes.filter((key) => keys.delete(key) && !isWantedBySome(key))
    onWant(gone, false)
  }

  const hearNews = (text: string): void => {
    const { by, values = [], ...rest } = JSON.parse(text) as Told
    if (by === node) return
    const now = clock.now()
    // As text it is again what it was: JSON of JSON.
    const own = values.map(
      ([key, value, ageMs]) => [key, JSON.stringify(value), now - ageMs] as const,
    )
    onNews({ ...rest, values: own })
  }

  return {
    want(key, isWanted) {
      if (own.has(key) === isWanted) return
      if (isWanted) own.add(key)
      else own.delete(key)
      if (!isWhole) changes.set(key, isWanted)
      if (changes.size > changesMax) {
        isWhole = true
        changes.clear()
      }
      giveSoon()
    },
    again(key) {
      if (!own.has(key)) return
      if (!isWhole) changes.set(key, true)
      giveSoon()
    },
    tell(told) {
      if (!redis.isUp) return
      const now = clock.now()
      for (const text of messagesOf(node, told, now)) redis.publish(news, text)
    },
    lead(is) {
      isLeading = is
      isUnread = true
      if (is) readAll()
      else learn(new Map())
    },
    start() {
      heardAt = clock.tick()
      const begin = (): void => {
        isWhole = true
        beat()
      }
      cancels = [
        redis.subscribe(wants, hearWants, begin),
        redis.subscribe(news, hearNews, () => undefined),
        clock.every(nodeMs / signs, beat),
        clock.every(againMs, look),
      ]
    },
    stop() {
      for (const cancel of cancels) cancel()
      cancels = []
      if (!redis.isUp) return
      const gone = redis.script(wantScript, [setOf(node), nodes], [node, 1, 1, wants, '', 0])
      detach(gone, () => undefined)
    },
  }
}

/** Cut to what a message may be. Values go in as they are. */
function messagesOf(by: string, told: News, now: number): string[] {
  const { values = [], ...lists } = told
  const entries = values.map(([key, text, asOfMs]): [keyof News, string] => [
    'values',
    `[${JSON.stringify(key)},${text},${now - asOfMs}]`,
  ])
  for (const kind of ['unchanged', 'absent', 'failed'] as const) {
    for (const one of lists[kind] ?? []) entries.push([kind, JSON.stringify(one)])
  }
  const texts: string[] = []
  let packed = new Map<keyof News, string[]>()
  let length = 0
  const end = (): void => {
    const fields = [...packed].map(([kind, list]) => `,"${kind}":[${list.join(',')}]`)
    if (length > 0) texts.push(`{"by":"${by}"${fields.join('')}}`)
    packed = new Map()
    length = 0
  }
  for (const [kind, text] of entries) {
    if (length + text.length > messageLengthMax) end()
    const list = packed.get(kind)
    if (list) list.push(text)
    else packed.set(kind, [text])
    length += text.length + 1
  }
  end()
  return texts
}
