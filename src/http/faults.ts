/** Faults as HTTP: one table of statuses, one shape of body (RFC 9457, `application/problem+json`). */
import { toFault, type Fault, type FaultCode } from '../fault.ts'
import type { Visit } from './visit.ts'
import { visitHeaders } from './visit.ts'

const statuses: Record<FaultCode, { readonly status: number; readonly title: string }> = {
  invalid: { status: 400, title: 'Bad Request' },
  unauthenticated: { status: 401, title: 'Unauthorized' },
  denied: { status: 403, title: 'Forbidden' },
  not_found: { status: 404, title: 'Not Found' },
  not_allowed: { status: 405, title: 'Method Not Allowed' },
  conflict: { status: 409, title: 'Conflict' },
  precondition: { status: 412, title: 'Precondition Failed' },
  reused: { status: 422, title: 'Unprocessable Content' },
  too_large: { status: 413, title: 'Content Too Large' },
  too_many: { status: 429, title: 'Too Many Requests' },
  unavailable: { status: 503, title: 'Service Unavailable' },
  overloaded: { status: 503, title: 'Service Unavailable' },
  timeout: { status: 504, title: 'Gateway Timeout' },
  internal: { status: 500, title: 'Internal Server Error' },
}

export function statusOf({ code }: Fault): number {
  return statuses[code].status
}

/** What a client waits after a refusal that says nothing better. */
const retryAfterDefaultS = 1

export function problemResponse(
  thrown: unknown,
  visit: Visit,
  now: number,
  extra: Readonly<Record<string, string>> = {},
): Response {
  const fault = toFault(thrown)
  const { status, title } = statuses[fault.code]
  const problem = {
    type: 'about:blank',
    title,
    status,
    detail: fault.message,
    code: fault.code,
    requestId: visit.id,
    ...(fault.fields ? { errors: fault.fields } : {}),
  }
  return new Response(JSON.stringify(problem), {
    status,
    headers: {
      ...visitHeaders(visit, now),
      'content-type': 'application/problem+json',
      'cache-control': 'no-store',
      // A detail may repeat what was sent: it is JSON, whatever it looks like.
      'x-content-type-options': 'nosniff',
      ...challenge(fault),
      ...retry(fault),
      ...extra,
    },
  })
}

function challenge({ code, message }: Fault): Record<string, string> {
  if (code !== 'unauthenticated') return {}
  const isToken = message.includes('token')
  return { 'www-authenticate': isToken ? 'Bearer error="invalid_token"' : 'Bearer' }
}

function retry({ code, retryAfterMs }: Fault): Record<string, string> {
  if (code !== 'too_many' && code !== 'unavailable' && code !== 'overloaded') return {}
  const seconds = retryAfterMs === undefined ? retryAfterDefaultS : wholeSeconds(retryAfterMs)
  return { 'retry-after': String(seconds) }
}

/** Rounded up, so that waiting them is enough; a microsecond is what sums of fractions are off by. */
export function wholeSeconds(ms: number): number {
  return Math.ceil((ms - 0.001) / 1000)
}
