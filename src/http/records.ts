/** The REST door of collections: rows as JSON, cache states and versions as headers. */
import type { CacheRead } from '../cache/cache.ts'
import type { ChangeOptions, CollectionPlan, Collections } from '../collections/collections.ts'
import type { Clock } from '../lib/clock.ts'
import { readJson } from './body.ts'
import { isNamed, matchesEtag } from './etag.ts'
import { responseTime, searchOf, visitHeaders, type Door, type Visit } from './visit.ts'

export interface RecordDoors {
  readonly list: Door
  readonly read: Door
  readonly create: Door
  readonly update: Door
  readonly remove: Door
}

export function createRecordDoors(
  deps: { readonly collections: Collections; readonly clock: Clock },
  plan: CollectionPlan,
): RecordDoors {
  const { collections, clock } = deps
  // Caches outside may keep an answer but must ask before using it: a 304 costs them no body, and
  // no write is ever hidden by a copy that we cannot reach.
  const cacheControl = plan.rules.read === 'public' ? 'public, no-cache' : 'private, no-cache'
  const vary = plan.rules.read === 'public' ? undefined : 'authorization, origin'

  const answer = (
    request: Request,
    visit: Visit,
    { state, isCoalesced, entry }: CacheRead,
  ): Response => {
    const headers: Record<string, string> = {
      'content-type': 'application/json',
      etag: entry.etag,
      'cache-control': cacheControl,
      'x-cache': state,
      'cache-status': cacheStatus(state, isCoalesced, entry.freshUntilMs - clock.now()),
      'x-request-id': visit.id,
      'x-response-time': responseTime(visit, clock.tick()),
    }
    if (isCoalesced) headers['x-coalesced'] = '1'
    if (vary) headers['vary'] = vary
    const ifNoneMatch = request.headers.get('if-none-match')
    if (ifNoneMatch !== null && matchesEtag(ifNoneMatch, entry.etag)) {
      return new Response(null, { status: 304, headers })
    }
    return new Response(entry.body, { headers })
  }

  /** A hit is there already, and makes no promise. */
  const answerTo = (
    request: Request,
    visit: Visit,
    read: CacheRead | Promise<CacheRead>,
  ): Response | Promise<Response> =>
    read instanceof Promise
      ? read.then((one) => answer(request, visit, one))
      : answer(request, visit, read)

  const location = (id: string): string => `/api/${plan.path}/${id}`

  return {
    list(request, visit) {
      const read = collections.list(plan, visit.identity.user, searchOf(request))
      return answerTo(request, visit, read)
    },
    read(request, visit) {
      const read = collections.read(plan, visit.identity.user, rowId(request))
      return answerTo(request, visit, read)
    },
    async create(request, visit) {
      const body = await readJson(request)
      const onceKey = request.headers.get('idempotency-key') ?? undefined
      const one = await collections.create(plan, visit.identity.user, body, { onceKey })
      return written(visit, clock, 201, one.row, {
        ...versionHeaders(one),
        location: location(one.id),
        ...(one.isRepeated ? { 'idempotency-replayed': 'true' } : {}),
      })
    },
    async update(request, visit) {
      const body = await readJson(request)
      const { user } = visit.identity
      const one = await collections.update(plan, user, rowId(request), body, expectation(request))
      return written(visit, clock, 200, one.row, versionHeaders(one))
    },
    async remove(request, visit) {
      const { user } = visit.identity
      const { seq } = await collections.remove(plan, user, rowId(request), expectation(request))
      return written(visit, clock, 204, null, { 'x-log-seq': String(seq) })
    },
  }
}

function versionHeaders({ version, seq }: { version: string; seq: number }) {
  return { etag: version, 'x-log-seq': String(seq) }
}

/** RFC 9110 §13.1.1. */
function expectation(request: Request): ChangeOptions {
  const ifMatch = request.headers.get('if-match')
  return ifMatch === null ? {} : { isExpected: (version) => isNamed(ifMatch, version) }
}

/** The path's last part as it was sent: decoded as a whole, `a%2Cb` and `a,b` would be the same key. */
function rowId({ url }: Request): string {
  const end = url.indexOf('?')
  const path = (end === -1 ? url : url.slice(0, end)).replace(/\/$/, '')
  return path.slice(path.lastIndexOf('/') + 1)
}

function written(
  visit: Visit,
  clock: Clock,
  status: number,
  row: unknown,
  extra: Readonly<Record<string, string>>,
): Response {
  const headers = {
    ...visitHeaders(visit, clock.tick()),
    'cache-control': 'no-store',
    'x-cache': 'bypass',
    ...extra,
  }
  if (row === null) return new Response(null, { status, headers })
  return new Response(JSON.stringify(row), {
    status,
    headers: { ...headers, 'content-type': 'application/json' },
  })
}

/** RFC 9211. `ttl` in whole seconds, negative once expired. */
function cacheStatus(state: CacheRead['state'], isCoalesced: boolean, ttlLeftMs: number): string {
  const ttl = `ttl=${Math.floor(ttlLeftMs / 1000)}`
  switch (state) {
    case 'hit':
      return `belfry; hit; ${ttl}`
    case 'miss':
      return isCoalesced ? 'belfry; fwd=miss; collapsed' : 'belfry; fwd=miss'
    case 'stale':
      return `belfry; hit; ${ttl}; detail=store-failed`
  }
}
