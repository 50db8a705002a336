/**
 * The cache: a read is fetched, checked and encoded once, and everybody gets the same bytes.
 *
 *   read(key) ─ fresh and valid in the memory tier? ───────────────────────────────────► hit
 *             ─ a valid flight under way? ─ join ──────────────────────────────────────► miss, coalesced
 *             ─ else depart: fresh and valid in the shared tier? ─ promote ────────────► l2
 *                            else asOf = applied; load; still valid? store : serve once ─► miss
 *             ─ the load failed, or takes long, and an expired but valid entry is kept? ─► stale
 *
 * Invariant: after `apply(seq, tags)` no caller who arrives gets a value loaded before `seq` that depends on
 * what changed: not from the tiers, not from a flight. (validity.ts has the rule; what another node puts into
 * the shared tier late obeys it too, because readers check.)
 *
 * Near the end of its time an entry that is still asked for is loaded anew in the background, and so is one
 * that was asked for and became invalid (hot.ts); a load that failed is not tried again for a moment; "there
 * is no such thing" is remembered for a short while. In an overload (`Relief`) what is valid and may be stale is served at
 * once, and loaded anew in the background after some TTLs.
 *
 * Hits are answered synchronously: the hot path makes no promise. Bodies are shared: never changed, and used in
 * the turn of the event loop that gave them (tier-memory.ts).
 */
import { LRUCache } from 'lru-cache'
import { Fault, unwrapped } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import { etagOf } from '../lib/etag.ts'
import { createFlights, type Flight } from './flight.ts'
import type { Change } from './changes.ts'
import { createHot } from './hot.ts'
import type { Bounds } from './policy.ts'
import type { CacheEntry, SharedTier, SharedTierStats } from './tier.ts'
import { createMemoryTier, isGone } from './tier-memory.ts'
import { createValidity, type Loaded, type Proven, type Source } from './validity.ts'

export { createRedisTier, redisNamespace } from './tier-redis.ts'
export type { CacheEntry, SharedTier } from './tier.ts'
export type { Loaded, Source } from './validity.ts'

/** A $40 VM has 8 GB: an eighth of a gigabyte is plenty for 10,000 answers and leaves the rest to sockets. */
export const cacheDefaults: Bounds = {
  entriesMax: 10_000,
  bytesMax: 128 * 1024 * 1024,
  entryBytesMax: 1024 * 1024,
}

/** TTLs vary by this share either way, so that what was stored together does not expire together. */
const ttlJitterShare = 0.1

/** In the last share of its TTL an entry that is asked for is loaded anew, once. */
const refreshAheadShareDefault = 0.15

/** One node refreshes; if it dies meanwhile, the next may after this. */
const leaseMs = 5_000

/** "Not found" is remembered for so long at most: a create invalidates it at once. */
const absentMsMax = 10_000

/** After a failure the same load is tried again only after this, plus up to three times as much. */
const holdMsMin = 250

/** Keys whose last load failed, remembered. */
const holdsMax = 1_000

/** Counted each for itself; the rest together: a route may make a path of what it was sent. */
const pathsMax = 1_000
const otherPaths = 'other'

/** Whoever waits longer for a load gets an expired entry, where one is kept. */
const waitMsMax = 2_000

export interface CachePolicy {
  /** Groups reads in the statistics. */
  readonly path?: string
  readonly ttlMs: number
  /** In the tier that nodes share; by default as long as in memory. */
  readonly sharedTtlMs?: number | undefined
  /** After the TTL, how long an entry may stand in for a store that fails, or for a load that is too much. */
  readonly staleMs: number
  /** Whose load is not begun in an overload. */
  readonly priority?: 'high' | 'normal' | 'low' | undefined
}

/** What an overload asks of the cache. */
export interface Relief {
  /** 1, or by how much TTLs are longer as far as `staleMs` allows. */
  readonly factor: number
  /** Whether somebody may have something loaded. */
  mayLoad(priority: CachePolicy['priority']): boolean
}

/** What happened, as a closed union: headers, metrics and tests read this one value. */
export type CacheState = 'hit' | 'l2' | 'miss' | 'stale'

export interface CacheRead {
  readonly state: CacheState
  /** Answered by a load that another caller had started. */
  readonly isCoalesced: boolean
  /** It is stale to spare a load, and not because one failed. */
  readonly isSparing?: boolean
  readonly entry: CacheEntry
}

export interface CacheStats {
  readonly hits: number
  /** Answered from the shared tier. */
  readonly sharedHits: number
  readonly misses: number
  readonly coalesced: number
  readonly stale: number
  readonly refreshes: number
  /** Became invalid while they were asked for, and were loaded before anybody asked again. */
  readonly reloads: number
  /** Became invalid, and were made good from the log without a load. */
  readonly repairs: number
  /** Not tried, because the same load had just failed. */
  readonly held: number
  readonly entries: number
  readonly bytes: number
  readonly evictions: number
  readonly flights: number
  readonly shared: SharedTierStats | undefined
  readonly byPath: Readonly<Record<string, { readonly hits: number; readonly misses: number }>>
}

/**
 * Gives the encoded answer, in bytes that nobody else keeps (they are freed when the entry leaves), or undefined:
 * there is no such thing.
 */
export type Load = (minSeq: number) => Promise<Uint8Array | undefined>

export interface Cache {
  /**
   * `key` must hold everything the answer depends on, also what the reader may see. `tags` name at least all
   * that it is made from; a `Source` knows better once it has loaded. A throw of the load is shared by all who
   * joined. What it reads must be at least as new as the log entry `minSeq`, the last one that changed
   * something under `tags`.
   */
  read(
    key: string,
    tags: readonly string[],
    policy: CachePolicy,
    from: Load | Source,
  ): CacheRead | Promise<CacheRead>
  /** Follows the log: in `seq` order, each once, before the change is published. */
  apply(seq: number, tags: readonly string[], change?: Change): void
  /** The log has a hole up to `seq`: nothing loaded before is given to anybody who arrives now. */
  jump(seq: number): void
  stats(): CacheStats
  /** Keys of the memory tier, hottest first as far as its policy knows. Not for the hot path. */
  hottest(max: number): string[]
  /** Begins nothing any more by itself. */
  stop(): void
}

export interface CacheOptions extends Partial<Bounds> {
  /** 0 to 1; tests pin it. */
  readonly random?: () => number
  readonly refreshAheadShare?: number
  /** Tags of the tables that a `Source` may have ranges of. */
  readonly groups?: readonly string[]
}

export interface CacheDeps {
  readonly clock: Clock
  readonly shared?: SharedTier | undefined
  readonly relief?: Relief | undefined
}

interface Landed {
  readonly entry: CacheEntry
  readonly state: 'l2' | 'miss'
}

interface Counts {
  hits: number
  misses: number
}

/** A question, so that it can be asked again. */
interface Ask {
  readonly key: string
  readonly tags: readonly string[]
  readonly policy: CachePolicy
  readonly from: Load | Source
}

/** In the memory tier. */
interface Kept extends Proven {
  readonly ask: Ask
  hits: number
}

export function createCache(deps: CacheDeps, options: CacheOptions = {}): Cache {
  const { clock, shared, relief = noRelief } = deps
  const { random = Math.random, refreshAheadShare = refreshAheadShareDefault } = options
  const tier = createMemoryTier<Kept>({ ...cacheDefaults, ...options }, clock)
  const validity = createValidity(options.groups ?? [])
  const flights = createFlights<Landed>(clock)
  const holds = new LRUCache<string, { readonly until: number; readonly failure: unknown }>({
    max: holdsMax,
  })
  const counts = {
    sharedHits: 0,
    coalesced: 0,
    stale: 0,
    refreshes: 0,
    reloads: 0,
    repairs: 0,
    held: 0,
  }
  const byPath = new Map<string, Counts>()

  const isValid = ({ asOf, tags }: Pick<Flight<Landed>, 'asOf' | 'tags'>): boolean =>
    validity.isUntouched(asOf, tags)
  const isGood = (entry: Kept): boolean =>
    validity.isGood(entry, entry.ask.tags, sourceOf(entry.ask.from))

  const countsOf = ({ path = '' }: Pick<CachePolicy, 'path'>): Counts => {
    const known = byPath.get(path)
    if (known) return known
    if (path !== otherPaths && byPath.size >= pathsMax) return countsOf({ path: otherPaths })
    const made = { hits: 0, misses: 0 }
    byPath.set(path, made)
    return made
  }

  const keptOf = (ask: Ask, entry: CacheEntry): Kept => ({
    ...entry,
    ask,
    provenSeq: entry.asOf,
    provenIn: -1,
    hits: 0,
  })

  /** What another node left, if it may be served: by its own tags, and by those asked for if it has no better. */
  const fromShared = async (ask: Ask, newerThanMs: number): Promise<Kept | undefined> => {
    const found = await shared?.get(ask.key)
    if (!found || found.freshUntilMs <= Math.max(clock.now(), newerThanMs)) return undefined
    // A load without a source is asked for by its tags alone: whoever left it may have known fewer.
    const tags = sourceOf(ask.from) ? found.tags : [...new Set([...found.tags, ...ask.tags])]
    const kept = keptOf(ask, {
      ...found,
      tags,
      freshUntilMs: Math.min(found.freshUntilMs, clock.now() + ask.policy.ttlMs),
    })
    return isGood(kept) ? kept : repaired(kept)
  }

  /** The same answer as the log says it is now, with the times it had. */
  const repaired = (kept: Kept): Kept | undefined => {
    const source = sourceOf(kept.ask.from)
    const body = source && validity.repaired(kept, source)
    if (!body) return undefined
    counts.repairs++
    const { variants: _, ...rest } = kept
    const made = { ...rest, body, etag: etagOf(body), asOf: validity.applied }
    return { ...made, provenSeq: validity.applied, provenIn: -1, hits: 0 }
  }

  const depart = (ask: Ask, newerThanMs: number): Flight<Landed> => {
    const { key, policy } = ask
    const land = async (): Promise<Landed> => {
      if (shared?.isUp) {
        const found = await fromShared(ask, newerThanMs)
        if (found) {
          counts.sharedHits++
          tier.set(key, found)
          return { entry: found, state: 'l2' }
        }
      }
      // Read before the load begins: what lands during the load has a greater seq, and if it touches what
      // was loaded, this entry is handed to its own callers and never stored.
      const asOf = validity.applied
      const loaded = await loadFrom(ask, validity.since(ask.tags))
      const entry = keptOf(ask, entryOf(loaded, asOf, ask))
      if (isGood(entry)) {
        tier.set(key, entry)
        keepShared(key, entry, policy)
      }
      return { entry, state: 'miss' }
    }
    return flights.depart(key, validity.applied, ask.tags, async () => {
      try {
        const landed = await land()
        holds.delete(key)
        return landed
      } catch (failure) {
        const until = clock.tick() + holdMsMin * (1 + 3 * random())
        if (isOutage(failure, ask)) holds.set(key, { until, failure })
        throw failure
      }
    })
  }

  const entryOf = ({ body, tags, range }: Loaded, asOf: number, ask: Ask): CacheEntry => {
    const now = clock.now()
    const jittered = ask.policy.ttlMs * (1 + ttlJitterShare * (2 * random() - 1))
    const ttlMs = body ? jittered : Math.min(jittered, absentMsMax)
    return {
      body: body ?? nothing,
      etag: body ? etagOf(body) : '',
      asOf,
      tags: tags ?? ask.tags,
      storedAtMs: now,
      freshUntilMs: now + ttlMs,
      staleUntilMs: now + ttlMs + (body ? ask.policy.staleMs : 0),
      ...(range === undefined ? {} : { range }),
      ...(body ? {} : { isAbsent: true }),
    }
  }

  const keepShared = (key: string, entry: CacheEntry, policy: CachePolicy): void => {
    if (!shared) return
    const longerMs = Math.max(0, (policy.sharedTtlMs ?? policy.ttlMs) - policy.ttlMs)
    const freshUntilMs = entry.freshUntilMs + (entry.isAbsent ? 0 : longerMs)
    const staleUntilMs = Math.max(entry.staleUntilMs, freshUntilMs)
    shared.set(key, { ...entry, freshUntilMs, staleUntilMs }, staleUntilMs - entry.storedAtMs)
  }

  /** In the background, and by one node. Resolves to whether it was this one. */
  const loadAgain = async (ask: Ask, newerThanMs: number): Promise<boolean> => {
    if (holds.has(ask.key)) return false
    // After a change: one node for this change. The next one may come before the lease is over.
    const lease = newerThanMs > 0 ? ask.key : `${ask.key} ${validity.since(ask.tags)}`
    if (shared?.isUp && !(await shared.lease(lease, leaseMs))) return false
    if (flights.find(ask.key, isValid)) return false
    await depart(ask, newerThanMs).landing
    return true
  }

  const goodOf = (kept: Kept, tags: readonly string[], from: Load | Source): Kept | undefined => {
    if (validity.isGood(kept, tags, sourceOf(from))) return kept
    const made = repaired(kept)
    if (made) tier.set(made.ask.key, made)
    return made
  }

  const refreshing = new Set<string>()
  const refreshSoon = (ask: Ask, { freshUntilMs }: Kept): void => {
    if (refreshing.has(ask.key)) return
    refreshing.add(ask.key)
    loadAgain(ask, freshUntilMs)
      .then((isDone) => void (counts.refreshes += Number(isDone)))
      // Nobody waits for it: the entry is served until its end, and then loaded for somebody.
      .catch(() => {})
      .finally(() => refreshing.delete(ask.key))
  }

  const hot = createHot<Kept>({
    clock,
    isGood,
    async reload(entry) {
      // Else somebody asked meanwhile, or it had to go. It keeps its place until the new one takes it.
      if (tier.get(entry.ask.key) !== entry) return
      const made = repaired(entry)
      if (made) return tier.set(entry.ask.key, made)
      counts.reloads += Number(await loadAgain(entry.ask, 0))
    },
  })

  const land = async (
    flight: Flight<Landed>,
    isCoalesced: boolean,
    spare: Kept | undefined,
  ): Promise<CacheRead> => {
    try {
      const landed = await (spare ? soon(flight.landing) : flight.landing)
      if (landed) return { state: landed.state, isCoalesced, entry: landed.entry }
    } catch (failure) {
      if (!isUsable(spare) || !isOutage(failure, spare.ask)) throw failure
    }
    if (!isUsable(spare)) return await land(flight, isCoalesced, undefined)
    counts.stale++
    return { state: 'stale', isCoalesced, entry: spare }
  }

  /** Looked at again: while the load ran, a write may have been applied, or it may have had to leave. */
  const isUsable = (spare: Kept | undefined): spare is Kept =>
    spare !== undefined && isGood(spare) && clock.now() < spare.staleUntilMs && !isGone(spare)

  /** In an overload: what may be stale is, and is loaded seldom. */
  const isSpared = (entry: Kept | undefined, { staleMs }: CachePolicy): entry is Kept =>
    relief.factor > 1 && staleMs > 0 && isUsable(entry) && !entry.isAbsent

  /** Undefined if it takes too long for whoever could have something else. */
  const soon = async (landing: Promise<Landed>): Promise<Landed | undefined> => {
    const late = Promise.withResolvers<undefined>()
    const cancel = clock.after(waitMsMax, () => late.resolve(undefined))
    try {
      return await Promise.race([landing, late.promise])
    } finally {
      cancel()
    }
  }

  return {
    read(key, tags, policy, from) {
      const kept = tier.get(key)
      const entry = kept && goodOf(kept, tags, from)
      const now = clock.now()
      if (entry && now < entry.freshUntilMs) {
        countsOf(policy).hits++
        // A function may be of a request that is over: it is not called again without one.
        if (++entry.hits === 1 && typeof from !== 'function') hot.add(entry)
        const isNearEnd = now > entry.freshUntilMs - policy.ttlMs * refreshAheadShare
        if (isNearEnd && !entry.isAbsent && !isSpared(entry, policy)) {
          refreshSoon({ key, tags, policy, from }, entry)
        }
        return { state: 'hit', isCoalesced: false, entry }
      }
      if (kept && !entry) tier.delete(key)
      countsOf(policy).misses++
      if (isSpared(entry, policy)) {
        if (now > entry.freshUntilMs + policy.ttlMs * (relief.factor - 1)) {
          refreshSoon({ key, tags, policy, from }, entry)
        }
        counts.stale++
        return { state: 'stale', isCoalesced: false, isSparing: true, entry }
      }
      const joined = flights.find(key, isValid)
      if (joined) {
        counts.coalesced++
        return land(joined, true, entry)
      }
      const held = holds.get(key)
      if (held && clock.tick() < held.until) {
        counts.held++
        if (!isUsable(entry)) return Promise.reject(held.failure as Error)
        counts.stale++
        return { state: 'stale', isCoalesced: true, entry }
      }
      if (!relief.mayLoad(policy.priority)) return Promise.reject(tooMuch())
      return land(depart({ key, tags, policy, from }, 0), false, entry)
    },
    apply(seq, changed, change) {
      validity.apply(seq, changed, change)
      hot.look()
    },
    jump(seq) {
      validity.raise(seq)
      hot.look()
    },
    stop: () => hot.stop(),
    hottest: (max) => [...tier.keys()].slice(0, max),
    stats() {
      let [hits, misses] = [0, 0]
      for (const one of byPath.values()) {
        hits += one.hits
        misses += one.misses
      }
      return {
        ...counts,
        hits,
        misses,
        entries: tier.size,
        bytes: tier.bytes,
        evictions: tier.evictions,
        flights: flights.size,
        shared: shared?.stats(),
        byPath: Object.fromEntries([...byPath].map(([path, one]) => [path, { ...one }])),
      }
    },
  }
}

const nothing = new Uint8Array(0)

const noRelief: Relief = { factor: 1, mayLoad: () => true }

/** Who reads is told to come back. */
const retryAfterMs = 2_000

function tooMuch(): Fault {
  return new Fault('overloaded', 'too much is being loaded', { retryAfterMs })
}

function sourceOf(from: Load | Source): Source | undefined {
  return typeof from === 'function' ? undefined : from
}

async function loadFrom({ from }: Ask, minSeq: number): Promise<Loaded> {
  return typeof from === 'function' ? { body: await from(minSeq) } : await from.load(minSeq)
}

/** The store's trouble is bridged with an old answer, and whatever else an app's load meets; a refusal or a bug is told. */
function isOutage(failure: unknown, { from }: Ask): boolean {
  const cause = unwrapped(failure)
  // What is thrown and is no error is an answer in the app's words.
  if (!(cause instanceof Fault)) return typeof from === 'function' && cause instanceof Error
  return cause.code === 'unavailable' || cause.code === 'timeout'
}
