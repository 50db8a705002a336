/**
 * One call with all that may become of it: it waits for its budget, is sent, is led on by redirects, is tried again.
 *
 *   try ─► origin's breaker ─► budget ─► source ─► 3xx? the next hop, through breaker, budget and guard again
 *    └── failed, 5xx or 429, and it may be made twice: after a while, the next try
 *
 * Invariant: whatever is sent has taken of the budget, each hop and each try once, because each is counted by whoever
 * limits us; and what a budget gave is given back with its outcome, however it ends.
 */
import { Fault } from '../fault.ts'
import { createBackoff } from '../lib/backoff.ts'
import type { Clock } from '../lib/clock.ts'
import type { Budgets, Grant, Priority } from './budget-port.ts'
import type { KeyHeader } from './declare.ts'
import type { Kept } from './kept.ts'
import type { Origins } from './origins.ts'
import type { Answer, Source } from './source.ts'
import { toldBy } from './told.ts'

export interface Call {
  readonly url: URL
  readonly method: string
  readonly headers: Headers
  readonly body: RequestInit['body']
  readonly redirect: 'follow' | 'manual'
  readonly budget: string | undefined
  readonly deadlineMs: number | undefined
  readonly timeoutMs: number
  readonly bytesMax: number
  readonly retries: number
  readonly isVouched: boolean
  readonly signal: AbortSignal
  priority: Priority
  /** While it waits for its budget: asks again, for somebody more important. */
  raise: ((priority: Priority) => void) | undefined
  /** Taken before, for the first that is sent. */
  grant: Grant | undefined
}

export interface CallDeps {
  readonly clock: Clock
  readonly source: Source
  readonly origins: Origins
  readonly kept: Kept
  readonly budgets: Budgets
  /** By name of the budget. */
  readonly headers: ReadonlyMap<string, KeyHeader>
  readonly random?: (() => number) | undefined
}

/** Until the deadline, if there is one. */
type Left = () => number | undefined

export interface CallStats {
  readonly retries: number
  readonly notModified: number
  readonly bytes: number
}

export interface Caller {
  /** Faults: `unavailable`, `timeout`, `denied`, `too_many`; or what the signal was aborted with. */
  make(call: Call): Promise<Answer>
  stats(): CallStats
}

const hopsMax = 5

/** The first retry soon, so that a connection cut in between costs nobody anything; the rest not much later. */
const retry = { leastMs: 100, mostMs: 2_000 }

/** Whoever wants to be left alone for longer is asked by the next call, not by this one. */
const retryAfterMsMax = 10_000

/** All that another origin than the one it was meant for gets to see: anything else may be a secret. */
const harmless: ReadonlySet<string> = new Set(['accept', 'accept-language', 'user-agent'])

export function createCaller(deps: CallDeps): Caller {
  const { clock, source, origins, kept, budgets } = deps
  const counts = { retries: 0, notModified: 0, bytes: 0 }
  /** Why a budget gave no turn: another try would wait as long. */
  const noTurns = new WeakSet<object>()

  /** The first turn that any of those who wait for this call gets. */
  const takeOf = async (call: Call, name: string, left: Left): Promise<Grant> => {
    if (call.signal.aborted) throw call.signal.reason
    const asks = new AbortController()
    const onAbort = (): void => asks.abort(call.signal.reason)
    call.signal.addEventListener('abort', onAbort)
    const first = Promise.withResolvers<Grant>()
    let waiting = 0
    let hasTurn = false
    const ask = (priority: Priority): void => {
      waiting++
      budgets.take(name, { priority, deadlineMs: left(), signal: asks.signal }).then(
        (grant) => {
          if (hasTurn) return grant.done({ failed: notSent, isOver: true })
          hasTurn = true
          first.resolve(grant)
        },
        (error: Error) => {
          noTurns.add(error)
          if (--waiting === 0) first.reject(error)
        },
      )
    }
    call.raise = ask
    ask(call.priority)
    try {
      return await first.promise
    } finally {
      call.raise = undefined
      call.signal.removeEventListener('abort', onAbort)
      asks.abort(notSent)
    }
  }

  const send = async (call: Call, hop: Hop, nth: number, left: Left): Promise<Answer> => {
    const { url, method } = hop
    const origin = origins.of(url)
    const taken = timely(call.grant)
    call.grant = undefined
    // Before it takes a turn from somebody else, and after: a queue is long enough for a server to go away.
    if (!taken) origin.check()
    const { budget } = call
    const grant = taken ?? (budget === undefined ? undefined : await takeOf(call, budget, left))
    let hasBegun = false
    try {
      origin.enter()
      const headers = new Headers(hop.headers)
      const key = `${method} ${url.href} ${textOf(headers)}`
      const known = method === 'GET' ? kept.ask(key, headers) : undefined
      const isHome = url.origin === call.url.origin
      const init = isHome
        ? withKey(deps, call, grant?.key, { method, headers, body: hop.body })
        : {}
      const answer = await source.send(url, {
        method,
        headers: new Headers(init.headers ?? headers),
        body: init.body ?? hop.body,
        timeoutMs: Math.min(call.timeoutMs, left() ?? Infinity, grant?.timeoutMs ?? Infinity),
        ...{ bytesMax: call.bytesMax, nth, signal: call.signal },
        vouched: call.isVouched ? call.url : undefined,
        onBegun(status, seen) {
          hasBegun = true
          grant?.done({ status, headers: seen })
        },
      })
      origin.answered(answer.status)
      counts.bytes += answer.body.length
      if (method !== 'GET') return answer
      if (answer.status === 304 && known) counts.notModified++
      return kept.settle(key, answer, known)
    } catch (error) {
      // Cut off by us, it may be on its way; ended by others, or never sent, it is not.
      const isCut = call.signal.aborted || (error instanceof Fault && error.code === 'timeout')
      if (!hasBegun) grant?.done({ failed: error, isOver: !isCut })
      // Who gave up says nothing about who was asked; nor does a call that was not made.
      if (!call.signal.aborted && isOutage(error) && !isRefusal(error)) origin.failed()
      throw error
    }
  }

  const follow = async (call: Call, nth: number, left: Left): Promise<Answer> => {
    let hop: Hop = call
    for (let hops = 0; ; hops++) {
      const answer = await send(call, hop, nth, left)
      if (call.redirect === 'manual' || !redirects.has(answer.status)) return answer
      if (hops === hopsMax) {
        throw new Fault('unavailable', `${call.url.host} redirects more than ${hopsMax} times`)
      }
      const next = nextHop(hop, answer)
      if (!next) return answer
      hop = next
    }
  }

  const pause = async (ms: number, signal: AbortSignal): Promise<void> => {
    const over = Promise.withResolvers<void>()
    const onAbort = (): void => over.reject(signal.reason as Error)
    if (signal.aborted) onAbort()
    signal.addEventListener('abort', onAbort)
    const cancel = clock.after(ms, () => over.resolve())
    try {
      await over.promise
    } finally {
      cancel()
      signal.removeEventListener('abort', onAbort)
    }
  }

  return {
    async make(call) {
      const startedAt = clock.tick()
      const left: Left = () =>
        call.deadlineMs === undefined
          ? undefined
          : Math.max(1, call.deadlineMs - (clock.tick() - startedAt))
      const backoff = createBackoff({ ...retry, random: deps.random })
      for (let nth = 0; ; nth++) {
        let answer: Answer | undefined
        let failure: unknown
        try {
          answer = await follow(call, nth, left)
          if (!retried.has(answer.status)) return answer
        } catch (error) {
          if (call.signal.aborted || !isOutage(error) || isRefusal(error)) throw error
          if (noTurns.has(error as Error)) throw error
          failure = error
        }
        const told = answer && toldBy(answer.headers, clock.now())
        const waitMs = Math.max(backoff.next(), told?.retryAfterMs ?? 0)
        const isOver = nth >= call.retries || waitMs > Math.min(retryAfterMsMax, left() ?? Infinity)
        if (isOver) {
          if (answer) return answer
          throw failure
        }
        counts.retries++
        await pause(waitMs, call.signal)
      }
    },
    stats: () => ({ ...counts }),
  }
}

interface Hop {
  readonly url: URL
  readonly method: string
  readonly headers: Headers
  readonly body: RequestInit['body']
}

/** A turn that was held for too long is given back, and another one waited for. */
function timely(grant: Grant | undefined): Grant | undefined {
  if (grant && grant.timeoutMs > 0) return grant
  grant?.done({ failed: notSent, isOver: true })
  return undefined
}

export const notSent = new Fault('unavailable', 'it was not sent')

const redirects: ReadonlySet<number> = new Set([301, 302, 303, 307, 308])
const retried: ReadonlySet<number> = new Set([429, 500, 502, 503, 504])

/** Of the breaker: nobody was asked. */
function isRefusal(error: unknown): boolean {
  return error instanceof Fault && error.retryAfterMs !== undefined
}

function isOutage(error: unknown): boolean {
  return error instanceof Fault && (error.code === 'unavailable' || error.code === 'timeout')
}

/** Faults: `unavailable`, for a place that is none. */
function nextHop({ url, method, headers, body }: Hop, { status, headers: said }: Answer) {
  const location = said.get('location')
  if (location === null) return undefined
  const next = URL.parse(location, url.href)
  if (!next || !/^https?:$/.test(next.protocol)) {
    throw new Fault('unavailable', `${url.host} redirects to what is no http(s) URL`)
  }
  const isAway = next.origin !== url.origin
  const rest = new Headers([...headers].filter(([name]) => !isAway || harmless.has(name)))
  const isGet = status === 303 || (status < 303 && method === 'POST')
  if (!isGet || method === 'HEAD')
    return { url: next, method, headers: rest, body: isAway ? null : body }
  for (const name of ['content-type', 'content-length']) rest.delete(name)
  return { url: next, method: 'GET', headers: rest, body: null }
}

const bearerHeader = 'authorization'

function withKey(
  { headers: places }: CallDeps,
  { budget }: Call,
  key: string | undefined,
  init: { method: string; headers: Headers; body: RequestInit['body'] },
): RequestInit {
  if (budget === undefined || key === undefined) return init
  const place = places.get(budget) ?? bearerHeader
  if (typeof place === 'function') return place(key, init)
  init.headers.set(place, place.toLowerCase() === bearerHeader ? `Bearer ${key}` : key)
  return init
}

/** The same for the same headers, in whatever order they were given. */
export function textOf(headers: Headers): string {
  return [...headers].map(([name, value]) => `${name}: ${value}`).join('\n')
}
