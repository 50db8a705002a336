/**
 * Many lean clients of one topic on raw sockets, who come back by themselves: as ours does (when the
 * server said, `reconnect_after_ms`) or as the stock client does (its own jitter, whatever was said), and
 * from the position they had. Each checks all it is told:
 *
 *   next offset = last offset + 1, in one epoch, or else it was told `recovered: false`
 */
import { handshake, masked, pong } from '../bench/wire.ts'

export interface FleetOptions {
  readonly port: number
  readonly topic: string
  readonly size: number
  /** That wait as long as the server says; the others are stock. */
  readonly obedientShare: number
}

export interface Fleet {
  /** Who hears the topic now. */
  readonly subscribed: number
  /** `performance.now()` of each answer to `connect`. */
  readonly connects: readonly number[]
  /** Of those who came back. */
  readonly recovered: number
  readonly told: number
  /** What must not be: a hole or a repetition in what one of them heard, an answer out of place. */
  readonly problems: readonly string[]
  /** Publications by their number that somebody has not heard, and was not told so. */
  readonly missed: ReadonlySet<number>
  /** Close codes, and how often each. */
  readonly codes: ReadonlyMap<number, number>
  /** Attempts that found nobody listening, or were cut off before they were answered. */
  readonly failures: number
  /** The longest that anybody waited for the answer to `connect`. */
  readonly waitMsMax: number
  /** How many have heard publication `n` or a later one. */
  countAt(n: number): number
  /** Opens all of them, some at a time. Resolves when all have been tried. */
  open(): Promise<void>
  close(): void
}

/** As the stock client: full jitter over a doubling interval. */
const backoffMsMin = 500
const backoffMsMax = 20_000

/** As the stock client: no answer to `connect` by then, and it tries again. */
const answerMsMax = 5_000

/** Sockets opened at a time. */
const openBatch = 200

const problemsMax = 20

interface Reply {
  readonly id?: number
  readonly error?: { readonly code: number }
  readonly connect?: object
  readonly subscribe?: Subscribed
  readonly push?: {
    readonly pub?: Publication
    readonly disconnect?: { readonly reconnect_after_ms?: number }
  }
}

interface Publication {
  readonly offset: number
  readonly data: { readonly n: number }
}

interface Subscribed {
  readonly epoch: string
  readonly offset: number
  readonly recovered?: boolean
  readonly was_recovering?: boolean
  readonly publications?: readonly Publication[]
}

interface Position {
  readonly epoch: string
  offset: number
}

/** Of the fleet, what its members count together. */
class Totals {
  subscribed = 0
  readonly connects: number[] = []
  recovered = 0
  told = 0
  readonly problems: string[] = []
  readonly missed = new Set<number>()
  readonly codes = new Map<number, number>()
  failures = 0
  waitMsMax = 0
  isOver = false

  problem(text: string): void {
    if (this.problems.length < problemsMax) this.problems.push(text)
  }
}

class Member {
  readonly #fleet: Totals
  readonly #options: FleetOptions
  readonly #isObedient: boolean
  #socket: Bun.Socket | undefined
  #position: Position | undefined
  /** Of the last publication heard, in this epoch. */
  n: number | undefined
  #state: 'away' | 'greeted' | 'connecting' | 'subscribed' = 'away'
  #bytes: Buffer = Buffer.alloc(0)
  #attempts = 0
  #givenMs: number | undefined
  #askedAt = 0
  #timer: Timer | undefined
  #isOut = true

  constructor(fleet: Totals, options: FleetOptions, isObedient: boolean) {
    this.#fleet = fleet
    this.#options = options
    this.#isObedient = isObedient
  }

  async dial(): Promise<void> {
    const { port } = this.#options
    this.#bytes = Buffer.alloc(0)
    this.#state = 'away'
    this.#isOut = false
    this.#timer = setTimeout(() => this.#socket?.terminate(), answerMsMax)
    try {
      this.#socket = await Bun.connect({
        hostname: '127.0.0.1',
        port,
        socket: {
          open: (socket) => void socket.write(handshake(port)),
          data: (_, bytes) => this.#hear(bytes),
          close: () => this.#left(),
          error() {},
        },
      })
    } catch {
      this.#left()
    }
  }

  leave(): void {
    clearTimeout(this.#timer)
    this.#socket?.terminate()
  }

  #left(): void {
    clearTimeout(this.#timer)
    if (this.#fleet.isOver || this.#isOut) return
    this.#isOut = true
    if (this.#state === 'subscribed') this.#fleet.subscribed -= 1
    else this.#fleet.failures += 1
    this.#state = 'away'
    const given = this.#isObedient ? this.#givenMs : undefined
    this.#givenMs = undefined
    const interval = Math.min(backoffMsMax, backoffMsMin * 2 ** this.#attempts)
    const ownMs = Math.min(backoffMsMax, backoffMsMin + Math.random() * interval)
    this.#attempts += 1
    this.#timer = setTimeout(() => void this.dial(), given ?? ownMs)
  }

  #hear(bytes: Buffer): void {
    this.#bytes = this.#bytes.length === 0 ? bytes : Buffer.concat([this.#bytes, bytes])
    if (this.#state === 'away') {
      const end = this.#bytes.indexOf('\r\n\r\n')
      if (end === -1) return
      this.#bytes = this.#bytes.subarray(end + 4)
      this.#state = 'greeted'
      this.#askedAt = performance.now()
      this.#socket?.write(this.#greeting())
    }
    for (let frame = this.#next(); frame; frame = this.#next()) this.#read(frame)
    // What Bun hands out may be its own to use again.
    this.#bytes = Buffer.from(this.#bytes)
  }

  /** Optimistic, as the stock client: both in one frame. */
  #greeting(): Uint8Array {
    const since = this.#position && { recover: true, ...this.#position }
    const params = { channel: this.#options.topic, ...since }
    return masked(`{"id":1,"connect":{}}\n${JSON.stringify({ id: 2, subscribe: params })}`)
  }

  #next(): { readonly opcode: number; readonly payload: Buffer } | undefined {
    const bytes = this.#bytes
    const short = bytes[1]
    if (short === undefined) return undefined
    const start = short === 127 ? 10 : short === 126 ? 4 : 2
    if (bytes.length < start) return undefined
    const length =
      short === 127
        ? Number(bytes.readBigUInt64BE(2))
        : short === 126
          ? bytes.readUInt16BE(2)
          : short
    if (bytes.length < start + length) return undefined
    this.#bytes = bytes.subarray(start + length)
    return { opcode: (bytes[0] ?? 0) & 15, payload: bytes.subarray(start, start + length) }
  }

  #read({ opcode, payload }: { opcode: number; payload: Buffer }): void {
    if (opcode === 1) {
      for (const line of payload.toString().split('\n')) {
        if (line === '{}') this.#socket?.write(pong)
        else this.#obey(JSON.parse(line) as Reply)
      }
    } else if (opcode === 8) {
      const code = payload.length < 2 ? 1005 : payload.readUInt16BE(0)
      this.#fleet.codes.set(code, (this.#fleet.codes.get(code) ?? 0) + 1)
      this.#socket?.end()
    }
  }

  #obey({ error, connect, subscribe, push }: Reply): void {
    if (error) {
      // 111: the line is full. Others are not expected of anybody here.
      if (error.code !== 111) this.#fleet.problem(`error ${error.code}`)
      this.#socket?.end()
    } else if (connect) this.#connected()
    else if (subscribe) this.#subscribed(subscribe)
    else if (push?.pub) this.#take(push.pub)
    else if (push?.disconnect) this.#givenMs = push.disconnect.reconnect_after_ms
  }

  #connected(): void {
    const now = performance.now()
    clearTimeout(this.#timer)
    this.#state = 'connecting'
    this.#attempts = 0
    this.#fleet.connects.push(now)
    this.#fleet.waitMsMax = Math.max(this.#fleet.waitMsMax, now - this.#askedAt)
  }

  #subscribed({ epoch, offset, recovered, was_recovering, publications = [] }: Subscribed): void {
    const since = this.#position
    if (since && was_recovering !== true) this.#fleet.problem('a recovery was not answered as one')
    if (since && recovered === true) {
      this.#fleet.recovered += 1
      if (since.epoch !== epoch) this.#fleet.problem('recovered into another epoch')
    } else {
      if (since) this.#fleet.told += 1
      this.n = undefined
      this.#position = { epoch, offset }
    }
    if (recovered === true) for (const publication of publications) this.#take(publication)
    this.#state = 'subscribed'
    this.#fleet.subscribed += 1
  }

  #take({ offset, data: { n } }: Publication): void {
    const position = this.#position
    if (!position) return this.#fleet.problem('a publication before the subscription')
    if (offset !== position.offset + 1) {
      this.#fleet.problem(`offset ${offset} after ${position.offset}`)
    }
    position.offset = offset
    if (this.n !== undefined) {
      if (n <= this.n) this.#fleet.problem(`publication ${n} after ${this.n}`)
      for (let between = this.n + 1; between < n; between += 1) this.#fleet.missed.add(between)
    }
    this.n = n
  }
}

export function createFleet(options: FleetOptions): Fleet {
  const { size, obedientShare } = options
  const totals = new Totals()
  const members = Array.from(
    { length: size },
    (_, at) => new Member(totals, options, at < size * obedientShare),
  )
  return Object.assign(totals, {
    countAt: (n: number) => members.filter((member) => (member.n ?? -1) >= n).length,
    async open() {
      for (let at = 0; at < size && !totals.isOver; at += openBatch) {
        await Promise.all(members.slice(at, at + openBatch).map((member) => member.dial()))
      }
    },
    close() {
      totals.isOver = true
      for (const member of members) member.leave()
    },
  })
}
