/**
 * One exchange with somebody else's server: to a place that was checked, answered within a time, read up to a size.
 *
 *   send ─► guard (unless the operator vouches) ─► connection, kept alive by Bun ─► headers ─► body, cut at `bytesMax`
 *
 * Invariants: what is being read is cut while it comes, so that memory is bounded by `bytesMax` whatever is sent
 * (compressed, too); redirects are not followed here; failures are `Fault`s that name the host and never the rest of
 * the URL, which may hold a key, so errors of Bun's `fetch` are not passed on either.
 *
 * Bun 1.4.5, measured: `tls.serverName` is both SNI and the name that the certificate must have, and connections that
 * are kept are told apart by it; the Host header changes neither. So connecting to an address keeps both.
 */
import { Fault } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import type { Guard } from './guard.ts'

export interface Exchange {
  readonly method: string
  readonly headers: Headers
  readonly body: RequestInit['body']
  /** Name resolution, connection, headers and body together. */
  readonly timeoutMs: number
  readonly bytesMax: number
  /** What the operator wrote, and vouches for: its host may be anywhere, and if it is private, so may what it leads to. */
  readonly vouched: URL | undefined
  /** Of several addresses, another one for each try. */
  readonly nth: number
  readonly signal: AbortSignal
  /** Its answer has begun. */
  readonly onBegun: (status: number, headers: Headers) => void
}

export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly body: Uint8Array<ArrayBuffer>
}

export interface Source {
  /** Faults: `unavailable`, `timeout`, `denied`, `too_large`; or what the signal was aborted with. */
  send(url: URL, exchange: Exchange): Promise<Answer>
}

export interface SourceDeps {
  readonly clock: Clock
  readonly guard: Guard
  /** Certificates to trust instead of the system's. */
  readonly ca?: string | undefined
}

export function createSource({ clock, guard, ca }: SourceDeps): Source {
  /** Somebody else's server does not lead into our network. */
  const isVouched = async ({ hostname }: URL, { vouched }: Exchange): Promise<boolean> => {
    if (!vouched) return false
    return hostname === vouched.hostname || !(await guard.isPublic(vouched))
  }

  const request = async (url: URL, exchange: Exchange, signal: AbortSignal): Promise<Answer> => {
    const { method, headers, body, bytesMax } = exchange
    const place = (await isVouched(url, exchange))
      ? undefined
      : await guard.check(url, exchange.nth)
    const target = new URL(url)
    if (place) {
      headers.set('host', url.host)
      target.hostname = place.address.includes(':') ? `[${place.address}]` : place.address
    }
    const response = await fetch(target, {
      method,
      headers,
      body: body ?? null,
      redirect: 'manual',
      signal,
      tls: { ...(ca === undefined ? {} : { ca }), ...serverNameOf(place?.serverName) },
    })
    exchange.onBegun(response.status, response.headers)
    return {
      status: response.status,
      headers: response.headers,
      body: await readUpTo(response, bytesMax, url.host),
    }
  }

  return {
    async send(url, exchange) {
      const abort = new AbortController()
      const end = Promise.withResolvers<never>()
      end.promise.catch(() => {})
      const stop = (reason: Error): void => {
        abort.abort(reason)
        end.reject(reason)
      }
      const { timeoutMs, signal } = exchange
      const onAbort = (): void => stop(signal.reason as Error)
      if (signal.aborted) throw signal.reason
      signal.addEventListener('abort', onAbort)
      const cancel = clock.after(timeoutMs, () =>
        stop(new Fault('timeout', `${url.host} took over ${timeoutMs} ms`)),
      )
      try {
        return await Promise.race([request(url, exchange, abort.signal), end.promise])
      } catch (error) {
        // Bun tells of the abort in its own words.
        const failure = abort.signal.aborted ? abort.signal.reason : faultOf(url, error)
        // Whatever is still being read is of no use to anybody.
        abort.abort()
        throw failure
      } finally {
        cancel()
        signal.removeEventListener('abort', onAbort)
      }
    },
  }
}

function serverNameOf(serverName: string | undefined): { serverName?: string } {
  return serverName === undefined ? {} : { serverName }
}

/** Faults: `too_large`; the rest is not read. */
async function readUpTo(
  response: Response,
  bytesMax: number,
  host: string,
): Promise<Uint8Array<ArrayBuffer>> {
  const tooLarge = () => new Fault('too_large', `${host} answered more than ${bytesMax} bytes`)
  if (response.body === null) return new Uint8Array(0)
  const chunks: Uint8Array[] = []
  let length = 0
  const reader = response.body.getReader()
  for (;;) {
    const { done, value } = await reader.read()
    if (done) break
    length += value.length
    if (length > bytesMax) throw tooLarge()
    chunks.push(value)
  }
  const body = new Uint8Array(length)
  let at = 0
  for (const chunk of chunks) {
    body.set(chunk, at)
    at += chunk.length
  }
  return body
}

function faultOf(url: URL, error: unknown): unknown {
  if (error instanceof Fault) return error
  if (!(error instanceof Error)) return error
  const code = 'code' in error && typeof error.code === 'string' ? error.code : error.name
  return new Fault('unavailable', `${url.host} cannot be reached: ${code}`)
}
