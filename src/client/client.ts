/**
 * What pages, Bun and Node talk to a Belfry with: collections over HTTP, topics and calls over one socket,
 * typed from the app by `typeof app`, over the stock `centrifuge` client. Served by the binary, bundled, at
 * `/belfry.js`.
 *
 * @example
 * import { createClient } from '/belfry.js'
 * import type app from './app.ts'
 *
 * const client = createClient<typeof app>({ token: () => localStorage.token })
 * const { items } = await client.collection('shouts').list({ room: 'lobby', order: 'newest' })
 * client.subscribe('chat:lobby', {
 *   message: ({ row }) => show(row),
 *   gap: () => reload(), // some were missed for good; otherwise none was, also over a restart of the server
 * })
 *
 * Invariants: each publication comes once and in order, or `gap` says, before the next one, that some never
 * will; after a disconnection every topic goes on from where it was; a server that goes down says when to come
 * back, and is obeyed. A handler that throws is reported, and disturbs nothing.
 */
import type { Centrifuge, Options, TransportEndpoint } from 'centrifuge'
import { createTokens, type AccountUser, type ClientAuth, type SessionPlace } from './auth.ts'
import { Link, type After } from './link.ts'
import type { Position } from './position.ts'
import { Problem, refused } from './problem.ts'
import { createCollection, createRequest, type Collection, type Request } from './rest.ts'
import { createSubscription, type Handlers, type Subscription } from './subscription.ts'
import type { AnyApp, CollectionName, DataOf, Published, TopicName } from './types.ts'

export { Problem } from './problem.ts'
export type { AccountUser, ClientAuth, EmailAndPassword, SessionPlace } from './auth.ts'
export type { Gap, Position } from './position.ts'
export type { CallOptions, Collection, Key } from './rest.ts'
export type { Handlers, Message, Subscription } from './subscription.ts'
export type { Change, DataOf, Input, Item, ListQuery, Page, Row } from './types.ts'

/** `connecting`: also between connections. `closed`: by `close()`, or by a server that wants no return. */
export type State = 'connecting' | 'connected' | 'closed'

export interface ClientOptions {
  /** Where the server is: `https://radio.example`. Default: where the page is from. */
  readonly url?: string
  /** Who asks: a token, or whoever gets one, asked again when it has expired. Default: who is signed in by `auth`. */
  readonly token?: string | (() => string | Promise<string>)
  /** Where `auth` keeps its refresh token. Default: in memory, so a page that is loaded again has nobody signed in. */
  readonly session?: SessionPlace
  /** Who is signed in by `auth`, whenever it is somebody else. */
  readonly user?: (user: AccountUser | undefined) => void
  /** Where WebSocket does not get through: server-sent events, or streams over `fetch`. Default false. */
  readonly fallback?: boolean
  /** The connection, whenever it changes. */
  readonly state?: (state: State, why: { readonly code: number; readonly reason: string }) => void
  /** What a handler threw, or a connection could not do. Default: the first is thrown to nobody, the second goes by. */
  readonly error?: (error: unknown) => void
  /** Beside the browser's own. For tests. */
  readonly fetch?: (url: string, init: RequestInit) => Promise<Response>
  readonly after?: After
  readonly now?: () => number
  /** Of the `centrifuge` client. */
  readonly centrifuge?: Partial<Options>
}

export interface Client<App> {
  collection<Name extends CollectionName<App>>(name: Name): Collection<App, Name>
  /** Connects with the first one. A topic is subscribed to once: `close` it before another time. */
  subscribe<Name extends TopicName<App>>(
    topic: Name,
    handlers: Handlers<DataOf<App, Name>>,
    options?: SubscribeOptions,
  ): Subscription<DataOf<App, Name>, Published<App, Name>>
  /** Accounts of the app, where there is no `token` of another issuer. The socket connects anew as whoever signs in. */
  readonly auth: ClientAuth
  /** `rpc('POST /api/chat/lobby', { text })`: a route or collection of the app, over the socket. */
  rpc<T = unknown>(method: `${string} /${string}`, data?: unknown): Promise<T>
  /** The same over HTTP, for routes that are no collection. */
  readonly request: Request
  connect(): void
  /** For good: another client for another user. */
  close(): void
  readonly state: State
  /** What it is made over, for whatever is not here. */
  readonly centrifuge: Centrifuge
}

export interface SubscribeOptions {
  /** `subscription.position` of an earlier page, to go on from there. */
  readonly since?: Position | undefined
  /** Be told who comes and goes, where the topic has presence. */
  readonly attendance?: boolean
}

export function createClient<App = AnyApp>(options: ClientOptions = {}): Client<App> {
  const url = (options.url ?? pageOrigin() ?? '').replace(/\/$/, '')
  if (!/^https?:\/\//.test(url)) {
    throw new Problem({ status: 0, code: 'invalid', detail: `no server: url is '${url}'` })
  }
  const { token } = options
  const report = options.error ?? thrownLater
  const fetch = options.fetch ?? ((to: string, init: RequestInit) => globalThis.fetch(to, init))
  /** Of the socket: it is told whoever is signed in by then. */
  let isAsking = false
  let connectsAs: string | undefined
  const tokenOfUser = async (): Promise<string> => {
    isAsking = true
    try {
      const found = (await tokens.token()) ?? ''
      connectsAs = tokens.user?.id
      return found
    } finally {
      isAsking = false
    }
  }
  const tokens = createTokens({
    request: createRequest({ url, token: () => Promise.resolve(undefined), fetch }),
    place: options.session ?? memory(),
    now: options.now ?? Date.now,
    changed(user) {
      if (state !== 'closed' && !isAsking && connectsAs !== user?.id) link.connectAnew()
      guarded(report, () => options.user?.(user))
    },
  })
  const given = async () => (typeof token === 'function' ? await token() : token)
  const request =
    token === undefined
      ? createRequest({ url, token: tokens.token, renew: tokens.renew, fetch })
      : createRequest({ url, token: given, fetch })

  const after = options.after ?? timer
  let state: State = 'closed'
  const link = new Link(
    endpointsOf(url, options.fallback ?? false),
    {
      emulationEndpoint: `${url}/emulation`,
      ...(typeof token === 'function' ? { getToken: async () => await token() } : {}),
      ...(typeof token === 'string' ? { token } : {}),
      ...(token === undefined ? { getToken: tokenOfUser } : {}),
      ...options.centrifuge,
    },
    after,
  )
  const become = (next: State, why: { readonly code: number; readonly reason: string }): void => {
    if (next === state) return
    state = next
    guarded(report, () => options.state?.(next, why))
  }
  link.on('connecting', (why) => become('connecting', why))
  link.on('connected', () => become('connected', { code: 0, reason: 'connected' }))
  link.on('disconnected', (why) => {
    if (!link.isHeld) become('closed', why)
    // The token counts no more: perhaps another one does.
    if (why.code === invalidToken && tokens.user) after(renewMs, () => void renewed().catch(note))
  })
  const renewed = async (): Promise<void> => {
    if (await tokens.refresh()) link.connectAnew()
  }
  // It comes back by itself: told to whoever asks, and to nobody else.
  const note = options.error ?? (() => {})
  link.on('error', ({ error }) => note(error))

  return {
    collection: (name) => createCollection(request, name),
    subscribe(topic, handlers, { since, attendance = false } = {}) {
      const subscription = link.newSubscription(topic, {
        ...(since ? { since } : {}),
        joinLeave: attendance,
      })
      const guard = (run: () => void): void => guarded(report, run)
      const made = createSubscription({ link, subscription, guard, note }, handlers, since)
      link.connect()
      return made
    },
    async rpc<T>(method: string, data?: unknown) {
      link.connect()
      return (await refused(link.rpc(method, data ?? null))).data as T
    },
    auth: tokens,
    request,
    connect: () => link.connect(),
    close: () => link.end(),
    get state() {
      return state
    },
    centrifuge: link,
  }
}

/** Of the protocol: the token of this connection counts no more. */
const invalidToken = 3500
const renewMs = 1_000

function memory(): SessionPlace {
  let kept: string | undefined
  return { load: () => kept, save: (refreshToken) => void (kept = refreshToken) }
}

/** In this order, when one does not open. */
function endpointsOf(url: string, fallback: boolean): string | TransportEndpoint[] {
  const endpoint = `${url.replace('http', 'ws')}/connection/websocket`
  if (!fallback) return endpoint
  return [
    { transport: 'websocket', endpoint },
    { transport: 'http_stream', endpoint: `${url}/connection/http_stream` },
    { transport: 'sse', endpoint: `${url}/connection/sse` },
  ]
}

/** As what a listener of an event throws. */
function thrownLater(error: unknown): void {
  queueMicrotask(() => {
    throw error
  })
}

function pageOrigin(): string | undefined {
  return (globalThis as { readonly location?: { readonly origin: string } }).location?.origin
}

/** The stock client stops at a handler that throws. */
function guarded(report: (error: unknown) => void, run: () => void): void {
  try {
    run()
  } catch (error) {
    report(error)
  }
}

const timer: After = (ms, run) => {
  const id = setTimeout(run, ms)
  return () => clearTimeout(id)
}
