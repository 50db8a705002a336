/**
 * `GET /connection/websocket`: upgrades, and hands Bun's socket events to the connection in `ws.data`.
 * The connection is a class instance: nothing is made per socket or per event here.
 */
import { Fault } from '../fault.ts'
import type { Connection, Realtime } from '../realtime/realtime.ts'
import type { IsAllowedOrigin } from './origin.ts'
import type { Door } from './visit.ts'

/** For `Bun.serve({ websocket })`. Each limit is lower than Bun's default, times 100,000 sockets. */
export const websocket: Bun.WebSocketHandler<Connection> = {
  /** A longer frame closes with 1009: the stock client gives up, as it should. */
  maxPayloadLength: 64 * 1024,
  /** A connection ends its slow reader at half of it; this is the backstop. */
  backpressureLimit: 256 * 1024,
  /** Bun's default is to drop in silence. */
  closeOnBackpressureLimit: true,
  /** Seconds. A backstop too: the protocol's own ping is at 25 s. */
  idleTimeout: 120,
  /** The protocol's own ping does it, and proves that the client is alive, not only its socket. */
  sendPings: false,
  /** Compresses once per subscriber: fan-out would cost a hundred times more. */
  perMessageDeflate: false,
  open: (ws) => ws.data.open(ws),
  message: (ws, data) => ws.data.message(ws, data),
  drain: (ws) => ws.data.drain(),
  close: (ws) => ws.data.close(),
}

/** As much of Bun's server as the door uses. */
export type SocketServer = Pick<Bun.Server<Connection>, 'upgrade'>

/**
 * `getServer`: the server exists only after its doors do. Faults: `invalid`, `denied`, `unavailable`,
 * `too_many`.
 */
export function createSocketDoor(
  realtime: Pick<Realtime, 'connection'>,
  getServer: () => SocketServer,
  addressOf: (request: Request) => string,
  isAllowedOrigin: IsAllowedOrigin,
): Door {
  return (request, visit) => {
    const headers = checkHandshake(request.headers)
    if (!isAllowedOrigin(request.headers)) {
      throw new Fault('denied', 'pages of this origin may not connect', {
        hint: 'name the origin in CORS_ORIGIN',
      })
    }
    const connection = realtime.connection(visit.identity, addressOf(request))
    if (!getServer().upgrade(request, { data: connection, headers })) {
      throw new Fault('invalid', 'the WebSocket handshake is not valid')
    }
    return upgraded()
  }
}

/** The one that clients know; without any it is spoken, too. */
const subprotocol = 'centrifuge-json'

/** RFC 6455 §4.2.1, as far as Bun leaves it to us; headers of the answer. Bun would agree to any subprotocol. */
function checkHandshake(headers: Headers): Record<string, string> {
  const problem = (field: string, message: string) =>
    new Fault('invalid', 'this address speaks WebSocket: send Upgrade: websocket', {
      fields: [{ field, message }],
    })
  if (!tokensOf(headers, 'upgrade').includes('websocket')) {
    throw problem('upgrade', 'must be websocket')
  }
  if (!tokensOf(headers, 'connection').includes('upgrade')) {
    throw problem('connection', 'must be upgrade')
  }
  const wanted = tokensOf(headers, 'sec-websocket-protocol')
  if (wanted.length === 0) return {}
  if (wanted.includes(subprotocol)) return { 'sec-websocket-protocol': subprotocol }
  throw problem('sec-websocket-protocol', `must be ${subprotocol}, or absent`)
}

/** A list, whose words are the same in any case. */
function tokensOf(headers: Headers, name: string): string[] {
  const words = (headers.get(name) ?? '').toLowerCase().split(',')
  return words.map((word) => word.trim()).filter((word) => word !== '')
}

/** Bun has answered already and ignores it; doors return something, and metrics want the status. */
function upgraded(): Response {
  return new Response(null, { status: 101 })
}
