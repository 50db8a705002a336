/**
 * The first tier: encoded answers in this process, bounded by entries, by bytes and by entry size. Who
 * leaves when it is full is the policy's affair; here is counted what an entry costs, and seen to it
 * that what has left does not lie about in memory.
 */
import { edenGC } from 'bun:jsc'
import type { Clock } from '../lib/clock.ts'
import type { Bounds } from './policy.ts'
import { createS3Fifo } from './policy-s3fifo.ts'
import type { CacheEntry, MemoryTier } from './tier.ts'

/**
 * The entry, its ETag and times, its slot, its places in the map and among the ghosts: 1,220 bytes by
 * RSS for an empty body with three tags, of 10,000 entries (Bun 1.4.5).
 */
const entryOverheadBytes = 1100
/** A string's head, and its place in an array. */
const tagOverheadBytes = 32
/** A typed array's head, and the object that names its coding. */
const variantOverheadBytes = 160

/**
 * Bodies from this size on are freed by us: JavaScriptCore lets garbage grow to the size of all that lives,
 * and more while it is busy. Ever new answers of 100 KB weighed 4 times the bound before it came round, and
 * so did those of 10 KB; 10,000 that are smaller than this endanger no bound.
 */
const largeBytes = 4 * 1024
/**
 * Bytes of them between two collections of what was made lately (the text that a body is made of, its
 * answer), as a share of the bound. One takes 0.4 ms, also beside 10,000 sockets.
 */
const youngShare = 1 / 64
/** A small bound is no reason to collect at each answer. */
const youngBytesMin = 1024 * 1024
/**
 * Of these collections, how many for one of everything: what was in use at the moment of a young one counts as
 * old. That takes 6 ms beside 10,000 sockets and 38 beside 100,000, so once for all that fits into the bound.
 */
const youngToFull = 64

export interface MemoryTierOptions {
  /** Frees, at once, what nobody holds any more: of what was made lately, or of everything. */
  readonly collect?: (which: 'young' | 'all') => void
}

/**
 * Bodies are the tier's alone: what leaves is freed when this turn of the event loop is over, and empty from
 * then on. Whoever takes an entry uses it in the same turn (`new Response` copies), or asks later if it `isGone`.
 */
export function createMemoryTier<Entry extends CacheEntry = CacheEntry>(
  bounds: Bounds,
  { soon }: Pick<Clock, 'soon'>,
  options: MemoryTierOptions = {},
): MemoryTier<Entry> {
  const { collect = collectGarbage } = options
  const entries = createS3Fifo<Entry>(bounds, leave)
  const youngMax = Math.max(youngBytesMin, bounds.bytesMax * youngShare)
  let youngBytes = 0
  let collections = 0
  let due: 'young' | 'all' | undefined
  /** How many entries hold it: one that is kept anew, with another time or coding, has the same body. */
  const holders = new Map<ArrayBufferLike, number>()
  let leaving: ArrayBufferLike[] = []

  function leave(entry: CacheEntry): void {
    if (!isLarge(entry)) return
    const { buffer } = entry.body
    const others = (holders.get(buffer) ?? 0) - 1
    if (others > 0) return void holders.set(buffer, others)
    if (!holders.delete(buffer)) return
    leaving.push(buffer)
    if (leaving.length === 1) soon(free)
  }

  function free(): void {
    const gone = leaving
    leaving = []
    // A body may have come back meanwhile: promoted again, or kept under another key.
    for (const buffer of gone) if (!holders.has(buffer)) release(buffer)
  }

  /** Not in the middle of a load: what is in use would count as old, and stay until all is collected. */
  function collectSoon(): void {
    youngBytes = 0
    if (due === undefined) soon(collectNow)
    if (++collections % youngToFull === 0) due = 'all'
    else due ??= 'young'
  }

  function collectNow(): void {
    if (due) collect(due)
    due = undefined
  }

  return {
    get: entries.get,
    set(key, entry) {
      const bytes = bytesOf(key, entry)
      if (isLarge(entry)) holders.set(entry.body.buffer, (holders.get(entry.body.buffer) ?? 0) + 1)
      entries.set(key, entry, bytes)
      if (bytes < largeBytes) return
      youngBytes += bytes
      if (youngBytes >= youngMax) collectSoon()
    },
    delete: (key) => void entries.delete(key),
    get size() {
      return entries.size
    },
    get bytes() {
      return entries.bytes
    },
    get evictions() {
      return entries.evictions
    },
    keys: entries.keys,
  }
}

/** Its body has been freed. An entry never has an empty body otherwise, but for "not found". */
export function isGone({ body, isAbsent }: CacheEntry): boolean {
  return body.byteLength === 0 && isAbsent !== true
}

/** What is a window into more is not ours to free. */
function isLarge({ body }: CacheEntry): boolean {
  return body.byteLength >= largeBytes && body.byteLength === body.buffer.byteLength
}

function collectGarbage(which: 'young' | 'all'): void {
  if (which === 'young') edenGC()
  else Bun.gc(true)
}

function release(buffer: ArrayBufferLike): void {
  if (buffer instanceof ArrayBuffer) buffer.transfer(0)
}

/** What `entry` holds of this process's memory under `key`. */
export function bytesOf(key: string, { body, tags, range, variants }: CacheEntry): number {
  let bytes = entryOverheadBytes + key.length + (range?.length ?? 0) + allocated(body.byteLength)
  for (const tag of tags) bytes += tagOverheadBytes + tag.length
  if (variants) {
    for (const one of variants) bytes += variantOverheadBytes + allocated(one.body.byteLength)
  }
  return bytes
}

/** The allocator (mimalloc) has four sizes to each doubling: 2,049 bytes take 2,560, 100 KB take 112. */
function allocated(bytes: number): number {
  if (bytes <= 64) return 64
  const step = 2 ** (29 - Math.clz32(bytes - 1))
  return Math.ceil(bytes / step) * step
}
