/** `/belfry.js`: the client for pages without a bundler, of this very version. */
import type { Clock } from '../lib/clock.ts'
import { etagOf } from '../lib/etag.ts'
import { clientBundle } from './client-bundle.ts'
import { matchesEtag } from './etag.ts'
import { visitHeaders, type Door } from './visit.ts'

interface Script {
  readonly text: string
  readonly etag: string
}

export function createClientDoor({ tick }: Pick<Clock, 'tick'>): Door {
  let bundled: Promise<Script> | undefined
  const bundle = async (): Promise<Script> => {
    const text = await clientBundle()
    return { text, etag: etagOf(text) }
  }
  return async (request, visit) => {
    // One that failed is tried again.
    bundled ??= bundle().catch((cause: unknown) => {
      bundled = undefined
      throw cause
    })
    const { text, etag } = await bundled
    const headers = { ...visitHeaders(visit, tick()), etag, 'cache-control': 'public, no-cache' }
    const known = request.headers.get('if-none-match')
    if (known !== null && matchesEtag(known, etag)) {
      return new Response(null, { status: 304, headers })
    }
    return new Response(text, {
      headers: { ...headers, 'content-type': 'text/javascript; charset=utf-8' },
    })
  }
}
