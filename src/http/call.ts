/**
 * `rpc` of a realtime connection: a request to the app's own routes and collections, through the same
 * router and the same gates as any other, by somebody who is known already. The identity travels beside
 * the request, never in it: no header can claim one.
 */
import type { Identity } from '../auth/auth.ts'
import type { Call, Called } from '../realtime/realtime.ts'

/** Who calls, as the gates take it. */
export interface Caller {
  readonly identity: Identity
  /** Limits of visitors count by it. */
  readonly address: string
}

const callers = new WeakMap<Request, Caller>()

/** Undefined: the request came over the network. */
export function callerOf(request: Request): Caller | undefined {
  return callers.get(request)
}

type Fetch = (request: Request) => Response | Promise<Response>

/** Answers that never end, or are a connection's own beginning. */
const notCallable = /^\/(?:connection\/|emulation$|api\/stream$)/

/** Statuses after which the same call may succeed. */
const temporary: ReadonlySet<number> = new Set([429, 503, 504])

/** Of an answer that says nothing better. */
const messageLengthMax = 500

const notAvailable: Called = {
  ok: false,
  error: { code: 108, message: 'not available', temporary: false },
}

export async function callDoors(fetch: Fetch, call: Call): Promise<Called> {
  const request = requestOf(call)
  if (!request) return failure(400, 'the path is malformed')
  if (notCallable.test(new URL(request.url).pathname)) return notAvailable
  callers.set(request, call)
  const response = await fetch(request)
  const type = response.headers.get('content-type') ?? ''
  if (type.startsWith('text/event-stream')) {
    await response.body?.cancel()
    return notAvailable
  }
  const text = textOf(await response.bytes())
  if (text === undefined) return notAvailable
  if (!response.ok) return failure(response.status, messageOf(text, type) || response.statusText)
  if (text === '') return { ok: true, data: 'null' }
  if (isJson(type)) {
    const data = oneLine(text)
    return data === undefined ? failure(502, 'the answer is broken JSON') : { ok: true, data }
  }
  // A text that an own route returns gets its type only on its way to the network.
  return type === '' || type.startsWith('text/')
    ? { ok: true, data: JSON.stringify(text) }
    : notAvailable
}

function requestOf({ method, path, body }: Call): Request | undefined {
  try {
    return new Request(`http://localhost${path}`, {
      method,
      ...(body === undefined
        ? {}
        : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
    })
  } catch {
    return undefined
  }
}

/** Undefined: bytes that are no text. */
function textOf(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    return undefined
  }
}

function isJson(type: string): boolean {
  return /^application\/([\w.+-]+\+)?json\s*(;|$)/i.test(type)
}

/** A reply is one line. Text of our own is; an app's may be laid out, or be no JSON at all. */
function oneLine(text: string): string | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return /[\r\n]/.test(text) ? JSON.stringify(value) : text
  } catch {
    return undefined
  }
}

function failure(code: number, message: string): Called {
  return { ok: false, error: { code, message, temporary: temporary.has(code) } }
}

/** A problem's detail with its fields, or the text of an app's own answer. */
function messageOf(text: string, type: string): string {
  if (!isJson(type)) return text.slice(0, messageLengthMax)
  try {
    const problem = JSON.parse(text) as { detail?: unknown; errors?: unknown } | null
    const detail = typeof problem?.detail === 'string' ? problem.detail : ''
    const errors = Array.isArray(problem?.errors) ? (problem.errors as FieldError[]) : []
    const fields = errors.map(({ field, message }) => `${field} ${message}`).join(', ')
    return fields === '' ? detail : `${detail}: ${fields}`
  } catch {
    return ''
  }
}

interface FieldError {
  readonly field: string
  readonly message: string
}
