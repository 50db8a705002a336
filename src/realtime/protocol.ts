/**
 * Centrifugo's client protocol in JSON, as far as it is served here. One WebSocket frame carries one
 * or more commands, one a line; the replies to one frame leave in one frame, one a line.
 *
 *   → {"id":2,"subscribe":{"channel":"prices:NSW1","recover":true,"epoch":"k3f9","offset":41}}
 *   ← {"id":2,"subscribe":{…,"recovered":true,"publications":[{"data":…,"offset":42}]}}
 *   ← {"push":{"channel":"prices:NSW1","pub":{"data":…,"offset":43}}}
 *   ← {"push":{"channel":"prices:NSW1","pub":{"data":…,"offset":46,"tags":{"after":"43"}}}}   44 and 45: not for this one
 *   ← {}  ping        → {}  pong
 *
 *   ← {"push":{"channel":"…","join":{"info":{…}}}}      also leave, unsubscribe, subscribe
 *   ← {"push":{"disconnect":{…}}}   before the end of a stream that has no close code; {"push":{"refresh":{…}}}
 *
 * The three tables below (errors, closes, unsubscribes) are all that a client is ever told; what a
 * client does with each number is Centrifugo's. Data is JSON text from the moment it is published: it is
 * encoded once, and frames are put together from text. Nothing here keeps state or decides anything.
 */

import { isTooDeep } from '../lib/json.ts'

/** Larger frames close the connection: inbound memory is this times the number of slow senders. */
export const frameBytesMax = 64 * 1024

/** An id is echoed, never counted with; this is what the protobuf of the same protocol holds. */
const idMax = 2 ** 32 - 1

export interface ProtocolError {
  readonly code: number
  readonly message: string
  /** The client tries again by itself. */
  readonly temporary: boolean
}

/**
 * Answers to a command. The connection goes on. The client tries again by itself after a temporary one,
 * and after 109 with a new token; any other ends the subscription, or fails the call. `rpc` answers with
 * HTTP statuses (400 to 599) besides.
 */
export const errors = {
  /** A rule or a bug threw, or an issuer's keys are away: what it was is in the log. */
  internal: { code: 100, message: 'internal server error', temporary: true },
  /** No declared topic has this name. */
  unknownTopic: { code: 102, message: 'unknown channel', temporary: false },
  /** The topic's rule says no, or the token given is not for this topic and user. */
  denied: { code: 103, message: 'permission denied', temporary: false },
  /** No such command in the protocol. */
  unknownMethod: { code: 104, message: 'method not found', temporary: false },
  alreadySubscribed: { code: 105, message: 'already subscribed', temporary: false },
  /** `limits.topicsPerConnectionMax`; a publication, or an answer of presence or rpc, is too large. */
  limit: { code: 106, message: 'limit exceeded', temporary: false },
  /** A field of the command is missing or of the wrong type. */
  badRequest: { code: 107, message: 'bad request', temporary: false },
  /** Not served here: history or presence of a topic that has none, deltas by key, `rpc` of a stream. */
  notAvailable: { code: 108, message: 'not available', temporary: false },
  /** The client fetches a new token and connects again. */
  tokenExpired: { code: 109, message: 'token expired', temporary: false },
  /** More commands than `commandsPerSecond`, or earlier answers are not read yet and this one would not fit. */
  tooMany: { code: 111, message: 'too many requests', temporary: true },
  /** The position given to `history`, or to a `subscribe` that must recover, is not kept. */
  unrecoverable: { code: 112, message: 'unrecoverable position', temporary: false },
} as const satisfies Record<string, ProtocolError>

/**
 * Ends of a connection. 3000–3499 and 4000–4499: the client reconnects, by its own jittered delay.
 * 3500–3999 and 4500–4999: it gives up, trying again would fail again.
 */
export const closes = {
  /** This server goes away. */
  shutdown: { code: 3001, reason: 'shutdown' },
  /** The token ran out and no new one came within `limits.expiryGraceMs`. */
  expired: { code: 3005, reason: 'connection expired' },
  /** It reads slower than its topics speak. It recovers what it missed when it is back. */
  slow: { code: 3008, reason: 'slow' },
  /** A subscription that the server began may miss publications; the new connection recovers it, or is told. */
  insufficient: { code: 3010, reason: 'insufficient state' },
  /** By the server API, when the client may come back. */
  reconnect: { code: 3011, reason: 'force reconnect' },
  /** No pong within 8 s. */
  noPong: { code: 3012, reason: 'no pong' },
  /** Went on sending commands while they were refused with 111. */
  tooMany: { code: 3013, reason: 'too many requests' },
  /** Not a token of ours, or of another user than the one who connected. */
  invalidToken: { code: 3500, reason: 'invalid token' },
  /** Not the protocol: broken JSON, a command before `connect`, … */
  badRequest: { code: 3501, reason: 'bad request' },
  /** No `connect` within `limits.connectMs`. */
  stale: { code: 3502, reason: 'stale' },
  /** `limits.connectionsPerUserMax`. */
  connectionLimit: { code: 3504, reason: 'connection limit' },
  /** By the server API: the client must not come back. */
  disconnected: { code: 3503, reason: 'force disconnect' },
} as const

/** One of `closes`, or what the server API says. */
export interface Close {
  readonly code: number
  readonly reason: string
}

/** Pushed when the server ends one subscription. Below 2500: the client does not subscribe again. */
export const unsubscribes = {
  /** By the server API, or because a refreshed connection may not hear this topic any more. */
  denied: { code: 2000, reason: 'permission denied' },
  ended: { code: 2000, reason: 'server unsubscribe' },
  /** Publications may be missing: it subscribes again, and recovers or is told that it cannot. */
  insufficient: { code: 2500, reason: 'insufficient state' },
  /** The subscription token ran out and no new one came: it subscribes again with a new one. */
  expired: { code: 2501, reason: 'subscription expired' },
} as const

/** One of `unsubscribes`, or what the server API says. */
export interface Unsubscribe {
  readonly code: number
  readonly reason: string
}

/** A flag of `subscribe`: an error instead of an unrecovered subscription. */
export const rejectUnrecovered = 2

const served = new Set([
  'connect',
  'subscribe',
  'unsubscribe',
  'publish',
  'history',
  'presence',
  'presence_stats',
  'rpc',
  'send',
  'refresh',
  'sub_refresh',
  'ping',
] as const)

export type Method = typeof served extends Set<infer Name> ? Name : never

export interface Command {
  readonly id: number
  readonly method: Method | 'pong' | 'unknown'
  readonly params: Readonly<Record<string, unknown>>
}

const nothing: Readonly<Record<string, unknown>> = Object.freeze({})

const pong: Command = { id: 0, method: 'pong', params: nothing }

/** The commands of one frame in order; undefined when any of them is not the protocol. */
export function parseFrame(text: string): Command[] | undefined {
  const commands: Command[] = []
  try {
    for (const line of text.includes('\n') ? text.split('\n') : [text]) {
      if (line === '{}') commands.push(pong)
      else if (line.trim() !== '') {
        if (isTooDeep(line)) return undefined
        const command = toCommand(JSON.parse(line))
        if (!command) return undefined
        commands.push(command)
      }
    }
  } catch {
    return undefined
  }
  return commands.length === 0 ? undefined : commands
}

/** `{id, <method>: {…}}` and nothing else: a misspelt second field would be a wish not heard. */
function toCommand(value: unknown): Command | undefined {
  if (!isRecord(value)) return undefined
  let id = 0
  let method: string | undefined
  for (const key in value) {
    if (key === 'id') {
      const given = value[key]
      if (typeof given !== 'number' || !Number.isInteger(given)) return undefined
      if (given < 0 || given > idMax) return undefined
      id = given
    } else if (method === undefined) method = key
    else return undefined
  }
  if (method === undefined) return id === 0 ? pong : undefined
  const params = value[method]
  if (!isRecord(params)) return undefined
  // Without an id there is nothing to answer to; only `send` is like that.
  if (id === 0 && method !== 'send') return undefined
  if (isServed(method)) return { id, method, params }
  return { id, method: 'unknown', params }
}

function isServed(method: string): method is Method {
  return (served as ReadonlySet<string>).has(method)
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** What is kept of a publication, as far as the wire is concerned. */
export interface Wire {
  readonly offset: number
  /** JSON text. */
  readonly data: string
  /** Given if the offset before it is another: what lies between is not for this reader. */
  readonly after?: number
}

/** `tags` are the protocol's way to say more of a publication; clients that do not know this one hand it on. */
function tagsOf(after: number | undefined): string {
  return after === undefined ? '' : `,"tags":{"after":"${after}"}`
}

export function errorReply(id: number, { code, message, temporary }: ProtocolError): string {
  const text = JSON.stringify(message)
  return `{"id":${id},"error":{"code":${code},"message":${text},"temporary":${temporary}}}`
}

/** `result`: JSON text of an object. */
export function reply(id: number, method: Method, result: string): string {
  return `{"id":${id},"${method}":${result}}`
}

/** A list of publications; in pieces of text, never through an object per publication. */
export function encodePublications(publications: readonly Wire[]): string {
  let text = '['
  for (const { data, offset, after } of publications) {
    if (text.length > 1) text += ','
    text += `{"data":${data},"offset":${offset}${tagsOf(after)}}`
  }
  return `${text}]`
}

/** A publication's frame is `head + data + ',"offset":' + offset + '}}}'`; the head is the topic's. */
export function pushHead(topic: string): string {
  return `{"push":{"channel":${JSON.stringify(topic)},"pub":{"data":`
}

export function pushFrame(head: string, { data, offset, after }: Wire): string {
  return `${head}${data},"offset":${offset}${tagsOf(after)}}}}`
}

export function unsubscribePush(topic: string, { code, reason }: Unsubscribe): string {
  return `{"push":{"channel":${JSON.stringify(topic)},"unsubscribe":${JSON.stringify({ code, reason })}}}`
}

/** `result`: as in the reply to `subscribe`. */
export function subscribePush(topic: string, result: string): string {
  return `{"push":{"channel":${JSON.stringify(topic)},"subscribe":${result}}}`
}

/** `info`: JSON text of a member. */
export function attendancePush(topic: string, event: 'join' | 'leave', info: string): string {
  return `{"push":{"channel":${JSON.stringify(topic)},"${event}":{"info":${info}}}}`
}

/** `reconnect_after_ms` is ours: a client that does not know it ignores it. */
export function disconnectPush({ code, reason }: Close, reconnectAfterMs?: number): string {
  const fields = { code, reason, reconnect_after_ms: reconnectAfterMs }
  return `{"push":{"disconnect":${JSON.stringify(fields)}}}`
}

/** `result`: as in the reply to `refresh`. */
export function refreshPush(result: string): string {
  return `{"push":{"refresh":${result}}}`
}

export const pingFrame = '{}'

/** Everything the server-sent event of one publication says but its id; the head is the topic's. */
export function eventHead(topic: string): string {
  return `{"channel":${JSON.stringify(topic)},"data":`
}

/** `id`: `<epoch>:<seq>` of the whole server, so that one id resumes any set of topics. */
export function publicationEvent(head: string, { data, offset }: Wire): string {
  return `data: ${head}${data},"offset":${offset}}\n\n`
}

/** Says that publications of these topics may be missing before the next event. */
export function gapEvent(topics: readonly string[]): string {
  return `event: gap\ndata: ${JSON.stringify({ topics })}\n\n`
}

export function withId(id: string, event: string): string {
  return `id: ${id}\n${event}`
}

/** With an id it is a place, and nothing else. */
export const noEvent = '\n'

/** Moves the client's Last-Event-ID without an event: browsers take the id and dispatch nothing. */
export function positionEvent(id: string): string {
  return withId(id, noEvent)
}

/** When to come back once the stream has ended. */
export function retryEvent(ms: number): string {
  return `retry: ${ms}\n\n`
}

export const heartbeat = ': hb\n\n'
