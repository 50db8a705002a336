/** Doors for administrators: the holder of the API key, and users whose token says `role: "admin"`. */
import type { Cache } from '../cache/cache.ts'
import { Fault } from '../fault.ts'
import { visitHeaders, type Door, type Visit } from './visit.ts'

export interface AdminDeps {
  readonly cache: Pick<Cache, 'stats' | 'hottest'>
  /** How far this node is behind the log that it knows of. */
  readonly follow: () => { readonly seq: number; readonly checkedMsAgo: number }
  /** `clock.tick()`. */
  readonly tick: () => number
}

/** Keys told: enough to see what is hot. */
const hottestMax = 50

/** Faults: `unauthenticated`, `denied`. */
export function createCacheStatsDoor({ cache, follow, tick }: AdminDeps): Door {
  return (_, visit) => {
    requireAdmin(visit)
    const { hits, misses, sharedHits, ...rest } = cache.stats()
    const reads = hits + misses
    const body = {
      reads,
      l1: { hits, hitShare: share(hits, reads) },
      l2: { hits: sharedHits, hitShare: share(sharedHits, misses) },
      hitShare: share(hits + sharedHits, reads),
      ...rest,
      log: follow(),
      hottest: cache.hottest(hottestMax),
    }
    return new Response(JSON.stringify(body), {
      headers: {
        ...visitHeaders(visit, tick()),
        'content-type': 'application/json',
        'cache-control': 'no-store',
      },
    })
  }
}

export function requireAdmin({ identity }: Visit): void {
  if (identity.kind === 'key' || identity.user?.['role'] === 'admin') return
  throw identity.user || identity.kind === 'scoped'
    ? new Fault('denied', 'this is for administrators')
    : new Fault('unauthenticated', 'this is for administrators: sign in, or give an API key')
}

function share(part: number, whole: number): number {
  return whole === 0 ? 0 : Math.round((part / whole) * 10_000) / 10_000
}
