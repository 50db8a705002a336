/**
 * `GET /api/stream?topics=a,b`: server-sent events for a plain `EventSource`. It resumes by itself
 * with `Last-Event-ID`; `last_event_id` in the query does the same for whoever cannot set a header.
 */
import { Fault, toFault, type FieldProblem } from '../fault.ts'
import { laterEvent, type Realtime } from '../realtime/realtime.ts'
import { searchOf, visitHeaders, type Door, type Visit } from './visit.ts'

export interface EventsDeps {
  readonly realtime: Pick<Realtime, 'stream'>
  /** Bun's own idle time-out would end a quiet stream: it is switched off for this request. */
  readonly keepOpen: (request: Request) => void
  readonly addressOf: (request: Request) => string
  /** `clock.tick()`. */
  readonly tick: () => number
}

/** Faults: `invalid`, `not_found`, `denied`, `unavailable`, `too_many`. */
export function createEventsDoor(deps: EventsDeps): Door {
  return (request, visit) => {
    const { topics, lastEventId } = readQuery(request)
    return eventStream(deps, { request, visit, topics, lastEventId })
  }
}

interface Wanted {
  readonly request: Request
  readonly visit: Visit
  readonly topics: readonly string[]
  readonly lastEventId?: string | undefined
}

/** Faults: `not_found`, `denied`, `unavailable`, `too_many`, `invalid`. */
export function eventStream(
  { realtime, keepOpen, addressOf, tick }: EventsDeps,
  { request, visit, topics, lastEventId }: Wanted,
): Response {
  // First: it refuses who cannot have a stream, before there is one.
  keepOpen(request)
  const open = (): ReadableStream<Uint8Array> | string | null => {
    // Only what a stream's head would be: nobody reads what comes after.
    if (request.method === 'HEAD') return null
    try {
      return realtime.stream({
        identity: visit.identity,
        address: addressOf(request),
        topics,
        lastEventId: request.headers.get('last-event-id') ?? lastEventId,
      })
    } catch (thrown) {
      if (toFault(thrown).code !== 'unavailable' || !isEventSource(request)) throw thrown
      return laterEvent()
    }
  }
  return new Response(open(), {
    headers: {
      ...visitHeaders(visit, tick()),
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store',
      // nginx would hold events back until its buffer is full.
      'x-accel-buffering': 'no',
    },
  })
}

function isEventSource({ headers }: Request): boolean {
  return headers.get('accept')?.includes('text/event-stream') === true
}

interface Query {
  readonly topics: readonly string[]
  readonly lastEventId: string | undefined
}

function readQuery(request: Request): Query {
  const problems: FieldProblem[] = []
  let topics: readonly string[] = []
  let lastEventId: string | undefined
  const seen = new Set<string>()
  for (const [field, value] of new URLSearchParams(searchOf(request.url))) {
    if (seen.has(field)) problems.push({ field, message: 'is given twice' })
    else if (field === 'topics') topics = value.split(',').filter((name) => name !== '')
    else if (field === 'last_event_id') lastEventId = value
    else problems.push({ field, message: 'is not a parameter (topics, last_event_id)' })
    seen.add(field)
  }
  if (topics.length === 0) problems.push({ field: 'topics', message: 'names no topic' })
  if (problems.length > 0) {
    throw new Fault('invalid', 'the query of the stream is not valid', { fields: problems })
  }
  return { topics, lastEventId }
}
