/**
 * The gates, in one order, written once, before every door:
 *
 *   request id → observe → identify → limit → door
 *
 * Doors answer or throw; here a throw becomes a problem, and what nobody expected is logged with the
 * request id and never shown. Synchronous all the way when the door is: a cached read makes no promise.
 */
import { anonymous, type Auth, type Identity, type Verdict } from '../auth/auth.ts'
import { Fault, faultCodes, toFault } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import type { LimitDecision, Limits } from '../limits/limits.ts'
import type { Log } from '../observe/log.ts'
import type { Metrics, Observe } from '../observe/metrics.ts'
import { callerOf } from './call.ts'
import { problemResponse } from './faults.ts'
import type { Door, Visit } from './visit.ts'

/** Longer URLs are refused before anything looks at them. Bun itself refuses headers above 16 KB. */
const urlLengthMax = 8192

export interface GateDeps {
  readonly auth: Auth
  readonly clock: Clock
  readonly log: Log
  readonly metrics: Metrics
  /** The peer's address, for whoever has no identity to count by. */
  readonly addressOf: (request: Request) => string
}

export interface Entry {
  /** Names the door in metrics: a pattern, never a path. */
  readonly route: string
  readonly door: Door
  readonly limits?: Limits | undefined
}

/** Through the gates to a door: the entry's, or the same one with its URL already taken apart. */
export type Enter = (request: Request, door?: Door) => Response | Promise<Response>

export type Gate = (entry: Entry) => Enter

export function createGate({ auth, clock, log, metrics, addressOf }: GateDeps): Gate {
  // Unique across restarts and nodes without a random number per request.
  const nextId = createIds(`${crypto.randomUUID().slice(0, 8)}-`)

  const observed = ({ observe }: Observed, visit: Visit, response: Response): Response => {
    observe(response.status, clock.tick() - visit.startedAt)
    return response
  }

  const refuse = (entry: Observed, visit: Visit, thrown: unknown, extra?: Headers): Response => {
    const fault = toFault(thrown)
    const { level } = faultCodes[fault.code]
    if (level !== 'debug') {
      log[level]('http.fault', { requestId: visit.id, route: entry.route, error: thrown })
    }
    return observed(entry, visit, problemResponse(fault, visit, clock.tick(), extra))
  }

  const settle = async (
    entry: Observed,
    visit: Visit,
    answer: Promise<Response>,
    extra?: Headers,
  ): Promise<Response> => {
    try {
      const response = await answer
      for (const name in extra) response.headers.set(name, extra[name] ?? '')
      return observed(entry, visit, response)
    } catch (thrown) {
      return refuse(entry, visit, thrown, extra)
    }
  }

  const limited = (
    entry: Observed,
    limits: Limits,
    request: Request,
    visit: Visit,
    door: Door,
  ): Response | Promise<Response> => {
    const { user } = visit.identity
    const decision = limits.take(user ? `user:${user.id}` : `address:${addressOf(request)}`)
    const headers = limitHeaders(limits, decision)
    if (decision.ok) return settle(entry, visit, answerOf(door, request, visit), headers)
    const text = `more than ${limits.policy.quota} requests of this kind`
    const fault = new Fault('too_many', text, { retryAfterMs: decision.resetMs })
    return refuse(entry, visit, fault, headers)
  }

  /** Beyond "who is it": the limit, then the door. */
  const proceed = (
    entry: Observed,
    request: Request,
    visit: Visit,
    door: Door,
  ): Response | Promise<Response> => {
    const { limits } = entry
    if (limits && visit.identity.kind !== 'key') {
      return limited(entry, limits, request, visit, door)
    }
    const answer = door(request, visit)
    return answer instanceof Promise ? settle(entry, visit, answer) : observed(entry, visit, answer)
  }

  const proceedOnce = async (
    verdict: Promise<Verdict>,
    entry: Observed,
    request: Request,
    visit: Mutable<Visit>,
    door: Door,
  ): Promise<Response> => {
    try {
      visit.identity = admitted(await verdict)
      return await proceed(entry, request, visit, door)
    } catch (thrown) {
      return refuse(entry, visit, thrown)
    }
  }

  const enter = (entry: Observed, request: Request, door: Door): Response | Promise<Response> => {
    const visit: Mutable<Visit> = {
      id: nextId(),
      startedAt: clock.tick(),
      identity: anonymous,
    }
    try {
      if (request.url.length > urlLengthMax) {
        throw new Fault('too_large', `the URL is longer than ${urlLengthMax} characters`)
      }
      const verdict = identify(auth, request)
      if (verdict instanceof Promise) return proceedOnce(verdict, entry, request, visit, door)
      visit.identity = admitted(verdict)
      return proceed(entry, request, visit, door)
    } catch (thrown) {
      return refuse(entry, visit, thrown)
    }
  }

  return (entry) => {
    const observe = metrics.route(entry.route)
    const observed: Observed = { ...entry, observe }
    return (request, door = entry.door) => enter(observed, request, door)
  }
}

/** `000` to `999`: printing a new number each time costs 0.4 µs. */
const thousand = Array.from({ length: 1000 }, (_, n) => String(n).padStart(3, '0'))

/** `prefix` and a number counted up from 1. */
function createIds(prefix: string): () => string {
  let thousands = 0
  let head = prefix
  let next = 0
  return () => {
    next++
    if (next === 1000) {
      next = 0
      head = prefix + ++thousands
    }
    return thousands === 0 ? prefix + next : head + (thousand[next] ?? '')
  }
}

interface Observed extends Entry {
  readonly observe: Observe
}

type Headers = Readonly<Record<string, string>>

/** A door that throws at once rejects, like one that throws later. */
async function answerOf(door: Door, request: Request, visit: Visit): Promise<Response> {
  return await door(request, visit)
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

const visitor: Verdict = { ok: true, identity: anonymous }

function identify(auth: Auth, request: Request): Verdict | Promise<Verdict> {
  const caller = callerOf(request)
  if (caller) return { ok: true, identity: caller.identity }
  const { headers } = request
  const authorization = headers.get('authorization')
  if (authorization !== null) {
    const token = /^bearer +(\S+)$/i.exec(authorization)?.[1]
    if (token !== undefined) return auth.identify(token)
    return { ok: false, reason: 'invalid', message: 'authorization must be: Bearer <token>' }
  }
  const key = headers.get('x-api-key')
  return key === null ? visitor : auth.identifyKey(key)
}

function admitted(verdict: Verdict): Identity {
  if (verdict.ok) return verdict.identity
  throw new Fault('unauthenticated', verdict.message)
}

/** IETF draft-ietf-httpapi-ratelimit-headers-10; seconds are rounded up, so that waiting them is enough. */
function limitHeaders({ policy }: Limits, { left, resetMs }: LimitDecision): Headers {
  return {
    'ratelimit-policy': `"${policy.name}";q=${policy.quota};w=${Math.ceil(policy.windowMs / 1000)}`,
    ratelimit: `"${policy.name}";r=${left};t=${Math.ceil(resetMs / 1000)}`,
  }
}
