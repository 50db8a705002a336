/**
 * HTTP: every gate and every door, on one screen. What is not listed here does not exist.
 *
 *   Bun.serve ─► Elysia's router ─► gate (request id → observe → identify → limit) ─► door ─► room
 *             └─ a GET whose way is known (lane.ts) ──┘
 *
 * Elysia routes and holds the user's own routes one day; the gates wrap each door as a plain function,
 * because hooks and context objects would cost a cached read as much again (measured: +7–12 µs).
 */
import { cors } from '@elysiajs/cors'
import { Elysia } from 'elysia'
import type { Auth } from '../auth/auth.ts'
import { createIngest, type Collections } from '../collections/collections.ts'
import { Fault } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import { policiesOf, type Credentials, type Limiter, type LimitPolicy } from '../limits/limits.ts'
import type { Log } from '../observe/log.ts'
import type { Metrics } from '../observe/metrics.ts'
import type { Feeds } from '../feeds/feeds.ts'
import type { Connection, Realtime } from '../realtime/realtime.ts'
import type { LimitUse } from '../limits/declare.ts'
import type { Priority } from '../overload/declare.ts'
import type { Overload } from '../overload/overload.ts'
import type { LimitsPlan } from '../plan/plan.ts'
import type { Proxies, ProxyPlan } from '../upstream/upstream.ts'
import type { RouteContext, RouteExtras, Routes } from './declare.ts'
import { createAccountDoors } from './accounts.ts'
import { createCacheStatsDoor, type AdminDeps } from './admin.ts'
import { createAddressOf } from './address.ts'
import { callerOf } from './call.ts'
import { createClientDoor } from './client.ts'
import { createEmulationDoors } from './emulation.ts'
import { createEventsDoor, eventStream } from './events.ts'
import { problemResponse } from './faults.ts'
import { createGate, type Entry } from './gates.ts'
import { createHealthDoor, createMetricsDoor, type Health } from './operations.ts'
import { createIngestDoor } from './ingest.ts'
import { createLane } from './lane.ts'
import { createModeDoor } from './mode.ts'
import { createOriginCheck } from './origin.ts'
import { createPageDoors } from './page.ts'
import { createProxyDoor } from './proxy.ts'
import { createReadyHeaders } from './ready.ts'
import { createRecordDoors } from './records.ts'
import { createRevokeDoor } from './revoke.ts'
import { createOwnRoutes } from './routes.ts'
import { createTaking } from './taking.ts'
import { createReplayDoor } from './replay.ts'
import { createServerApi } from './server-api.ts'
import { createSocketDoor } from './socket.ts'
import { createLastDoor } from './topics.ts'
import { visitHeaders, type Door, type ReadDoor, type Visit } from './visit.ts'

export { callDoors } from './call.ts'
export { listenLocal, type Local, type LocalStatus } from './local.ts'
export type { Health } from './operations.ts'
export { finishRequests, listen } from './listen.ts'

export interface HttpDeps {
  readonly auth: Auth
  readonly limiter: Limiter
  readonly overload: Overload
  readonly credentials: Credentials
  readonly collections: Collections
  readonly realtime: Realtime
  readonly feeds: Pick<Feeds, 'last'>
  readonly proxies: Proxies
  readonly metrics: Metrics
  readonly health: () => Health
  readonly cache: AdminDeps['cache']
  readonly follow: AdminDeps['follow']
  readonly clock: Clock
  readonly log: Log
  /** What the app's own routes are given. */
  readonly own: Omit<RouteContext, 'topics' | 'limits'> & {
    readonly load: () => RouteExtras['load']
  }
  /** Known once Bun listens; doors need it to upgrade, to lift time-outs, to know the peer. */
  readonly server: () => Bun.Server<Connection>
}

export interface HttpOptions {
  readonly corsOrigins: readonly string[]
  /** Served at `/`. */
  readonly page: Bun.HTMLBundle | string
  readonly routes?: Routes | undefined
  readonly proxies: readonly ProxyPlan[]
  readonly limits: LimitsPlan
  /** Of writes that have no limit of their own; reads are answered from memory, and are not counted. */
  readonly writePolicy: LimitPolicy
  /** Proxies whose `X-Forwarded-For` is believed. */
  readonly trustedProxies?: readonly string[] | undefined
}

export type Fetch = (request: Request) => Response | Promise<Response>

/** The routes as one `fetch`; the root gives it to `Bun.serve`. */
export function createHttp(deps: HttpDeps, options: HttpOptions): Fetch {
  const { collections, realtime, clock } = deps
  const { limits, writePolicy } = options
  const writes = [writePolicy]
  const placeOf = createAddressOf(options.trustedProxies ?? [])
  const addressOf = (request: Request) =>
    callerOf(request)?.address ??
    placeOf(deps.server().requestIP(request)?.address ?? '', request.headers.get('x-forwarded-for'))
  const gate = createGate({ ...deps, addressOf })

  // A Host header shorter than 4 characters is misrouted with `standardHostname` (elysia#748).
  const routes = new Elysia({ handler: { standardHostname: false } })
  if (options.corsOrigins.length > 0) routes.use(corsOf(options.corsOrigins))

  /** By path. */
  const served = new Map<string, string[]>()
  const route = (
    method: string,
    path: string,
    enter: (request: Request) => Response | Promise<Response>,
  ): void => {
    served.set(path, [...(served.get(path) ?? []), method])
    // Elysia reads a handler's text, and awaits one that returns a call. A bound function has no text:
    // a synchronous answer stays one, which a cached read notices.
    const handler = (context: { readonly request: Request }) => enter(context.request)
    routes.route(method, path, handler.bind(undefined))
  }
  type Policies = readonly LimitPolicy[]
  type Kind = Entry['priority']
  /** `kind`: left out, it is answered in any overload. */
  const on = (method: string, path: string, door: Door, kind?: Kind, policies?: Policies): void => {
    const queue = method === 'GET' ? undefined : 'writes'
    const enter = gate({ route: `${method} ${path}`, door, policies, priority: kind, queue })
    route(method, path, (request) => enter(request))
  }
  const lane = createLane()
  const onRead = (path: string, read: ReadDoor, priority: Priority, policies?: Policies): void => {
    const door: Door = (request, visit) => read(request.url)(request, visit)
    route(
      'GET',
      path,
      lane.learning(gate({ route: `GET ${path}`, door, policies, priority }), read),
    )
  }

  const { page, file } = createPageDoors(clock, options.page)
  on('GET', '/', page, 'normal')
  on('GET', '/belfry.js', createClientDoor(clock), 'normal')
  on('GET', '/api/health', createHealthDoor(deps.health, clock))
  on('GET', '/api/metrics', createMetricsDoor(deps.metrics, clock))
  const { cache, follow } = deps
  on('GET', '/api/admin/cache/stats', createCacheStatsDoor({ cache, follow, tick: clock.tick }))

  const { tick, now } = clock
  on('POST', '/api/admin/revoke', createRevokeDoor({ auth: deps.auth, now, tick }))
  const { accounts } = deps.auth
  const accountDoors = accounts
    ? createAccountDoors({ accounts, credentials: deps.credentials, addressOf, tick })
    : []
  for (const { method, path, door } of accountDoors) {
    const kind = path.startsWith('/api/admin/') ? undefined : 'high'
    on(method, path, door, kind, method === 'POST' ? writes : undefined)
  }
  const { overload } = deps
  const mode = createModeDoor({ overload, tick })
  on('GET', '/api/admin/mode', mode)
  on('POST', '/api/admin/mode', mode)
  const keepOpen = (request: Request) => {
    if (callerOf(request)) throw new Fault('invalid', 'a stream cannot be called: subscribe to it')
    // Streams of the app's own routes come in by a priority.
    if (!overload.admits('connection', 'loop', tick())) {
      throw new Fault('overloaded', 'no more streams just now')
    }
    deps.server().timeout(request, 0)
  }
  const isAllowedOrigin = createOriginCheck(options.corsOrigins)
  on(
    'GET',
    '/connection/websocket',
    createSocketDoor(realtime, deps.server, addressOf, isAllowedOrigin),
    'connection',
  )
  const emulated = createEmulationDoors({ realtime, keepOpen, addressOf, tick })
  on('GET', '/connection/sse', emulated.sse, 'connection')
  on('POST', '/connection/http_stream', emulated.httpStream, 'connection')
  // Of connections that are open.
  on('POST', '/emulation', emulated.emulation)
  on('GET', '/api/stream', createEventsDoor({ realtime, keepOpen, addressOf, tick }), 'connection')
  on('GET', '/api/topics/:id/history', createReplayDoor({ realtime, tick }), 'normal')
  const last = createLastDoor({ realtime, last: deps.feeds.last, clock })
  on('GET', '/api/topics/:id/last', last, 'normal')
  for (const [method, door] of createServerApi({ ...deps, tick })) {
    on('POST', `/api/server/${method}`, door, 'high')
    // Some methods have names that collections have: those are served under /api/server only.
    if (collections.plans.some(({ path }) => path === method)) continue
    on('POST', `/api/${method}`, door, 'high')
  }

  const ready = createReadyHeaders(clock)
  const ingest = createIngest(clock, collections)
  for (const plan of collections.plans) {
    const doors = createRecordDoors({ collections, clock, ready }, plan)
    const path = `/api/${plan.path}`
    const { priority } = plan
    const limited = limits.collections.get(plan.path) ?? {}
    onRead(path, doors.list, priority, limited.read)
    on('POST', path, doors.create, priority, limited.create ?? writes)
    on('POST', `${path}/ingest`, createIngestDoor({ ingest, tick }, plan), priority)
    onRead(`${path}/:id`, doors.read, priority, limited.read)
    on('PATCH', `${path}/:id`, doors.update, priority, limited.update ?? writes)
    on('DELETE', `${path}/:id`, doors.remove, priority, limited.remove ?? writes)
    for (const property of plan.lookup) {
      onRead(`${path}/${property}/:value`, doors.lookup(property), priority, limited.read)
    }
    for (const child of plan.children) {
      onRead(
        `${path}/:id/${child.name}`,
        doors.children(child),
        child.collection.priority,
        limits.collections.get(child.collection.path)?.read,
      )
    }
  }

  for (const plan of options.proxies) {
    const door = createProxyDoor({ proxies: deps.proxies, clock, ready }, plan)
    const path = plan.paths === undefined ? plan.path : `${plan.path}/*`
    if (served.get(path)?.includes('GET')) throw takenFault('proxies', plan.path)
    onRead(path, door, plan.priority, plan.limit)
  }

  const { load, ...own } = deps.own
  const publish = (topic: string, data: unknown) => void realtime.publish(topic, data)
  const stream = (request: Request, topics: readonly string[], visit: Visit) =>
    eventStream({ realtime, keepOpen, addressOf, tick }, { request, visit, topics })
  const take = createTaking(deps.limiter, limits.named)
  const context = { ...own, publish, stream, limits: { take } }
  const routesOfApp = createOwnRoutes({ clock, load, context }, options.routes ?? (() => {}))
  for (const { method, path, door, limit, priority } of routesOfApp) {
    // The router holds one name for a parameter at one place; the app's own router has the app's.
    const place = path.replaceAll(/:[^/?]+/g, ':id')
    if (served.get(place)?.includes(method)) throw takenFault('routes', `${method} ${path}`)
    const policies = limit === undefined ? undefined : routePolicies(limits, limit, method, path)
    on(method, place, door, priority, policies ?? (method === 'GET' ? undefined : writes))
  }

  for (const [path, methods] of served) {
    const door = notAllowed(path, methods, clock)
    const enter = gate({ route: 'ALL /*', door, priority: 'normal' })
    if (withoutHead.has(path)) route('HEAD', path, (request) => enter(request))
    if (!methods.includes('ALL')) route('ALL', path, (request) => enter(request))
  }
  on('ALL', '/*', file, 'normal')
  const router: Fetch = (request) =>
    request.method === 'HEAD' ? withoutLength(routes.fetch(request)) : routes.fetch(request)
  // With origins configured Elysia adds their headers to each answer, so each goes through it.
  return options.corsOrigins.length > 0 ? router : lane.before(router)
}

/** Of a 304's head Elysia says 0, which would be the length of what was not sent (RFC 9110 §8.6). */
async function withoutLength(head: Response | Promise<Response>): Promise<Response> {
  const response = await head
  if (response.status === 304) response.headers.delete('content-length')
  return response
}

function routePolicies(
  { named }: LimitsPlan,
  limit: LimitUse,
  method: string,
  path: string,
): readonly LimitPolicy[] {
  const policies = policiesOf(named, limit, `${method}:${path}`)
  if (typeof policies !== 'string') return policies
  throw new Fault('invalid', 'the app file has one problem', {
    fields: [{ field: `routes.${method} ${path}.limit`, message: policies }],
  })
}

function takenFault(option: 'routes' | 'proxies', name: string): Fault {
  const message = 'is served by Belfry already, or declared twice'
  return new Fault('invalid', 'the app file has one problem', {
    fields: [{ field: `${option}.${name}`, message }],
  })
}

/** A GET that never ends, or is a handshake: it has no head to show. */
const withoutHead: ReadonlySet<string> = new Set(['/connection/websocket', '/connection/sse'])

/** RFC 9110 §15.5.6 wants the methods that are. */
function notAllowed(path: string, served: readonly string[], clock: Clock): Door {
  const methods = new Set(
    served.flatMap((one) => (one === 'GET' && !withoutHead.has(path) ? ['GET', 'HEAD'] : [one])),
  )
  const allow = [...methods.add('OPTIONS')].join(', ')
  return ({ method }, visit) => {
    if (method === 'OPTIONS') {
      const headers = { ...visitHeaders(visit, clock.tick()), allow }
      return new Response(null, { status: 204, headers })
    }
    const fault = new Fault('not_allowed', `${method} is not served here, ${served.join(', ')} are`)
    return problemResponse(fault, visit, clock.tick(), { allow })
  }
}

/** Browsers of other origins see these headers only if told. */
const exposedHeaders = [
  ...['age', 'etag', 'location', 'retry-after', 'ratelimit', 'ratelimit-policy', 'cache-status'],
  ...['x-cache', 'x-coalesced', 'x-log-seq', 'x-request-id', 'x-response-time'],
  'idempotency-replayed',
]

function corsOf(origins: readonly string[]) {
  return cors({
    origin: origins.includes('*') ? true : [...origins],
    credentials: false,
    methods: ['GET', 'POST', 'PATCH', 'DELETE'],
    allowedHeaders: [
      'authorization',
      'content-type',
      'idempotency-key',
      'if-match',
      'if-none-match',
      'last-event-id',
      'x-api-key',
    ],
    exposeHeaders: exposedHeaders,
    maxAge: 600,
  })
}
