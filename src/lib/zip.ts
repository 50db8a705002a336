/**
 * Reads a ZIP archive that is wholly in memory: stored and deflated entries, found through the
 * central directory. Limits come first because archives come from elsewhere: the inflated size that an
 * entry declares is never believed, inflation itself stops at the limit. No ZIP64, no encryption, no
 * archives in several parts: each is refused by name.
 */
import { crc32, inflateRawSync } from 'node:zlib'

export interface ZipLimits {
  /** More entries than this refuse the archive. */
  readonly entriesMax: number
  /** Inflated bytes of the one entry that is read. */
  readonly inflatedBytesMax: number
}

export interface ZipEntry {
  readonly name: string
  /** Inflates now. Throws when the entry is damaged or larger than the limit. */
  readonly read: () => Uint8Array
}

const endSignature = 0x06054b50
const directorySignature = 0x02014b50
const localSignature = 0x04034b50

const endBytes = 22
const directoryBytes = 46
const localBytes = 30

/** The end record may be followed by a comment whose length is 16 bits. */
const commentBytesMax = 0xffff

const methods = { stored: 0, deflated: 8 } as const

/** What a 32-bit field holds when the true value stands in a ZIP64 record. */
const isElsewhere = 0xffffffff

/** Entries in directory order, folders left out. Throws an Error that says what is wrong. */
export function readZip(bytes: Uint8Array, limits: ZipLimits): ZipEntry[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const end = findEnd(view)
  const count = view.getUint16(end + 10, true)
  if (count !== view.getUint16(end + 8, true)) throw new Error('zip: in several parts')
  if (count > limits.entriesMax) throw new Error(`zip: more than ${limits.entriesMax} entries`)

  const entries: ZipEntry[] = []
  let at = view.getUint32(end + 16, true)
  for (let index = 0; index < count; index += 1) {
    need(view, at, directoryBytes)
    if (view.getUint32(at, true) !== directorySignature) throw new Error('zip: directory damaged')
    const nameBytes = view.getUint16(at + 28, true)
    const next =
      at +
      directoryBytes +
      nameBytes +
      view.getUint16(at + 30, true) +
      view.getUint16(at + 32, true)
    need(view, at, next - at)
    const nameAt = at + directoryBytes
    const name = new TextDecoder().decode(bytes.subarray(nameAt, nameAt + nameBytes))
    const header = {
      name,
      isEncrypted: (view.getUint16(at + 8, true) & 1) === 1,
      method: view.getUint16(at + 10, true),
      crc: view.getUint32(at + 16, true),
      packedBytes: view.getUint32(at + 20, true),
      localAt: view.getUint32(at + 42, true),
    }
    if (!name.endsWith('/'))
      entries.push({ name, read: () => inflate(bytes, view, header, limits) })
    at = next
  }
  return entries
}

interface Header {
  readonly name: string
  readonly isEncrypted: boolean
  readonly method: number
  readonly crc: number
  readonly packedBytes: number
  readonly localAt: number
}

function inflate(bytes: Uint8Array, view: DataView, entry: Header, limits: ZipLimits): Uint8Array {
  if (entry.isEncrypted) throw new Error(`zip: ${entry.name} is encrypted`)
  if (entry.localAt === isElsewhere || entry.packedBytes === isElsewhere) {
    throw new Error('zip: ZIP64 is not read')
  }
  need(view, entry.localAt, localBytes)
  if (view.getUint32(entry.localAt, true) !== localSignature) {
    throw new Error(`zip: ${entry.name} is not where the directory says`)
  }
  // Name and extra field are counted again here: the local extra field often differs in length.
  const start =
    entry.localAt +
    localBytes +
    view.getUint16(entry.localAt + 26, true) +
    view.getUint16(entry.localAt + 28, true)
  need(view, start, entry.packedBytes)
  const packed = bytes.subarray(start, start + entry.packedBytes)

  const plain = unpack(packed, entry, limits)
  if (crc32(plain) !== entry.crc) throw new Error(`zip: ${entry.name} is damaged (checksum)`)
  return plain
}

function unpack(packed: Uint8Array, entry: Header, limits: ZipLimits): Uint8Array {
  const tooLarge = `zip: ${entry.name} is larger than ${limits.inflatedBytesMax} bytes`
  if (entry.method === methods.stored) {
    if (packed.byteLength > limits.inflatedBytesMax) throw new Error(tooLarge)
    return packed
  }
  if (entry.method !== methods.deflated) {
    throw new Error(`zip: ${entry.name} uses method ${entry.method}`)
  }
  try {
    return inflateRawSync(packed, { maxOutputLength: limits.inflatedBytesMax })
  } catch (cause) {
    const isLimit =
      cause instanceof Error && 'code' in cause && cause.code === 'ERR_BUFFER_TOO_LARGE'
    throw new Error(isLimit ? tooLarge : `zip: ${entry.name} does not inflate`, { cause })
  }
}

/** From the back, as the format wants: the end record is last but for its comment. */
function findEnd(view: DataView): number {
  const lowest = Math.max(0, view.byteLength - endBytes - commentBytesMax)
  for (let at = view.byteLength - endBytes; at >= lowest; at -= 1) {
    if (view.getUint32(at, true) === endSignature) return at
  }
  throw new Error('zip: no end record, cut short or not an archive')
}

function need(view: DataView, at: number, length: number): void {
  if (at + length > view.byteLength) throw new Error('zip: cut short')
}
