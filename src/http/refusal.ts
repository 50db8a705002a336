/**
 * The answer to whoever cannot be served just now. There are a hundred thousand of them when there is one: its bytes and
 * headers are made beforehand, and it takes what `new Response` takes.
 */
import type { Fault } from '../fault.ts'

/** So that those who are refused together do not come back together. Seconds. */
const retryAfterS = [2, 3, 4, 5] as const

const body = JSON.stringify({
  type: 'about:blank',
  title: 'Service Unavailable',
  status: 503,
  detail: 'more is asked of the server than it can do: try again later',
  code: 'overloaded' satisfies Fault['code'],
})

export function createRefusal(): (requestId: string) => Response {
  const ready = retryAfterS.map((seconds) => ({
    status: 503,
    headers: new Headers({
      // First, because it is looked for each time.
      'x-request-id': '',
      'content-type': 'application/problem+json',
      'cache-control': 'no-store',
      'retry-after': String(seconds),
      'x-content-type-options': 'nosniff',
      'x-response-time': '0ms',
    }),
  }))
  let next = 0
  return (requestId) => {
    const init = ready[next++ % ready.length]
    init?.headers.set('x-request-id', requestId)
    return new Response(body, init)
  }
}
