/**
 * One per socket, and there are 100,000 of them: few fields, no closure, no timer. It is the socket's
 * `ws.data`; the methods that take the socket first are the ones Bun's handlers delegate to.
 *
 *   opened ──connect──► connected ──┐
 *     │  (identify may take a while: what follows queues)
 *     └────────────────────────────┴──► closed
 *
 * Invariant: `subscribe` reads the history, answers and listens in one tick, and no publication leaves
 * this connection before the replies to what came before it (`Hub.writer`).
 */
import type { Identity, Verdict } from '../auth/auth.ts'
import type { Clock } from '../lib/clock.ts'
import { detach } from '../lib/service.ts'
import type { Log } from '../observe/log.ts'
import type { Hub, Match, Topic, Writer } from './hub.ts'
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
import { pingSeconds, type Sweep, type Swept } from './sweep.ts'

/** As much of Bun's `ServerWebSocket` as a connection uses. */
export interface Socket {
  send(text: string): number
  subscribe(topic: string): boolean
  unsubscribe(topic: string): boolean
  close(code: number, reason: string): void
  getBufferedAmount(): number
}

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

export class Connection implements Swept, Writer {
  bucket = -1
  slot = -1
  readonly #context: ConnectionContext
  #socket: Socket | undefined
  #identity: Identity
  #state: 'opened' | 'connected' | 'closed' = 'opened'
  #awaitsPong = false
  /** Before `connect`: `clock.tick()` by which it must come. After: `clock.now()` at which it expires. */
  #deadline = Infinity
  #topics: Topic[] = noTopics
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
    this.flush()
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
    const { clock, counts, limits } = this.#context
    if (this.#state === 'opened') {
      // While `identify` runs the client has done its part.
      if (!this.#queue && clock.tick() > this.#deadline) this.end(closes.stale)
      return
    }
    if ((this.#socket?.getBufferedAmount() ?? 0) > limits.slowBytes) {
      counts.slow += 1
      this.end(closes.slow)
    } else if (clock.now() > this.#deadline + limits.expiryGraceMs) {
      this.end(closes.expired)
    }
  }

  #enqueue(queue: Queue, text: string): void {
    queue.bytes += text.length
    if (queue.frames.push(text) <= queueFramesMax && queue.bytes <= queueBytesMax) return
    this.end(closes.badRequest)
  }

  #run(commands: readonly Command[]): void {
    const { hub } = this.#context
    // A server-side publish from within a rule nests; whoever wrote before writes again after.
    const before = hub.writer
    hub.writer = this
    try {
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
    } finally {
      hub.writer = before
    }
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
    for (const topic of this.#topics.slice()) {
      if (this.#ask(topic, 'subscribe') === 'allowed') continue
      this.#drop(topic)
      this.#reply(unsubscribePush(topic.name, unsubscribes.denied))
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
    if (this.#topics.some(({ name }) => name === channel)) {
      return this.#error(id, errors.alreadySubscribed)
    }
    if (this.#topics.length >= limits.topicsPerConnectionMax) return this.#error(id, errors.limit)
    const match = this.#allowed(id, channel, 'subscribe')
    if (!match) return
    // A rule that talks to this connection's user may have closed it.
    if (this.#state !== 'connected') return
    const topic = hub.open(match)
    if (!topic) return this.#error(id, errors.tooMany)

    // One tick from here to the end: read, answer, listen.
    this.#reply(reply(id, 'subscribe', this.#subscribed(topic, since)))
    if (this.#topics === noTopics) this.#topics = [topic]
    else this.#topics.push(topic)
    topic.sockets += 1
    counts.subscriptions += 1
    this.#socket?.subscribe(channel)
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
    const topic = this.#topics.find(({ name }) => name === channel)
    if (topic) this.#drop(topic)
    this.#reply(reply(id, 'unsubscribe', '{}'))
  }

  #drop(topic: Topic): void {
    const { clock, counts } = this.#context
    this.#topics = this.#topics.filter((one) => one !== topic)
    topic.sockets -= 1
    topic.usedAt = clock.tick()
    counts.subscriptions -= 1
    this.#socket?.unsubscribe(topic.name)
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
    if (this.#out.length > replyOverheadBytes) this.flush()
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

  /** Also when a publication is about to leave in the middle of a frame's commands. */
  flush(): void {
    if (this.#out === '') return
    const text = this.#out
    this.#out = ''
    this.#socket?.send(text)
  }

  #leave(): void {
    if (this.#state === 'closed') return
    const { clock, counts, sweep } = this.#context
    this.#state = 'closed'
    const now = clock.tick()
    for (const topic of this.#topics) {
      topic.sockets -= 1
      topic.usedAt = now
    }
    counts.subscriptions -= this.#topics.length
    this.#topics = noTopics
    this.#queue = undefined
    this.#out = ''
    if (this.bucket === -1) return
    counts.sockets -= 1
    sweep.remove(this)
  }
}

/** Shared by all that listen to nothing: an idle visitor costs no array. Never written to. */
const noTopics: Topic[] = []
