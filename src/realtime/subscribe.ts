/**
 * Beginning and ending to hear a topic: by a client's command, by its token, by the server.
 *
 * Invariant: `begin` reads the history, answers and listens in one tick, so that nothing lies between
 * the last publication of the reply and the first that is pushed. A grant (a subscription token, a
 * token's `channels`, the server API) lets in beyond the topic's rule, and is not asked about again.
 */
import type { TopicPass } from '../auth/auth.ts'
import { whenAlive } from './alive.ts'
import { countRefused, isBarred } from './credentials.ts'
import type { Publication } from './history.ts'
import type { Match, Seat, Topic } from './hub.ts'
import { judged, lifetimeFields, noSeats, objectOf, type Grant, type Peer } from './peer.ts'
import type { Member } from './presence.ts'
import {
  closes,
  encodePublications,
  errors,
  isRecord,
  pushFrame,
  rejectUnrecovered,
  reply,
  subscribePush,
  unsubscribePush,
  unsubscribes,
  type Command,
  type Unsubscribe,
} from './protocol.ts'
import { latestIn, positionOf, recover, type Position, type Seen } from './recovery.ts'
import { allowed, askOf } from './rules.ts'

type Params = Command['params']

interface Wish {
  readonly channel: string
  readonly since: Position | undefined
  /** To be told who comes and goes. */
  readonly wantsAttendance: boolean
  /** Rather an error than a subscription that has missed something. */
  readonly mustRecover: boolean
}

export function subscribe(peer: Peer, id: number, params: Params): Promise<void> | undefined {
  const { channel, token, type = 0, tf } = params
  const since = params['recover'] === true ? positionOf(params) : undefined
  if (typeof channel !== 'string' || (params['recover'] === true && !since)) {
    peer.error(id, errors.badRequest)
    return undefined
  }
  // Subscriptions by key and filters by tag: to serve them as if they were plain would be another thing.
  if (type !== 0 || (tf !== undefined && tf !== null)) {
    peer.error(id, errors.notAvailable)
    return undefined
  }
  const { flag } = params
  const mustRecover = typeof flag === 'number' && (flag & rejectUnrecovered) !== 0
  const wish: Wish = { channel, since, wantsAttendance: params['join_leave'] === true, mustRecover }
  if (token === undefined || token === '') {
    const isGranted = false
    return whenAlive(peer, id, { channel, isGranted, since }, () => begin(peer, id, wish))
  }
  return withPass(peer, id, { channel, token }, (pass) => {
    const isGranted = true
    return whenAlive(peer, id, { channel, isGranted, since }, () => begin(peer, id, wish, pass))
  })
}

/** Goes on with a good token for this topic and user; answers any other. */
function withPass(
  peer: Peer,
  id: number,
  { channel, token }: { readonly channel: string; readonly token: unknown },
  proceed: (pass: TopicPass) => Promise<void> | undefined,
): Promise<void> | undefined {
  const { identifyTopic } = peer.context
  if (typeof token !== 'string') {
    peer.error(id, errors.badRequest)
    return undefined
  }
  if (isBarred(peer)) {
    peer.error(id, errors.tooMany)
    return undefined
  }
  const verdict = identifyTopic?.(token, () => peer.address) ?? {
    ok: false,
    reason: 'invalid',
    message: 'no key',
  }
  const judge = (known: Awaited<typeof verdict>): Promise<void> | undefined => {
    if (peer.state !== 'connected') return undefined
    const user = peer.identity.user?.id ?? ''
    if (!known.ok && known.reason === 'invalid') {
      return countRefused(peer, (isTooMany) =>
        peer.error(id, isTooMany ? errors.tooMany : errors.denied),
      )
    }
    if (known.ok && known.pass.topic === channel && known.pass.user === user) {
      return proceed(known.pass)
    }
    if (!known.ok) {
      // Pushed first: after the bare error a client that refreshes would not subscribe again.
      const topic = topicOf(peer, channel)
      if (topic) end(peer, topic, unsubscribes.expired)
      peer.error(id, errors.tokenExpired)
    } else peer.error(id, errors.denied)
    return undefined
  }
  return judged(peer, verdict, judge)
}

function begin(peer: Peer, id: number, wish: Wish, pass?: TopicPass): void {
  const { channel, since } = wish
  const { hub, limits, clock } = peer.context
  if (topicOf(peer, channel)) return peer.error(id, errors.alreadySubscribed)
  if (peer.seats.length >= limits.topicsPerConnectionMax) return peer.error(id, errors.limit)
  const match = pass ? hub.match(channel) : allowed(peer, id, channel, 'subscribe')
  if (!match) {
    if (pass) peer.error(id, errors.unknownTopic)
    return
  }
  // A rule that talks to this connection's user may have closed it.
  if (peer.state !== 'connected') return
  const lifetime = lifetimeFields(pass?.expiresAtMs, clock.now())
  if (lifetime === undefined) return peer.error(id, errors.tokenExpired)
  const topic = hub.open(match)
  if (!topic) return peer.error(id, errors.tooMany)

  // One tick from here to the end: read, answer, listen.
  const start = startOf(peer, topic, since, peer.room())
  if (since && !start.isRecovered && wish.mustRecover) return peer.error(id, errors.unrecoverable)
  const list =
    start.publications.length > 0 ? `"publications":${encodePublications(start.publications)},` : ''
  const isTold =
    wish.wantsAttendance && topic.plan.presence === true
      ? peer.context.attendance.observe(channel, peer)
      : false
  const told = isTold ? '"join_leave":true,' : ''
  peer.reply(reply(id, 'subscribe', objectOf(lifetime + told + start.fields + list)))
  enter(peer, topic, start, pass && grantOf(pass))
}

function grantOf({ expiresAtMs, info }: TopicPass): Grant {
  return {
    by: 'token',
    expiresAtMs: expiresAtMs ?? Infinity,
    info: info === undefined ? undefined : JSON.stringify(info),
  }
}

interface Start {
  /** Of the reply, each with its comma. */
  readonly fields: string
  /** What was missed, or the latest. */
  readonly publications: readonly Publication[]
  readonly isRecovered: boolean
  /** Up to where it is told by this. */
  readonly told: number
}

/** Every publication has its offset, so each subscription has a position; not each can be recovered. */
function startOf(peer: Peer, topic: Topic, since: Position | undefined, bytesMax: number): Start {
  const { epoch, history, offset, plan } = topic
  const { hub } = peer.context
  const seen: Seen = (some) => hub.seen(peer.identity.user, some)
  const kept = plan.historySize > 0 ? '"recoverable":true,"positioned":true,' : '"positioned":true,'
  if (since) {
    const missed = recover(topic, since, bytesMax, seen)
    if (missed) {
      // The position it recovers from: each publication that follows moves the client's on.
      const fields = `${kept}"epoch":"${epoch}","offset":${since.offset},"recovered":true,"was_recovering":true,`
      const told = missed.at(-1)?.offset ?? since.offset
      return { fields, publications: missed, isRecovered: true, told }
    }
  }
  const latest = plan.last ? latestIn(history, seen) : undefined
  const was = since ? '"recovered":false,"was_recovering":true,' : ''
  return {
    fields: `${kept}${was}"epoch":"${epoch}","offset":${offset},`,
    publications: latest && latest.bytes <= bytesMax ? [latest] : [],
    isRecovered: false,
    told: offset,
  }
}

function enter(
  peer: Peer,
  topic: Topic,
  { told }: Pick<Start, 'told'>,
  grant: Grant | undefined,
): void {
  const { attendance, counts, hub } = peer.context
  if (peer.seats === noSeats) peer.seats = []
  peer.seats.push(hub.join(topic, peer, told))
  if (grant) {
    peer.grants ??= new Map()
    peer.grants.set(topic, grant)
  }
  counts.subscriptions += 1
  if (topic.plan.presence === true) attendance.join(topic.name, memberOf(peer, topic))
}

function memberOf(peer: Peer, topic: Topic): Member {
  const { client, identity } = peer
  const user = identity.user?.id ?? ''
  const shown = identity.user?.['info']
  const own = shown === undefined ? '' : `,"conn_info":${JSON.stringify(shown)}`
  const info = peer.grants?.get(topic)?.info
  const here = info === undefined ? '' : `,"chan_info":${info}`
  return {
    client,
    user,
    info: `{"client":"${client}","user":${JSON.stringify(user)}${own}${here}}`,
  }
}

export function unsubscribe(peer: Peer, id: number, { channel }: Params): void {
  if (typeof channel !== 'string') return peer.error(id, errors.badRequest)
  const topic = topicOf(peer, channel)
  // What the server began, it ends.
  if (topic && peer.grants?.get(topic)?.by === 'server') return peer.error(id, errors.denied)
  if (topic) drop(peer, topic)
  peer.reply(reply(id, 'unsubscribe', '{}'))
}

export function refreshSubscription(
  peer: Peer,
  id: number,
  { channel, token }: Params,
): Promise<void> | undefined {
  if (typeof channel !== 'string') {
    peer.error(id, errors.badRequest)
    return undefined
  }
  return withPass(peer, id, { channel, token }, (pass) => {
    prolong(peer, id, channel, pass)
    return undefined
  })
}

function prolong(peer: Peer, id: number, channel: string, pass: TopicPass): void {
  const topic = topicOf(peer, channel)
  if (!topic) return peer.error(id, errors.denied)
  const lifetime = lifetimeFields(pass.expiresAtMs, peer.context.clock.now())
  if (lifetime === undefined) return peer.error(id, errors.tokenExpired)
  peer.grants ??= new Map()
  peer.grants.set(topic, grantOf(pass))
  peer.reply(reply(id, 'sub_refresh', objectOf(lifetime)))
}

/** Also history and presence: who hears a topic by a grant may ask about it. */
export function mayAsk(peer: Peer, id: number, channel: string): Match | undefined {
  const topic = topicOf(peer, channel)
  if (topic && peer.grants?.has(topic)) return topic
  return allowed(peer, id, channel, 'subscribe')
}

function topicOf({ seats }: Peer, name: string): Topic | undefined {
  return seats.find(({ home }) => home.name === name)?.home
}

/** Ends a subscription and says so. The caller flushes. */
function end(peer: Peer, topic: Topic, why: Unsubscribe): void {
  drop(peer, topic)
  peer.reply(unsubscribePush(topic.name, why))
}

/** The topic began anew: the client subscribes again from where it was, and is told what it has missed, or that. */
export function lose(peer: Peer, topic: Topic): void {
  const seat = peer.seats.find(({ home }) => home === topic)
  // It came back by itself meanwhile.
  if (!seat || topic.isHeardAt(seat)) return
  // Clients do not ask again for what the server began; the connection does.
  if (peer.grants?.get(topic)?.by === 'server') peer.end(closes.insufficient)
  else peer.act(() => end(peer, topic, unsubscribes.insufficient))
}

function drop(peer: Peer, topic: Topic): void {
  const seat = peer.seats.find(({ home }) => home === topic)
  peer.seats = peer.seats.filter((one) => one !== seat)
  if (seat) release(peer, seat)
  peer.grants?.delete(topic)
}

function release(peer: Peer, seat: Seat): void {
  const { attendance, counts, hub } = peer.context
  const topic = seat.home
  hub.leave(seat, peer)
  counts.subscriptions -= 1
  if (topic.plan.presence !== true) return
  attendance.unobserve(topic.name, peer)
  attendance.leave(topic.name, memberOf(peer, topic))
}

/** The connection is over. */
export function leaveAll(peer: Peer): void {
  const { seats } = peer
  peer.seats = noSeats
  for (const seat of seats) release(peer, seat)
  peer.grants = undefined
}

/** A new token may carry another role. */
export function recheck(peer: Peer): void {
  for (const seat of peer.seats.slice()) {
    const { home: topic } = seat
    const isLeft = peer.grants?.has(topic) || askOf(peer, topic, 'subscribe') === 'allowed'
    if (isLeft) peer.context.hub.rejoin(seat, peer)
    else end(peer, topic, unsubscribes.denied)
  }
}

/** Subscription tokens that ran out, and were not renewed within the grace. */
export function expireGrants(peer: Peer): void {
  const { clock, limits } = peer.context
  const before = clock.now() - limits.expiryGraceMs
  for (const [topic, { expiresAtMs }] of peer.grants ?? []) {
    if (expiresAtMs < before) peer.act(() => end(peer, topic, unsubscribes.expired))
  }
}

/** Topics that a token subscribes to by itself. */
export function channelsOf({ user }: Peer['identity'], max: number): ReadonlySet<string> {
  const names: unknown = user?.['channels']
  const some: unknown[] = Array.isArray(names) ? names.slice(0, max) : []
  return new Set(some.filter((name) => typeof name === 'string'))
}

export interface ServerSubscriptions {
  /** `"subs":{…},` of the reply to `connect`, or nothing. */
  readonly fields: string
  /** To be sent after the reply: the latest publications, which clients take from a reply only after a recovery. */
  readonly after: string
}

/** Topics that the token itself subscribes to (`channels`), from where the client was. */
export function subscribeOwn(peer: Peer, positions: unknown): ServerSubscriptions {
  const { hub, limits, log } = peer.context
  let room = peer.room()
  let subs = ''
  let after = ''
  for (const name of channelsOf(peer.identity, limits.topicsPerConnectionMax)) {
    const match = hub.match(name)
    const topic = match && hub.open(match)
    if (!topic) {
      log.debug('realtime.channel-unknown', { topic: name })
      continue
    }
    const wanted = isRecord(positions) ? positions[topic.name] : undefined
    const isRecovering = isRecord(wanted) && wanted['recover'] === true
    const start = startOf(peer, topic, isRecovering ? positionOf(wanted) : undefined, room)
    const list = start.isRecovered ? encodePublications(start.publications) : '[]'
    const key = JSON.stringify(topic.name)
    subs += `${key}:${objectOf(`${start.fields}"publications":${list},`)},`
    if (!start.isRecovered) after += pushesOf(topic, start)
    room = Math.max(0, room - list.length)
    enter(peer, topic, start, { by: 'server', expiresAtMs: Infinity, info: undefined })
  }
  return subs === '' ? { fields: '', after } : { fields: `"subs":${objectOf(subs)},`, after }
}

function pushesOf(topic: Topic, { publications }: Start): string {
  return publications.map((one) => `\n${pushFrame(topic.pushHead, one)}`).join('')
}

/** As the server. False: no such topic, too many, or subscribed already. */
export function subscribeByServer(peer: Peer, name: string, since?: Position): boolean {
  const { hub, limits } = peer.context
  if (peer.state !== 'connected' || topicOf(peer, name)) return false
  if (peer.seats.length >= limits.topicsPerConnectionMax) return false
  const match = hub.match(name)
  const topic = match && hub.open(match)
  if (!topic) return false
  const start = startOf(peer, topic, since, peer.room())
  peer.act(() => {
    peer.reply(subscribePush(name, objectOf(start.fields)) + pushesOf(topic, start))
    enter(peer, topic, start, { by: 'server', expiresAtMs: Infinity, info: undefined })
  })
  return true
}

/** As the server. Whether it was subscribed. */
export function unsubscribeByServer(peer: Peer, name: string, why: Unsubscribe): boolean {
  const topic = topicOf(peer, name)
  if (!topic) return false
  peer.act(() => end(peer, topic, why))
  return true
}
