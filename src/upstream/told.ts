/** What a provider's answer says of its limits: `Retry-After`, `RateLimit` (IETF drafts 6 to 10), `X-RateLimit-*`. */

export interface Told {
  /** It is to be left alone for so long. */
  readonly retryAfterMs: number | undefined
  /** Calls left now, and until there are more. */
  readonly remaining: number | undefined
  readonly resetMs: number | undefined
}

/** Longer ones are mistakes, or another unit. */
const waitMsMax = 24 * 60 * 60 * 1_000

/** Numbers of seconds from here on are times, not lengths; from the second on, in ms. */
const epochS = 1e9
const epochMs = 1e12

export function toldBy(headers: Headers, nowMs: number): Told {
  // Its dates are by its own clock.
  const at = Date.parse(headers.get('date') ?? '') || nowMs
  const limits = [...draftOf(headers.get('ratelimit') ?? ''), plainOf(headers, at)]
  const known = limits.filter(({ remaining }) => remaining !== undefined)
  // Of several policies the one that is nearest to its end.
  const [least] = known.toSorted((a, b) => (a.remaining ?? 0) - (b.remaining ?? 0))
  return {
    retryAfterMs: waitOf(headers.get('retry-after'), at),
    remaining: least?.remaining,
    resetMs: least?.resetMs ?? limits.find(({ resetMs }) => resetMs !== undefined)?.resetMs,
  }
}

type Limit = Pick<Told, 'remaining' | 'resetMs'>

/** `"default";r=50;t=30, "day";r=9`; of older drafts `limit=100, remaining=50, reset=5`. */
function* draftOf(text: string): Generator<Limit> {
  if (text === '') return
  const numberIn = (item: string, names: string): number | undefined =>
    numberOf(new RegExp(`(?:^|[;,\\s])(?:${names})=(\\d{1,15})(?=$|[;,\\s])`).exec(item)?.[1])
  const items = /(?:^|[\s,])remaining=/.test(text) ? [text] : text.split(',')
  for (const item of items) {
    const resetS = numberIn(item, 't|reset')
    yield {
      remaining: numberIn(item, 'r|remaining'),
      resetMs: resetS === undefined ? undefined : bounded(resetS * 1_000),
    }
  }
}

function plainOf(headers: Headers, nowMs: number): Limit {
  const read = (name: string): string | null =>
    headers.get(`x-ratelimit-${name}`) ?? headers.get(`ratelimit-${name}`)
  return {
    remaining: numberOf(read('remaining')),
    resetMs: waitOf(read('reset'), nowMs),
  }
}

function waitOf(text: string | null, nowMs: number): number | undefined {
  if (text === null) return undefined
  const number = numberOf(text)
  if (number === undefined) {
    // A number that is none, as -5, would be a date, too.
    const date = /[a-z]/i.test(text) ? Date.parse(text) : Number.NaN
    return Number.isNaN(date) ? undefined : bounded(date - nowMs)
  }
  if (number >= epochMs) return bounded(number - nowMs)
  return bounded(number >= epochS ? number * 1_000 - nowMs : number * 1_000)
}

function numberOf(text: string | null | undefined): number | undefined {
  return text !== null && text !== undefined && /^\s*\d{1,15}(\.\d{1,9})?\s*$/.test(text)
    ? Number(text)
    : undefined
}

function bounded(ms: number): number {
  return Math.min(waitMsMax, Math.max(0, ms))
}
