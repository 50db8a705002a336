/**
 * The gates, in one order, written once, before every door:
 *
 *   request id → observe → (overload) → identify → limit → door (which reads the body)
 *
 * In an overload the first thing is whether there is time for it at all: no other gate, no rule and no body is looked at
 * for what is refused then.
 *
 * Whoever shows credentials that are refused too often is not looked at for a while, so that a flood of forged tokens
 * costs no signatures; from however many addresses it comes, `auth` bounds what it may cost in all.
 *
 * Doors answer or throw; here a throw becomes a problem, and what nobody expected is logged with the
 * request id and never shown. Synchronous all the way when the door is: a cached read makes no promise.
 */
import { anonymous, type Auth, type Identity, type Verdict } from '../auth/auth.ts'
import { Fault, faultCodes, toFault } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import type { Credentials, Limiter, LimitPolicy, LimitsDecision } from '../limits/limits.ts'
import type { Log } from '../observe/log.ts'
import type { Metrics, Observe } from '../observe/metrics.ts'
import type { Priority } from '../overload/declare.ts'
import type { Overload, Queue } from '../overload/overload.ts'
import { callerOf } from './call.ts'
import { problemResponse, wholeSeconds } from './faults.ts'
import { createRefusal } from './refusal.ts'
import type { Door, Visit } from './visit.ts'

/** Longer URLs are refused before anything looks at them. Bun itself refuses headers above 16 KB. */
const urlLengthMax = 8192

export interface GateDeps {
  readonly auth: Auth
  readonly clock: Clock
  readonly log: Log
  readonly metrics: Metrics
  readonly limiter: Limiter
  readonly overload: Pick<Overload, 'isShedding' | 'admits' | 'begin' | 'end'>
  /** For whoever has no identity to count by. */
  readonly addressOf: (request: Request) => string
  readonly credentials: Credentials
}

export interface Entry {
  /** Names the door in metrics: a pattern, never a path. */
  readonly route: string
  readonly door: Door
  readonly policies?: readonly LimitPolicy[] | undefined
  /** In an overload; left out: always answered. */
  readonly priority?: Priority | 'connection' | undefined
  /** What its answer has to wait for, beyond a turn of the event loop. */
  readonly queue?: Queue | undefined
}

/** Through the gates to a door: the entry's, or the same one with its URL already taken apart. */
export type Enter = (request: Request, door?: Door) => Response | Promise<Response>

export type Gate = (entry: Entry) => Enter

export function createGate(deps: GateDeps): Gate {
  const { auth, clock, log, metrics, limiter, overload, addressOf, credentials } = deps

  // Unique across restarts and nodes without a random number per request.
  const nextId = createIds(`${crypto.randomUUID().slice(0, 8)}-`)
  const refusal = createRefusal()

  const observed = ({ observe }: Observed, visit: Visit, response: Response): Response => {
    const now = clock.tick()
    overload.end(now)
    observe(response.status, now - visit.startedAt)
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

  const enterLimited = (
    entry: Observed,
    request: Request,
    visit: Visit,
    door: Door,
    decision: LimitsDecision,
  ): Response | Promise<Response> => {
    const headers = limitHeaders(decision)
    if (!decision.ok) return refuse(entry, visit, tooMany(decision), headers)
    try {
      const answer = door(request, visit)
      if (answer instanceof Promise) return settle(entry, visit, answer, headers)
      for (const name in headers) answer.headers.set(name, headers[name] ?? '')
      return observed(entry, visit, answer)
    } catch (thrown) {
      return refuse(entry, visit, thrown, headers)
    }
  }

  /** Beyond "who is it": the limits, then the door. */
  const proceed = (
    entry: Observed,
    request: Request,
    visit: Visit,
    door: Door,
  ): Response | Promise<Response> => {
    const { policies } = entry
    if (policies && visit.identity.kind !== 'key') {
      const asks = policies.map((policy) => ({ policy, key: callerKey(policy, request, visit) }))
      const decision = limiter.take(asks)
      return decision instanceof Promise
        ? decision.then((one) => enterLimited(entry, request, visit, door, one))
        : enterLimited(entry, request, visit, door, decision)
    }
    const answer = door(request, visit)
    return answer instanceof Promise ? settle(entry, visit, answer) : observed(entry, visit, answer)
  }

  const callerKey = ({ by }: LimitPolicy, request: Request, { identity }: Visit): string => {
    const name = by === 'address' ? undefined : nameOf(identity)
    return name ?? `address:${addressOf(request)}`
  }

  const isGuarded = (request: Request, now: number): boolean =>
    credentials.isOnGuard(now) &&
    !callerOf(request) &&
    (request.headers.has('authorization') || request.headers.has('x-api-key'))

  /** Faults: `too_many`, `unauthenticated`. */
  const notAdmitted = async ({ reason, message }: Refusal, request: Request): Promise<never> => {
    if (reason === 'expired') throw new Fault('unauthenticated', message)
    const decision = await credentials.refused(addressOf(request))
    throw decision.ok ? new Fault('unauthenticated', message) : tooMany(decision)
  }

  const proceedOnce = async (
    verdict: Promise<Verdict> | Verdict,
    entry: Observed,
    request: Request,
    visit: Mutable<Visit>,
    door: Door,
  ): Promise<Response> => {
    try {
      const known = await verdict
      if (!known.ok) return await notAdmitted(known, request)
      visit.identity = known.identity
      return await proceed(entry, request, visit, door)
    } catch (thrown) {
      return refuse(entry, visit, thrown)
    }
  }

  const isRefused = ({ priority, queue = 'loop' }: Entry, now: number): boolean =>
    priority !== undefined && !overload.admits(priority, queue, now)

  const enter = (entry: Observed, request: Request, door: Door): Response | Promise<Response> => {
    const visit: Mutable<Visit> = {
      id: nextId(),
      startedAt: clock.tick(),
      identity: anonymous,
    }
    overload.begin(visit.startedAt)
    if (overload.isShedding && isRefused(entry, visit.startedAt)) {
      return observed(entry, visit, refusal(visit.id))
    }
    try {
      if (request.url.length > urlLengthMax) {
        throw new Fault('too_large', `the URL is longer than ${urlLengthMax} characters`)
      }
      if (isGuarded(request, visit.startedAt)) {
        const decision = credentials.blocked(addressOf(request))
        if (decision) throw tooMany(decision)
      }
      const verdict = identify(auth, request, addressOf)
      if (verdict instanceof Promise || !verdict.ok) {
        return proceedOnce(verdict, entry, request, visit, door)
      }
      visit.identity = verdict.identity
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

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

/** Whoever has none counts by address. */
function nameOf(identity: Identity): string | undefined {
  if (identity.user) return `user:${identity.user.id}`
  return identity.kind === 'scoped' ? `key:${identity.key}` : undefined
}

type Refusal = Extract<Verdict, { readonly ok: false }>

const visitor: Verdict = { ok: true, identity: anonymous }

function identify(
  auth: Auth,
  request: Request,
  addressOf: GateDeps['addressOf'],
): Verdict | Promise<Verdict> {
  const caller = callerOf(request)
  if (caller) return { ok: true, identity: caller.identity }
  const { headers } = request
  const authorization = headers.get('authorization')
  if (authorization !== null) {
    const token = tokenIn(authorization)
    if (token !== undefined) return auth.identify(token, () => addressOf(request))
    return { ok: false, reason: 'invalid', message: 'authorization must be: Bearer <token>' }
  }
  const key = headers.get('x-api-key')
  return key === null ? visitor : auth.identifyKey(key)
}

/** As nearly everybody writes it, without a pattern: a token of any spelling but one is refused anyway. */
function tokenIn(authorization: string): string | undefined {
  const isPlain = authorization.startsWith('Bearer ') && authorization[7] !== ' '
  return isPlain ? authorization.slice(7) : /^bearer +(\S+)$/i.exec(authorization)?.[1]
}

export function tooMany({ verdicts }: LimitsDecision): Fault {
  const refusing = verdicts.filter(({ ok, policy }) => !ok && policy.isShadow !== true)
  const names = refusing.map(({ policy }) => `${policy.quota} (${policy.name})`)
  return new Fault('too_many', `more requests of this kind than ${names.join(' and ')}`, {
    retryAfterMs: Math.max(...refusing.map(({ resetMs }) => resetMs)),
  })
}

/** IETF draft-ietf-httpapi-ratelimit-headers-10; seconds are rounded up, so that waiting them is enough. */
function limitHeaders({ verdicts }: LimitsDecision): Headers {
  let [policies, states] = ['', '']
  for (const { policy, left, resetMs } of verdicts) {
    if (policy.isShadow === true) continue
    const comma = policies === '' ? '' : ', '
    policies += `${comma}"${policy.name}";q=${policy.quota};w=${Math.ceil(policy.windowMs / 1000)}`
    states += `${comma}"${policy.name}";r=${left};t=${wholeSeconds(resetMs)}`
  }
  return policies === '' ? {} : { 'ratelimit-policy': policies, ratelimit: states }
}
