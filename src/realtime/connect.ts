/** Who a connection is: `connect`, `refresh`, and how long that lasts. */
import type { Identity, Verdict } from '../auth/auth.ts'
import { bringAlive, goOn } from './alive.ts'
import { countRefused, isBarred } from './credentials.ts'
import { judged, lifetimeFields, objectOf, type Peer } from './peer.ts'
import { closes, errors, isRecord, refreshPush, reply, type Command } from './protocol.ts'
import { channelsOf, recheck, subscribeOwn } from './subscribe.ts'
import { pingSeconds } from './sweep.ts'

type Params = Command['params']

export function connect(peer: Peer, id: number, params: Params): Promise<void> | undefined {
  if (peer.state !== 'opened') {
    peer.end(closes.badRequest)
    return undefined
  }
  // Before it takes anybody's turn.
  if (tokenOf(params) !== undefined && isBarred(peer)) {
    bar(peer, id)
    return undefined
  }
  const turn = peer.context.admission.enter(peer)
  if (turn === 'now') return enter(peer, id, params)
  if (turn === 'full') {
    peer.error(id, errors.tooMany)
    return undefined
  }
  return turn.then(() => {
    let waiting: Promise<void> | undefined
    peer.act(() => {
      if (peer.state === 'opened') waiting = enter(peer, id, params)
    })
    return waiting
  })
}

/** Its turn has come. */
function enter(peer: Peer, id: number, params: Params): Promise<void> | undefined {
  const token = tokenOf(params)
  if (token === undefined || token === '') return arrive(peer, id, params, peer.identity)
  return identify(peer, id, token, (identity) => arrive(peer, id, params, identity))
}

/** With the token's own topics awake. */
function arrive(
  peer: Peer,
  id: number,
  params: Params,
  identity: Identity,
): Promise<void> | undefined {
  const { topicsPerConnectionMax } = peer.context.limits
  const loading = bringAlive(peer.context, channelsOf(identity, topicsPerConnectionMax))
  if (loading) return goOn(peer, id, loading, () => connected(peer, id, params, identity))
  connected(peer, id, params, identity)
  return undefined
}

/** The command's own, or its `headers`: a browser's WebSocket can set none. */
function tokenOf({ token, headers }: Params): unknown {
  if (token !== undefined || !isRecord(headers)) return token
  for (const [name, value] of Object.entries(headers)) {
    if (name.toLowerCase() !== 'authorization') continue
    const text = typeof value === 'string' ? value : ''
    // Something that is no bearer token is refused, as at every door.
    return /^bearer +(\S+)$/i.exec(text)?.[1] ?? 'none'
  }
  return undefined
}

export function refresh(peer: Peer, id: number, { token }: Params): Promise<void> | undefined {
  return identify(peer, id, token, (identity) => {
    refreshed(peer, id, identity)
    return undefined
  })
}

function identify(
  peer: Peer,
  id: number,
  token: unknown,
  proceed: (identity: Identity) => Promise<void> | undefined,
): Promise<void> | undefined {
  if (typeof token !== 'string') {
    peer.error(id, errors.badRequest)
    return undefined
  }
  if (isBarred(peer)) {
    bar(peer, id)
    return undefined
  }
  const verdict = peer.context.identify(token, () => peer.address)
  const judge = (known: Verdict): Promise<void> | undefined => {
    if (peer.state === 'closed') return undefined
    if (known.ok) return proceed(known.identity)
    const { reason } = known
    if (reason === 'invalid') {
      return countRefused(peer, (isTooMany) =>
        isTooMany ? bar(peer, id) : refuse(peer, id, reason),
      )
    }
    refuse(peer, id, reason)
    return undefined
  }
  return judged(peer, verdict, judge)
}

/**
 * Whatever its token is, it was not looked at. Who connects comes back by its own delay; who is connected keeps what
 * it has, and sends its new token again.
 */
function bar(peer: Peer, id: number): void {
  peer.error(id, errors.tooMany)
  if (peer.state === 'opened') peer.end(closes.tooMany)
}

/** Who connects is told to fetch a new token; who is connected gets it by connecting again. */
function refuse(peer: Peer, id: number, reason: 'invalid' | 'expired'): void {
  if (reason === 'invalid') peer.end(closes.invalidToken)
  else if (peer.state === 'opened') peer.error(id, errors.tokenExpired)
  else peer.end(closes.expired)
}

function connected(peer: Peer, id: number, { subs }: Params, identity: Identity): void {
  const { clock, hub, version } = peer.context
  const lifetime = lifetimeFields(expiryOf(identity), clock.now())
  if (lifetime === undefined) return refuse(peer, id, 'expired')
  const user = identity.user?.id
  if (user !== undefined && peer.context.admission.users.isFull(user)) {
    return peer.end(closes.connectionLimit)
  }
  peer.connected(identity)
  const session = peer.socket?.session
  const emulated = session === undefined ? '' : `"session":"${session}","node":"${hub.epoch}",`
  const { fields, after } = subscribeOwn(peer, subs)
  const own = `"client":"${peer.client}","version":"${version}","ping":${pingSeconds},"pong":true,`
  peer.reply(reply(id, 'connect', objectOf(own + lifetime + emulated + fields)) + after)
}

/** The new token must be the same user's: what it listens to was allowed to that one. */
function refreshed(peer: Peer, id: number, identity: Identity): void {
  if (identity.user?.id !== peer.identity.user?.id) return peer.end(closes.invalidToken)
  const lifetime = lifetimeFields(expiryOf(identity), peer.context.clock.now())
  if (lifetime === undefined) return refuse(peer, id, 'expired')
  peer.refreshed(identity)
  peer.reply(reply(id, 'refresh', objectOf(lifetime)))
  recheck(peer)
}

/** As the server: another end of the same token. Undefined: none. */
export function refreshByServer(peer: Peer, expiresAtMs: number | undefined): void {
  const { identity } = peer
  if (peer.state !== 'connected' || identity.kind !== 'user') return
  const lifetime = lifetimeFields(expiresAtMs, peer.context.clock.now())
  if (lifetime === undefined) return peer.end(closes.expired)
  peer.refreshed({ ...identity, expiresAtMs })
  peer.act(() => peer.reply(refreshPush(objectOf(lifetime))))
}

function expiryOf(identity: Identity): number | undefined {
  return identity.kind === 'user' ? identity.expiresAtMs : undefined
}
