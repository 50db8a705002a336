/**
 * The stock client's fallbacks where no WebSocket gets through: one long answer for what the server
 * says, one short request for each frame that the client says.
 *
 *   GET /connection/sse?cf_connect=…   or   POST /connection/http_stream      ◄── replies and pushes
 *   POST /emulation {session, node, data}                                    ──► commands
 *
 * An `Emulated` is a connection's socket over a `ReadableStream`: commands, limits, pings and recovery
 * are the connection's own. The session is a secret that only its client knows, so whoever has it speaks
 * for the connection. It lives in this process: a request that names another node is told so, and the
 * client connects anew.
 */
import type { Connection } from './connection.ts'
import { disconnectPush } from './protocol.ts'
import type { Socket } from './socket.ts'
import type { Controller } from './streams.ts'

export type Framing = 'sse' | 'http_stream'

export interface EmulationContext {
  readonly sessions: Map<string, Emulated>
  /** Above it the reader is slow. */
  readonly slowBytes: number
}

const encoder = new TextEncoder()

/** Subscribers of a topic get the same text one after the other: it is framed once for all of a kind. */
const framed = {
  sse: { text: '', bytes: new Uint8Array() },
  http_stream: { text: '', bytes: new Uint8Array() },
}

function frame(framing: Framing, text: string): Uint8Array {
  const last = framed[framing]
  if (last.text === text) return last.bytes
  last.text = text
  last.bytes = encoder.encode(
    framing === 'sse' ? `data: ${text.replaceAll('\n', '\ndata: ')}\n\n` : `${text}\n`,
  )
  return last.bytes
}

export class Emulated implements Socket {
  readonly session = crypto.randomUUID()
  readonly remoteAddress: string
  readonly #context: EmulationContext
  readonly #connection: Connection
  readonly #framing: Framing
  #first: string | undefined
  #controller: Controller | undefined
  /** Given to the stream since its queue was last seen to be short: at least what is in it. */
  #queuedBytes = 0
  #lastBytes = 0

  /** `first`: the frame that came with the request. */
  constructor(
    context: EmulationContext,
    connection: Connection,
    { framing, address, first }: { framing: Framing; address: string; first: string },
  ) {
    this.#context = context
    this.#connection = connection
    this.#framing = framing
    this.#first = first
    this.remoteAddress = address
  }

  start(controller: Controller): void {
    this.#controller = controller
    this.#context.sessions.set(this.session, this)
    this.#connection.open(this)
    const first = this.#first ?? ''
    this.#first = undefined
    this.#connection.message(this, first)
  }

  /** The reader went away. */
  cancel(): void {
    this.#leave()
    this.#connection.close()
  }

  receive(frames: string): void {
    this.#connection.message(this, frames)
  }

  send(text: string): number {
    const controller = this.#controller
    if (!controller) return 0
    const bytes = frame(this.#framing, text)
    // Queued already, and then this one: the stream counts chunks, not bytes (as in streams.ts).
    this.#account()
    this.#lastBytes = bytes.byteLength
    this.#queuedBytes += bytes.byteLength
    controller.enqueue(bytes)
    return (controller.desiredSize ?? 1) < 1 ? -1 : bytes.byteLength
  }

  getBufferedAmount(): number {
    this.#account()
    return this.#queuedBytes
  }

  #account(): void {
    const queued = 1 - (this.#controller?.desiredSize ?? 1)
    if (queued <= 0) this.#queuedBytes = 0
    else if (queued === 1) this.#queuedBytes = this.#lastBytes
  }

  /** Without close frames the code is a push before the end. */
  close(code: number, reason: string): void {
    const controller = this.#controller
    if (!controller) return
    const isSlow = this.getBufferedAmount() > this.#context.slowBytes
    if (!isSlow) this.send(disconnectPush({ code, reason }))
    this.#leave()
    // What a slow reader has not read would be kept until it has, or never does.
    if (isSlow) controller.error()
    else controller.close()
  }

  #leave(): void {
    this.#controller = undefined
    this.#context.sessions.delete(this.session)
  }
}
