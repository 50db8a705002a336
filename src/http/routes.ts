/**
 * The app's own routes, as doors: Elysia runs the handler, the gates have gone before, and whatever it throws
 * comes back out as what it is, so that a problem looks the same everywhere and a bug is logged once.
 *
 *   gate ─► door ─► (body, bounded) ─► own Elysia: parse, validate, handler ─► response, with the visit's headers
 */
import { Elysia } from 'elysia'
import { Fault, unwrapped, type FieldProblem } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import type { LimitUse } from '../limits/declare.ts'
import { bodyBytesMax, checkDepth, readBytes } from './body.ts'
import { priorities, type Priority } from '../overload/declare.ts'
import type { RouteContext, RouteExtras, RouteOptions, Routes, RouteServer } from './declare.ts'
import { visitHeaders, type Door, type Visit } from './visit.ts'

export interface OwnRoute {
  readonly method: string
  readonly path: string
  readonly door: Door
  readonly limit: LimitUse | undefined
  readonly priority: Priority
}

export interface OwnRoutesDeps {
  readonly clock: Clock
  readonly load: () => RouteExtras['load']
  readonly context: Omit<RouteContext, 'topics'> & {
    readonly publish: (topic: string, data: unknown) => void
    readonly stream: (request: Request, topics: readonly string[], visit: Visit) => Response
  }
}

/** What is known of a request while it is with the app's code. */
interface Guest {
  readonly visit: Visit
  failure: Error | undefined
}

/** Faults: `invalid`, naming the route that cannot be served. */
export function createOwnRoutes(deps: OwnRoutesDeps, declare: Routes): readonly OwnRoute[] {
  const { clock, load } = deps
  const { publish, stream, ...context } = deps.context
  const guests = new WeakMap<Request, Guest>()

  const extrasOf = (request: Request): RouteExtras => {
    const guest = guestOf(guests, request)
    return { user: guest.visit.identity.user, requestId: guest.visit.id, load: load() }
  }
  const server = new Elysia({ handler: { standardHostname: false } })
    .onError(({ request, error, code }) => {
      // `throw status(418)` is an answer in Elysia's words.
      if (typeof code === 'number') return undefined
      guestOf(guests, request).failure = failureOf(error, code)
      return new Response(null, { status: 500 })
    })
    .derive(({ request }) => extrasOf(request))
  const topics: RouteContext['topics'] = {
    publish,
    stream: (request, names) => stream(request, names, guestOf(guests, request).visit),
  }
  declare(server as unknown as RouteServer, { ...context, topics })

  const door: Door = async (request, visit) => {
    const guest: Guest = { visit, failure: undefined }
    const inner = await bounded(request)
    guests.set(inner, guest)
    const response = await server.fetch(inner)
    if (guest.failure !== undefined) throw guest.failure
    // In place: in another Response a text is no text any more, nor a file of its type.
    const { headers } = response
    const own = visitHeaders(visit, clock.tick())
    for (const name in own) headers.set(name, own[name] ?? '')
    if (!headers.has('cache-control')) headers.set('cache-control', 'no-store')
    return response
  }
  return server.routes.map(({ method, path, hooks }) => ({
    ...{ method: checked(method, path), path, door },
    // Elysia carries what it does not know itself from groups and guards to their routes.
    limit: (hooks as RouteOptions | undefined)?.limit,
    priority: priorityIn(hooks, `${method} ${path}`),
  }))
}

function guestOf(guests: WeakMap<Request, Guest>, request: Request): Guest {
  const guest = guests.get(request)
  if (guest) return guest
  throw new Fault('internal', 'a request that came past the gates')
}

function problem(field: string, message: string): Fault {
  const fields = [{ field: `routes.${field}`, message }]
  return new Fault('invalid', 'the app file has one problem', { fields })
}

function checked(method: string, path: string): string {
  if (method === 'WS' || method === '$INTERNALWS') {
    throw problem(`${method} ${path}`, 'opens a WebSocket: declare a topic for that')
  }
  if (!path.startsWith('/')) throw problem(`${method} ${path}`, 'must start with /')
  return method
}

function priorityIn(hooks: object | undefined, route: string): Priority {
  const { priority } = (hooks ?? {}) as RouteOptions
  if (priority === undefined || priorities.includes(priority)) return priority ?? 'normal'
  throw problem(`${route}.priority`, `must be one of ${priorities.join(', ')}`)
}

/** Elysia reads a body however long and however deep it is. */
async function bounded(request: Request): Promise<Request> {
  if (request.body === null) return request
  const { url, method, headers, signal } = request
  const body = await readBytes(request, bodyBytesMax)
  if (headers.get('content-type')?.includes('json')) checkDepth(new TextDecoder().decode(body))
  return new Request(url, { method, headers, signal, body: body as Uint8Array<ArrayBuffer> })
}

function failureOf(error: unknown, code: string): Error {
  const thrown = unwrapped(error)
  if (thrown instanceof Fault) return thrown
  switch (code) {
    case 'VALIDATION':
      return new Fault('invalid', 'the request is not valid', { fields: fieldsOf(error) })
    case 'PARSE':
      return new Fault('invalid', 'the body cannot be read')
    case 'NOT_FOUND':
      return new Fault('not_found', 'nothing is served at this path')
    case 'INVALID_COOKIE_SIGNATURE':
      return new Fault('invalid', 'a cookie is not as it was signed')
    default:
      return thrown instanceof Error ? thrown : new Fault('internal', 'something else was thrown')
  }
}

/** Of Elysia's ValidationError: which part of the request, where in it, what is wrong there. */
function fieldsOf(error: unknown): FieldProblem[] {
  if (typeof error !== 'object' || error === null || !('all' in error)) return []
  if (!Array.isArray(error.all)) return []
  const seen = new Map<string, string>()
  for (const one of error.all as { path?: unknown; message?: unknown; summary?: unknown }[]) {
    const path = typeof one.path === 'string' ? one.path.slice(1).replaceAll('/', '.') : ''
    const field = path === '' && 'type' in error ? String(error.type) : path
    const message = one.summary ?? one.message
    if (!seen.has(field)) seen.set(field, typeof message === 'string' ? message : 'is not valid')
  }
  return [...seen].map(([field, message]) => ({ field, message }))
}
