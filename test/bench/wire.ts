/**
 * What is said on the wire of realtime benches: to Belfry and raw Bun, and to their peers in their own
 * words. Runs on Bun and on Node.
 */

export const topicName = 'bench'

/**
 * In each publication once, and in nothing else that a server says: deliveries are counted by it. Three
 * characters, because the two bytes of a frame's length may be any.
 */
export const mark = '<*>'

/** 128 bytes of JSON. */
export const sample = {
  at: 1_767_225_600_000,
  price: 87.31,
  text: `${mark}${'x'.repeat(128 - 44 - 3)}`,
}

/** A publication as Belfry says it. */
export function pushText(offset: number): string {
  const data = JSON.stringify(sample)
  return `{"push":{"channel":"${topicName}","pub":{"data":${data},"offset":${offset}}}}`
}

export const upgradeOf = (path: string) => (port: number) =>
  `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUpgrade: websocket\r\n` +
  'Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n'

export const handshake = upgradeOf('/connection/websocket')

/** A masked text frame; the mask is zero, which is allowed and costs nothing. */
export function masked(text: string): Uint8Array {
  const payload = Buffer.from(text)
  const isLong = payload.length > 125
  const length = isLong ? [126, payload.length >> 8, payload.length & 255] : [payload.length]
  const [first = 0, ...more] = length
  return Buffer.concat([Buffer.from([0x81, 0x80 | first, ...more, 0, 0, 0, 0]), payload])
}

export const pong = masked('{}')
export const ping = Buffer.from([0x81, 0x02, 0x7b, 0x7d])

/** What a subscriber does, from the outside. */
export interface Protocol {
  hello(port: number): string
  /** One after the other: what is waited for, and what is said then. After the last it hears the topic. */
  readonly steps: readonly Step[]
  readonly ping?: Buffer
  readonly pong?: Uint8Array
}

export interface Step {
  readonly until: string
  readonly say?: Uint8Array
}

const upgraded = '\r\n\r\n'

/** Says `{}` when somebody is subscribed. */
const plain: Protocol = { hello: handshake, steps: [{ until: upgraded }, { until: '{}' }] }

export const protocols = {
  plain,
  belfry: {
    hello: handshake,
    steps: [
      {
        until: upgraded,
        say: masked(`{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"${topicName}"}}`),
      },
      { until: '"subscribe":' },
    ],
    ping,
    pong,
  },
  events: {
    hello: (port) =>
      `GET /api/stream?topics=${topicName} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n\r\n`,
    steps: [{ until: 'id: ' }],
  },
  nchan: { hello: upgradeOf('/sub'), steps: [{ until: upgraded }] },
  nats: {
    hello: upgradeOf('/'),
    steps: [
      {
        until: 'INFO {',
        say: masked(`CONNECT {"verbose":false}\r\nSUB ${topicName} 1\r\nPING\r\n`),
      },
      { until: 'PONG' },
    ],
    ping: Buffer.from('PING\r\n'),
    pong: masked('PONG\r\n'),
  },
  socketio: {
    hello: upgradeOf('/socket.io/?EIO=4&transport=websocket'),
    steps: [{ until: '0{', say: masked('40') }, { until: '40{' }],
    ping: Buffer.from([0x81, 0x01, 0x32]),
    pong: masked('3'),
  },
} as const satisfies Record<string, Protocol>
