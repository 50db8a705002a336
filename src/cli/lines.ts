/** A stream of bytes cut into slices of whole lines: what is held is one slice, whatever the file's size. */
import { Fault } from '../fault.ts'

export interface Slice {
  readonly body: Uint8Array
  /** Number of its first line, from 1. */
  readonly firstLine: number
}

/** A slice ends at so many bytes even if it has few lines. */
const sliceBytes = 4 * 1024 * 1024

/** One line may be longer than that, but a file without any end of line is no JSON lines. */
const lineBytesMax = 16 * 1024 * 1024

const newline = 0x0a

/** Slices of at most `linesMax` lines. Faults: `too_large`. */
export async function* slicesOf(
  source: AsyncIterable<Uint8Array>,
  linesMax: number,
): AsyncGenerator<Slice> {
  const kept: Uint8Array[] = []
  let [firstLine, lines, bytes] = [1, 0, 0]

  const keep = (part: Uint8Array): void => {
    kept.push(part)
    bytes += part.length
  }
  const take = (): Slice => {
    const slice = { body: new Uint8Array(Buffer.concat(kept)), firstLine }
    kept.length = 0
    firstLine += lines
    lines = bytes = 0
    return slice
  }

  for await (const chunk of source) {
    let from = 0
    for (let end = chunk.indexOf(newline); end !== -1; end = chunk.indexOf(newline, end + 1)) {
      lines++
      if (lines < linesMax && bytes + end - from < sliceBytes) continue
      keep(chunk.subarray(from, end + 1))
      from = end + 1
      yield take()
    }
    keep(chunk.slice(from))
    if (bytes > sliceBytes + lineBytesMax) {
      throw new Fault('too_large', `line ${firstLine + lines} is longer than ${lineBytesMax} bytes`)
    }
  }
  if (bytes > 0) yield take()
}
