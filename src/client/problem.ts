/** What a request was refused with: the server's `application/problem+json`, or no answer at all. */

export interface ProblemDetails {
  /** Of HTTP; over the socket also a code of the protocol. 0: there was no answer. */
  readonly status: number
  readonly code: string
  readonly detail: string
  /** Each wrong field of the input. */
  readonly errors?: readonly { readonly field: string; readonly message: string }[]
  /** What a log line of the server is found by. */
  readonly requestId?: string | undefined
}

export class Problem extends Error implements ProblemDetails {
  override readonly name = 'Problem'
  readonly status: number
  readonly code: string
  readonly detail: string
  readonly errors: readonly { readonly field: string; readonly message: string }[]
  readonly requestId: string | undefined
  /** When trying again may help. */
  readonly retryAfterMs: number | undefined

  constructor(
    { status, code, detail, errors = [], requestId }: ProblemDetails,
    options: { readonly retryAfterMs?: number | undefined; readonly cause?: unknown } = {},
  ) {
    super(detail, options.cause === undefined ? undefined : { cause: options.cause })
    this.status = status
    this.code = code
    this.detail = detail
    this.errors = errors
    this.requestId = requestId
    this.retryAfterMs = options.retryAfterMs
  }
}

export async function problemOf(response: Response): Promise<Problem> {
  const { status, statusText } = response
  const seconds = Number(response.headers.get('retry-after') ?? 'none')
  const retryAfterMs = Number.isNaN(seconds) ? undefined : seconds * 1000
  const unknown = { status, code: 'unknown', detail: statusText || `answer ${status}` }
  try {
    const said = (await response.json()) as Partial<ProblemDetails>
    return new Problem({ ...unknown, ...said, status }, { retryAfterMs })
  } catch {
    // A proxy's page, or nothing: the status is all there is.
    return new Problem(unknown, { retryAfterMs })
  }
}

/** Over the socket: a code of the protocol, or of a call the HTTP status (`src/realtime/protocol.ts`). */
export async function refused<T>(call: Promise<T>): Promise<T> {
  try {
    return await call
  } catch (cause) {
    const { code = 0, message = 'no answer' } = cause as { code?: number; message?: string }
    throw new Problem({ status: code, code: 'refused', detail: message }, { cause })
  }
}
