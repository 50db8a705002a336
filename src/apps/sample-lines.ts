/** Lines of a packed sample, on disk or inside the binary. */
import { createGunzip } from 'node:zlib'

/** Unpacked at a time: some fifty lines, half a millisecond of parsing. */
const chunkBytes = 16 * 1024

/**
 * A chunk at a time, each its own turn of the event loop: through `DecompressionStream` all of them came in
 * one, and held it for half a second.
 */
export async function* sampleLines(path: string): AsyncGenerator<readonly string[]> {
  const unzip = createGunzip({ chunkSize: chunkBytes })
  unzip.end(await Bun.file(path).bytes())
  const decoder = new TextDecoder()
  let rest = ''
  for await (const chunk of unzip as AsyncIterable<Uint8Array>) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split('\n')
    rest = parts.pop() ?? ''
    yield parts
  }
  if (rest !== '') yield [rest]
}
