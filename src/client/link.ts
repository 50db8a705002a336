/**
 * The stock `centrifuge` client, obedient to one thing more: a server that sends everybody away (a restart)
 * tells each when to come back, `reconnect_after_ms` in the disconnect push, so that all do not at once.
 *
 *   push {disconnect, reconnect_after_ms: n} ─► held ─► after n ms ─► connect, each topic from its position
 *
 * Its codec is the library's own seam (`_codec`, protected), and sees replies of every transport.
 */
import { Centrifuge, type Options, type TransportEndpoint } from 'centrifuge'

/** Waits, and can be told not to. */
export type After = (ms: number, run: () => void) => () => void

interface Codec {
  decodeReplies(data: unknown): unknown[]
}

export class Link extends Centrifuge {
  readonly #after: After
  /** Told by the server that sends away. */
  #waitMs: number | undefined
  #release: (() => void) | undefined
  #isChanging = false

  constructor(endpoint: string | TransportEndpoint[], options: Partial<Options>, after: After) {
    super(endpoint, options)
    this.#after = after
    const codec = this._codec as Codec
    const heard = (data: unknown): unknown[] => {
      const replies = codec.decodeReplies(data)
      for (const reply of replies) this.#waitMs = waitOf(reply) ?? this.#waitMs
      return replies
    }
    this._codec = Object.assign(Object.create(codec) as Codec, { decodeReplies: heard })
    this.on('connecting', () => this.#hold())
    this.on('connected', () => (this.#waitMs = undefined))
  }

  /** Away for a moment, and about to come back: sent away until the server's time, or changing who it is. */
  get isHeld(): boolean {
    return this.#release !== undefined || this.#isChanging
  }

  /** Before the client plans its own return. */
  #hold(): void {
    const waitMs = this.#waitMs
    if (waitMs === undefined || this.isHeld) return
    this.#waitMs = undefined
    this.#release = this.#after(waitMs, () => {
      this.#release = undefined
      super.connect()
    })
    // Subscriptions stay, each with its position; only the stock client's own timer is not started.
    super.disconnect()
  }

  /** Whoever is held waits, whatever is asked for meanwhile. */
  override connect(): void {
    if (!this.isHeld) super.connect()
  }

  /** As somebody else: with another token, and each topic asked for again. */
  connectAnew(): void {
    this.setToken('')
    if (this.isHeld) return
    this.#isChanging = true
    super.disconnect()
    this.#isChanging = false
    super.connect()
  }

  /** For good. */
  end(): void {
    this.#release?.()
    this.#release = undefined
    super.disconnect()
  }
}

function waitOf(reply: unknown): number | undefined {
  if (!isRecord(reply) || !isRecord(reply['push'])) return undefined
  const { disconnect } = reply['push']
  if (!isRecord(disconnect)) return undefined
  const ms = disconnect['reconnect_after_ms']
  return typeof ms === 'number' && ms >= 0 ? ms : undefined
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null
}
