/** WebSocket by hand: a TCP connection that sends what no library would, and reads the frames that come. */
import { until } from './serve.ts'

export const opcodes = {
  more: 0x0,
  text: 0x1,
  binary: 0x2,
  close: 0x8,
  ping: 0x9,
  pong: 0xa,
} as const

export interface FrameOptions {
  readonly opcode?: number
  /** The last of its message. Default true. */
  readonly fin?: boolean
  /** The three reserved bits, as 0x40, 0x20, 0x10. */
  readonly reserved?: number
  /** Default true: what a client sends is masked. */
  readonly masked?: boolean
  /** Says another length than it has. */
  readonly length?: number
  /** 0, 2 or 8 bytes for the length, whatever it is. */
  readonly lengthBytes?: 0 | 2 | 8
}

export function frameOf(payload: string | Uint8Array, options: FrameOptions = {}): Uint8Array {
  const { opcode = opcodes.text, fin = true, reserved = 0, masked = true } = options
  const bytes = Buffer.from(payload)
  const length = options.length ?? bytes.length
  const lengthBytes = options.lengthBytes ?? (length < 126 ? 0 : length < 65_536 ? 2 : 8)
  const head = [(fin ? 0x80 : 0) | reserved | opcode]
  const mark = masked ? 0x80 : 0
  if (lengthBytes === 0) head.push(mark | length)
  else {
    head.push(mark | (lengthBytes === 2 ? 126 : 127))
    for (let at = lengthBytes - 1; at >= 0; at -= 1) head.push(Math.floor(length / 256 ** at) & 255)
  }
  const mask = masked ? [0x12, 0x34, 0x56, 0x78] : []
  const body = masked ? bytes.map((byte, at) => byte ^ (mask[at % 4] ?? 0)) : bytes
  return Buffer.concat([Buffer.from(head), Buffer.from(mask), body])
}

export interface Frame {
  readonly opcode: number
  readonly payload: Buffer
}

export class RawSocket {
  readonly frames: Frame[] = []
  /** Until `\r\n\r\n`. */
  head = ''
  isClosed = false
  #bytes = Buffer.alloc(0)
  #socket: Bun.Socket | undefined

  static async dial(port: number): Promise<RawSocket> {
    const raw = new RawSocket()
    raw.#socket = await Bun.connect({
      hostname: '127.0.0.1',
      port,
      socket: {
        data: (_, bytes) => raw.#hear(bytes),
        close: () => void (raw.isClosed = true),
        end: () => void (raw.isClosed = true),
        error() {},
      },
    })
    return raw
  }

  /** Upgraded. `headers` replace those of the same name. */
  static async upgrade(port: number, headers: Record<string, string> = {}): Promise<RawSocket> {
    const raw = await RawSocket.dial(port)
    const all = {
      Host: 'localhost',
      Upgrade: 'websocket',
      Connection: 'Upgrade',
      'Sec-WebSocket-Version': '13',
      'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
      ...headers,
    }
    const lines = Object.entries(all).flatMap(([name, value]) =>
      value === '' ? [] : [`${name}: ${value}`],
    )
    raw.write(`GET /connection/websocket HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`)
    await until(() => raw.head !== '' || raw.isClosed, 'an answer to the upgrade')
    return raw
  }

  /** Upgraded and connected. */
  static async connect(port: number): Promise<RawSocket> {
    const raw = await RawSocket.upgrade(port)
    raw.send('{"id":1,"connect":{}}')
    await until(() => raw.texts.length === 1, 'connected')
    return raw
  }

  write(bytes: string | Uint8Array): void {
    this.#socket?.write(bytes)
  }

  send(payload: string | Uint8Array, options?: FrameOptions): void {
    this.write(frameOf(payload, options))
  }

  /** Without a close frame; `reset`: without even an end of the connection. */
  drop(how: 'end' | 'reset'): void {
    if (how === 'reset') this.#socket?.terminate()
    else this.#socket?.end()
  }

  get status(): number {
    return Number(this.head.split(' ')[1])
  }

  get texts(): string[] {
    return this.frames.flatMap(({ opcode, payload }) =>
      opcode === opcodes.text ? [payload.toString()] : [],
    )
  }

  /** Of the close frame: its code, 1005 if it has none; undefined if there was none. */
  get closeCode(): number | undefined {
    const frame = this.frames.find(({ opcode }) => opcode === opcodes.close)
    if (!frame) return undefined
    return frame.payload.length < 2 ? 1005 : frame.payload.readUInt16BE(0)
  }

  #hear(bytes: Uint8Array): void {
    this.#bytes = Buffer.concat([this.#bytes, bytes])
    if (this.head === '') {
      const end = this.#bytes.indexOf('\r\n\r\n')
      if (end === -1) return
      this.head = this.#bytes.subarray(0, end).toString('latin1')
      this.#bytes = this.#bytes.subarray(end + 4)
    }
    for (let frame = this.#next(); frame; frame = this.#next()) this.frames.push(frame)
  }

  #next(): Frame | undefined {
    const bytes = this.#bytes
    if (bytes.length < 2) return undefined
    const short = (bytes[1] ?? 0) & 127
    const lengthBytes = short === 126 ? 2 : short === 127 ? 8 : 0
    const start = 2 + lengthBytes
    if (bytes.length < start) return undefined
    const length =
      lengthBytes === 0 ? short : Number(`0x${bytes.subarray(2, start).toString('hex')}`)
    if (bytes.length < start + length) return undefined
    this.#bytes = bytes.subarray(start + length)
    return { opcode: (bytes[0] ?? 0) & 15, payload: bytes.subarray(start, start + length) }
  }
}
