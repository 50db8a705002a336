/**
 * The cache: a read is fetched, checked and encoded once, and everybody gets the same bytes.
 *
 *   read(key) ─ fresh and valid in the memory tier? ──────────────────────────► hit
 *             ─ a valid flight under way? ─ join ─────────────────────────────► miss, coalesced
 *             ─ else depart: asOf = applied; load; still valid? store : serve once ─► miss
 *             ─ the load failed, and an expired but valid entry is kept? ──────► stale
 *
 * Invariant: after `apply(seq, tags)` no caller who arrives gets a value loaded before `seq` under
 * one of these tags: not from the tier, not from a flight. (tags.ts has the rule.)
 *
 * Hits are answered synchronously: the hot path makes no promise. Bodies are shared: never changed.
 */
import { Fault } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import { etagOf } from '../lib/etag.ts'
import { createFlights, type Flight } from './flight.ts'
import { createMemoryTier, type TierOptions } from './tier-memory.ts'
import { createTags } from './tags.ts'

/** A $40 VM has 8 GB: an eighth of a gigabyte is plenty for 10,000 answers and leaves the rest to sockets. */
export const cacheDefaults: TierOptions = {
  entriesMax: 10_000,
  bytesMax: 128 * 1024 * 1024,
  entryBytesMax: 1024 * 1024,
}

/** TTLs vary by this share either way, so that what was stored together does not expire together. */
const ttlJitterShare = 0.1

export interface CacheEntry {
  readonly body: Uint8Array
  /** Strong, quoted, of `body`. */
  readonly etag: string
  readonly asOf: number
  readonly tags: readonly string[]
  readonly freshUntilMs: number
  readonly staleUntilMs: number
}

export interface CachePolicy {
  readonly ttlMs: number
  /** After the TTL, how long an entry may stand in for a store that fails. */
  readonly staleMs: number
}

/** What happened, as a closed union: headers, metrics and tests read this one value. */
export type CacheState = 'hit' | 'miss' | 'stale'

export interface CacheRead {
  readonly state: CacheState
  /** Answered by a load that another caller had started. */
  readonly isCoalesced: boolean
  readonly entry: CacheEntry
}

export interface CacheStats {
  readonly hits: number
  readonly misses: number
  readonly coalesced: number
  readonly stale: number
  readonly entries: number
  readonly bytes: number
  readonly flights: number
}

export type Load = (minSeq: number) => Promise<Uint8Array>

export interface Cache {
  /**
   * `key` must hold everything the answer depends on, also what the reader may see. `load` gives the
   * encoded answer or throws; a throw is shared by all who joined and not kept. What it reads must be
   * at least as new as the log entry `minSeq`, the last one that changed something under `tags`.
   */
  read(
    key: string,
    tags: readonly string[],
    policy: CachePolicy,
    load: Load,
  ): CacheRead | Promise<CacheRead>
  /** Follows the log: in `seq` order, each once, before the change is published. */
  apply(seq: number, tags: readonly string[]): void
  /** The log has a hole up to `seq`: nothing loaded before is given to anybody who arrives now. */
  jump(seq: number): void
  stats(): CacheStats
}

export interface CacheOptions extends Partial<TierOptions> {
  /** 0 to 1; tests pin it. */
  readonly random?: () => number
}

export function createCache(deps: { readonly clock: Clock }, options: CacheOptions = {}): Cache {
  const { clock } = deps
  const { random = Math.random } = options
  const tier = createMemoryTier({ ...cacheDefaults, ...options })
  const tags = createTags()
  const flights = createFlights<CacheEntry>()
  const counts = { hits: 0, misses: 0, coalesced: 0, stale: 0 }

  const isValid = (one: { readonly asOf: number; readonly tags: readonly string[] }): boolean =>
    tags.isValid(one.asOf, one.tags)

  const depart = (
    key: string,
    entryTags: readonly string[],
    policy: CachePolicy,
    load: Load,
  ): Flight<CacheEntry> => {
    // Read before the load begins: a write that lands during the load has a greater seq, and then
    // this entry is handed to its own callers and never stored.
    const asOf = tags.applied
    const minSeq = tags.since(entryTags)
    return flights.depart(key, asOf, entryTags, async () => {
      const body = await load(minSeq)
      const now = clock.now()
      const ttlMs = policy.ttlMs * (1 + ttlJitterShare * (2 * random() - 1))
      const entry: CacheEntry = {
        body,
        etag: etagOf(body),
        asOf,
        tags: entryTags,
        freshUntilMs: now + ttlMs,
        staleUntilMs: now + ttlMs + policy.staleMs,
      }
      if (isValid(entry)) tier.set(key, entry)
      return entry
    })
  }

  const land = async (
    flight: Flight<CacheEntry>,
    isCoalesced: boolean,
    spare: CacheEntry | undefined,
  ): Promise<CacheRead> => {
    try {
      return { state: 'miss', isCoalesced, entry: await flight.landing }
    } catch (failure) {
      // Looked at again: a write may have been applied while the load ran.
      const isUsable = spare && isValid(spare) && clock.now() < spare.staleUntilMs
      if (!isUsable || !isOutage(failure)) throw failure
      counts.stale++
      return { state: 'stale', isCoalesced, entry: spare }
    }
  }

  return {
    read(key, entryTags, policy, load) {
      const kept = tier.get(key)
      const entry = kept && isValid(kept) ? kept : undefined
      if (entry && clock.now() < entry.freshUntilMs) {
        counts.hits++
        return { state: 'hit', isCoalesced: false, entry }
      }
      if (kept && !entry) tier.delete(key)
      counts.misses++
      const joined = flights.find(key, isValid)
      if (joined) counts.coalesced++
      return land(joined ?? depart(key, entryTags, policy, load), joined !== undefined, entry)
    },
    apply: (seq, changed) => tags.apply(seq, changed),
    jump: (seq) => tags.raise(seq),
    stats: () => ({ ...counts, entries: tier.size, bytes: tier.bytes, flights: flights.size }),
  }
}

/** Only the store's trouble is bridged with an old answer; a refusal or a bug is told. */
function isOutage(failure: unknown): boolean {
  return failure instanceof Fault && (failure.code === 'unavailable' || failure.code === 'timeout')
}
