/**
 * The live market: AEMO's dispatch files at `NEM_URL`, which is either
 *
 * - a folder as AEMO lists it (`…/Reports/Current/DispatchIS_Reports/`): an HTML page of links. The newest
 *   `PUBLIC_DISPATCHIS_<interval>_<sequence>` is fetched if its interval is newer than what is stored;
 * - one file, fetched each tick. Rows that did not change cost nothing further on.
 *
 * Either may be plain, `.gz` or `.zip`. What was missed while the server was away is not fetched later:
 * a tick is one interval, and an old price shown as the current one would be worse than a gap.
 */
import { gunzipSync } from 'node:zlib'
import { desc, eq } from 'drizzle-orm'
import type { FeedContext } from '../feeds/declare.ts'
import { Fault } from '../fault.ts'
import { readZip } from '../lib/zip.ts'
import { parseDispatch } from './energy-dispatch.ts'
import type { DispatchUpdate } from './energy-replay.ts'
import { spot } from './energy-tables.ts'
import { parseNemDigits } from './energy-time.ts'

/** Two days of links are 600 lines of about 200 bytes, and a packed file has 20 KB: room for 30 times that. */
const fetchedBytesMax = 4 << 20

/** A dispatch file has about 250 KB. */
const inflatedBytesMax = 16 << 20

/** AEMO packs one file per archive. */
const zipEntriesMax = 16

const sourceLive = 'AEMO dispatch'

type Fetch = FeedContext['fetch']

export async function loadNem(
  { fetch, db }: Pick<FeedContext, 'fetch' | 'db'>,
  url: string,
): Promise<DispatchUpdate | null> {
  const [newest] = await db
    .select({ at: spot.at })
    .from(spot)
    .where(eq(spot.source, sourceLive))
    .orderBy(desc(spot.at))
    .limit(1)
  return fetchDispatch(fetch, url, newest?.at)
}

/**
 * Null: the folder has nothing newer than `newest`.
 * Faults: `invalid` if `url` is not one or the file is malformed, `unavailable` if the answer is not 2xx
 * or does not unpack, `too_large`.
 */
export async function fetchDispatch(
  fetch: Fetch,
  url: string,
  newest: Date | undefined,
): Promise<DispatchUpdate | null> {
  if (!URL.canParse(url)) throw new Fault('invalid', 'NEM_URL is not a URL')
  const first = await download(fetch, url)
  if (!first.isHtml) return toUpdate(first)

  const link = newestLink(new TextDecoder().decode(first.bytes), first.url)
  if (!link) {
    throw new Fault('unavailable', `${first.url} lists no PUBLIC_DISPATCHIS file`, {
      hint: 'NEM_URL is a folder of dispatch files, or one such file',
    })
  }
  if (newest && link.ms <= newest.getTime()) return null
  return toUpdate(await download(fetch, link.url))
}

/** Of one interval that was published twice, the higher sequence number is the correction. */
export function newestLink(html: string, base: string): { ms: number; url: string } | undefined {
  const pattern =
    /href\s*=\s*["']?([^"'>\s]*PUBLIC_DISPATCHIS_(\d{12})_(\d{1,20})\.(?:zip|csv(?:\.gz)?))["'>\s]/gi
  let best: { ms: number; sequence: string; url: string } | undefined
  for (const [, href = '', digits = '', plainSequence = ''] of html.matchAll(pattern)) {
    const ms = parseNemDigits(digits)
    const sequence = plainSequence.padStart(20, '0')
    const isNewer =
      ms !== undefined && (!best || ms > best.ms || (ms === best.ms && sequence > best.sequence))
    if (isNewer && URL.canParse(href, base)) best = { ms, sequence, url: new URL(href, base).href }
  }
  return best && { ms: best.ms, url: best.url }
}

interface Download {
  /** Where it finally came from: links are relative to this. */
  readonly url: string
  readonly isHtml: boolean
  readonly bytes: Uint8Array
}

async function download(fetch: Fetch, url: string): Promise<Download> {
  const response = await fetch(url)
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of response.body ?? []) {
    length += chunk.byteLength
    if (length > fetchedBytesMax) {
      throw new Fault('too_large', `${url} is larger than ${fetchedBytesMax} bytes`)
    }
    chunks.push(chunk)
  }
  return {
    url: response.url || url,
    isHtml: (response.headers.get('content-type') ?? '').includes('text/html'),
    bytes: Buffer.concat(chunks),
  }
}

function toUpdate(file: Download): DispatchUpdate {
  const { spot, fcas } = parseDispatch(new TextDecoder().decode(unpack(file)))
  return {
    'prices/live': spot.map((row) => ({ ...row, source: sourceLive })),
    'prices/fcas': fcas.map((row) => ({ ...row, source: sourceLive })),
  }
}

/** By what the bytes say, not by name or content type: both are wrong often enough. */
function unpack({ url, bytes }: Download): Uint8Array {
  try {
    if (bytes[0] === 0x1f && bytes[1] === 0x8b) {
      return gunzipSync(bytes, { maxOutputLength: inflatedBytesMax })
    }
    if (bytes[0] === 0x50 && bytes[1] === 0x4b) {
      const entries = readZip(bytes, { entriesMax: zipEntriesMax, inflatedBytesMax })
      const entry = entries.find(({ name }) => /\.csv$/i.test(name))
      if (!entry) throw new Fault('unavailable', `${url} holds no .csv`)
      return entry.read()
    }
    return bytes
  } catch (cause) {
    if (cause instanceof Fault) throw cause
    const why = cause instanceof Error ? cause.message : 'unknown'
    throw new Fault('unavailable', `${url} does not unpack: ${why}`, { cause })
  }
}
