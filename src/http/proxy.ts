/** The door of proxies: somebody else's answers, with headers of our own. */
import type { CacheEntry, CacheRead } from '../cache/cache.ts'
import type { Clock } from '../lib/clock.ts'
import {
  bodyOf,
  typeOf,
  type Proxies,
  type ProxyPlace,
  type ProxyPlan,
} from '../upstream/upstream.ts'
import { conditional } from './etag.ts'
import { ageOf, cacheStatus, type ReadyHeaders, type Sharing } from './ready.ts'
import { searchOf, visitHeaders, type ReadDoor, type Visit } from './visit.ts'

export interface ProxyDeps {
  readonly proxies: Proxies
  readonly clock: Clock
  readonly ready: ReadyHeaders
}

export function createProxyDoor({ proxies, clock, ready }: ProxyDeps, plan: ProxyPlan): ReadDoor {
  const edge = edgeOf(plan)
  const foreign = (entry: CacheEntry) => ({
    ...edge,
    'content-type': typeOf(entry),
    // It is somebody else's, on our origin: nothing in it is ever run here.
    'x-content-type-options': 'nosniff',
    'content-security-policy': "default-src 'none'; sandbox",
  })
  const sharing: Sharing = { ...sharingOf(plan), foreign }

  const headersOf = (visit: Visit, { state, isCoalesced, entry }: CacheRead): Headers => {
    if (state === 'hit') return ready(sharing, entry, visit)
    const now = clock.now()
    const headers = new Headers({
      ...visitHeaders(visit, clock.tick()),
      ...foreign(entry),
      'cache-control': sharing.cacheControl,
      etag: entry.etag,
      age: String(ageOf(entry, now)),
      'x-cache': state,
      'cache-status': cacheStatus(state, isCoalesced, entry.freshUntilMs - now, 'upstream-failed'),
    })
    if (isCoalesced) headers.set('x-coalesced', '1')
    if (sharing.vary) headers.set('vary', sharing.vary)
    return headers
  }

  const answer = (request: Request, visit: Visit, read: CacheRead): Response => {
    const { entry } = read
    return conditional(request, entry.etag, headersOf(visit, read), bodyOf(entry))
  }

  return (url) => {
    let place: ProxyPlace | undefined
    return (request, visit) => {
      place ??= proxies.place(plan, restOf(url, plan.path), searchOf(url))
      const read = proxies.read(plan, place, {
        user: visit.identity.user,
        headers: request.headers,
      })
      return read instanceof Promise
        ? read.then((one) => answer(request, visit, one))
        : answer(request, visit, read)
    }
  }
}

/** Behind the proxy's own path, as it was sent. */
function restOf(url: string, path: string): string {
  const query = url.indexOf('?')
  const end = query === -1 ? url.length : query
  const rest = url.slice(url.indexOf('/', url.indexOf('://') + 3) + path.length, end)
  return rest === '/' ? '' : rest
}

/** What others may do with it; the same for all answers of a proxy. */
function sharingOf(plan: ProxyPlan): Sharing {
  const { vary, clientMs } = plan
  const isShared = isForAll(plan)
  const varied = [...vary, ...(isShared ? [] : ['authorization', 'origin'])].join(', ')
  return {
    cacheControl: `${isShared ? 'public' : 'private'}, ${ageFor(clientMs)}`,
    vary: varied === '' ? undefined : varied,
  }
}

function edgeOf(plan: ProxyPlan): Readonly<Record<string, string>> {
  const { edgeMs, staleMs } = plan
  if (!isForAll(plan) || edgeMs === undefined) return {}
  const ifError = `stale-if-error=${Math.floor(staleMs / 1000)}`
  return { 'cdn-cache-control': `public, ${ageFor(edgeMs)}, ${ifError}` }
}

function isForAll({ read, isByUser }: ProxyPlan): boolean {
  return read === 'public' && !isByUser
}

function ageFor(ms: number | undefined): string {
  return ms === undefined ? 'no-cache' : `max-age=${Math.floor(ms / 1000)}`
}
