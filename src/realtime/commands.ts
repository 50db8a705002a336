/** What a connected client asks for and does, besides listening: publish, history, presence, rpc. */
import { detach } from '../lib/service.ts'
import { whenAlive } from './alive.ts'
import type { Called, Peer } from './peer.ts'
import type { Member, PresenceStats } from './presence.ts'
import { encodePublications, errors, reply, type Command, type ProtocolError } from './protocol.ts'
import { historyQueryOf, readHistory } from './recovery.ts'
import { allowed } from './rules.ts'
import { mayAsk } from './subscribe.ts'

type Params = Command['params']

export function publish(peer: Peer, id: number, { channel, data, type = 0 }: Params): void {
  if (typeof channel !== 'string' || data === undefined) return peer.error(id, errors.badRequest)
  // To a key of a topic: there are none.
  if (type !== 0) return peer.error(id, errors.notAvailable)
  const match = allowed(peer, id, channel, 'publish')
  if (!match) return
  const { address, client, context, identity } = peer
  const isCall = match.plan.through !== undefined
  if (isCall && peer.calls >= context.limits.callsPerConnectionMax) {
    return peer.error(id, errors.tooMany)
  }
  const author = { identity, client, address }
  const refused = context.publisher.publishAs(author, match, data)
  if (!(refused instanceof Promise)) return answerPublish(peer, id, refused)
  if (isCall) peer.calls += 1
  // Answered when it is committed: what follows does not wait.
  detach(
    refused.then((known) => {
      if (isCall) peer.calls -= 1
      if (peer.state === 'connected') peer.act(() => answerPublish(peer, id, known))
    }),
    (error) => context.log.error('realtime.command-failed', { error }),
  )
}

function answerPublish(peer: Peer, id: number, refused: ProtocolError | undefined): void {
  if (refused) peer.error(id, refused)
  else peer.reply(reply(id, 'publish', '{}'))
}

export function history(peer: Peer, id: number, params: Params): Promise<void> | undefined {
  const { channel } = params
  // Whoever hears it keeps it alive: it is not asked for here.
  return whenAlive(peer, id, { channel, isGranted: false }, () => answerHistory(peer, id, params))
}

function answerHistory(peer: Peer, id: number, params: Params): void {
  const { channel } = params
  const query = historyQueryOf(params)
  if (typeof channel !== 'string' || !query) return peer.error(id, errors.badRequest)
  const match = mayAsk(peer, id, channel)
  if (!match) return
  const { hub, limits } = peer.context
  if (match.plan.historySize === 0) return peer.error(id, errors.notAvailable)
  const topic = hub.open(match)
  const bytesMax = peer.room()
  if (!topic || bytesMax === 0) return peer.error(id, errors.tooMany)
  const bounds = { limitMax: limits.historyLimitMax, bytesMax }
  const found = readHistory(topic, query, bounds, (some) => hub.seen(peer.identity.user, some))
  if (!found) return peer.error(id, errors.unrecoverable)
  const position = `"epoch":"${topic.epoch}","offset":${topic.offset}`
  peer.reply(reply(id, 'history', `{"publications":${encodePublications(found)},${position}}`))
}

export function presence(peer: Peer, id: number, { channel }: Params): Promise<void> | undefined {
  if (!mayAskPresence(peer, id, channel)) return undefined
  const members = peer.context.attendance.presence.list(channel)
  if (members instanceof Promise) {
    return members.then((all) => peer.act(() => answerPresence(peer, id, all)))
  }
  answerPresence(peer, id, members)
  return undefined
}

export function presenceStats(
  peer: Peer,
  id: number,
  { channel }: Params,
): Promise<void> | undefined {
  if (!mayAskPresence(peer, id, channel)) return undefined
  const stats = peer.context.attendance.presence.stats(channel)
  if (stats instanceof Promise) {
    return stats.then((known) => peer.act(() => answerStats(peer, id, known)))
  }
  answerStats(peer, id, stats)
  return undefined
}

function mayAskPresence(peer: Peer, id: number, channel: unknown): channel is string {
  if (typeof channel !== 'string') {
    peer.error(id, errors.badRequest)
    return false
  }
  const match = mayAsk(peer, id, channel)
  if (match && match.plan.presence !== true) peer.error(id, errors.notAvailable)
  return match?.plan.presence === true
}

/** All of them or an error: a part would look like all. */
function answerPresence(peer: Peer, id: number, members: readonly Member[]): void {
  let text = ''
  const { replyBytesMax } = peer.context.limits
  for (const { client, info } of members) {
    text += `${text === '' ? '' : ','}"${client}":${info}`
    if (text.length > replyBytesMax) return peer.error(id, errors.limit)
  }
  if (text.length > peer.room()) return peer.error(id, errors.tooMany)
  peer.reply(reply(id, 'presence', `{"presence":{${text}}}`))
}

function answerStats(peer: Peer, id: number, { clients, users }: PresenceStats): void {
  peer.reply(reply(id, 'presence_stats', `{"num_clients":${clients},"num_users":${users}}`))
}

/** `GET /api/posts?order=hot`: method and path of the app's own API, which its gates judge. */
const callPattern = /^(GET|POST|PUT|PATCH|DELETE) (\/\S*)$/

/** Answered when it is done: what follows does not wait, and pongs get through. */
export function rpc(peer: Peer, id: number, { method, data }: Params): void {
  const { call, limits, log } = peer.context
  if (!call) return peer.error(id, errors.notAvailable)
  if (typeof method !== 'string') return peer.error(id, errors.badRequest)
  const [, verb, path] = callPattern.exec(method) ?? []
  // As Centrifugo answers where no backend is behind it: 104 is for commands of the protocol.
  if (verb === undefined || path === undefined) return peer.error(id, errors.notAvailable)
  const isEmpty = data === undefined || data === null
  if (verb === 'GET' && !isEmpty) return peer.error(id, errors.badRequest)
  if (peer.calls >= limits.callsPerConnectionMax) return peer.error(id, errors.tooMany)
  peer.calls += 1
  const { address, identity } = peer
  const body = isEmpty ? undefined : data
  const called = call({ identity, address, method: verb, path, body })
  detach(
    called.then((outcome) => answerCall(peer, id, outcome)),
    (error) => {
      log.error('realtime.command-failed', { error })
      answerCall(peer, id, { ok: false, error: errors.internal })
    },
  )
}

function answerCall(peer: Peer, id: number, outcome: Called): void {
  peer.calls -= 1
  if (peer.state !== 'connected') return
  peer.act(() => {
    if (!outcome.ok) peer.error(id, outcome.error)
    else if (outcome.data.length > peer.context.limits.replyBytesMax) peer.error(id, errors.limit)
    else if (outcome.data.length > peer.room()) peer.error(id, errors.tooMany)
    else peer.reply(reply(id, 'rpc', `{"data":${outcome.data}}`))
  })
}
