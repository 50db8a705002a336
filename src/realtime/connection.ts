/**
 * One per socket, and there are 100,000 of them: few fields, no closure, no timer. It is the socket's
 * `ws.data`; the methods that take the socket first are the ones Bun's handlers delegate to.
 *
 *   opened ──connect──► connected ──┐
 *     │  (identify may take a while: what follows queues)
 *     └────────────────────────────┴──► closed
 *
 * Invariant: `subscribe` reads the history, answers and joins in one tick, and what is published leaves
 * when that tick is over (`pump.ts`): no publication overtakes the reply to what came before it.
 */
import type { Identity, Verdict } from '../auth/auth.ts'
import type { Clock } from '../lib/clock.ts'
import { detach } from '../lib/service.ts'
import type { Log } from '../observe/log.ts'
import type { FrameSink, Hub, Match, Seat, Topic } from './hub.ts'
import { chunkLengthMax, type Pump } from './pump.ts'
import {
  closes,
  encodePublications,
  errorReply,
  errors,
  frameBytesMax,
  parseFrame,
  pingFrame,
  reply,
  unsubscribePush,
  unsubscribes,
  type Close,
  type Command,
  type ProtocolError,
} from './protocol.ts'
import { historyQueryOf, positionOf, readHistory, recover, type Position } from './recovery.ts'
import { ask, type Answer } from './rules.ts'
import type { Socket } from './socket.ts'
import { pingSeconds, type Sweep, type Swept } from './sweep.ts'

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
}

/** Waiting for `identify`: this much, then it is not a client any more. */
const queueFramesMax = 64
const queueBytesMax = 2 * frameBytesMax

/** Room for the fields of a reply around its publications. */
const replyOverheadBytes = 1024

export interface ConnectionContext {
  readonly hub: Hub
  readonly pump: Pick<Pump, 'gather'>
  readonly clock: Clock
  readonly log: Log
  readonly sweep: Sweep<Swept>
  readonly limits: ConnectionLimits
  readonly version: string
  readonly identify: (token: string) => Verdict | Promise<Verdict>
  readonly counts: { sockets: number; subscriptions: number; slow: number }
}

type Purpose = 'connect' | 'refresh'

interface Queue {
  commands: readonly Command[]
  readonly frames: string[]
  bytes: number
}

const strictUtf8 = new TextDecoder('utf-8', { fatal: true })

export class Connection implements Swept, FrameSink {
  bucket = -1
  slot = -1
  readonly #context: ConnectionContext
  #socket: Socket | undefined
  #identity: Identity
  #state: 'opened' | 'connected' | 'closed' = 'opened'
  #awaitsPong = false
  /** Before `connect`: `clock.tick()` by which it must come. After: `clock.now()` at which it expires. */
  #deadline = Infinity
  #seats: Seat[] = noSeats
  /** Replies of the frame that is being handled. */
  #out = ''
  #queue: Queue | undefined

  /** `identity`: from the upgrade request; the token in `connect` wins over it. */
  constructor(context: ConnectionContext, identity: Identity) {
    this.#context = context
    this.#identity = identity
  }

  open(socket: Socket): void {
    const { clock, counts, limits, sweep } = this.#context
    this.#socket = socket
    this.#deadline = clock.tick() + limits.connectMs
    counts.sockets += 1
    sweep.add(this)
  }

  message(_socket: Socket, data: string | Uint8Array): void {
    if (this.#state === 'closed') return
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
    if (this.#state === 'closed') return
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
    const socket = this.#socket
    if (this.#state === 'closed') return
    this.#write()
    this.#leave()
    socket?.close(code, reason)
  }

  beat(): void {
    if (this.#state !== 'connected') return
    this.#awaitsPong = true
    this.#socket?.send(pingFrame)
  }

  late(): void {
    if (this.#awaitsPong) this.end(closes.noPong)
  }

  check(): void {
    const { clock, limits } = this.#context
    if (this.#state === 'opened') {
      // While `identify` runs the client has done its part.
      if (!this.#queue && clock.tick() > this.#deadline) this.end(closes.stale)
      return
    }
    if (clock.now() > this.#deadline + limits.expiryGraceMs) this.end(closes.expired)
    else this.#checkReader()
  }

  #enqueue(queue: Queue, text: string): void {
    queue.bytes += text.length
    if (queue.frames.push(text) <= queueFramesMax && queue.bytes <= queueBytesMax) return
    this.end(closes.badRequest)
  }

  #run(commands: readonly Command[]): void {
    for (const [index, command] of commands.entries()) {
      const waiting = this.#handle(command)
      if (this.#state === 'closed') return
      if (waiting) {
        this.#queue = { commands: commands.slice(index + 1), frames: [], bytes: 0 }
        detach(
          waiting.then(() => this.#resume()),
          (error) => this.#fail(command.id, error),
        )
        break
      }
    }
    this.flush()
  }

  /** In the order they came: the rest of the frame that waited, then the frames after it. */
  #resume(): void {
    const queue = this.#queue
    this.#queue = undefined
    if (this.#state === 'closed' || !queue) return
    this.#run(queue.commands)
    for (const frame of queue.frames) this.#receive(frame)
  }

  #fail(id: number, error: unknown): void {
    this.#context.log.error('realtime.command-failed', { error })
    this.#error(id, errors.internal)
    this.#resume()
  }

  #handle({ id, method, params }: Command): Promise<void> | undefined {
    if (method === 'pong') {
      this.#awaitsPong = false
      return undefined
    }
    if (method === 'connect') return this.#connect(id, params)
    if (this.#state !== 'connected') {
      this.end(closes.badRequest)
      return undefined
    }
    switch (method) {
      case 'subscribe':
        this.#subscribe(id, params)
        return undefined
      case 'unsubscribe':
        this.#unsubscribe(id, params)
        return undefined
      case 'publish':
        this.#publish(id, params)
        return undefined
      case 'history':
        this.#history(id, params)
        return undefined
      case 'refresh':
        return this.#refresh(id, params)
      case 'ping':
        this.#reply(reply(id, 'ping', '{}'))
        return undefined
      case 'not-served':
        this.#error(id, errors.notAvailable)
        return undefined
      case 'unknown':
        this.#error(id, errors.unknownMethod)
        return undefined
    }
  }

  #connect(id: number, { token }: Command['params']): Promise<void> | undefined {
    if (this.#state !== 'opened') {
      this.end(closes.badRequest)
      return undefined
    }
    if (token === undefined || token === '') {
      this.#connected(id, this.#identity)
      return undefined
    }
    if (typeof token !== 'string') {
      this.#error(id, errors.badRequest)
      return undefined
    }
    return this.#identify(token, id, 'connect')
  }

  #refresh(id: number, { token }: Command['params']): Promise<void> | undefined {
    if (typeof token !== 'string') {
      this.#error(id, errors.badRequest)
      return undefined
    }
    return this.#identify(token, id, 'refresh')
  }

  #identify(token: string, id: number, purpose: Purpose): Promise<void> | undefined {
    const verdict = this.#context.identify(token)
    if (verdict instanceof Promise) {
      return verdict.then((known) => this.#identified(id, known, purpose))
    }
    this.#identified(id, verdict, purpose)
    return undefined
  }

  #identified(id: number, verdict: Verdict, purpose: Purpose): void {
    if (this.#state === 'closed') return
    if (!verdict.ok) this.#refuse(id, verdict.reason)
    else if (purpose === 'connect') this.#connected(id, verdict.identity)
    else this.#refreshed(id, verdict.identity)
  }

  #connected(id: number, identity: Identity): void {
    const ttl = this.#adopt(identity)
    if (ttl === undefined) return this.#refuse(id, 'expired')
    this.#state = 'connected'
    const { version } = this.#context
    const client = crypto.randomUUID()
    this.#reply(
      reply(
        id,
        'connect',
        `{"client":"${client}","version":"${version}",${ttl}"ping":${pingSeconds},"pong":true}`,
      ),
    )
  }

  /** The new token must be the same user's: what it listens to was allowed to that one. */
  #refreshed(id: number, identity: Identity): void {
    if (identity.user?.id !== this.#identity.user?.id) return this.end(closes.invalidToken)
    const ttl = this.#adopt(identity)
    if (ttl === undefined) return this.#refuse(id, 'expired')
    this.#reply(reply(id, 'refresh', `{${ttl.slice(0, -1)}}`))
    // A new token may carry another role.
    for (const seat of this.#seats.slice()) {
      if (this.#ask(seat.home, 'subscribe') === 'allowed') continue
      this.#drop(seat)
      this.#reply(unsubscribePush(seat.home.name, unsubscribes.denied))
    }
  }

  #refuse(id: number, reason: 'invalid' | 'expired'): void {
    if (reason === 'expired') this.#error(id, errors.tokenExpired)
    else this.end(closes.invalidToken)
  }

  /** Fields of the reply that say how long the identity lasts; undefined when it is over already. */
  #adopt(identity: Identity): string | undefined {
    const expiresAtMs = identity.kind === 'user' ? identity.expiresAtMs : undefined
    const leftMs = (expiresAtMs ?? Infinity) - this.#context.clock.now()
    if (leftMs <= 0) return undefined
    this.#identity = identity
    this.#deadline = expiresAtMs ?? Infinity
    return expiresAtMs === undefined ? '' : `"expires":true,"ttl":${Math.ceil(leftMs / 1000)},`
  }

  #subscribe(id: number, params: Command['params']): void {
    const { channel } = params
    const { counts, hub, limits } = this.#context
    const since = params.recover === true ? positionOf(params) : undefined
    if (typeof channel !== 'string' || (params.recover === true && !since)) {
      return this.#error(id, errors.badRequest)
    }
    if (this.#seatIn(channel)) {
      return this.#error(id, errors.alreadySubscribed)
    }
    if (this.#seats.length >= limits.topicsPerConnectionMax) return this.#error(id, errors.limit)
    const match = this.#allowed(id, channel, 'subscribe')
    if (!match) return
    // A rule that talks to this connection's user may have closed it.
    if (this.#state !== 'connected') return
    const topic = hub.open(match)
    if (!topic) return this.#error(id, errors.tooMany)

    // One tick from here to the end: read, answer, listen.
    this.#reply(reply(id, 'subscribe', this.#subscribed(topic, since)))
    if (this.#seats === noSeats) this.#seats = []
    this.#seats.push(hub.join(topic, this))
    counts.subscriptions += 1
  }

  #seatIn(name: string): Seat | undefined {
    return this.#seats.find(({ home }) => home.name === name)
  }

  #subscribed(topic: Topic, since: Position | undefined): string {
    const { epoch, history, offset, plan } = topic
    const kept = plan.historySize > 0 ? '"recoverable":true,"positioned":true,' : ''
    if (since) {
      const missed = recover(topic, since, this.#room())
      if (missed) {
        // The position it recovers from: each publication that follows moves the client's on.
        const list = missed.length > 0 ? `,"publications":${encodePublications(missed)}` : ''
        return `{${kept}"epoch":"${epoch}","offset":${since.offset},"recovered":true,"was_recovering":true${list}}`
      }
    }
    const latest = plan.last ? history.newest : undefined
    const list =
      latest && latest.bytes <= this.#room()
        ? `,"publications":${encodePublications([latest])}`
        : ''
    const was = since ? '"recovered":false,"was_recovering":true,' : ''
    return `{${kept}${was}"epoch":"${epoch}","offset":${offset}${list}}`
  }

  #unsubscribe(id: number, { channel }: Command['params']): void {
    if (typeof channel !== 'string') return this.#error(id, errors.badRequest)
    const seat = this.#seatIn(channel)
    if (seat) this.#drop(seat)
    this.#reply(reply(id, 'unsubscribe', '{}'))
  }

  #drop(seat: Seat): void {
    const { counts, hub } = this.#context
    this.#seats = this.#seats.filter((one) => one !== seat)
    hub.leave(seat, this)
    counts.subscriptions -= 1
  }

  #publish(id: number, { channel, data }: Command['params']): void {
    if (typeof channel !== 'string' || data === undefined) return this.#error(id, errors.badRequest)
    const match = this.#allowed(id, channel, 'publish')
    if (!match) return
    const { hub, log } = this.#context
    try {
      hub.publish(match.name, hub.encode(data))
      this.#reply(reply(id, 'publish', '{}'))
    } catch (error) {
      // Too large as we write it, nested too deep, or no room for one more topic.
      log.debug('realtime.publish-refused', { topic: channel, error })
      this.#error(id, errors.limit)
    }
  }

  #history(id: number, params: Command['params']): void {
    const { channel } = params
    const query = historyQueryOf(params)
    if (typeof channel !== 'string' || !query) return this.#error(id, errors.badRequest)
    const match = this.#allowed(id, channel, 'subscribe')
    if (!match) return
    const { hub, limits } = this.#context
    if (match.plan.historySize === 0) return this.#error(id, errors.notAvailable)
    const topic = hub.open(match)
    const bytesMax = this.#room()
    if (!topic || bytesMax === 0) return this.#error(id, errors.tooMany)
    const found = readHistory(topic, query, { limitMax: limits.historyLimitMax, bytesMax })
    if (!found) return this.#error(id, errors.unrecoverable)
    const position = `"epoch":"${topic.epoch}","offset":${topic.offset}`
    this.#reply(reply(id, 'history', `{"publications":${encodePublications(found)},${position}}`))
  }

  /** The topic, when it is declared and its rule lets in; otherwise the error is answered. */
  #allowed(id: number, name: string, act: 'subscribe' | 'publish'): Match | undefined {
    const match = this.#context.hub.match(name)
    if (!match) {
      this.#error(id, errors.unknownTopic)
      return undefined
    }
    const answer = this.#ask(match, act)
    if (answer === 'allowed') return match
    this.#error(id, answer === 'denied' ? errors.denied : errors.internal)
    return undefined
  }

  #ask({ name, plan, params }: Match, act: 'subscribe' | 'publish'): Answer {
    const question = { rule: plan[act], params, topic: name, act }
    return ask(this.#context.log, this.#identity, question)
  }

  /** Bytes that a reply may add; what was replied before goes first, so that the kernel may take it. */
  #room(): number {
    const { replyBytesMax } = this.#context.limits
    if (this.#out.length > replyOverheadBytes) this.#write()
    const buffered = this.#socket?.getBufferedAmount() ?? 0
    return Math.max(0, replyBytesMax - replyOverheadBytes - this.#out.length - buffered)
  }

  #error(id: number, error: ProtocolError): void {
    // `send` has no id: there is nothing to answer to.
    if (id !== 0) this.#reply(errorReply(id, error))
  }

  #reply(text: string): void {
    this.#out = this.#out === '' ? text : `${this.#out}\n${text}`
  }

  /** From the pump. Who hears several topics gathers what they say in one round to one write. */
  push(frame: string): void {
    if (this.#out.length + frame.length > chunkLengthMax) this.flush()
    if (this.#state === 'closed') return
    const isFirst = this.#out === ''
    this.#reply(frame)
    if (this.#seats.length === 1) this.flush()
    else if (isFirst) this.#context.pump.gather(this)
  }

  flush(): void {
    if (!this.#write()) this.#checkReader()
  }

  /** False: the kernel did not take all of it. */
  #write(): boolean {
    const text = this.#out
    this.#out = ''
    return text === '' || (this.#socket?.send(text) ?? 1) > 0
  }

  /** At the write itself: nothing is dropped, because nobody gets as far as the socket's own limit. */
  #checkReader(): void {
    if ((this.#socket?.getBufferedAmount() ?? 0) <= this.#context.limits.slowBytes) return
    this.#context.counts.slow += 1
    this.end(closes.slow)
  }

  #leave(): void {
    if (this.#state === 'closed') return
    const { counts, hub, sweep } = this.#context
    this.#state = 'closed'
    for (const seat of this.#seats) hub.leave(seat, this)
    counts.subscriptions -= this.#seats.length
    this.#seats = noSeats
    this.#queue = undefined
    this.#out = ''
    if (this.bucket === -1) return
    counts.sockets -= 1
    sweep.remove(this)
  }
}

/** Shared by all that listen to nothing: an idle visitor costs no array. Never written to. */
const noSeats: Seat[] = []
