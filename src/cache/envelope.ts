/**
 * A cache entry as bytes, for others to read: processes of this version and of the next.
 *
 *   "BLFC"  version u8  header bytes u32  body bytes u32   header (JSON)   body
 *     4          1            4                4               …             …        (big-endian)
 *
 * Both lengths are said, so that what was cut short is known for it. Whatever is not exactly this is no
 * entry: `undefined`, never an error. test/cache/envelope-2.bin is how version 2 looks, for good: to change
 * anything here is to make version 3.
 */
import type { CacheEntry } from './tier.ts'

/** Also part of every key (tier-redis.ts), so that nodes of two versions do not delete each other's entries. */
export const envelopeVersion = 2

const magic = 0x424c4643
const versionAt = 4
const headerBytesAt = 5
const bodyBytesAt = 9
const headerAt = 13

/** A thousand tags. */
const headerBytesMax = 64 * 1024

const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { fatal: true })

/** Undefined: its header is larger than anybody would read. */
export function sealEntry(entry: CacheEntry): Uint8Array | undefined {
  const { body, etag, asOf, tags, range, storedAtMs, freshUntilMs, staleUntilMs, isAbsent } = entry
  const header = encoder.encode(
    JSON.stringify({
      ...{ asOf, tags, etag, storedAtMs, freshUntilMs, staleUntilMs },
      ...(range === undefined ? {} : { range }),
      ...(isAbsent === true ? { isAbsent } : {}),
    }),
  )
  if (header.length > headerBytesMax) return undefined
  const bytes = new Uint8Array(headerAt + header.length + body.length)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, magic)
  view.setUint8(versionAt, envelopeVersion)
  view.setUint32(headerBytesAt, header.length)
  view.setUint32(bodyBytesAt, body.length)
  bytes.set(header, headerAt)
  bytes.set(body, headerAt + header.length)
  return bytes
}

/** The body is a copy: kept in memory for long, it would keep all that `bytes` is a window into. */
export function openEntry(bytes: Uint8Array): CacheEntry | undefined {
  if (bytes.length < headerAt) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (view.getUint32(0) !== magic || view.getUint8(versionAt) !== envelopeVersion) return undefined
  const bodyAt = headerAt + view.getUint32(headerBytesAt)
  if (bytes.length !== bodyAt + view.getUint32(bodyBytesAt)) return undefined
  const header = parse(bytes.subarray(headerAt, bodyAt))
  return header && { ...header, body: new Uint8Array(bytes.subarray(bodyAt)) }
}

function parse(bytes: Uint8Array): Omit<CacheEntry, 'body'> | undefined {
  let header: unknown
  try {
    header = JSON.parse(decoder.decode(bytes))
  } catch {
    return undefined
  }
  if (typeof header !== 'object' || header === null) return undefined
  const { asOf, tags, range, etag, storedAtMs, freshUntilMs, staleUntilMs, isAbsent } =
    header as Readonly<Record<string, unknown>>
  const isHeader =
    isTexts(tags) &&
    typeof etag === 'string' &&
    isCount(asOf) &&
    isTime(storedAtMs) &&
    isTime(freshUntilMs) &&
    isTime(staleUntilMs) &&
    (range === undefined || typeof range === 'string') &&
    (isAbsent === undefined || isAbsent === true)
  if (!isHeader) return undefined
  return {
    ...{ asOf, tags, etag, storedAtMs, freshUntilMs, staleUntilMs },
    ...(range === undefined ? {} : { range }),
    ...(isAbsent ? { isAbsent } : {}),
  }
}

function isTexts(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((one) => typeof one === 'string')
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0
}

/** With fractions: a TTL has been varied by a share. */
function isTime(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value)
}
