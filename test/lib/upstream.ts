/**
 * The provider of tests: answers in the shape of Jupiter's Price v3 for any ids, with prices that change, counts
 * arrivals, and enforces its limit as a strict provider does: so many requests of a key in ANY sliding window; the
 * one beyond bans the key for a while. Told so, it fails in every way that providers do.
 */

export interface FakeUpstreamOptions {
  /** Requests of one key in any window. Default 50 a second. */
  readonly limit?: number
  readonly windowMs?: number
  /** What the one beyond costs. Default 10 s. */
  readonly banMs?: number
  /** Prices change each so many ms; 0: only when `set`. Default 1,000. */
  readonly changeMs?: number
  /** Ids in one call; 400 beyond. Default 100. */
  readonly idsMax?: number
  /** Of `x-api-key`; 401 for others. Absent: anybody, keys or none. */
  readonly keys?: readonly string[]
  /** How answers tell what is left. Default none. */
  readonly headers?: 'draft' | 'x'
  /** Answers carry an ETag and 304 is answered to it. */
  readonly etag?: boolean
  /** Each answer takes so long. Default 0. */
  readonly latencyMs?: () => number
}

/** What goes wrong with each call; `flapping` with as many calls in a row as it does not go wrong with then. */
export type UpstreamFault =
  | { readonly kind: 'slow'; readonly ms: number }
  /** Takes the request, and never answers. */
  | { readonly kind: 'silent' }
  | { readonly kind: 'status'; readonly status: number; readonly headers?: Record<string, string> }
  /** Absent: without the header. */
  | { readonly kind: 'limited'; readonly retryAfter?: string }
  | { readonly kind: 'truncated' }
  | { readonly kind: 'not json' }
  | { readonly kind: 'huge'; readonly bytes?: number }
  | { readonly kind: 'redirect'; readonly to?: string }
  | { readonly kind: 'flapping'; readonly calls: number; readonly fault: UpstreamFault }

export interface Arrival {
  /** Ms since the start, monotonic. */
  readonly atMs: number
  readonly key: string
  readonly path: string
  readonly ids: readonly string[]
  /** 0: not answered yet. */
  readonly status: number
}

export interface FakeUpstream extends AsyncDisposable {
  /** `http://127.0.0.1:…`; prices are under `/price/v3?ids=`. */
  readonly url: string
  /** The same port, where nobody speaks TLS. */
  readonly tlsUrl: string
  readonly arrivals: readonly Arrival[]
  /** How often a key was banned. */
  readonly bans: number
  /** What goes wrong from now on; undefined: nothing. */
  fault: UpstreamFault | undefined
  /** The price that it tells now, or from now on; undefined: the id is not known (any more). */
  price(id: string): number | undefined
  set(id: string, price: number | undefined): void
  /** Refuses connections, and cuts those that are open. */
  down(): Promise<void>
  up(): void
  /** Calls in each second since the start. */
  perSecond(): readonly number[]
  /** Most calls of one key in any window. */
  busiest(windowMs?: number): number
}

/** What `/price/v3` answers, by id; ids it does not know are absent. */
export interface FakePrice {
  readonly createdAt: string
  readonly liquidity: number
  readonly usdPrice: number
  readonly blockId: number
  readonly decimals: number
  readonly priceChange24h: number
}

const hugeBytes = 100 * 1024 * 1024
const firstBlock = 348_004_023

export function startFakeUpstream(options: FakeUpstreamOptions = {}): FakeUpstream {
  const { limit = 50, windowMs = 1_000, banMs = 10_000, changeMs = 1_000, idsMax = 100 } = options
  const startedAt = performance.now()
  const sinceStart = (): number => performance.now() - startedAt
  const arrivals: Arrival[] = []
  /** By key: when requests came that still count, and until when it is banned. */
  const windows = new Map<string, { times: number[]; bannedUntil: number }>()
  const told = new Map<string, number | undefined>()
  let bans = 0
  let flips = 0
  let fault: UpstreamFault | undefined

  const step = (): number => (changeMs === 0 ? 0 : Math.floor(sinceStart() / changeMs))

  const priceOf = (id: string): number | undefined => {
    if (told.has(id)) return told.get(id)
    const base = Number(Bun.hash(id) % 1_000_000n) / 1_000 + 1
    const swing = Number(Bun.hash(`${id}@${step()}`) % 2_001n) - 1_000
    return Math.round(base * (1 + swing / 100_000) * 1e6) / 1e6
  }

  /** Undefined: it may pass. */
  const refusal = (key: string): Response | undefined => {
    const now = sinceStart()
    const window = windows.get(key) ?? { times: [], bannedUntil: 0 }
    windows.set(key, window)
    while ((window.times[0] ?? now) < now - windowMs) window.times.shift()
    window.times.push(now)
    if (now >= window.bannedUntil && window.times.length > limit) {
      bans++
      window.bannedUntil = now + banMs
    }
    if (now >= window.bannedUntil) return undefined
    const waitS = Math.ceil((window.bannedUntil - now) / 1_000)
    return new Response('banned', { status: 429, headers: { 'retry-after': String(waitS) } })
  }

  const headersFor = (key: string): Record<string, string> => {
    const left = limit - (windows.get(key)?.times.length ?? 0)
    const resetS = Math.ceil(windowMs / 1_000)
    if (options.headers === 'draft') {
      return {
        'ratelimit-policy': `"default";q=${limit};w=${resetS}`,
        ratelimit: `"default";r=${left};t=${resetS}`,
      }
    }
    if (options.headers !== 'x') return {}
    return {
      'x-ratelimit-limit': String(limit),
      'x-ratelimit-remaining': String(left),
      'x-ratelimit-reset': String(resetS),
    }
  }

  const prices = (request: Request, ids: readonly string[], key: string): Response => {
    if (ids.length === 0 || ids.length > idsMax) {
      return Response.json({ error: `ids: 1 to ${idsMax}` }, { status: 400 })
    }
    const known: Record<string, FakePrice> = {}
    for (const id of ids) {
      const usdPrice = priceOf(id)
      if (usdPrice === undefined) continue
      known[id] = {
        createdAt: '2024-06-05T08:55:25.527Z',
        liquidity: 621_679.19,
        usdPrice,
        blockId: firstBlock + step(),
        decimals: 9,
        priceChange24h: 1.29,
      }
    }
    const body = JSON.stringify(known)
    const headers: Record<string, string> = {
      'content-type': 'application/json',
      ...headersFor(key),
    }
    if (options.etag) {
      headers['etag'] = `"${Bun.hash(body).toString(36)}"`
      if (request.headers.get('if-none-match') === headers['etag']) {
        return new Response(null, { status: 304, headers })
      }
    }
    return new Response(body, { headers })
  }

  /** The fault of this call. */
  const faultNow = (): UpstreamFault | undefined => {
    if (fault?.kind !== 'flapping') return fault
    return Math.floor(flips++ / fault.calls) % 2 === 0 ? fault.fault : undefined
  }

  const answer = async (
    request: Request,
    ids: readonly string[],
    key: string,
  ): Promise<Response> => {
    if (options.keys && !options.keys.includes(key)) return new Response('who?', { status: 401 })
    const wrong = faultNow()
    if (options.latencyMs) await Bun.sleep(options.latencyMs())
    if (wrong?.kind === 'slow') await Bun.sleep(wrong.ms)
    return (wrong && failing(wrong, request)) ?? prices(request, ids, key)
  }

  const serve = (port: number) =>
    Bun.serve({
      hostname: '127.0.0.1',
      port,
      reusePort: false,
      development: false,
      idleTimeout: 0,
      async fetch(request) {
        const url = new URL(request.url)
        const key = request.headers.get('x-api-key') ?? ''
        const ids = (url.searchParams.get('ids') ?? '').split(',').filter((id) => id !== '')
        const arrival = { atMs: sinceStart(), key, path: url.pathname, ids, status: 0 }
        arrivals.push(arrival)
        const response = refusal(key) ?? (await answer(request, ids, key))
        arrival.status = response.status
        return response
      },
    })

  let server = serve(0)
  const port = server.port ?? 0

  return {
    url: `http://127.0.0.1:${port}`,
    tlsUrl: `https://127.0.0.1:${port}`,
    arrivals,
    get bans() {
      return bans
    },
    get fault() {
      return fault
    },
    set fault(next) {
      fault = next
      flips = 0
    },
    price: priceOf,
    set: (id, price) => void told.set(id, price),
    down: () => server.stop(true),
    up() {
      server = serve(port)
    },
    perSecond() {
      const counts = Array.from({ length: Math.ceil(sinceStart() / 1_000) }, () => 0)
      for (const { atMs } of arrivals) {
        const second = Math.floor(atMs / 1_000)
        counts[second] = (counts[second] ?? 0) + 1
      }
      return counts
    },
    busiest(ofMs = windowMs) {
      const byKey = Map.groupBy(arrivals, ({ key }) => key)
      const most = [...byKey.values()].map((of) =>
        mostWithin(
          of.map(({ atMs }) => atMs),
          ofMs,
        ),
      )
      return Math.max(0, ...most)
    },
    [Symbol.asyncDispose]: () => server.stop(true),
  }
}

/** Undefined: answered after all. */
function failing(fault: UpstreamFault, request: Request): Promise<Response> | Response | undefined {
  const json = { 'content-type': 'application/json' }
  switch (fault.kind) {
    case 'silent':
      return new Promise((resolve) => {
        request.signal.addEventListener('abort', () => resolve(new Response()))
      })
    case 'status':
      return new Response('{"error":"no"}', {
        status: fault.status,
        headers: { ...json, ...fault.headers },
      })
    case 'limited': {
      const { retryAfter } = fault
      const headers = retryAfter === undefined ? {} : { 'retry-after': retryAfter }
      return new Response('slow down', { status: 429, headers })
    }
    case 'truncated':
      return new Response(truncated(), { headers: json })
    case 'not json':
      return new Response('<html>down for maintenance</html>', {
        headers: { 'content-type': 'text/html' },
      })
    case 'huge':
      return new Response(repeated(fault.bytes ?? hugeBytes), { headers: json })
    case 'redirect':
      return new Response(null, { status: 302, headers: { location: fault.to ?? request.url } })
    default:
      return undefined
  }
}

/** Half an object, and the connection is cut. */
function truncated(): ReadableStream {
  return new ReadableStream({
    async pull(controller) {
      controller.enqueue(new TextEncoder().encode('{"a":{"usdPrice":1,'))
      await Bun.sleep(1)
      // With a reason, Bun would print it.
      controller.error(undefined)
    },
  })
}

function repeated(bytes: number): ReadableStream {
  const piece = new Uint8Array(64 * 1024).fill(0x20)
  let left = bytes
  return new ReadableStream({
    pull(controller) {
      controller.enqueue(piece.subarray(0, Math.min(left, piece.byteLength)))
      left -= piece.byteLength
      if (left <= 0) controller.close()
    },
  })
}

/** Most of these times within any window of that length, both ends counted. */
export function mostWithin(timesMs: readonly number[], windowMs: number): number {
  const sorted = timesMs.toSorted((a, b) => a - b)
  let first = 0
  let most = 0
  for (const [at, time] of sorted.entries()) {
    while ((sorted[first] ?? time) < time - windowMs) first++
    most = Math.max(most, at - first + 1)
  }
  return most
}
