/**
 * One connection to Redis, mended for as long as it lives.
 *
 *   start ──► connecting ──ready──► ready ──closed, or silent for 2 s──► waiting ──0.1 to 1 s──► connecting …
 *
 * A connection that looks open may be dead: a paused server, a network that swallows. So it is asked (PING)
 * every 2 s, and whenever its owner doubts it; one that stays silent is thrown away.
 *
 * Each connection is an ioredis client of its own, thrown away with it. ioredis can reconnect by itself, but then
 * every state of ours has a twin in there, with commands that are kept and sent again (its #2099 and #1451
 * are of that kind); so all of that is off, and time is the clock's.
 *
 * Never logged: errors of ioredis as they are. They carry the command, and so the password or the value.
 */
import { isIP } from 'node:net'
import { Redis as Client, type RedisOptions as ClientOptions } from 'ioredis'
import { detach, type Service } from '../lib/service.ts'
import type { Cancel, Clock } from '../lib/clock.ts'

export interface RedisTarget {
  readonly host: string
  readonly port: number
  readonly username?: string | undefined
  readonly password?: string | undefined
  /** The number of a database; 0 if not given. */
  readonly db?: number | undefined
  readonly isTls?: boolean | undefined
}

export interface LinkOptions {
  readonly target: RedisTarget
  /** Told to Redis, for its `CLIENT LIST`. */
  readonly name: string
  /** True: do not wait for the next regular question. */
  readonly isDoubted?: () => boolean
  readonly onReady: (client: Client) => void
  /** It answered; the question took so long. */
  readonly onAnswer?: (ms: number) => void
  /** Once per connection that was tried, ready or not. `cause` may be logged. */
  readonly onLost: (cause: string) => void
}

export interface Link extends Service {
  /** While it is ready. */
  readonly client: Client | undefined
  /** Connections that became ready. */
  readonly connects: number
  start(): void
  /** Throws this connection away; the next one follows. */
  reset(cause: string): void
  stop(): Promise<void>
}

type State =
  | { readonly kind: 'stopped' }
  | { readonly kind: 'waiting'; readonly cancel: Cancel }
  | { readonly kind: 'connecting'; readonly client: Client; readonly sinceMs: number }
  | { readonly kind: 'ready'; readonly client: Client }

/** How often it looks whether something is due. */
const beatMs = 250

/** Between two questions that nobody wanted. */
const askEveryMs = 2_000

/** Unanswered for so long, a connection is dead. A Redis that is only slow (a fork, a long script) is back by then. */
const silentMsMax = 2_000

/** TCP, TLS, AUTH, SELECT and INFO: three to five round trips. */
const connectMsMax = 2_500

/** 100, 200, 400, 800, then each second: it is to be back within 5 s of Redis. */
const retryMsMin = 100
const retryMsMax = 1_000

/** All nodes lose Redis at once; they should not all come back at once. */
const retryJitterShare = 0.2

/** For sockets to close at the end. */
const stopMsMax = 500

export function createLink(deps: { readonly clock: Clock }, options: LinkOptions): Link {
  const { clock } = deps
  const { target } = options
  let state: State = { kind: 'stopped' }
  let connects = 0
  let failures = 0
  let cause = ''
  let cancelBeat = (): void => {}
  let askedAtMs: number | undefined
  let answeredAtMs = 0

  const connect = (): void => {
    const client = new Client(clientOptions(target, options.name))
    state = { kind: 'connecting', client, sinceMs: clock.tick() }
    cause = 'it did not answer'
    client.on('error', (error: unknown) => {
      cause = describeFailure(error, target)
      // A SELECT that failed is told and passed over by ioredis: it would go on in database 0.
      if (isReply(error)) reset(cause)
    })
    client.once('end', () => lose(client))
    client.once('ready', () => {
      if (state.kind !== 'connecting' || state.client !== client) return
      state = { kind: 'ready', client }
      cause = 'the connection was closed'
      failures = 0
      connects++
      askedAtMs = undefined
      // Not asked at once unless it is doubted: it has just answered INFO.
      answeredAtMs = clock.tick()
      options.onReady(client)
      beat()
    })
    // The failure has been told by `error` and `end`.
    client.connect().catch(() => undefined)
  }

  /** The only way out of `connecting` and `ready`, but for `stop`. */
  const lose = (client: Client): void => {
    if (clientOf(state) !== client) return
    const baseMs = Math.min(retryMsMax, retryMsMin * 2 ** failures++)
    const waitMs = baseMs * (1 + retryJitterShare * (2 * Math.random() - 1))
    state = { kind: 'waiting', cancel: clock.after(waitMs, connect) }
    client.disconnect()
    options.onLost(cause)
  }

  const reset = (why: string): void => {
    const client = clientOf(state)
    if (!client) return
    cause = why
    lose(client)
  }

  const beat = (): void => {
    const now = clock.tick()
    if (state.kind === 'connecting' && now - state.sinceMs > connectMsMax) {
      reset('it did not answer in time')
    }
    if (state.kind !== 'ready') return
    if (askedAtMs !== undefined) {
      if (now - askedAtMs > silentMsMax) reset('it fell silent')
    } else if (now - answeredAtMs >= askEveryMs || options.isDoubted?.() === true) {
      ask(state.client)
    }
  }

  const ask = (client: Client): void => {
    const sinceMs = (askedAtMs = clock.tick())
    const answered = client.ping().then(() => {
      if (clientOf(state) !== client) return
      askedAtMs = undefined
      answeredAtMs = clock.tick()
      options.onAnswer?.(answeredAtMs - sinceMs)
    })
    // Refused (no permission, still loading) or closed; the latter is told by `end`.
    detach(answered, (error) => {
      if (clientOf(state) === client) reset(describeFailure(error, target))
    })
  }

  return {
    get client() {
      return state.kind === 'ready' ? state.client : undefined
    },
    get connects() {
      return connects
    },
    start() {
      if (state.kind !== 'stopped') return
      cancelBeat = clock.every(beatMs, beat)
      connect()
    },
    reset,
    async stop() {
      cancelBeat()
      const left = state
      state = { kind: 'stopped' }
      if (left.kind === 'waiting') left.cancel()
      const client = clientOf(left)
      if (!client || client.status === 'end') return
      await new Promise<void>((done) => {
        const cancel = clock.after(stopMsMax, done)
        client.once('end', () => {
          cancel()
          done()
        })
        client.disconnect()
      })
    },
  }
}

function clientOf(state: State): Client | undefined {
  return state.kind === 'connecting' || state.kind === 'ready' ? state.client : undefined
}

function clientOptions(target: RedisTarget, name: string) {
  const { host, port, username, password, db = 0, isTls = false } = target
  return {
    ...{ host, port, db },
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    // By its name the certificate is found and checked; an address has none to send.
    ...(isTls ? { tls: isIP(host) === 0 ? { host, servername: host } : { host } } : {}),
    connectionName: name,
    // What 5 spoke and every proxy and service understands.
    protocol: 2 as const,
    disableClientInfo: true,
    lazyConnect: true,
    // Nothing waits in there, nothing is sent twice, nothing comes back by itself.
    retryStrategy: () => null,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    autoResubscribe: false,
    maxLoadingRetryTime: 500,
    connectTimeout: connectMsMax,
    // A socket that is to go goes at once; else one that leads nowhere would linger.
    disconnectTimeout: 0,
    // All commands of one turn of the event loop are one write (measured, 64 at a time: 11 µs each, not 25).
    enableAutoPipelining: true,
    // Is not to wait for a batch that is never answered: it asks whether anybody is there.
    autoPipeliningIgnoredCommands: ['ping'],
  } satisfies ClientOptions
}

/** Redis itself said no, and did so in time. */
export function isReply(error: unknown): boolean {
  return error instanceof Error && error.name === 'ReplyError'
}

const causeCharsMax = 200

/** Fit for a log: its first line, without what is secret. An old Redis repeats the password it did not understand. */
export function describeFailure(error: unknown, { password }: RedisTarget): string {
  const message = error instanceof Error ? error.message || error.name : String(error)
  const line = message.split('\n', 1)[0] ?? ''
  const safe = password ? line.replaceAll(password, '***') : line
  return safe.slice(0, causeCharsMax)
}
