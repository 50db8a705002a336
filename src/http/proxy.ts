/** The door of proxies: somebody else's answers, with headers of our own. */
import type { CacheRead } from '../cache/cache.ts'
import type { Clock } from '../lib/clock.ts'
import { contentOf, type Proxies, type ProxyPlace, type ProxyPlan } from '../upstream/upstream.ts'
import { matchesEtag } from './etag.ts'
import { cacheStatus } from './ready.ts'
import { searchOf, visitHeaders, type ReadDoor, type Visit } from './visit.ts'

export interface ProxyDeps {
  readonly proxies: Proxies
  readonly clock: Clock
}

export function createProxyDoor({ proxies, clock }: ProxyDeps, plan: ProxyPlan): ReadDoor {
  const sharing = sharingOf(plan)

  const answer = (request: Request, visit: Visit, read: CacheRead): Response => {
    const { state, isCoalesced, entry } = read
    const now = clock.now()
    const { type, body } = contentOf(entry)
    const headers = new Headers({
      ...visitHeaders(visit, clock.tick()),
      ...sharing,
      'content-type': type,
      etag: entry.etag,
      age: String(Math.max(0, Math.floor((now - entry.storedAtMs) / 1000))),
      'x-cache': state,
      'cache-status': cacheStatus(state, isCoalesced, entry.freshUntilMs - now, 'upstream-failed'),
      // It is somebody else's, on our origin: nothing in it is ever run here.
      'x-content-type-options': 'nosniff',
      'content-security-policy': "default-src 'none'; sandbox",
    })
    if (isCoalesced) headers.set('x-coalesced', '1')
    const ifNoneMatch = request.headers.get('if-none-match')
    if (ifNoneMatch !== null && matchesEtag(ifNoneMatch, entry.etag)) {
      return new Response(null, { status: 304, headers })
    }
    return new Response(body, { headers })
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
function sharingOf({ read, isByUser, vary, clientMs, edgeMs, staleMs }: ProxyPlan) {
  const isShared = read === 'public' && !isByUser
  const age = (ms: number | undefined) =>
    ms === undefined ? 'no-cache' : `max-age=${Math.floor(ms / 1000)}`
  const varied = [...vary, ...(isShared ? [] : ['authorization', 'origin'])].join(', ')
  const edge =
    isShared && edgeMs !== undefined
      ? {
          'cdn-cache-control': `public, ${age(edgeMs)}, stale-if-error=${Math.floor(staleMs / 1000)}`,
        }
      : undefined
  return {
    'cache-control': `${isShared ? 'public' : 'private'}, ${age(clientMs)}`,
    ...(varied === '' ? {} : { vary: varied }),
    ...edge,
  }
}
