/**
 * The app's page at `/`, and the files that it is made of beside it: `/chunk-y0gm9vwc.js`. Bun could serve an imported
 * HTML file itself, but past the gates and without a header of ours.
 *
 *   compiled    the files were made with the binary, and are read from it
 *   sources     bundled when the page is first asked for
 *
 * What the page may do is said with it: run its own scripts, talk to this server, be framed by it. A page that needs more
 * (another host's fonts) says so itself, in a `<meta http-equiv="Content-Security-Policy">`, and is asked for nothing else.
 */
import { basename, dirname } from 'node:path'
import { Fault } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import { etagOf } from '../lib/etag.ts'
import { matchesEtag } from './etag.ts'
import { visitHeaders, type Door } from './visit.ts'

export interface PageDoors {
  readonly page: Door
  /** A file of the page, or `not_found`. */
  readonly file: Door
}

interface File {
  readonly bytes: Uint8Array<ArrayBuffer>
  readonly type: string
  readonly etag: string
}

interface Bundle {
  readonly html: File
  /** By path. */
  readonly files: ReadonlyMap<string, File>
}

/** Says what it is, and to whom it was come from. */
const plainHeaders = {
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'strict-origin-when-cross-origin',
}

const framing = "frame-ancestors 'self'"

/** A style that a script sets on an element is one of its own; `data:` are icons. */
const bundledPolicy = [
  "default-src 'self'",
  "img-src 'self' data: blob:",
  "style-src 'self' 'unsafe-inline'",
  "object-src 'none'",
  "base-uri 'none'",
  "form-action 'self'",
  framing,
].join('; ')

const ownPolicy = /<meta[^>]+http-equiv=["']?content-security-policy/i

/** As the bundler names what a page is made of. */
const fileName = /^\/[\w.-]+-[0-9a-z]{8}\.\w+$/

export function createPageDoors(
  { tick }: Pick<Clock, 'tick'>,
  page: Bun.HTMLBundle | string,
): PageDoors {
  let bundled: Promise<Bundle> | undefined
  // One that failed is tried again.
  const bundle = (from: Bun.HTMLBundle): Promise<Bundle> =>
    (bundled ??= bundleOf(from).catch((cause: unknown) => {
      bundled = undefined
      throw cause
    }))

  const text =
    typeof page === 'string' ? fileOf(new TextEncoder().encode(page), htmlType) : undefined
  // What runs in a page that is not bundled is not known.
  const policyOf = ({ bytes }: File): string =>
    text || ownPolicy.test(new TextDecoder().decode(bytes)) ? framing : bundledPolicy

  const answer = (file: File, headers: Readonly<Record<string, string>>, known: string | null) => {
    const isKnown = known !== null && matchesEtag(known, file.etag)
    return new Response(isKnown ? null : file.bytes, {
      status: isKnown ? 304 : 200,
      headers: { ...headers, ...plainHeaders, etag: file.etag, 'content-type': file.type },
    })
  }

  return {
    async page({ headers }, visit) {
      const html = typeof page === 'string' ? text : (await bundle(page)).html
      if (!html) throw nothingHere()
      const own = {
        'cache-control': 'no-cache',
        'content-security-policy': policyOf(html),
        // For browsers that do not know `frame-ancestors`.
        'x-frame-options': 'SAMEORIGIN',
      }
      return answer(html, { ...visitHeaders(visit, tick()), ...own }, headers.get('if-none-match'))
    },
    async file({ headers, method, url }, visit) {
      const { pathname } = new URL(url)
      const isRead = method === 'GET' || method === 'HEAD'
      if (typeof page === 'string' || !isRead || !fileName.test(pathname)) throw nothingHere()
      const found = (await bundle(page)).files.get(pathname)
      if (!found) throw nothingHere()
      // Its name changes with it.
      const own = { 'cache-control': 'public, max-age=31536000, immutable' }
      return answer(found, { ...visitHeaders(visit, tick()), ...own }, headers.get('if-none-match'))
    },
  }
}

const htmlType = 'text/html; charset=utf-8'

function fileOf(bytes: Uint8Array<ArrayBuffer>, type: string): File {
  return { bytes, type, etag: etagOf(bytes) }
}

function nothingHere(): Fault {
  return new Fault('not_found', 'nothing is served at this path')
}

/** Faults: `internal`, with the bundler's own words. */
async function bundleOf({ index, files }: Bun.HTMLBundle): Promise<Bundle> {
  const made = files
    ? files.map(({ path, headers }) => ({
        path,
        type: headers['content-type'],
        blob: Bun.file(path),
      }))
    : (await build(index)).map((blob) => ({ path: blob.path, type: blob.type, blob }))
  const byPath = new Map<string, File>()
  let html: File | undefined
  for (const { path, type, blob } of made) {
    const bytes = new Uint8Array(await blob.arrayBuffer())
    if (type.startsWith('text/html')) html = fileOf(bytes, htmlType)
    else byPath.set(`/${basename(path)}`, fileOf(bytes, type))
  }
  if (!html) throw new Fault('internal', 'the page has no HTML')
  return { html, files: byPath }
}

async function build(entry: string): Promise<readonly Bun.BuildArtifact[]> {
  const built = await Bun.build({
    entrypoints: [entry],
    // Said aloud: by itself a compiled binary looks within itself.
    root: dirname(entry),
    target: 'browser',
    publicPath: '/',
    minify: true,
    throw: false,
  })
  if (built.success) return built.outputs
  throw new Fault('internal', 'the page cannot be bundled', {
    cause: built.logs.map(({ message }) => message).join('\n'),
  })
}
