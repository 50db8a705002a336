/**
 * One request on its way through the gates, as every door sees it. Made by the gates (`gates.ts`),
 * once per request; doors read it and answer.
 */
import type { Identity } from '../auth/auth.ts'

export interface Visit {
  /** `X-Request-Id`, also in the log line of whatever goes wrong. */
  readonly id: string
  /** `clock.tick()` when the request arrived. */
  readonly startedAt: number
  readonly identity: Identity
}

/**
 * Translates a request into a call on a room and the outcome into a response. Throws `Fault` for
 * anything else; the gates turn that into `application/problem+json`.
 */
export type Door = (request: Request, visit: Visit) => Response | Promise<Response>

/**
 * A door that reads what its URL names: the part that depends on the URL alone comes first, so that it is done
 * once for a URL that is asked for again (lane.ts). Must not throw before there is a request.
 */
export type ReadDoor = (url: string) => Door

/** On every response. `now` is `clock.tick()`. */
export function visitHeaders(visit: Visit, now: number): Record<string, string> {
  return {
    'x-request-id': visit.id,
    'x-response-time': responseTime(visit, now),
  }
}

/** `0ms`, `0.01ms` … : a hit takes one of these, and printing a fraction costs more than its look-up. */
const shortTimes = Array.from({ length: 1000 }, (_, hundredths) => `${hundredths / 100}ms`)

/** Milliseconds from arrival to answer, as `0.42ms`. */
export function responseTime({ startedAt }: Visit, now: number): string {
  const hundredths = Math.round((now - startedAt) * 100)
  return shortTimes[hundredths] ?? `${hundredths / 100}ms`
}

/** The query string without `?`. `new URL` would cost more than the rest of a cached read. */
export function searchOf(url: string): string {
  const at = url.indexOf('?')
  return at === -1 ? '' : url.slice(at + 1)
}
