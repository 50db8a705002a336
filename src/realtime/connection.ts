/**
 * One per socket, and there are 100,000 of them: few fields, no closure, no timer. It is the socket's
 * `ws.data`; the methods that take the socket first are the ones Bun's handlers delegate to.
 *
 *   opened ──connect──► connected ──┐
 *     │  (identify may take a while: what follows queues)
 *     └────────────────────────────┴──► closed
 *
 * Here: frames in, replies out, deadlines, rates. What a command does is in connect.ts, subscribe.ts and
 * commands.ts. Invariant: a command reads, answers and joins in one tick, and what is published leaves
 * when that tick is over (`pump.ts`): no publication overtakes the reply to what came before it.
 */
import type { Identity } from '../auth/auth.ts'
import { faultCodes, toFault } from '../fault.ts'
import { detach } from '../lib/service.ts'
import { history, presence, presenceStats, publish, rpc } from './commands.ts'
import { connect, refresh, refreshByServer } from './connect.ts'
import type { Guest } from './drain.ts'
import type { Seat, Topic } from './hub.ts'
import { noSeats, type ConnectionContext, type Grant, type Peer } from './peer.ts'
import {
  closes,
  disconnectPush,
  errorReply,
  errors,
  frameBytesMax,
  parseFrame,
  pingFrame,
  reply,
  type Close,
  type Command,
  type ProtocolError,
  type Unsubscribe,
} from './protocol.ts'
import { chunkLengthMax } from './pump.ts'
import type { Position } from './recovery.ts'
import type { Socket } from './socket.ts'
import {
  expireGrants,
  leaveAll,
  lose,
  refreshSubscription,
  subscribe,
  subscribeByServer,
  unsubscribe,
  unsubscribeByServer,
} from './subscribe.ts'
import { pongMs } from './sweep.ts'

/** Waiting for `identify`: this much, then it is not a client any more. */
const queueFramesMax = 64
const queueBytesMax = 2 * frameBytesMax

/** Room for the fields of a reply around its publications. */
const replyOverheadBytes = 1024

/** Characters written since the last pong that make a ping due: the next one proves that they were read. */
const unprovenLengthMax = 256 * 1024

interface Queue {
  commands: readonly Command[]
  readonly frames: string[]
  bytes: number
}

const strictUtf8 = new TextDecoder('utf-8', { fatal: true })

export class Connection implements Guest, Peer {
  bucket = -1
  slot = -1
  readonly context: ConnectionContext
  socket: Socket | undefined
  identity: Identity
  state: 'opened' | 'connected' | 'closed' = 'opened'
  client = ''
  seats: Seat[] = noSeats
  grants: Map<Topic, Grant> | undefined
  calls = 0
  /** As it is counted; empty where it is the socket's own: there are 100,000, and nobody needs it kept. */
  #address: string
  #awaitsPong = false
  /** `clock.tick()`. */
  #pingedAt = 0
  /** Characters written since the last pong. */
  #unproven = 0
  /** Before `connect`: `clock.tick()` by which it must come. After: `clock.now()` at which it expires. */
  #deadline = Infinity
  /** Commands it may still send at once; below zero they are refused. As of `#spareAt`. */
  #spare: number
  #spareAt = 0
  /** Replies of the frame that is being handled. */
  #out = ''
  #queue: Queue | undefined

  /** `identity`: from the upgrade request; the token in `connect` wins over it. `address`: of who is counted by it. */
  constructor(context: ConnectionContext, identity: Identity, address: string) {
    this.context = context
    this.identity = identity
    this.#address = address
    this.#spare = context.limits.commandsBurst
  }

  open(socket: Socket): void {
    const { admission, clock, counts, limits, sweep } = this.context
    this.socket = socket
    const isCounted = admission.addresses.add(this.#address)
    if (!isCounted && this.#address === socket.remoteAddress) this.#address = ''
    this.#spareAt = clock.tick()
    this.#deadline = this.#spareAt + limits.connectMs
    counts.sockets += 1
    sweep.add(this)
  }

  get address(): string {
    return this.#address === '' ? (this.socket?.remoteAddress ?? '') : this.#address
  }

  message(_socket: Socket, data: string | Uint8Array): void {
    if (this.state === 'closed') return
    let text: string
    try {
      text = typeof data === 'string' ? data : strictUtf8.decode(data)
    } catch {
      return this.end(closes.badRequest)
    }
    if (text.length > frameBytesMax) this.end(closes.badRequest)
    else this.#receive(text)
  }

  #receive(text: string): void {
    if (this.state === 'closed') return
    if (this.#queue) return this.#enqueue(this.#queue, text)
    const commands = parseFrame(text)
    if (commands) this.#run(commands)
    else this.end(closes.badRequest)
  }

  /** Bun calls it when a full buffer emptied; the sweep looks at buffers, nothing waits here. */
  drain(): void {}

  close(): void {
    this.#leave()
  }

  /** Closes the socket with a code that tells the client whether to come back. */
  end({ code, reason }: Close): void {
    const socket = this.socket
    if (this.state === 'closed') return
    this.#write()
    this.#leave()
    socket?.close(code, reason)
  }

  /** This server goes away. */
  dismiss(reconnectAfterMs: number): void {
    if (this.state === 'connected') this.reply(disconnectPush(closes.shutdown, reconnectAfterMs))
    this.end(closes.shutdown)
  }

  beat(): void {
    if (this.state !== 'connected' || this.#awaitsPong) return
    this.#awaitsPong = true
    this.#pingedAt = this.context.clock.tick()
    this.socket?.send(pingFrame)
  }

  /** Who was sent much and is silent stands still or reads too slowly: what it has not read hides the ping. */
  late(): void {
    if (!this.#awaitsPong || this.context.clock.tick() - this.#pingedAt < pongMs) return
    if (this.#unproven > unprovenLengthMax) this.#endSlow()
    // Behind a command that takes its time the pong may wait; asked again in a few seconds.
    else if (!this.#queue) this.end(closes.noPong)
  }

  check(): void {
    const { clock, limits } = this.context
    if (this.state === 'opened') {
      // While `identify` runs the client has done its part.
      if (!this.#queue && clock.tick() > this.#deadline) this.end(closes.stale)
      return
    }
    // Instead of a token another one may come, instead of a key nothing does.
    const isUser = this.identity.kind === 'user'
    if (clock.now() > this.#deadline + (isUser ? limits.expiryGraceMs : 0)) {
      return this.end(isUser ? closes.expired : closes.invalidToken)
    }
    if (this.grants) expireGrants(this)
    this.#checkReader()
    if (this.#awaitsPong) this.late()
    else if (this.#unproven > unprovenLengthMax) this.beat()
  }

  #enqueue(queue: Queue, text: string): void {
    queue.bytes += text.length
    if (queue.frames.push(text) <= queueFramesMax && queue.bytes <= queueBytesMax) return
    this.end(closes.badRequest)
  }

  #run(commands: readonly Command[]): void {
    for (const [index, command] of commands.entries()) {
      const waiting = this.#handle(command)
      if (this.state === 'closed') return
      if (!waiting) continue
      this.#queue = { commands: commands.slice(index + 1), frames: [], bytes: 0 }
      detach(
        waiting.then(() => this.#resume()),
        (error) => this.#fail(command.id, error),
      )
      break
    }
    this.flush()
  }

  act(run: () => void): void {
    run()
    this.flush()
  }

  /** In the order they came: the rest of the frame that waited, then the frames after it. */
  #resume(): void {
    const queue = this.#queue
    this.#queue = undefined
    if (this.state === 'closed' || !queue) return
    this.#run(queue.commands)
    for (const frame of queue.frames) this.#receive(frame)
  }

  /** What is away for a while says so itself, where it is noticed: not again for each who comes back to ask. */
  #fail(id: number, error: unknown): void {
    const isAway = faultCodes[toFault(error).code].retryable
    this.context.log[isAway ? 'debug' : 'error']('realtime.command-failed', { error })
    this.error(id, errors.internal)
    this.#resume()
  }

  #handle({ id, method, params }: Command): Promise<void> | undefined {
    if (method === 'pong' && this.#awaitsPong) {
      this.#awaitsPong = false
      this.#unproven = 0
      return undefined
    }
    if (!this.#takes(id)) return undefined
    if (method === 'pong') return undefined
    if (method === 'connect') return connect(this, id, params)
    if (this.state !== 'connected') {
      this.end(closes.badRequest)
      return undefined
    }
    switch (method) {
      case 'subscribe':
        return subscribe(this, id, params)
      case 'unsubscribe':
        unsubscribe(this, id, params)
        return undefined
      case 'publish':
        publish(this, id, params)
        return undefined
      case 'history':
        return history(this, id, params)
      case 'presence':
        return presence(this, id, params)
      case 'presence_stats':
        return presenceStats(this, id, params)
      case 'rpc':
        rpc(this, id, params)
        return undefined
      case 'send':
        // A message to the server: apps hear none, and it asks for no answer.
        return undefined
      case 'refresh':
        return refresh(this, id, params)
      case 'sub_refresh':
        return refreshSubscription(this, id, params)
      case 'ping':
        this.reply(reply(id, 'ping', '{}'))
        return undefined
      case 'unknown':
        this.error(id, errors.unknownMethod)
        return undefined
    }
  }

  /** A token bucket: refused while it is empty, closed when as much again was sent all the same. */
  #takes(id: number): boolean {
    const { clock, limits } = this.context
    const now = clock.tick()
    const gained = ((now - this.#spareAt) * limits.commandsPerSecond) / 1000
    this.#spare = Math.min(limits.commandsBurst, this.#spare + gained) - 1
    this.#spareAt = now
    if (this.#spare >= 0) return true
    if (this.#spare < -limits.commandsBurst) this.end(closes.tooMany)
    else this.error(id, errors.tooMany)
    return false
  }

  connected(identity: Identity): void {
    this.state = 'connected'
    this.client = crypto.randomUUID()
    this.refreshed(identity)
    if (!identity.user) return
    this.context.users.add(identity.user.id, this)
    this.context.admission.users.add(identity.user.id)
  }

  refreshed(identity: Identity): void {
    this.identity = identity
    this.#deadline = (identity.kind === 'anonymous' ? undefined : identity.expiresAtMs) ?? Infinity
  }

  /** As the server, whatever the topic's rule says. False: no such topic, too many, or subscribed already. */
  subscribe(topic: string, since?: Position): boolean {
    return subscribeByServer(this, topic, since)
  }

  /** As the server. Whether it was subscribed. */
  unsubscribe(topic: string, why: Unsubscribe): boolean {
    return unsubscribeByServer(this, topic, why)
  }

  /** As the server: another end of the same token; undefined for none. */
  refresh(expiresAtMs: number | undefined): void {
    refreshByServer(this, expiresAtMs)
  }

  /** Bytes that a reply may add; what was replied before goes first, so that the kernel may take it. */
  room(): number {
    const { replyBytesMax } = this.context.limits
    if (this.#out.length > replyOverheadBytes) this.#write()
    const buffered = this.socket?.getBufferedAmount() ?? 0
    return Math.max(0, replyBytesMax - replyOverheadBytes - this.#out.length - buffered)
  }

  error(id: number, error: ProtocolError): void {
    // `send` has no id: there is nothing to answer to.
    if (id !== 0) this.reply(errorReply(id, error))
  }

  reply(text: string): void {
    this.#out = this.#out === '' ? text : `${this.#out}\n${text}`
  }

  /** From the pump. Most hear one topic: the fast path. Several gather, one write for what a round brings. */
  push(frame: string): void {
    if (this.#out === '' && this.seats.length === 1) {
      if (!this.#send(frame)) this.#checkReader()
      return
    }
    if (this.#out.length + frame.length > chunkLengthMax) this.flush()
    if (this.state === 'closed') return
    const isFirst = this.#out === ''
    this.reply(frame)
    if (isFirst) this.context.pump.gather(this)
  }

  lose(topic: Topic): void {
    lose(this, topic)
  }

  reseat(topic: Topic, seat: Seat): void {
    this.seats = this.seats.map((one) => (one.home === topic ? seat : one))
  }

  flush(): void {
    if (!this.#write()) this.#checkReader()
  }

  /** False: the kernel did not take all of it. */
  #write(): boolean {
    const text = this.#out
    this.#out = ''
    return text === '' || this.#send(text)
  }

  #send(text: string): boolean {
    this.#unproven += text.length
    return (this.socket?.send(text) ?? 1) > 0
  }

  /** At the write itself: nothing is dropped, because nobody gets as far as the socket's own limit. */
  #checkReader(): void {
    if (this.state === 'closed') return
    if ((this.socket?.getBufferedAmount() ?? 0) <= this.context.limits.slowBytes) return
    this.#endSlow()
  }

  #endSlow(): void {
    this.context.counts.slow += 1
    this.end(closes.slow)
  }

  #leave(): void {
    if (this.state === 'closed') return
    const { admission, counts, sweep, users } = this.context
    leaveAll(this)
    if (this.state === 'connected' && this.identity.user) {
      users.remove(this.identity.user.id, this)
      admission.users.remove(this.identity.user.id)
    }
    this.state = 'closed'
    this.#queue = undefined
    this.#out = ''
    if (this.bucket === -1) return
    admission.addresses.remove(this.#address)
    counts.sockets -= 1
    sweep.remove(this)
  }
}
