/**
 * Proxies: a part of somebody else's API, passed on. Decides what may be asked, what is sent, and what comes back.
 *
 *   path and query ─► all allowed? ─► rule ─► cache ─► upstream (budget, one call for all) ─► status and type ─► kept
 *
 * Invariants: where a call goes is the operator's upstream, whatever is in the request: of that only listed parameters,
 * listed paths and listed headers go along. What comes back is a body and its content type, of the listed ones. What
 * one user is answered is another's only if `user` had no say in it.
 *
 * An answer is kept as: length of its content type (1 byte), content type, body.
 */
import type { User } from '../auth/declare.ts'
import type { Cache, CacheEntry, CacheRead } from '../cache/cache.ts'
import { Fault, type FieldProblem } from '../fault.ts'
import { must } from '../lib/assert.ts'
import type { LimitPolicy } from '../limits/limits.ts'
import type { Log } from '../observe/log.ts'
import type { Priority } from './budget-port.ts'
import type { Env } from '../feeds/declare.ts'
import type { ProxyOptions, ProxyRule } from './declare.ts'
import { toldBy } from './told.ts'
import type { Upstream } from './upstream.ts'

/** A declared proxy, checked. Made by the plan. */
export interface ProxyPlan {
  /** `/api/jupiter`, where it is served. */
  readonly path: string
  readonly upstream: string | ((env: Env) => string)
  readonly read: ProxyRule
  readonly budget: string | undefined
  readonly priority: Priority
  /** Parameters, each with what its value must be. */
  readonly query: ReadonlyMap<string, RegExp | undefined>
  /** Below the upstream's path, by parts; undefined: nothing is below. */
  readonly paths: readonly (readonly string[])[] | undefined
  readonly vary: readonly string[]
  readonly isByUser: boolean
  readonly headers: ProxyOptions['headers']
  readonly ttlMs: number
  readonly staleMs: number
  readonly clientMs: number | undefined
  readonly edgeMs: number | undefined
  readonly types: ReadonlySet<string>
  readonly isPrivate: boolean
  readonly timeoutMs: number
  readonly bytesMax: number
  readonly limit: readonly LimitPolicy[] | undefined
}

/** What a request asks for, if it may be asked for at all. */
export interface ProxyPlace {
  /** Below the upstream's path, with its slash: `` or `/price/v3`. */
  readonly rest: string
  /** In one order, however it was asked. */
  readonly query: URLSearchParams
  /** Of the cache, but for what differs from one who asks to the next. */
  readonly key: string
}

export interface Proxies {
  /** `rest`: behind the proxy's path, as it was sent. Faults: `not_found`, `invalid`. */
  place(plan: ProxyPlan, rest: string, search: string): ProxyPlace
  /** Faults: `unauthenticated`, `denied`, `invalid` (headers), `not_found`, `unavailable`, `timeout`. */
  read(
    plan: ProxyPlan,
    place: ProxyPlace,
    who: { readonly user: User | null; readonly headers: Headers },
  ): CacheRead | Promise<CacheRead>
}

export interface ProxiesDeps {
  readonly upstream: Pick<Upstream, 'fetch'>
  readonly cache: Pick<Cache, 'read'>
  readonly env: Env
  readonly now: () => number
  readonly log: Log
}

/** Waiting for the budget and trying again; browsers and balancers give up after a minute. */
const deadlineMs = 30_000

/** Of a header that the answer depends on. */
const varyLengthMax = 256

/** More would have to be one byte longer. */
const typeLengthMax = 255

/** One part of a path: nothing that any server could take for something else. */
const partPattern = /^[A-Za-z0-9_~.:@,+-]{1,256}$/

/** "There is no such thing", in whatever words: our question was as good as the caller's. */
const absent: ReadonlySet<number> = new Set([400, 404, 410, 422])

/** Faults: `invalid`, for an upstream that is none in this environment. */
export function createProxies(deps: ProxiesDeps, plans: readonly ProxyPlan[]): Proxies {
  const { cache, env, log } = deps
  const problems = plans.flatMap((plan) => {
    const problem = upstreamProblem(upstreamOf(plan, env))
    return problem === undefined
      ? []
      : [{ field: `proxies.${plan.path}.upstream`, message: problem }]
  })
  if (problems.length > 0) {
    throw new Fault('invalid', 'the app file has one problem', { fields: problems })
  }

  const sharing = new Map(
    plans.map((plan) => [
      plan,
      {
        tags: [`tag:${plan.path}`],
        policy: { path: plan.path, ttlMs: plan.ttlMs, staleMs: plan.staleMs },
      },
    ]),
  )

  /** `varied`: values of the headers that the answer depends on. */
  const load = async (
    plan: ProxyPlan,
    place: ProxyPlace,
    varied: readonly (string | null)[],
    user: User | null,
  ): Promise<Uint8Array | undefined> => {
    const { budget, priority, timeoutMs, bytesMax, isPrivate } = plan
    let response: Response
    try {
      const headers = new Headers(ownHeaders(plan, env, user))
      for (const [at, name] of plan.vary.entries()) {
        const value = varied[at]
        if (value !== null && value !== undefined) headers.set(name, value)
      }
      response = await deps.upstream.fetch(urlOf(upstreamOf(plan, env), place), {
        ...{ headers, budget, priority, timeoutMs, bytesMax, deadlineMs },
        allowPrivate: isPrivate,
      })
    } catch (error) {
      throw outage(plan, error)
    }
    const { status } = response
    if (absent.has(status)) return undefined
    const type = response.headers.get('content-type') ?? ''
    if (status !== 200) {
      throw new Fault('unavailable', `the upstream answered ${status}`, {
        retryAfterMs: toldBy(response.headers, deps.now()).retryAfterMs,
      })
    }
    if (!isAllowed(plan, type)) {
      log.warn('proxy.type_refused', { proxy: plan.path, type: type.slice(0, typeLengthMax) })
      throw new Fault('unavailable', 'the upstream answered with another type than is passed on')
    }
    return packed(type, await response.bytes())
  }

  /** An old answer bridges whatever it is. What it is is for the operator: it names places that are nobody's business. */
  const outage = (plan: ProxyPlan, cause: unknown): Fault => {
    const fault = cause instanceof Fault ? cause : undefined
    const { retryAfterMs } = fault ?? {}
    switch (fault?.code) {
      case 'timeout':
        return new Fault('timeout', 'the upstream took too long', { cause })
      case 'too_many':
      case 'unavailable':
        return new Fault('unavailable', 'the upstream cannot be asked just now', {
          cause,
          retryAfterMs,
        })
      default:
        log.warn('proxy.failed', { proxy: plan.path, error: cause })
        return new Fault('unavailable', 'the upstream cannot be asked', { cause })
    }
  }

  return {
    place(plan, rest, search) {
      const parts = rest.split('/').slice(1)
      const isServed = rest === '' ? plan.paths === undefined : isListed(plan, parts)
      if (!isServed) throw new Fault('not_found', 'nothing is served at this path')
      const query = queryOf(plan, search)
      return { rest, query, key: `proxy ${plan.path}${rest}?${query.toString()}` }
    },
    read(plan, place, { user, headers: sent }) {
      admit(plan, user, log)
      // What a hit does not need is left to the load.
      const varied = plan.vary.map((name) => variedOf(name, sent))
      const scope = plan.isByUser ? [...varied, user?.id ?? null] : varied
      const key = `${place.key} ${scope.length === 0 ? '[]' : JSON.stringify(scope)}`
      const { tags, policy } = must(sharing.get(plan), () => `${plan.path} is declared`)
      return present(cache.read(key, tags, policy, () => load(plan, place, varied, user)))
    },
  }
}

export function typeOf({ body }: CacheEntry): string {
  return decoder.decode(body.subarray(1, 1 + (body[0] ?? 0)))
}

/** As long as its entry lives. */
export function bodyOf({ body }: CacheEntry): Uint8Array {
  return body.subarray(1 + (body[0] ?? 0))
}

/** Why this can be no upstream; undefined: it can. */
export function upstreamProblem(text: unknown): string | undefined {
  const url = typeof text === 'string' ? URL.parse(text) : null
  if (!url || !/^https?:$/.test(url.protocol)) return 'must be an http: or https: URL'
  if (url.username !== '' || url.password !== '') return 'may have no name or password in it'
  return url.hash === '' ? undefined : 'may have no #'
}

const encoder = new TextEncoder()
const decoder = new TextDecoder()

function packed(type: string, body: Uint8Array): Uint8Array {
  const head = encoder.encode(type)
  const bytes = new Uint8Array(1 + head.length + body.length)
  bytes[0] = head.length
  bytes.set(head, 1)
  bytes.set(body, 1 + head.length)
  return bytes
}

function present(read: CacheRead | Promise<CacheRead>): CacheRead | Promise<CacheRead> {
  if (read instanceof Promise) return read.then(checkPresent)
  return checkPresent(read)
}

function checkPresent(read: CacheRead): CacheRead {
  if (read.entry.isAbsent) throw new Fault('not_found', 'the upstream has no answer to this')
  return read
}

function upstreamOf({ upstream }: ProxyPlan, env: Env): string {
  return typeof upstream === 'function' ? upstream(env) : upstream
}

function urlOf(upstream: string, { rest, query }: ProxyPlace): URL {
  const url = new URL(upstream)
  url.pathname = url.pathname.replace(/\/$/, '') + rest
  for (const [name, value] of query) url.searchParams.set(name, value)
  return url
}

function isListed({ paths }: ProxyPlan, parts: readonly string[]): boolean {
  const isPlain = parts.every((part) => partPattern.test(part) && !/^\.+$/.test(part))
  if (!isPlain || !paths) return false
  return paths.some(
    (path) =>
      path.length === parts.length &&
      path.every((name, at) =>
        name.startsWith('{') ? parts[at] !== undefined : name === parts[at],
      ),
  )
}

/** Faults: `invalid`, naming every parameter that is wrong. */
function queryOf({ query: allowed }: ProxyPlan, search: string): URLSearchParams {
  const problems: FieldProblem[] = []
  const query = new URLSearchParams(search)
  const known = [...allowed.keys()].join(', ')
  for (const name of new Set(query.keys())) {
    const values = query.getAll(name)
    const pattern = allowed.get(name)
    if (!allowed.has(name)) {
      const message = known === '' ? 'is not allowed: none is' : `is not one of ${known}`
      problems.push({ field: name, message })
    } else if (values.length > 1) problems.push({ field: name, message: 'is given more than once' })
    else if (pattern && !pattern.test(values[0] ?? '')) {
      problems.push({ field: name, message: `must match ${pattern.source}` })
    }
  }
  if (problems.length > 0) {
    throw new Fault('invalid', 'the query has parameters that are not allowed', {
      fields: problems,
    })
  }
  query.sort()
  return query
}

/** Faults: `unauthenticated`, `denied`. */
function admit({ read, path }: ProxyPlan, user: User | null, log: Log): void {
  if (read === 'public' || (read === 'signed-in' && user)) return
  if (typeof read === 'function') {
    try {
      // Nothing but true lets in: a rule that forgot to await must not be open to all.
      if (read({ user }) === true) return
    } catch (error) {
      log.error('proxy.rule-threw', { proxy: path, error })
    }
  }
  if (!user) throw new Fault('unauthenticated', 'sign in to read this')
  throw new Fault('denied', 'you may not read this')
}

/** Faults: `invalid`. */
function variedOf(name: string, headers: Headers): string | null {
  const value = headers.get(name)
  if (value === null || value.length <= varyLengthMax) return value
  const message = `is longer than ${varyLengthMax} characters`
  throw new Fault('invalid', 'a header is too long', { fields: [{ field: name, message }] })
}

function ownHeaders({ headers, isByUser }: ProxyPlan, env: Env, user: User | null) {
  if (typeof headers !== 'function') return headers ?? {}
  return headers({ env, user: isByUser ? user : null })
}

function isAllowed({ types }: ProxyPlan, type: string): boolean {
  // Long or strange, it goes into no header of ours.
  if (type.length > typeLengthMax || !/^[\x20-\x7e]+$/.test(type)) return false
  const essence = type.split(';', 1)[0]?.trim().toLowerCase() ?? ''
  return (
    types.has(essence) ||
    (types.has('application/json') && /^application\/[\w.-]+\+json$/.test(essence))
  )
}
