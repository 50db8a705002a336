/**
 * The cache as custom routes have it: any JSON value under a key, a scope and tags, with the same promises as
 * a collection's reads: loaded once for all who ask, never older than the last invalidation that this node
 * knows of, on every node.
 *
 *   key a:b:c   ─► depends on key:a, key:a:b, key:a:b:c (so `a:b:*` needs no search), its tables, its own tags
 *   invalidate  ─► an entry of the log ─► every node, in order with everybody's writes
 *
 * Invariant: what one scope may see never answers another: the scope is part of the key.
 */
import { createHash } from 'node:crypto'
import { is } from 'drizzle-orm'
import { getTableConfig, SQLiteTable } from 'drizzle-orm/sqlite-core'
import type { User } from '../auth/declare.ts'
import type { Cache, CacheEntry } from '../cache/cache.ts'
import { Fault } from '../fault.ts'
import { parseDurationMs } from '../lib/duration.ts'
import type { Log } from '../observe/log.ts'
import { tableTag } from '../store/store.ts'
import type { CacheKey, CacheScope, CacheTag, RouteCache } from './declare.ts'

/** Of a key: 1,024 characters together. */
const keyPartsMax = 16
const partLengthMax = 63

/** Of one entry, and of one invalidation. */
const tagsMax = 64

const ttlDefaultMs = 60_000

export interface ValuesDeps {
  readonly cache: Pick<Cache, 'read'>
  /** Writes an entry of the log that names these tags. */
  readonly invalidate: (tags: readonly string[]) => Promise<void>
  readonly log: Log
}

const encoder = new TextEncoder()
const decoder = new TextDecoder()

/** Keys remembered with what is made of them: half a KB each, so 5 MB. Forgotten all at once beyond. */
const placesMax = 10_000

/**
 * Values kept decoded, by the length of their JSON: decoding takes more than all the rest of a hit. About four
 * times as much as objects; forgotten all at once beyond, and not counted by the memory tier.
 */
const decodedBytesMax = 4 * 1024 * 1024

/** A larger one is decoded each time. */
const decodedBytesEach = 16 * 1024

/** What a key comes to. */
interface Place {
  readonly path: string
  readonly joined: string
  readonly tags: readonly string[]
}

export function createValues({ cache, invalidate, log }: ValuesDeps): RouteCache {
  const places = new Map<string, Place>()
  const decoded = createDecoded()
  const placeIn = (key: CacheKey): Place => {
    if (typeof key !== 'string') return placeOf(key)
    let place = places.get(key)
    if (place) return place
    place = placeOf(key)
    if (places.size >= placesMax) places.clear()
    places.set(key, place)
    return place
  }

  return {
    async get(key, { ttl, stale, tags = [], scope }, load) {
      const place = placeIn(key)
      const policy = {
        path: place.path,
        ttlMs: durationOf('ttl', ttl) ?? ttlDefaultMs,
        staleMs: durationOf('stale', stale) ?? 0,
      }
      const dependsOn =
        tags.length === 0 ? place.tags : [...place.tags, ...checked(tags).map(tagOf)]
      const at = `=${scopeOf(scope)} ${place.joined}`
      let failure: unknown
      const found = cache.read(at, dependsOn, policy, async () => {
        try {
          return encoded(await load())
        } catch (error) {
          failure = error
          throw error
        }
      })
      // A hit is there already: waiting for it would be a turn of the queue.
      const { entry, state } = found instanceof Promise ? await found : found
      // Nobody else will hear of it.
      if (failure !== undefined && state === 'stale') {
        log.warn('cache.load_failed', { path: place.path, error: failure })
      }
      return (entry.isAbsent ? undefined : decoded(entry)) as never
    },
    async invalidate(...tags) {
      if (tags.length > 0) await invalidate(checked(tags).map(invalidTag))
    },
  }
}

/** `undefined` is "there is no such thing", and so is what JSON cannot say. */
function encoded(value: unknown): Uint8Array | undefined {
  const text = JSON.stringify(value) as string | undefined
  return text === undefined ? undefined : encoder.encode(text)
}

/**
 * A text is the app's own: each of its parts is there. Parts in a list may be what a client sent, whatever that is. An
 * app file is not always type-checked: what is no text and no number would be one key for all of its kind.
 */
function partsOf(key: CacheKey): string[] {
  const given: readonly unknown[] = typeof key === 'string' ? key.split(':') : key
  const isPart = (one: unknown): one is string | number =>
    typeof key === 'string'
      ? one !== '' && one !== '*'
      : typeof one === 'string' || typeof one === 'number'
  if (given.length > 0 && given.length <= keyPartsMax && given.every(isPart))
    return given.map(partOf)
  throw new Fault('internal', `a cache key must be 1 to ${keyPartsMax} texts or numbers`)
}

/** No two are one, and `*` is none. A long one goes by its hash, as does what is no Unicode. */
function partOf(one: string | number): string {
  const text = String(one)
  if (text.length <= partLengthMax && text.isWellFormed()) {
    const part = encodeURIComponent(text).replaceAll('*', '%2A')
    if (part.length <= partLengthMax) return part
  }
  return `#${createHash('sha256').update(text, 'utf16le').digest('base64url')}`
}

/** One object for all who ask: frozen, so that none of them changes what the others see. */
function createDecoded(): (entry: CacheEntry) => unknown {
  const known = new Map<CacheEntry, unknown>()
  let bytes = 0
  return (entry) => {
    const found = known.get(entry)
    if (found !== undefined) return found
    const { body } = entry
    const value = frozen(JSON.parse(decoder.decode(body)) as unknown)
    if (body.length > decodedBytesEach) return value
    bytes += body.length
    if (bytes > decodedBytesMax) {
      known.clear()
      bytes = body.length
    }
    known.set(entry, value)
    return value
  }
}

function frozen(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value
  for (const part of Object.values(value)) frozen(part)
  return Object.freeze(value)
}

function placeOf(key: CacheKey): Place {
  const parts = partsOf(key)
  return { path: `route ${parts[0] ?? ''}`, joined: parts.join(':'), tags: prefixTags(parts) }
}

function prefixTags(parts: readonly string[]): string[] {
  return parts.map((_, at) => `key:${parts.slice(0, at + 1).join(':')}`)
}

/** `a:b:*` is everything under `a:b`; a key is itself and everything under it; the rest are tags by name. */
function invalidTag(tag: CacheTag): string {
  if (typeof tag !== 'string' || !tag.endsWith(':*')) return tagOf(tag)
  return `key:${partsOf(tag.slice(0, -':*'.length)).join(':')}`
}

function tagOf(tag: CacheTag): string {
  return is(tag, SQLiteTable) ? tableTag(getTableConfig(tag).name) : `tag:${tag as string}`
}

function checked(tags: readonly CacheTag[]): readonly CacheTag[] {
  if (tags.length <= tagsMax) return tags
  throw new Fault('internal', `more than ${tagsMax} tags`)
}

/** What is none of these would be one scope for all who give it: a claim that is missing, an option misspelt. */
function scopeOf(scope: CacheScope): string {
  if (scope === 'public') return 'public'
  const { user, tenant, ...rest } = Object(scope) as { user?: User | null; tenant?: unknown }
  if (Object.keys(rest).length === 0) {
    const isTenant = typeof tenant === 'string' && tenant !== '' && user === undefined
    if (isTenant) return `tenant:${encodeURIComponent(tenant)}`
    if (user === null && tenant === undefined) return 'visitor'
    if (user && tenant === undefined) return `user:${encodeURIComponent(user.id)}`
  }
  throw new Fault(
    'internal',
    "the scope of a cached value must be 'public', { user } or { tenant }",
  )
}

function durationOf(name: string, text: unknown): number | undefined {
  if (text === undefined) return undefined
  const ms = parseDurationMs(text)
  if (ms === undefined) throw new Fault('internal', `${name} of a cached value is no duration`)
  return ms
}
