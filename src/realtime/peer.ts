/**
 * A connection as its commands see it, and what all connections share. Commands are functions over a
 * `Peer` (connect.ts, subscribe.ts, commands.ts): a connection has no closures, and each command can
 * be read by itself.
 */
import type { Identity, TopicVerdict, Verdict } from '../auth/auth.ts'
import type { Clock } from '../lib/clock.ts'
import type { Credentials } from '../limits/limits.ts'
import type { Log } from '../observe/log.ts'
import type { Admission } from './admission.ts'
import type { Attendance } from './attendance.ts'
import type { Broker } from './broker.ts'
import type { Connection } from './connection.ts'
import type { FrameSink, Hub, Seat, Topic } from './hub.ts'
import type { Close, ProtocolError } from './protocol.ts'
import type { Publisher } from './publisher.ts'
import type { Pump } from './pump.ts'
import type { Socket } from './socket.ts'
import type { Sweep, Swept } from './sweep.ts'
import type { Users } from './users.ts'

export interface ConnectionLimits {
  readonly topicsPerConnectionMax: number
  /** From open to `connect`. */
  readonly connectMs: number
  /** From a token's `exp` to the end: time to send a new one. */
  readonly expiryGraceMs: number
  /** Not yet taken by the kernel; above it the reader is slow. Below the socket's own limit. */
  readonly slowBytes: number
  /** Of recovered publications or history in one reply: it must not make a slow reader by itself. */
  readonly replyBytesMax: number
  readonly historyLimitMax: number
  /** Commands in the long run. Beyond burst and rate each is refused with 111. */
  readonly commandsPerSecond: number
  /** At once; as many again are refused, then the connection is closed with 3013. */
  readonly commandsBurst: number
  /** `rpc` under way at once. */
  readonly callsPerConnectionMax: number
}

/** A request that a connection makes of the app's own doors. */
export interface Call {
  readonly identity: Identity
  /** Of the peer: limits of visitors count by it. */
  readonly address: string
  readonly method: string
  /** With the query. */
  readonly path: string
  readonly body: unknown
}

export type Called =
  /** `data`: JSON text on one line. */
  | { readonly ok: true; readonly data: string }
  | { readonly ok: false; readonly error: ProtocolError }

export interface ConnectionContext {
  readonly hub: Hub
  readonly publisher: Publisher
  readonly broker: Broker
  readonly pump: Pick<Pump, 'gather'>
  readonly clock: Clock
  readonly log: Log
  readonly sweep: Sweep<Swept>
  readonly limits: ConnectionLimits
  readonly version: string
  readonly identify: (token: string, from: () => string) => Verdict | Promise<Verdict>
  /** Of tokens that are refused. Absent: they may be shown for ever. */
  readonly credentials: Credentials | undefined
  /** Absent: subscription tokens are refused. */
  readonly identifyTopic:
    | ((token: string, from: () => string) => TopicVerdict | Promise<TopicVerdict>)
    | undefined
  /** Absent: `rpc` is not served. */
  readonly call: ((call: Call) => Promise<Called>) | undefined
  readonly admission: Admission
  readonly attendance: Attendance
  readonly users: Users<Connection>
  readonly counts: { sockets: number; subscriptions: number; slow: number }
}

/** Why a connection hears a topic beyond the topic's rule. */
export interface Grant {
  readonly by: 'token' | 'server'
  /** `clock.now()`. */
  readonly expiresAtMs: number
  /** JSON text, shown to others by presence. */
  readonly info: string | undefined
}

export interface Peer extends FrameSink {
  readonly context: ConnectionContext
  readonly socket: Socket | undefined
  readonly state: 'opened' | 'connected' | 'closed'
  readonly identity: Identity
  /** Of the peer, as it is counted. */
  readonly address: string
  /** Told in the reply to `connect`, and to others by presence. */
  readonly client: string
  /** One per topic that it hears. `noSeats` or an own array. */
  seats: Seat[]
  /** Undefined when every topic is heard by its rule. */
  grants: Map<Topic, Grant> | undefined
  /** `rpc` under way. */
  calls: number
  /** Runs what replies outside of a frame's commands, and sends it. */
  act(run: () => void): void
  connected(identity: Identity): void
  refreshed(identity: Identity): void
  end(close: Close): void
  error(id: number, error: ProtocolError): void
  reply(text: string): void
  /** Bytes that a reply may add without making a slow reader. */
  room(): number
}

/** Shared by all that listen to nothing: an idle visitor costs no array. Never written to. */
export const noSeats: Seat[] = []

/** Fields of a reply that say how long something lasts, each with its comma; undefined when it is over. */
export function lifetimeFields(expiresAtMs: number | undefined, nowMs: number): string | undefined {
  if (expiresAtMs === undefined || expiresAtMs === Infinity) return ''
  const leftMs = expiresAtMs - nowMs
  return leftMs <= 0 ? undefined : `"expires":true,"ttl":${Math.ceil(leftMs / 1000)},`
}

/** `{…}` around fields that each end in a comma. */
export function objectOf(fields: string): string {
  return fields === '' ? '{}' : `{${fields.slice(0, -1)}}`
}

/** At once, or in a turn of the peer's own when it is known. */
export function judged<Known>(
  peer: Peer,
  verdict: Known | Promise<Known>,
  judge: (known: Known) => Promise<void> | undefined,
): Promise<void> | undefined {
  if (!(verdict instanceof Promise)) return judge(verdict)
  return verdict.then((known) => {
    let waiting: Promise<void> | undefined
    peer.act(() => {
      waiting = judge(known)
    })
    return waiting
  })
}
