/** The REST door of collections: rows as JSON, cache states and versions as headers. */
import type { User } from '../auth/declare.ts'
import type { CacheRead } from '../cache/cache.ts'
import type {
  ChangeOptions,
  ChildPlan,
  CollectionPlan,
  Collections,
} from '../collections/collections.ts'
import type { Clock } from '../lib/clock.ts'
import { readJson } from './body.ts'
import { isNamed, conditional } from './etag.ts'
import { cacheStatus, type ReadyHeaders, type Sharing } from './ready.ts'
import { searchOf, visitHeaders, type Door, type ReadDoor, type Visit } from './visit.ts'

export interface RecordDoors {
  readonly list: ReadDoor
  readonly read: ReadDoor
  readonly create: Door
  readonly update: Door
  readonly remove: Door
  /** By a unique column's property. */
  lookup(property: string): ReadDoor
  children(child: ChildPlan): ReadDoor
}

// Caches outside may keep an answer but must ask before using it: a 304 costs them no body, and no
// write is ever hidden by a copy that we cannot reach.
const shared: Sharing = { cacheControl: 'public, no-cache', vary: undefined }
const own: Sharing = { cacheControl: 'private, no-cache', vary: 'authorization, origin' }

export interface RecordDeps {
  readonly collections: Collections
  readonly clock: Clock
  readonly ready: ReadyHeaders
}

export function createRecordDoors(deps: RecordDeps, plan: CollectionPlan): RecordDoors {
  const { collections, clock, ready } = deps

  const headersOf = (visit: Visit, sharing: Sharing, read: CacheRead): Headers => {
    const { state, isCoalesced, isSparing, entry } = read
    // A hit is nobody's but the entry's: what it is answered with is there already.
    if (state === 'hit') return ready(sharing, entry, visit)
    const why = isSparing === true ? 'overload' : undefined
    const headers = new Headers({
      'content-type': 'application/json',
      etag: entry.etag,
      'cache-control': sharing.cacheControl,
      'x-cache': state,
      'cache-status': cacheStatus(state, isCoalesced, entry.freshUntilMs - clock.now(), why),
      ...visitHeaders(visit, clock.tick()),
    })
    if (isCoalesced) headers.set('x-coalesced', '1')
    if (sharing.vary) headers.set('vary', sharing.vary)
    return headers
  }

  const answer = (request: Request, visit: Visit, sharing: Sharing, read: CacheRead): Response => {
    const headers = headersOf(visit, sharing, read)
    const { etag, body } = read.entry
    return conditional(request, etag, headers, body)
  }

  /** A hit is there already, and makes no promise. */
  const reading =
    (sharing: Sharing, ask: (user: User | null) => CacheRead | Promise<CacheRead>): Door =>
    (request, visit) => {
      const read = ask(visit.identity.user)
      return read instanceof Promise
        ? read.then((one) => answer(request, visit, sharing, one))
        : answer(request, visit, sharing, read)
    }

  const sharing = sharingOf(plan)

  const location = (id: string): string => `/api/${plan.path}/${id}`

  return {
    list(url) {
      const search = searchOf(url)
      return reading(sharing(search), (user) => collections.list(plan, user, search))
    },
    read(url) {
      const search = searchOf(url)
      const id = pathPart(url)
      return reading(sharing(search), (user) => collections.read(plan, user, id, search))
    },
    lookup: (property) => (url) => {
      const search = searchOf(url)
      const ask = { property, text: pathPart(url), search }
      return reading(sharing(search), (user) => collections.lookup(plan, user, ask))
    },
    children(child) {
      const sharingOfList = sharingOf(child.collection)
      return (url) => {
        const search = searchOf(url)
        const ask = { id: pathPart(url, 1), child, search }
        // Whether there is a list at all depends on the parent's rule.
        const how = isForAll(plan) ? sharingOfList(search) : own
        return reading(how, (user) => collections.children(plan, user, ask))
      }
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
      const one = await collections.update(
        plan,
        user,
        pathPart(request.url),
        body,
        expectation(request),
      )
      return written(visit, clock, 200, one.row, versionHeaders(one))
    },
    async remove(request, visit) {
      const { user } = visit.identity
      const { seq } = await collections.remove(
        plan,
        user,
        pathPart(request.url),
        expectation(request),
      )
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

/** Whether everybody gets the same answer: not so if a rule that looks at the user had a say in it. */
function sharingOf(plan: CollectionPlan): (search: string) => Sharing {
  if (!isForAll(plan)) return () => own
  const isOpen = [...plan.expand.values()].every(({ target }) => isForAll(target))
  // Whatever could be spelt `expand` counts as it: an answer called private by mistake does no harm.
  return isOpen ? () => shared : (search) => (/expand|%/.test(search) ? own : shared)
}

function isForAll({ rules, hide }: CollectionPlan): boolean {
  return rules.read === 'public' && hide.rules.length === 0
}

/**
 * The path's last part, or one so many before it, as it was sent: decoded as a whole, `a%2Cb` and
 * `a,b` would be the same key.
 */
function pathPart(url: string, fromEnd = 0): string {
  const query = url.indexOf('?')
  let end = query === -1 ? url.length : query
  if (url[end - 1] === '/') end--
  let start = url.lastIndexOf('/', end - 1)
  for (let before = 0; before < fromEnd; before++) {
    end = start
    start = url.lastIndexOf('/', end - 1)
  }
  return url.slice(start + 1, end)
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
