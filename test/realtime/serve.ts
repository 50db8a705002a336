/** The realtime room behind its own doors on a real socket, with tokens that say what they mean. */
import type { Identity, TopicVerdict, Verdict } from '../../src/auth/auth.ts'
import { createEmulationDoors } from '../../src/http/emulation.ts'
import { createEventsDoor } from '../../src/http/events.ts'
import { problemResponse } from '../../src/http/faults.ts'
import { createReplayDoor } from '../../src/http/replay.ts'
import { createServerApi } from '../../src/http/server-api.ts'
import { createSocketDoor, websocket } from '../../src/http/socket.ts'
import type { Door, Visit } from '../../src/http/visit.ts'
import { systemClock, type Clock } from '../../src/lib/clock.ts'
import { createLimits } from '../../src/limits/limits.ts'
import type { Log, LogFields } from '../../src/observe/log.ts'
import {
  compilePattern,
  createRealtime,
  type Call,
  type Called,
  type Connection,
  type Realtime,
  type RealtimeOptions,
  type SharedTopics,
  type TopicPlan,
} from '../../src/realtime/realtime.ts'
import { createPublications, type Store } from '../../src/store/store.ts'

export interface TestServer extends AsyncDisposable {
  readonly realtime: Realtime
  readonly url: string
  readonly wsUrl: string
  /** Events logged as errors. */
  readonly errors: string[]
  stop(): Promise<void>
}

export interface ServeOptions extends RealtimeOptions {
  /** Other nodes publish to the same durable topics. */
  readonly isShared?: boolean
  /** Changes that other nodes tell wait for `realtime.followed`. */
  readonly isFollowing?: boolean
  /** Of durable topics. */
  readonly store?: Pick<Store, 'identity' | 'read' | 'write'>
  readonly clock?: Clock
  readonly identify?: (token: string) => Verdict | Promise<Verdict>
  readonly identifyTopic?: (token: string) => TopicVerdict | Promise<TopicVerdict>
  readonly call?: (call: Call) => Promise<Called>
  readonly port?: number
  readonly shared?: SharedTopics
}

type Declared = Readonly<Record<string, Partial<TopicPlan>>>

export function plansOf(declared: Declared): TopicPlan[] {
  return Object.entries(declared).map(([pattern, options]) => ({
    pattern,
    matcher: compilePattern(pattern),
    historySize: 0,
    historyTtlMs: 3_600_000,
    last: false,
    ...options,
  }))
}

/**
 * `user:ann` is Ann, `user:ann:5000` is Ann until 5 s (of the clock), `user:ann::a,b` is subscribed to both;
 * `expired` and the rest are not.
 */
export function identifyFor(clock: Clock): (token: string) => Verdict {
  return (token) => {
    const [kind, id, until, ...channels] = token.split(':')
    if (kind === 'expired') return { ok: false, reason: 'expired', message: 'expired' }
    if (kind !== 'user' || !id) return { ok: false, reason: 'invalid', message: 'not a token' }
    const expiresAtMs =
      until === undefined || until === '' ? undefined : clock.now() + Number(until)
    const own = channels.length === 0 ? {} : { channels: channels.join(':').split(',') }
    const user = { id, info: { name: id.toUpperCase() }, ...own }
    return { ok: true, identity: { kind: 'user', user, expiresAtMs } }
  }
}

/** `topic|ann|chat:a` lets Ann into chat:a, `topic||chat:a|5000` a visitor until 5 s; `expired` is. */
export function identifyTopicFor(clock: Clock): (token: string) => TopicVerdict {
  return (token) => {
    const [kind, user = '', topic = '', until] = token.split('|')
    if (kind === 'expired') return { ok: false, reason: 'expired', message: 'expired' }
    if (kind !== 'topic') return { ok: false, reason: 'invalid', message: 'not a token' }
    const expiresAtMs = until === undefined ? undefined : clock.now() + Number(until)
    return { ok: true, pass: { topic, user, expiresAtMs, info: { seat: 1 } } }
  }
}

export function serve(declared: Declared, options: ServeOptions = {}): TestServer {
  const { clock = systemClock, port = 0 } = options
  const identify = options.identify ?? identifyFor(clock)
  const errors: string[] = []
  const realtime = createRealtime(
    {
      topics: plansOf(declared),
      identify,
      identifyTopic: options.identifyTopic ?? identifyTopicFor(clock),
      ...(options.call ? { call: options.call } : {}),
      clock,
      log: logTo(errors),
      ...(options.shared ? { shared: options.shared } : {}),
      isFollowing: options.isFollowing === true,
      limits: (policy) => createLimits({ clock }, policy),
      publications:
        options.store && createPublications(options.store, { isShared: options.isShared ?? false }),
    },
    { app: 'test', ...options },
  )
  const tick = () => clock.tick()
  const keepOpen = (request: Request) => server.timeout(request, 0)
  const addressOf = (request: Request) => server.requestIP(request)?.address ?? ''
  const emulated = createEmulationDoors({ realtime, tick, keepOpen, addressOf })
  const api = createServerApi({ realtime, tick, log: logTo(errors) })
  const replay = createReplayDoor({ realtime, tick })
  const doors: Record<string, Door> = {
    '/connection/websocket': createSocketDoor(
      realtime,
      () => server,
      addressOf,
      () => true,
    ),
    '/connection/sse': emulated.sse,
    '/connection/http_stream': emulated.httpStream,
    '/emulation': emulated.emulation,
    '/api/stream': createEventsDoor({ realtime, tick, keepOpen, addressOf }),
    ...Object.fromEntries([...api].map(([method, door]) => [`/api/${method}`, door])),
  }
  const server: Bun.Server<Connection> = Bun.serve<Connection>({
    hostname: '127.0.0.1',
    port,
    websocket,
    async fetch(request) {
      const visit: Visit = {
        id: 'r',
        startedAt: 0,
        identity: whoAsks(request, identify),
      }
      try {
        const { pathname } = new URL(request.url)
        const door =
          pathname.endsWith('/history') && request.method === 'GET' ? replay : doors[pathname]
        return door ? await door(request, visit) : new Response('no door', { status: 404 })
      } catch (thrown) {
        return problemResponse(thrown, visit, clock.tick())
      }
    },
  })
  realtime.start()
  const stop = async () => {
    realtime.stop()
    await server.stop(true)
  }
  const url = `http://127.0.0.1:${server.port}`
  return {
    realtime,
    url,
    wsUrl: `ws://127.0.0.1:${server.port}/connection/websocket`,
    errors,
    stop,
    [Symbol.asyncDispose]: stop,
  }
}

function whoAsks(request: Request, identify: ServeOptions['identify'] & {}): Identity {
  if (request.headers.get('x-api-key') === 'key') return { kind: 'key', user: null }
  const token = request.headers.get('authorization')?.slice('Bearer '.length)
  const verdict = token === undefined ? undefined : identify(token)
  if (verdict && !(verdict instanceof Promise) && verdict.ok) return verdict.identity
  return { kind: 'anonymous', user: null }
}

function logTo(errors: string[]): Log {
  const nothing = () => {}
  return {
    debug: nothing,
    info: nothing,
    warn: nothing,
    error: (event: string, _fields?: LogFields) => void errors.push(event),
  }
}

/** Waits for a condition, not for time. */
export async function until(
  isSo: () => boolean | Promise<boolean>,
  what: string,
  withinMs = 20_000,
): Promise<void> {
  const end = performance.now() + withinMs
  while (!(await isSo())) {
    if (performance.now() > end) throw new Error(`never came true: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
}

export interface Reply {
  readonly id?: number
  readonly error?: { readonly code: number }
  readonly push?: {
    readonly channel: string
    readonly pub?: { readonly data: unknown; readonly offset: number }
    readonly unsubscribe?: { readonly code: number }
  }
  readonly subscribe?: Subscribed
  readonly [method: string]: unknown
}

export interface Subscribed {
  readonly epoch: string
  readonly offset: number
  readonly recovered?: boolean
  readonly was_recovering?: boolean
  readonly recoverable?: boolean
  readonly publications?: readonly { readonly data: unknown; readonly offset: number }[]
}

/** A socket that speaks the protocol by hand, for what the stock client never does. */
export class RawClient {
  readonly frames: string[] = []
  readonly replies: Reply[] = []
  closed: { readonly code: number; readonly reason: string } | undefined
  answersPings = true
  readonly socket: WebSocket
  #id = 0

  constructor(url: string, headers: Record<string, string> = {}) {
    this.socket = new WebSocket(url, { headers })
    this.socket.addEventListener('message', ({ data }) => this.#hear(String(data)))
    this.socket.addEventListener('close', ({ code, reason }) => {
      this.closed = { code, reason }
    })
  }

  static async open(url: string, headers: Record<string, string> = {}): Promise<RawClient> {
    const client = new RawClient(url, headers)
    const isOpen = () => client.socket.readyState === WebSocket.OPEN
    await until(() => isOpen() || client.closed !== undefined, 'the socket opens')
    if (client.closed) throw new Error(`closed with ${client.closed.code} before it was open`)
    return client
  }

  static async connect(url: string, token?: string): Promise<RawClient> {
    const client = await RawClient.open(url)
    await client.call({ connect: token === undefined ? {} : { token } })
    return client
  }

  send(text: string): void {
    this.socket.send(text)
  }

  async call(command: Record<string, unknown>): Promise<Reply> {
    const id = ++this.#id
    this.send(JSON.stringify({ id, ...command }))
    let found: Reply | undefined
    const has = () => (found = this.replies.find((reply) => reply.id === id)) !== undefined
    await until(() => has() || this.closed !== undefined, `a reply to ${JSON.stringify(command)}`)
    if (!found) throw new Error(`closed with ${this.closed?.code} before the reply`)
    return found
  }

  get publications(): { channel: string; offset: number; data: unknown }[] {
    return this.replies.flatMap(({ push }) =>
      push?.pub ? [{ channel: push.channel, ...push.pub }] : [],
    )
  }

  close(): void {
    this.socket.close()
  }

  #hear(frame: string): void {
    this.frames.push(frame)
    for (const line of frame.split('\n')) {
      const reply = JSON.parse(line) as Reply
      if (line === '{}' && this.answersPings) this.socket.send('{}')
      this.replies.push(reply)
    }
  }
}
