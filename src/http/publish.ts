/**
 * The server API, in the shapes of Centrifugo's HTTP API: `POST /api/publish`, `/api/broadcast`,
 * `/api/history`. For the holder of the API key only; no topic rule is asked.
 */
import { Fault, type FaultCode, type FieldProblem } from '../fault.ts'
import { historyQueryOf, type Position, type Realtime } from '../realtime/realtime.ts'
import { readJson } from './body.ts'
import { visitHeaders, type Door, type Visit } from './visit.ts'

/** Topics of one broadcast: each is a publish of its own, in one turn of the event loop. */
const broadcastTopicsMax = 1_000

/** 64 KB of data and a thousand names. */
const requestBytesMax = 512 * 1024

export interface PublishDeps {
  readonly realtime: Pick<Realtime, 'submit' | 'broadcast' | 'history'>
  /** `clock.tick()`. */
  readonly tick: () => number
}

/** Faults of each: `unauthenticated`, `invalid`; and what the room throws. */
export interface PublishDoors {
  readonly publish: Door
  /** One value to many topics; what came of each is answered in its place. */
  readonly broadcast: Door
  readonly history: Door
}

export function createPublishDoors({ realtime, tick }: PublishDeps): PublishDoors {
  /** `result`: JSON text. */
  const answer = (visit: Visit, result: string): Response =>
    new Response(`{"result":${result}}`, {
      headers: {
        ...visitHeaders(visit, tick()),
        'content-type': 'application/json',
        'cache-control': 'no-store',
      },
    })

  return {
    async publish(request, visit) {
      const { channel, data } = await readBody(request, visit, ['channel', 'data'])
      const problems = [...needName('channel', channel), ...needData(data)]
      if (problems.length > 0 || typeof channel !== 'string') throw malformed(problems)
      return answer(visit, positionJson(realtime.submit(channel, data)))
    },

    async broadcast(request, visit) {
      const { channels, data } = await readBody(request, visit, ['channels', 'data'])
      const problems = [...needNames(channels), ...needData(data)]
      if (problems.length > 0 || !isNames(channels)) throw malformed(problems)
      const outcomes = realtime.broadcast(channels, data)
      return answer(visit, `{"responses":[${outcomes.map(outcomeJson).join(',')}]}`)
    },

    async history(request, visit) {
      const body = await readBody(request, visit, ['channel', 'limit', 'since', 'reverse'])
      const { channel } = body
      const query = historyQueryOf(body)
      const problems = needName('channel', channel)
      if (!query) problems.push({ field: 'since', message: 'limit, since or reverse is malformed' })
      if (problems.length > 0 || typeof channel !== 'string' || !query) throw malformed(problems)
      const { publications, offset, epoch } = realtime.history(channel, query)
      const list = publications.map((one) => `{"data":${one.data},"offset":${one.offset}}`)
      const position = `"offset":${offset},"epoch":"${epoch}"`
      return answer(visit, `{"publications":[${list.join(',')}],${position}}`)
    },
  }
}

async function readBody(
  request: Request,
  visit: Visit,
  fields: readonly string[],
): Promise<Readonly<Record<string, unknown>>> {
  if (visit.identity.kind !== 'key') {
    throw new Fault('unauthenticated', 'the server API needs the API key in X-API-Key')
  }
  const body = await readJson(request, requestBytesMax)
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw new Fault('invalid', 'the body must be a JSON object')
  }
  const unknown = Object.keys(body).filter((field) => !fields.includes(field))
  if (unknown.length > 0) {
    throw malformed(
      unknown.map((field) => ({ field, message: `is not one of ${fields.join(', ')}` })),
    )
  }
  return body as Readonly<Record<string, unknown>>
}

function needName(field: string, value: unknown): FieldProblem[] {
  const isGiven = typeof value === 'string' && value !== ''
  return isGiven ? [] : [{ field, message: 'must be the name of a topic' }]
}

function needNames(value: unknown): FieldProblem[] {
  if (isNames(value) && value.length > 0 && value.length <= broadcastTopicsMax) return []
  return [{ field: 'channels', message: `must be 1 to ${broadcastTopicsMax} names of topics` }]
}

function needData(value: unknown): FieldProblem[] {
  return value === undefined ? [{ field: 'data', message: 'is missing' }] : []
}

function isNames(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((name) => typeof name === 'string')
}

function malformed(fields: readonly FieldProblem[]): Fault {
  return new Fault('invalid', 'the request is malformed', { fields })
}

function positionJson({ offset, epoch }: Position): string {
  return `{"offset":${offset},"epoch":"${epoch}"}`
}

function outcomeJson(outcome: Position | Fault): string {
  if (outcome instanceof Fault) return JSON.stringify({ error: apiError(outcome) })
  return `{"result":${positionJson(outcome)}}`
}

/** Centrifugo's numbers for one topic of a broadcast: 102 unknown channel, 107 bad request, 100 the rest. */
function apiError({ code, message, fields = [] }: Fault): { code: number; message: string } {
  const said = [message, ...fields.map((one) => `${one.field}: ${one.message}`)].join('; ')
  const numbers: Partial<Record<FaultCode, number>> = { not_found: 102, invalid: 107 }
  return { code: numbers[code] ?? 100, message: said }
}
