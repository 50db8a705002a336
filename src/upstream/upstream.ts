/**
 * Upstream: what other people's servers are asked, how often and how safely. Everything in the process that asks one
 * (feeds, proxies) asks through here.
 *
 *   fetch ─► somebody asks the same already? ─ join ────────────────────────────────► its answer, a Response for each
 *         └─ no ─► call (call.ts): breaker ─► budget ─► source ─► redirects, retries ─► kept, if it has a validator
 *
 * Invariants: equal GETs in flight or in the queue are one call, made until the last who wants it is gone; nobody
 * waits longer than it said; an answer is whole and at most `bytesMax`, or there is none; nothing is connected to that
 * was not checked (guard.ts), unless the operator wrote where it goes.
 *
 * Limits: answers are held in memory, 8 MiB each by default. No streaming (stream.ts follows those that never end). Bun
 * 1.4.5 has 256 requests under way in one process (`BUN_CONFIG_MAX_HTTP_REQUESTS`); the rest wait, and their time runs.
 */
import { Fault } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import type { Service } from '../lib/service.ts'
import type { Log } from '../observe/log.ts'
import { version } from '../version.ts'
import {
  priorities,
  type BudgetAsk,
  type BudgetPlan,
  type Budgets,
  type Grant,
  type Priority,
} from './budget-port.ts'
import { createCaller, notSent, textOf, type Call, type CallStats } from './call.ts'
import type { UpstreamInit } from './declare.ts'
import { createGuard, type GuardDeps } from './guard.ts'
import { createKept } from './kept.ts'
import { createOrigins, type OriginStats } from './origins.ts'
import { createSource, type Answer } from './source.ts'

export type { BudgetPlan, BudgetQuota, Budgets, BudgetStats, Priority } from './budget-port.ts'
export { createBudgets } from './budget.ts'
export { isPublicAddress } from './guard.ts'
export { budgetGauges, upstreamGauges } from './gauges.ts'
export {
  bodyOf,
  createProxies,
  typeOf,
  upstreamProblem,
  type Proxies,
  type ProxyPlace,
  type ProxyPlan,
} from './proxy.ts'
export { createFollower, type Follower, type Send, type StreamOptions } from './stream.ts'

export interface Upstream extends Service {
  /**
   * As `fetch`, but that the answer is whole when it comes, is bounded, and is shared with whoever asks the same.
   * Faults: `unavailable`, `timeout`, `denied` (where nobody may go), `too_large`, `too_many` (the budget's queue).
   */
  fetch(url: string | URL, init?: UpstreamInit, turn?: Turn): Promise<Response>
  /** Waits for a turn before it is decided what to ask. Faults: `too_many`, `timeout`; or as the signal was aborted. */
  turn(budget: string, ask: BudgetAsk): Promise<Turn>
  stats(): UpstreamStats
}

/** Leave for one call under a budget: the first that a `fetch` with it makes. */
export interface Turn {
  /** It is not used after all. After it was, nothing. */
  drop(): void
}

export interface UpstreamStats extends CallStats {
  /** Answered by a call that another had begun. */
  readonly coalesced: number
  readonly inFlight: number
  readonly origins: readonly OriginStats[]
}

export interface UpstreamDeps extends GuardDeps {
  readonly clock: Clock
  readonly log: Log
  readonly budgets: Budgets
  /** Certificates to trust instead of the system's; for tests. */
  readonly ca?: string
  /** 0 to 1; tests pin it. */
  readonly random?: () => number
}

const timeoutDefaultMs = 10_000
const bytesDefaultMax = 8 * 1024 * 1024
const retriesDefault = 2

/** Twice is the same as once. */
const idempotent: ReadonlySet<string> = new Set(['GET', 'HEAD', 'PUT', 'DELETE', 'OPTIONS'])

/** Statuses that have no body, not even an empty one. */
const bodiless: ReadonlySet<number> = new Set([101, 204, 205, 304])

/** Of the connection, not of the answer; and what described the bytes as they were sent. */
const notPassedOn = [
  ...['connection', 'keep-alive', 'proxy-authenticate', 'proxy-connection', 'te', 'trailer'],
  ...['transfer-encoding', 'upgrade', 'content-encoding', 'content-length'],
]

interface Flight {
  readonly call: Call
  readonly abort: AbortController
  readonly answer: Promise<Answer>
  waiting: number
}

export function createUpstream(deps: UpstreamDeps, plans: readonly BudgetPlan[]): Upstream {
  const { clock } = deps
  const origins = createOrigins(deps)
  const caller = createCaller({
    ...{ clock, origins, budgets: deps.budgets, random: deps.random },
    source: createSource({ clock, guard: createGuard(deps), ca: deps.ca }),
    kept: createKept(),
    headers: new Map(plans.map(({ name, header }) => [name, header])),
  })
  const turns = new WeakMap<Turn, Grant>()
  const flights = new Map<string, Flight>()
  const alone = new Set<Flight>()
  let coalesced = 0
  let isStopped = false

  const depart = (call: Omit<Call, 'signal'>, key: string | undefined): Flight => {
    const abort = new AbortController()
    const whole: Call = Object.assign(call, { signal: abort.signal })
    const flight: Flight = { call: whole, abort, answer: caller.make(whole), waiting: 0 }
    if (key === undefined) alone.add(flight)
    else flights.set(key, flight)
    const land = (): void => {
      alone.delete(flight)
      if (key !== undefined && flights.get(key) === flight) flights.delete(key)
    }
    flight.answer.then(land, land)
    return flight
  }

  /** Until it is there or this one has had enough; whoever leaves last ends it. */
  const wait = async (flight: Flight, signal: AbortSignal | undefined): Promise<Answer> => {
    flight.waiting++
    const left = Promise.withResolvers<never>()
    const onAbort = (): void => left.reject(signal?.reason as Error)
    if (signal?.aborted) onAbort()
    signal?.addEventListener('abort', onAbort)
    try {
      return await (signal ? Promise.race([flight.answer, left.promise]) : flight.answer)
    } finally {
      signal?.removeEventListener('abort', onAbort)
      if (--flight.waiting === 0) flight.abort.abort(nobody)
    }
  }

  return {
    async fetch(url, init = {}, turn) {
      if (isStopped) throw new Fault('unavailable', 'the server stops')
      const { signal } = init
      if (signal?.aborted) throw signal.reason
      const call = callOf(url, init)
      const key = keyOf(call)
      const joined = key === undefined ? undefined : flights.get(key)
      if (joined && !joined.abort.signal.aborted) {
        coalesced++
        raise(joined.call, call.priority)
        return responseOf(await wait(joined, signal ?? undefined))
      }
      const grant = turn && turns.get(turn)
      if (turn) turns.delete(turn)
      return responseOf(await wait(depart({ ...call, grant }, key), signal ?? undefined))
    },
    async turn(budget, ask) {
      const turn: Turn = {
        drop() {
          const grant = turns.get(turn)
          turns.delete(turn)
          grant?.done({ failed: notSent, isOver: true })
        },
      }
      turns.set(turn, await deps.budgets.take(budget, ask))
      return turn
    },
    stats: () => ({
      ...caller.stats(),
      coalesced,
      inFlight: flights.size + alone.size,
      origins: origins.stats(),
    }),
    async stop() {
      isStopped = true
      const left = [...flights.values(), ...alone]
      for (const { abort } of left) abort.abort(new Fault('unavailable', 'the server stops'))
      await Promise.allSettled(left.map(({ answer }) => answer))
    },
  }
}

const nobody = new Fault('unavailable', 'nobody waits for it any more')

/** Faults: `invalid`, for a URL that is none. */
function callOf(text: string | URL, init: UpstreamInit): Omit<Call, 'signal'> {
  const url = URL.parse(String(text))
  // Bun's own fetch reads files and more.
  if (!url || !/^https?:$/.test(url.protocol)) {
    throw new Fault('invalid', 'an upstream is asked by an http: or https: URL')
  }
  url.hash = ''
  const method = (init.method ?? 'GET').toUpperCase()
  const headers = new Headers(init.headers)
  if (!headers.has('user-agent')) headers.set('user-agent', `belfry/${version}`)
  return {
    ...{ url, method, headers, body: init.body, raise: undefined, grant: undefined },
    redirect: init.redirect === 'manual' ? 'manual' : 'follow',
    budget: init.budget,
    deadlineMs: init.deadlineMs,
    timeoutMs: init.timeoutMs ?? timeoutDefaultMs,
    bytesMax: init.bytesMax ?? bytesDefaultMax,
    retries: isRepeatable(method, init.body) ? (init.retries ?? retriesDefault) : 0,
    isVouched: init.allowPrivate === true,
    priority: init.priority ?? 'normal',
  }
}

/** Whether it may be made twice, and can be: a stream is read once. */
function isRepeatable(method: string, body: RequestInit['body']): boolean {
  return idempotent.has(method) && !(body instanceof ReadableStream)
}

/** All that the answer may depend on, and how it is got; undefined for a call that nobody else may have. */
function keyOf(call: Omit<Call, 'signal'>): string | undefined {
  if (call.method !== 'GET' || (call.body !== undefined && call.body !== null)) return undefined
  const { url, budget, deadlineMs, timeoutMs, bytesMax, retries, isVouched, redirect } = call
  const how = [budget, deadlineMs, timeoutMs, bytesMax, retries, isVouched, redirect]
  return `${JSON.stringify(how)} ${url.href}\n${textOf(call.headers)}`
}

/** Somebody more important has joined. */
function raise(call: Call, priority: Priority): void {
  if (priorities.indexOf(priority) >= priorities.indexOf(call.priority)) return
  call.priority = priority
  call.raise?.(priority)
}

function responseOf({ status, headers, body }: Answer): Response {
  const passed = new Headers(headers)
  for (const name of notPassedOn) passed.delete(name)
  return new Response(bodiless.has(status) ? null : body, { status, headers: passed })
}
