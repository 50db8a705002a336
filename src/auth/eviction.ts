/**
 * Closes the sockets and streams of those whose token or API key was revoked: at once, and again for a while, because
 * one may have been identified before and be connected only afterwards (it has ten seconds for its `connect`, and may
 * have to wait for its turn). Close code 3500: the client must not come back with it. Who came in by a key is found by
 * looking at everybody: keys are revoked by hand, and holders of keys are few.
 */
import { LRUCache } from 'lru-cache'
import type { Cancel, Clock } from '../lib/clock.ts'
import type { ApiKeys } from './api-keys.ts'
import type { Identity } from './auth.ts'
import { marksOf, type Marks, type Revocation, type Revocations } from './revocations.ts'

/** Who is connected, as much of it as matters here. */
export interface Sockets {
  of(user: string): readonly Evictable[]
  /** Of everybody who is connected; may be asked for only when nothing else helps. */
  users(): Iterable<string>
  /** Who came in by an API key that is wanted, by its id. A copy. */
  holding(isWanted: (key: string) => boolean): readonly Evictable[]
}

export interface Evictable {
  readonly identity: Identity
  end(close: { readonly code: number; readonly reason: string }): void
}

export interface Eviction {
  /** A token was found good: whose its names are. */
  seen(marks: Marks): void
  /** Without it nobody is closed. */
  from(sockets: Sockets): void
  stop(): void
}

/** In the protocol's table of closes: `invalid token`. */
const close = { code: 3500, reason: 'invalid token' } as const

/** Beyond it whose token was revoked is found by looking at everybody. */
const ownersMax = 100_000

const againMs = 250
const lastsMs = 20_000

export function createEviction(deps: {
  readonly clock: Clock
  readonly revocations: Pick<Revocations, 'has' | 'onRevoked'>
  readonly keys: Pick<ApiKeys, 'onRevoked'>
}): Eviction {
  const { clock, revocations, keys } = deps
  /** `token <jti>` and `session <sid>` → user. */
  const owners = new LRUCache<string, string>({ max: ownersMax })
  /** User → `clock.tick()` until which nobody of them may connect unseen. */
  const watched = new Map<string, number>()
  /** API key → the same. */
  const barred = new Map<string, number>()
  let sockets: Sockets | undefined
  let cancel: Cancel | undefined

  const evict = (user: string): void => {
    for (const socket of sockets?.of(user) ?? []) {
      const { identity } = socket
      if (identity.kind !== 'user') continue
      if (revocations.has(marksOf(identity.user, user))) socket.end(close)
    }
  }

  const evictHolders = (): void => {
    if (barred.size === 0) return
    for (const socket of sockets?.holding((key) => barred.has(key)) ?? []) socket.end(close)
  }

  const again = (): void => {
    const now = clock.tick()
    evictHolders()
    for (const [key, until] of barred) if (now >= until) barred.delete(key)
    for (const [user, until] of watched) {
      evict(user)
      if (now >= until) watched.delete(user)
    }
    if (watched.size + barred.size > 0) return
    cancel?.()
    cancel = undefined
  }

  const usersOf = ({ kind, id }: Revocation): Iterable<string> => {
    if (kind === 'user') return [id]
    const owner = owners.get(`${kind} ${id}`)
    if (owner !== undefined) return [owner]
    // Nobody showed such a token here, unless it was so long ago that others took its place.
    return owners.size < ownersMax ? [] : new Set(sockets?.users())
  }

  revocations.onRevoked((revocation) => {
    if (!sockets) return
    for (const user of usersOf(revocation)) {
      evict(user)
      watched.set(user, clock.tick() + lastsMs)
    }
    if (watched.size > 0) cancel ??= clock.every(againMs, again)
  })

  keys.onRevoked((key) => {
    if (!sockets) return
    barred.set(key, clock.tick() + lastsMs)
    evictHolders()
    cancel ??= clock.every(againMs, again)
  })

  return {
    seen({ user, token, session }) {
      if (token !== undefined) owners.set(`token ${token}`, user)
      if (session !== undefined) owners.set(`session ${session}`, user)
    },
    from: (given) => void (sockets = given),
    stop() {
      cancel?.()
      cancel = undefined
      watched.clear()
      barred.clear()
    },
  }
}
