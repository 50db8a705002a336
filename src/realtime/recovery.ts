/**
 * What somebody who was away is owed. The smallest file of the room, because the promise hangs on it:
 *
 *   recovered ⇒ exactly the publications after the position, in order, none missing, none twice;
 *   otherwise the subscriber is told so, and gets no part of a list that has a hole.
 */
import type { History, Publication } from './history.ts'
import { isRecord } from './protocol.ts'

export interface Position {
  readonly offset: number
  readonly epoch: string
}

/** As much of a topic as recovery looks at. */
export interface Positioned extends Position {
  readonly history: History
}

/**
 * The publications after `since`; undefined when that cannot be told. Another epoch says that offsets
 * were counted anew, so equal numbers mean nothing. `bytesMax`: what does not fit at once into the
 * subscriber's buffer would make it a slow reader, and its next attempt would end the same way.
 */
export function recover(
  topic: Positioned,
  since: Position,
  bytesMax: number,
  seen: Seen = all,
): readonly Publication[] | undefined {
  if (since.epoch !== topic.epoch) return undefined
  const kept = topic.history.after(since.offset, topic.offset)
  if (!kept) return undefined
  const given = seen(kept)
  const missed = given.length === kept.length ? given : joined(given, since.offset)
  return missed && totalBytes(missed) <= bytesMax ? missed : undefined
}

/** What of these somebody may have. */
export type Seen = (publications: readonly Publication[]) => readonly Publication[]

const all: Seen = (publications) => publications

/** Where some were left out, the next one says after which. */
function joined(publications: readonly Publication[], from: number): Publication[] {
  let last = from
  return publications.map((one) => {
    const after = last
    last = one.offset
    return after === one.offset - 1 ? one : { ...one, after }
  })
}

/** The last one that is for this reader: mostly the very last. */
export function latestIn(history: History, seen: Seen): Publication | undefined {
  const { newest } = history
  if (!newest) return undefined
  return seen([newest])[0] ?? seen(history.all()).at(-1)
}

function totalBytes(publications: readonly Publication[]): number {
  let bytes = 0
  for (const publication of publications) bytes += publication.bytes + envelopeBytes
  return bytes
}

/** `{"data":…,"offset":1234567890},` around each. */
const envelopeBytes = 32

export interface HistoryQuery {
  /** How many. 0: the position only. Negative: as many as allowed. */
  readonly limit: number
  /** Those after it, or before it with `reverse`. Absent: from the oldest, or the newest. */
  readonly since: Position | undefined
  readonly reverse: boolean
}

export interface HistoryBounds {
  readonly limitMax: number
  readonly bytesMax: number
}

/** Undefined when what comes after `since` is not kept any more, or was never of this epoch. */
export function readHistory(
  topic: Positioned,
  { limit, since, reverse }: HistoryQuery,
  { limitMax, bytesMax }: HistoryBounds,
  seen: Seen = all,
): Publication[] | undefined {
  // History may be asked for without an epoch: whoever does not name it takes any.
  if (since && since.epoch !== '' && since.epoch !== topic.epoch) return undefined
  if (limit === 0) return []
  let found: Publication[] | undefined
  if (reverse) {
    found = topic.history.all().reverse()
    if (since) found = found.filter(({ offset }) => offset < since.offset)
  } else {
    found = since ? topic.history.after(since.offset, topic.offset) : topic.history.all()
  }
  if (!found) return undefined
  const page = seen(found).slice(0, limit < 0 ? limitMax : Math.min(limit, limitMax))
  let bytes = 0
  const fitting = page.findIndex((publication) => {
    bytes += publication.bytes + envelopeBytes
    return bytes > bytesMax
  })
  return fitting === -1 ? page : page.slice(0, fitting)
}

/** `{offset?, epoch?}`: what a client never had counts as none. Undefined: of the wrong type. */
export function positionOf(params: Readonly<Record<string, unknown>>): Position | undefined {
  const { offset = 0, epoch = '' } = params
  if (typeof offset !== 'number' || !Number.isSafeInteger(offset) || offset < 0) return undefined
  return typeof epoch === 'string' ? { offset, epoch } : undefined
}

/** `{limit?, since?, reverse?}` of the client's `history` and of the server API's. */
export function historyQueryOf(
  params: Readonly<Record<string, unknown>>,
): HistoryQuery | undefined {
  const { limit = 0, since, reverse = false } = params
  if (typeof limit !== 'number' || !Number.isInteger(limit)) return undefined
  if (typeof reverse !== 'boolean') return undefined
  if (since === undefined || since === null) return { limit, since: undefined, reverse }
  const position = isRecord(since) ? positionOf(since) : undefined
  return position && { limit, since: position, reverse }
}
