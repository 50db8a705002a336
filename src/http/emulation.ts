/**
 * The stock client's fallbacks for a WebSocket: `GET /connection/sse`, `POST /connection/http_stream`
 * say what the server says; `POST /emulation` says what the client says. Centrifugo's own paths.
 */
import { Fault } from '../fault.ts'
import type { Framing, Realtime } from '../realtime/realtime.ts'
import { readBytes, readJson } from './body.ts'
import { searchOf, visitHeaders, type Door, type Visit } from './visit.ts'

/** As a WebSocket's frame. */
const frameBytesMax = 64 * 1024

/** A frame as a JSON string: each of its quotes takes two. */
const requestBytesMax = 3 * frameBytesMax

export interface EmulationDeps {
  readonly realtime: Pick<Realtime, 'emulate' | 'receive'>
  /** Bun's own idle time-out would end a quiet stream: it is switched off for this request. */
  readonly keepOpen: (request: Request) => void
  readonly addressOf: (request: Request) => string
  /** `clock.tick()`. */
  readonly tick: () => number
}

export interface EmulationDoors {
  /** Faults: `invalid`, `unavailable`. */
  readonly sse: Door
  /** Faults: `invalid`, `too_large`, `unavailable`. */
  readonly httpStream: Door
  /** Faults: `invalid`, `too_large`, `not_found` for a session of another process. */
  readonly emulation: Door
}

const types: Record<Framing, string> = {
  sse: 'text/event-stream; charset=utf-8',
  http_stream: 'application/x-ndjson; charset=utf-8',
}

export function createEmulationDoors(deps: EmulationDeps): EmulationDoors {
  const { realtime, keepOpen, addressOf, tick } = deps

  const open = (request: Request, visit: Visit, framing: Framing, data: string): Response => {
    keepOpen(request)
    const { identity } = visit
    const stream = realtime.emulate({ identity, address: addressOf(request), framing, data })
    return new Response(stream, {
      headers: {
        ...visitHeaders(visit, tick()),
        'content-type': types[framing],
        'cache-control': 'no-store',
        // nginx would hold what is said back until its buffer is full.
        'x-accel-buffering': 'no',
      },
    })
  }

  return {
    sse(request, visit) {
      const data = new URLSearchParams(searchOf(request.url)).get('cf_connect') ?? ''
      if (data === '') throw missing('cf_connect')
      return open(request, visit, 'sse', data)
    },

    async httpStream(request, visit) {
      const data = textOf(await readBytes(request, frameBytesMax))
      return open(request, visit, 'http_stream', data)
    },

    async emulation(request, visit) {
      const body = await readJson(request, requestBytesMax)
      const { session, node, data } = (body ?? {}) as Readonly<Record<string, unknown>>
      if (typeof session !== 'string') throw missing('session')
      if (typeof node !== 'string') throw missing('node')
      if (typeof data !== 'string') throw missing('data')
      if (realtime.receive(session, node, data) === 'elsewhere') {
        throw new Fault('not_found', 'this session is of another process: connect again')
      }
      // Also of a session that has ended: its stream says so.
      return new Response(null, { status: 204, headers: visitHeaders(visit, tick()) })
    },
  }
}

function textOf(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw new Fault('invalid', 'the body is not valid UTF-8')
  }
}

function missing(field: string): Fault {
  const fields = [{ field, message: 'is missing' }]
  return new Fault('invalid', 'the request is malformed', { fields })
}
