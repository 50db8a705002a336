/**
 * `GET /api/topics/<topic>/history?since=…&until=…`: what a topic said in a time, for whoever may subscribe to
 * it and for the API key. `since` (inclusive) and `until` (exclusive) are ISO 8601 with a zone, or ms since 1970.
 */
import { keyHolder } from '../auth/auth.ts'
import { Fault, type FieldProblem } from '../fault.ts'
import { timeOf } from '../lib/time.ts'
import type { Realtime, ReplayQuery } from '../realtime/realtime.ts'
import { searchOf, visitHeaders, type Door } from './visit.ts'

const limitDefault = 100
const limitMax = 1_000

const pathPattern = /^https?:\/\/[^/]+\/api\/topics\/([^/?]+)\/history\/?(?:\?|$)/

export interface ReplayDeps {
  readonly realtime: Pick<Realtime, 'replay'>
  /** `clock.tick()`. */
  readonly tick: () => number
}

/** Faults: `invalid`, `not_found`, `denied`, `unavailable`. */
export function createReplayDoor({ realtime, tick }: ReplayDeps): Door {
  return async (request, visit) => {
    const topic = topicOf(request)
    const query = readQuery(searchOf(request.url))
    const { identity } = visit
    const isReader = identity.kind === 'scoped' && identity.may('read', topic)
    const page = await realtime.replay(isReader ? keyHolder : identity, topic, query)
    const { publications, next, offset, epoch } = page
    const list = publications.map(
      (one) =>
        `{"offset":${one.offset},"at":"${new Date(one.atMs).toISOString()}","data":${one.data}}`,
    )
    const position = `"offset":${offset},"epoch":"${epoch}","next":${next ?? 'null'}`
    return new Response(`{"publications":[${list.join(',')}],${position}}`, {
      headers: {
        ...visitHeaders(visit, tick()),
        'content-type': 'application/json',
        'cache-control': 'no-store',
      },
    })
  }
}

function topicOf({ url }: Request): string {
  try {
    return decodeURIComponent(pathPattern.exec(url)?.[1] ?? '')
  } catch {
    throw new Fault('not_found', 'no declared topic has this name')
  }
}

function readQuery(search: string): ReplayQuery {
  const problems: FieldProblem[] = []
  const given = new Map<string, string>()
  for (const [field, value] of new URLSearchParams(search)) {
    if (given.has(field)) problems.push({ field, message: 'is given twice' })
    given.set(field, value)
  }
  const take = <T>(
    field: string,
    absent: T,
    read: (text: string) => T | undefined,
    message: string,
  ): T => {
    const text = given.get(field)
    given.delete(field)
    if (text === undefined) return absent
    const value = read(text)
    if (value !== undefined) return value
    problems.push({ field, message })
    return absent
  }
  const isoText = 'must be ISO 8601 with a zone, or ms since 1970'
  const query: ReplayQuery = {
    sinceMs: take('since', 0, timeOf, isoText),
    untilMs: take('until', Number.MAX_SAFE_INTEGER, timeOf, isoText),
    after: take<number | undefined>('after', undefined, wholeOf, 'must be an offset'),
    limit: take('limit', limitDefault, limitOf, `must be an integer from 1 to ${limitMax}`),
    reverse: take('reverse', false, flagOf, 'must be true or false'),
  }
  for (const field of given.keys()) {
    problems.push({ field, message: 'is not one of since, until, after, limit, reverse' })
  }
  if (problems.length === 0) return query
  throw new Fault('invalid', 'the query is not valid', { fields: problems })
}

function wholeOf(text: string): number | undefined {
  return /^\d{1,15}$/.test(text) ? Number(text) : undefined
}

function limitOf(text: string): number | undefined {
  const limit = wholeOf(text)
  return limit !== undefined && limit >= 1 && limit <= limitMax ? limit : undefined
}

function flagOf(text: string): boolean | undefined {
  return text === 'true' ? true : text === 'false' ? false : undefined
}
