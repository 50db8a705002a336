/** Rates as people write them in an app file: `5/10s`, `100/min`, `5/15min`: so many in any window of that length. */
import { parseDurationMs, type Duration } from './duration.ts'

const words = { sec: 1_000, min: 60_000, hour: 3_600_000, day: 86_400_000 } as const

/** Whoever counts keeps a number for each of these and each who is counted. */
const quotaMax = 100_000

/** Longer windows forget with the process. */
const windowMsMax = 7 * words.day

type Word = keyof typeof words

export type Rate = `${number}/${Duration | 's' | 'm' | 'h' | 'd' | Word | `${number}${Word}`}`

export interface ParsedRate {
  readonly quota: number
  readonly windowMs: number
}

/** Undefined when the text is no rate of 1 to 100,000 in at most 7 days. */
export function parseRate(text: unknown): ParsedRate | undefined {
  if (typeof text !== 'string') return undefined
  const match = /^(\d{1,6})\/([a-z0-9.]+)$/.exec(text)
  const [, count, window = ''] = match ?? []
  const quota = Number(count)
  const windowMs = windowMsOf(window)
  if (!(quota >= 1 && quota <= quotaMax)) return undefined
  return windowMs !== undefined && windowMs <= windowMsMax ? { quota, windowMs } : undefined
}

function windowMsOf(text: string): number | undefined {
  const [, count, word = ''] = /^(\d{0,6})(sec|min|hour|day)$/.exec(text) ?? []
  if (count !== undefined)
    return (count === '' ? 1 : Number(count)) * words[word as Word] || undefined
  return parseDurationMs(/^\d/.test(text) ? text : `1${text}`)
}
