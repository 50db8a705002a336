/**
 * The worker that compresses a copy and reads it back. Synchronous on purpose: the thread has nothing
 * else to do, and the event loop's thread pool is left to the event loop.
 *
 * The file is one Zstandard frame after the other, each of one MiB of the copy and with its checksum:
 * memory is bounded by one frame, and any `zstd -d` unpacks it.
 */
import { closeSync, fstatSync, fsyncSync, openSync, readSync, writeSync } from 'node:fs'
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { must } from '../lib/assert.ts'

declare const self: Worker

export interface PackRequest {
  readonly from: string
  /** Must not exist. On the disk, whole and read back, when the answer comes. */
  readonly to: string
}

export type PackAnswer =
  | { readonly bytes: number }
  /** `code` of the file system; empty for anything else. */
  | { readonly code: string; readonly message: string }

/** 60 MB/s on the machine this was written on; levels above cost twice the time for a tenth. */
const level = 3

const frameBytes = 1024 * 1024

const options = {
  params: {
    [constants.ZSTD_c_compressionLevel]: level,
    [constants.ZSTD_c_checksumFlag]: 1,
  },
}

self.onmessage = ({ data }: MessageEvent<PackRequest>) => {
  self.postMessage(answer(data))
}

function answer(request: PackRequest): PackAnswer {
  try {
    return { bytes: pack(request) }
  } catch (thrown) {
    if (!(thrown instanceof Error)) return { code: '', message: String(thrown) }
    return { code: 'code' in thrown ? String(thrown.code) : '', message: thrown.message }
  }
}

function pack({ from, to }: PackRequest): number {
  const source = openSync(from, 'r')
  const target = openSync(to, 'wx+')
  try {
    const frames = compress(source, target)
    fsyncSync(target)
    verify(source, target, frames)
    return fstatSync(target).size
  } finally {
    closeSync(target)
    closeSync(source)
  }
}

/** Lengths of the frames. */
function compress(source: number, target: number): number[] {
  const lengths: number[] = []
  for (const chunk of chunksOf(source)) {
    const frame = zstdCompressSync(chunk, options)
    let written = 0
    while (written < frame.length) written += writeSync(target, frame, written)
    lengths.push(frame.length)
  }
  return lengths
}

/** What can be unpacked from the written file is the copy, byte for byte. */
function verify(source: number, target: number, lengths: readonly number[]): void {
  let at = 0
  let frame = 0
  for (const chunk of chunksOf(source)) {
    const packed = new Uint8Array(must(lengths[frame++], () => 'a chunk has its frame'))
    at += readFully(target, packed, at)
    if (zstdDecompressSync(packed).compare(chunk) !== 0) {
      throw Object.assign(new Error('what was written reads back differently'), { code: 'EIO' })
    }
  }
}

function* chunksOf(file: number): Generator<Uint8Array> {
  const buffer = new Uint8Array(frameBytes)
  for (let at = 0; ;) {
    const length = readFully(file, buffer, at)
    if (length === 0) return
    yield buffer.subarray(0, length)
    at += length
  }
}

/** As many bytes as there are, up to the buffer's length. */
function readFully(file: number, buffer: Uint8Array, position: number): number {
  let length = 0
  while (length < buffer.length) {
    const got = readSync(file, buffer, length, buffer.length - length, position + length)
    if (got === 0) break
    length += got
  }
  return length
}
