/** Reading a JSON body: bounded while it arrives, strict about its bytes. */
import { Fault } from '../fault.ts'
import { isTooDeep, jsonDepthMax } from '../lib/json.ts'

/** A row with a few long texts; files do not belong in JSON. */
export const bodyBytesMax = 1024 * 1024

/** Faults: `too_large`, `invalid`. */
export async function readJson(request: Request, bytesMax = bodyBytesMax): Promise<unknown> {
  const type = request.headers.get('content-type') ?? ''
  if (!/^application\/([\w.+-]+\+)?json\s*(;|$)/i.test(type)) {
    throw new Fault('invalid', 'the body must be application/json', {
      fields: [{ field: 'content-type', message: `is ${type === '' ? 'missing' : type}` }],
    })
  }
  const bytes = await readBytes(request, bytesMax)
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw new Fault('invalid', 'the body is not valid UTF-8')
  }
  checkDepth(text)
  try {
    return JSON.parse(text) as unknown
  } catch (cause) {
    const detail =
      cause instanceof Error ? `: ${cause.message.replace(/^JSON Parse error: /, '')}` : ''
    throw new Fault('invalid', `the body is not valid JSON${detail}`)
  }
}

/** Faults: `invalid`. */
export function checkDepth(text: string): void {
  if (!isTooDeep(text)) return
  throw new Fault('invalid', `the body is nested deeper than ${jsonDepthMax} levels`)
}

/** Faults: `too_large`, `invalid` if it is cut off. */
export async function readBytes(request: Request, bytesMax: number): Promise<Uint8Array> {
  const declared = request.headers.get('content-length')
  if (Number(declared ?? 0) > bytesMax) throw tooLarge(bytesMax)
  try {
    if (declared === null) return await readStream(request, bytesMax)
    // No longer than it says: making a stream of it costs 25 µs.
    const bytes = await request.bytes()
    if (bytes.byteLength > bytesMax) throw tooLarge(bytesMax)
    return bytes
  } catch (cause) {
    if (cause instanceof Fault) throw cause
    // The client went away in the middle of it: nobody's failure, and nobody there to answer.
    throw new Fault('invalid', 'the body was cut off', { cause })
  }
}

/** A chunked body declares nothing: it is counted while it comes. */
async function readStream(request: Request, bytesMax: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  let total = 0
  for await (const chunk of request.body ?? []) {
    total += chunk.byteLength
    if (total > bytesMax) throw tooLarge(bytesMax)
    chunks.push(chunk)
  }
  return chunks.length === 1 && chunks[0] ? chunks[0] : Buffer.concat(chunks)
}

function tooLarge(bytesMax: number): Fault {
  return new Fault('too_large', `the body is larger than ${bytesMax} bytes`)
}
