/**
 * The second tier: what one process has loaded, in Redis for the others. An answer from here costs a tenth
 * of a millisecond and no query; trouble of any kind is a miss.
 *
 * Invariants: nothing rejects; every key has an end; whatever is found under a key was written for this app,
 * this schema and this database (`namespace`), or it is a miss.
 *
 * Nobody compares and sets: a late `SET` with an old value is harmless, because readers check `asOf`.
 */
import { createHash } from 'node:crypto'
import type { Clock } from '../lib/clock.ts'
import { detach } from '../lib/service.ts'
import { envelopeVersion, openEntry, sealEntry } from './envelope.ts'
import type { CacheEntry, SharedTier } from './tier.ts'

/** What this tier wants of Redis; `store/redis.ts` fits. Each answers soon or rejects soon. */
export interface RedisPort {
  readonly isUp: boolean
  get(key: string): Promise<Uint8Array | undefined>
  set(key: string, value: Uint8Array, ttlMs: number): Promise<'kept' | 'refused'>
  delete(key: string): Promise<void>
  claim(key: string, ms: number): Promise<boolean>
}

export interface RedisTierOptions {
  /** Of `redisNamespace`. Read at each use, so a getter may tell what is known only later. */
  readonly namespace: string
  /** A larger value is not stored. */
  readonly valueBytesMax?: number
}

/** As in memory: one value must not push out a thousand, nor hold up the one connection. */
const valueBytesMaxDefault = 1024 * 1024

/** A full Redis is full for a while: until something expires or is evicted. */
const setsPauseMs = 5_000

/** Longer keys cost everybody who stores them. */
const keyBytesMax = 200

/** Redis counts milliseconds in 64 bits and adds the time of day; a year is plenty. */
const ttlMsMax = 366 * 24 * 3_600_000

export interface NamespaceParts {
  readonly app: string
  /** Of the schema: what was encoded for other columns is not for us. */
  readonly schema: string
  /** Of the database, and of its life: another one's `seq` says nothing about ours. */
  readonly database: string
}

/** Parts are encoded, so that no two triples give one namespace. */
export function redisNamespace({ app, schema, database }: NamespaceParts): string {
  return ['belfry', `v${envelopeVersion}`, app, schema, database].map(encodeURIComponent).join(':')
}

const nothing = Promise.resolve(undefined)
const everyone = Promise.resolve(true)

export function createRedisTier(
  deps: { readonly redis: RedisPort; readonly clock: Clock },
  options: RedisTierOptions,
): SharedTier {
  const { redis, clock } = deps
  const { valueBytesMax = valueBytesMaxDefault } = options
  const counts = { hits: 0, misses: 0, sets: 0, failures: 0, skipped: 0 }
  let setsFromMs = 0
  let isStopped = false

  const keyOf = (key: string): string => `${options.namespace}:${plainKey(key)}`
  const leaseOf = (key: string): string => `${options.namespace}:lease:${plainKey(key)}`
  const canAsk = (): boolean => {
    if (redis.isUp && !isStopped) return true
    counts.skipped++
    return false
  }
  const fail = (): void => void counts.failures++

  const get = async (key: string): Promise<CacheEntry | undefined> => {
    const at = keyOf(key)
    try {
      const bytes = await redis.get(at)
      const entry = bytes && openEntry(bytes)
      if (bytes && !entry) {
        counts.failures++
        detach(redis.delete(at), fail)
      }
      if (entry) counts.hits++
      else counts.misses++
      return entry
    } catch {
      counts.failures++
      counts.misses++
      return undefined
    }
  }

  const set = async (at: string, bytes: Uint8Array, ttlMs: number): Promise<void> => {
    if ((await redis.set(at, bytes, ttlMs)) === 'kept') {
      counts.sets++
      return
    }
    counts.failures++
    setsFromMs = clock.tick() + setsPauseMs
  }

  const lease = async (key: string, ms: number): Promise<boolean> => {
    try {
      return await redis.claim(leaseOf(key), ms)
    } catch {
      counts.failures++
      return true
    }
  }

  return {
    get isUp() {
      return redis.isUp && !isStopped
    },
    get(key) {
      return canAsk() ? get(key) : nothing
    },
    set(key, entry, ttlMs) {
      if (!canAsk() || !(ttlMs > 0)) return
      const bytes =
        clock.tick() < setsFromMs || entry.body.length > valueBytesMax
          ? undefined
          : sealEntry(entry)
      if (bytes === undefined) return void counts.skipped++
      detach(set(keyOf(key), bytes, Math.min(ttlMs, ttlMsMax)), fail)
    },
    delete(key) {
      if (canAsk()) detach(redis.delete(keyOf(key)), fail)
    },
    lease(key, ms) {
      return canAsk() ? lease(key, ms) : everyone
    },
    stats: () => ({ ...counts, isUp: redis.isUp && !isStopped }),
    // The connection has an owner already, who serves the log's news as well.
    start: async () => void (isStopped = false),
    stop: async () => void (isStopped = true),
  }
}

/** Printable and short as it is, else its hash; the marks before keep the two apart. */
function plainKey(key: string): string {
  if (key.length <= keyBytesMax && /^[\x21-\x7e]*$/.test(key)) return `=${key}`
  return `#${createHash('sha256').update(key, 'utf16le').digest('base64url')}`
}
