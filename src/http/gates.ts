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
import type { Limits } from '../limits/limits.ts'
import type { Log } from '../observe/log.ts'
import type { Metrics } from '../observe/metrics.ts'
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

/** `route` names the door in metrics: a pattern, never a path. */
export type Gate = (
  route: string,
  door: Door,
  limits?: Limits,
) => (request: Request) => Response | Promise<Response>

export function createGate({ auth, clock, log, metrics, addressOf }: GateDeps): Gate {
  // Unique across restarts and nodes without a random number per request.
  const idPrefix = `${crypto.randomUUID().slice(0, 8)}-`
  let lastId = 0

  const refuse = (route: string, visit: Visit, thrown: unknown, extra?: Record<string, string>) => {
    const fault = toFault(thrown)
    const { level } = faultCodes[fault.code]
    if (level !== 'debug') log[level]('http.fault', { requestId: visit.id, route, error: thrown })
    const response = problemResponse(fault, visit, clock.tick(), extra)
    metrics.request(route, response.status, clock.tick() - visit.startedAt)
    return response
  }

  const observed = (route: string, visit: Visit, response: Response): Response => {
    metrics.request(route, response.status, clock.tick() - visit.startedAt)
    return response
  }

  /** Beyond "who is it": limit, then the door. */
  const proceed = (
    route: string,
    door: Door,
    limits: Limits | undefined,
    request: Request,
    visit: Visit,
  ): Response | Promise<Response> => {
    if (limits && visit.identity.kind !== 'key') {
      const { user } = visit.identity
      const decision = limits.take(user ? `user:${user.id}` : `address:${addressOf(request)}`)
      const headers = limitHeaders(limits, decision.left, decision.resetMs)
      if (!decision.ok) {
        const fault = new Fault(
          'too_many',
          `more than ${limits.policy.quota} requests of this kind`,
          {
            retryAfterMs: decision.resetMs,
          },
        )
        return refuse(route, visit, fault, headers)
      }
      return settle(route, visit, enter(door, request, visit), headers)
    }
    const answer = door(request, visit)
    return answer instanceof Promise ? settle(route, visit, answer) : observed(route, visit, answer)
  }

  const enter = async (door: Door, request: Request, visit: Visit): Promise<Response> =>
    await door(request, visit)

  const settle = (
    route: string,
    visit: Visit,
    answer: Promise<Response>,
    extra?: Record<string, string>,
  ): Promise<Response> =>
    answer.then(
      (response) => {
        for (const name in extra) response.headers.set(name, extra[name] ?? '')
        return observed(route, visit, response)
      },
      (thrown: unknown) => refuse(route, visit, thrown, extra),
    )

  return (route, door, limits) => (request) => {
    const visit: Mutable<Visit> = {
      id: idPrefix + ++lastId,
      startedAt: clock.tick(),
      identity: anonymous,
    }
    try {
      if (request.url.length > urlLengthMax) {
        throw new Fault('too_large', `the URL is longer than ${urlLengthMax} characters`)
      }
      const verdict = identify(auth, request)
      if (verdict instanceof Promise) {
        return settleVerdict(verdict, route, door, limits, request, visit)
      }
      visit.identity = admitted(verdict)
      return proceed(route, door, limits, request, visit)
    } catch (thrown) {
      return refuse(route, visit, thrown)
    }
  }

  async function settleVerdict(
    verdict: Promise<Verdict>,
    route: string,
    door: Door,
    limits: Limits | undefined,
    request: Request,
    visit: Mutable<Visit>,
  ): Promise<Response> {
    try {
      visit.identity = admitted(await verdict)
      return await proceed(route, door, limits, request, visit)
    } catch (thrown) {
      return refuse(route, visit, thrown)
    }
  }
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

const visitor: Verdict = { ok: true, identity: anonymous }

function identify(auth: Auth, request: Request): Verdict | Promise<Verdict> {
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
function limitHeaders({ policy }: Limits, left: number, resetMs: number): Record<string, string> {
  return {
    'ratelimit-policy': `"${policy.name}";q=${policy.quota};w=${Math.ceil(policy.windowMs / 1000)}`,
    ratelimit: `"${policy.name}";r=${left};t=${Math.ceil(resetMs / 1000)}`,
  }
}
