/**
 * RFC 6455 at the edge, by hand over TCP: what is right works however it is cut, what is wrong ends its
 * own connection with the right code, and nobody else notices.
 */
import { describe, expect, test } from 'bun:test'
import { RawSocket, frameOf, opcodes } from './raw.ts'
import { RawClient, serve, until, type plansOf, type TestServer } from './serve.ts'

const topics = {
  'open:{name}': { subscribe: 'public', historySize: 5 },
} as const satisfies Parameters<typeof plansOf>[0]

const { more, ping, pong, close, binary, text } = opcodes
const command = '{"id":9,"ping":{}}'
const answer = '{"id":9,"ping":{}}'

const portOf = (server: TestServer) => Number(new URL(server.url).port)

/** Somebody else, who hears the whole time. */
async function bystander(server: TestServer) {
  const client = await RawClient.connect(server.wsUrl)
  await client.call({ subscribe: { channel: 'open:a' } })
  let published = 0
  const hears = async () => {
    published += 1
    server.realtime.publish('open:a', published)
    await until(() => client.publications.length === published, 'the bystander hears')
    expect(client.closed).toBeUndefined()
  }
  return { client, hears }
}

describe('the handshake', () => {
  test.each([
    { Upgrade: 'WebSocket' },
    { Upgrade: 'WEBSOCKET' },
    { Upgrade: 'h2c, websocket' },
    { Connection: 'keep-alive, Upgrade' },
    { Connection: 'UPGRADE' },
    { 'Sec-WebSocket-Extensions': 'permessage-deflate; client_max_window_bits' },
    { 'Sec-WebSocket-Protocol': 'centrifuge-json' },
    { 'Sec-WebSocket-Protocol': 'other, centrifuge-json' },
  ])('%p is upgraded', async (headers) => {
    await using server = serve(topics)
    const raw = await RawSocket.upgrade(
      portOf(server),
      headers as unknown as Record<string, string>,
    )
    expect(raw.status).toBe(101)
    // The key of the RFC's own example, and its answer.
    expect(raw.head).toContain('s3pPLMBiTxaQ9kYGzzhZRbK+xOo=')
    expect(raw.head.toLowerCase()).not.toContain('sec-websocket-extensions')
    const agreed = /sec-websocket-protocol: *(\S+)/i.exec(raw.head)?.[1]
    expect(agreed).toBe('Sec-WebSocket-Protocol' in headers ? 'centrifuge-json' : undefined)
    raw.send('{"id":1,"connect":{}}')
    await until(() => raw.texts.length === 1, 'connected')
    raw.drop('end')
  })

  test.each([
    [{ Upgrade: 'h2c' }, 400],
    [{ Upgrade: '' }, 400],
    [{ Connection: 'close' }, 400],
    [{ Connection: '' }, 400],
    [{ 'Sec-WebSocket-Key': '' }, 400],
    [{ 'Sec-WebSocket-Key': 'short' }, 400],
    [{ 'Sec-WebSocket-Version': '8' }, 426],
    [{ 'Sec-WebSocket-Version': '' }, 426],
    [{ 'Sec-WebSocket-Protocol': 'centrifuge-protobuf' }, 400],
    [{ 'Sec-WebSocket-Protocol': 'mqtt' }, 400],
  ])('%p is refused with %d', async (headers, status) => {
    await using server = serve(topics)
    const raw = await RawSocket.upgrade(
      portOf(server),
      headers as unknown as Record<string, string>,
    )
    expect(raw.status).toBe(status)
    expect(server.realtime.stats().connections).toBe(0)
    raw.drop('end')
  })
})

const umlaut = Buffer.from('{"id":9,"ping":{"ü":1}}')
const cut = umlaut.indexOf(0xc3) + 1

const right: Record<string, (raw: RawSocket) => void> = {
  'a command in three fragments'(raw) {
    raw.send(command.slice(0, 5), { fin: false })
    raw.send(command.slice(5, 9), { fin: false, opcode: more })
    raw.send(command.slice(9), { opcode: more })
  },
  'empty fragments'(raw) {
    raw.send('', { fin: false })
    raw.send(command, { fin: false, opcode: more })
    raw.send('', { opcode: more })
  },
  'control frames between fragments'(raw) {
    raw.send(command.slice(0, 5), { fin: false })
    raw.send('hi', { opcode: ping })
    raw.send('', { opcode: pong })
    raw.send(command.slice(5), { opcode: more })
  },
  'a fragment that ends within a character'(raw) {
    raw.send(umlaut.subarray(0, cut), { fin: false })
    raw.send(umlaut.subarray(cut), { opcode: more })
  },
  'a frame that comes byte by byte'(raw) {
    for (const byte of frameOf(command)) raw.write(Uint8Array.of(byte))
  },
  'two frames in one packet'(raw) {
    raw.write(Buffer.concat([frameOf('{"id":8,"ping":{}}'), frameOf(command)]))
  },
  'a binary frame'(raw) {
    raw.send(command, { opcode: binary })
  },
  'a longer length than it needs'(raw) {
    raw.send(command, { lengthBytes: 8 })
  },
  'exactly 64 KB'(raw) {
    raw.send(command.padEnd(65_536))
  },
  'a pong nobody asked for'(raw) {
    raw.send('x', { opcode: pong })
    raw.send(command)
  },
}

const badClose = (code: number, reason = '') =>
  Buffer.concat([Buffer.from([code >> 8, code & 255]), Buffer.from(reason, 'latin1')])

const wrong: Record<string, readonly [code: number, act: (raw: RawSocket) => void]> = {
  'invalid UTF-8': [1007, (raw) => raw.send(new Uint8Array([0x7b, 0xff, 0xfe]))],
  'invalid UTF-8 in the second fragment': [
    1007,
    (raw) => {
      raw.send(new Uint8Array([0x7b, 0xce]), { fin: false })
      raw.send(new Uint8Array([0xff]), { opcode: more })
    },
  ],
  'a message that ends within a character': [1007, (raw) => raw.send(new Uint8Array([0xc3]))],
  // Of a binary frame nobody promised text: it is not our protocol.
  'invalid UTF-8 in a binary frame': [
    3501,
    (raw) => raw.send(new Uint8Array([0x7b, 0xff]), { opcode: binary }),
  ],
  'the first reserved bit': [1002, (raw) => raw.send(command, { reserved: 0x40 })],
  'the second reserved bit': [1002, (raw) => raw.send(command, { reserved: 0x20 })],
  'the third reserved bit': [1002, (raw) => raw.send(command, { reserved: 0x10 })],
  'a reserved opcode': [1002, (raw) => raw.send(command, { opcode: 3 })],
  'a reserved control opcode': [1002, (raw) => raw.send('', { opcode: 0xb })],
  'a frame without a mask': [1002, (raw) => raw.send(command, { masked: false })],
  'a control frame in fragments': [1002, (raw) => raw.send('hi', { opcode: ping, fin: false })],
  'a control frame of 126 bytes': [1002, (raw) => raw.send('x'.repeat(126), { opcode: ping })],
  'a continuation of nothing': [1002, (raw) => raw.send(command, { opcode: more })],
  'a message within another': [
    1002,
    (raw) => {
      raw.send('{"id"', { fin: false })
      raw.send(command)
    },
  ],
  'a frame of more than 64 KB': [1009, (raw) => raw.send('x'.repeat(65_537))],
  'one that only says so': [1009, (raw) => raw.send('x', { length: 2 ** 31, lengthBytes: 8 })],
  'one whose length has its highest bit': [
    1009,
    (raw) => raw.send('x', { length: 2 ** 63, lengthBytes: 8 }),
  ],
  'fragments of more than 64 KB together': [
    1009,
    (raw) => {
      for (const opcode of [text, more, more, more]) {
        raw.send('x'.repeat(20_000), { fin: false, opcode })
      }
    },
  ],
  'a close frame of one byte': [1002, (raw) => raw.send('x', { opcode: close })],
  'a close code that is reserved': [1002, (raw) => raw.send(badClose(1005), { opcode: close })],
  'a close code that is none': [1002, (raw) => raw.send(badClose(999), { opcode: close })],
  'a close reason that is no text': [
    1007,
    (raw) => raw.send(badClose(1000, '\u00ff'), { opcode: close }),
  ],
  'an empty message': [3501, (raw) => raw.send('')],
  // Answered with the same, as it should be.
  'a close frame': [1000, (raw) => raw.send(badClose(1000, 'bye'), { opcode: close })],
  'a close frame of an application': [3000, (raw) => raw.send(badClose(3000), { opcode: close })],
  'a close frame without a code': [1005, (raw) => raw.send('', { opcode: close })],
}

describe('frames', () => {
  test('what is right is answered, however it is cut', async () => {
    await using server = serve(topics)
    for (const [name, act] of Object.entries(right)) {
      const raw = await RawSocket.connect(portOf(server))
      act(raw)
      await until(() => raw.texts.includes(answer) || raw.isClosed, name)
      expect([name, raw.closeCode]).toEqual([name, undefined])
      raw.drop('end')
    }
  })

  test('a ping is answered with its payload, at once', async () => {
    await using server = serve(topics)
    const raw = await RawSocket.connect(portOf(server))
    raw.send(command.slice(0, 5), { fin: false })
    raw.send('payload', { opcode: ping })
    const isPong = ({ opcode, payload }: RawSocket['frames'][number]) =>
      opcode === pong && payload.toString() === 'payload'
    await until(() => raw.frames.some(isPong), 'the pong')
    raw.drop('end')
  })

  test('what is wrong ends its own connection, with the right code', async () => {
    await using server = serve(topics)
    const other = await bystander(server)
    for (const [name, [code, act]] of Object.entries(wrong)) {
      const raw = await RawSocket.connect(portOf(server))
      raw.send('{"id":2,"subscribe":{"channel":"open:a"}}')
      await until(() => server.realtime.stats().subscriptions === 2, 'subscribed')
      act(raw)
      await until(() => raw.isClosed, `${name}: closed`)
      expect([name, raw.closeCode]).toEqual([name, code])
      await until(() => server.realtime.stats().connections === 1, `${name}: nothing left`)
      expect(server.realtime.stats().subscriptions).toBe(1)
      await other.hears()
    }
    other.client.close()
  })

  test('nothing after a close frame is heard', async () => {
    await using server = serve(topics)
    const raw = await RawSocket.connect(portOf(server))
    raw.write(Buffer.concat([frameOf(badClose(1000), { opcode: close }), frameOf(command)]))
    await until(() => raw.isClosed, 'closed')
    expect(raw.texts).toHaveLength(1)
    expect(raw.closeCode).toBe(1000)
  })
})

describe('abrupt ends', () => {
  const beginnings: Record<string, (raw: RawSocket) => void> = {
    'between frames': () => {},
    'within a header': (raw) => raw.write(frameOf(command).subarray(0, 1)),
    'within a payload': (raw) => raw.write(frameOf(command).subarray(0, 9)),
    'between fragments': (raw) => raw.send(command.slice(0, 5), { fin: false }),
    'after a command': (raw) => raw.send('{"id":3,"history":{"channel":"open:a"}}'),
  }

  test.each(['end', 'reset'] as const)('an %s, wherever, leaves nothing behind', async (how) => {
    await using server = serve(topics)
    const other = await bystander(server)
    for (const [name, begin] of Object.entries(beginnings)) {
      const raw = await RawSocket.connect(portOf(server))
      raw.send('{"id":2,"subscribe":{"channel":"open:a"}}')
      await until(() => server.realtime.stats().subscriptions === 2, 'subscribed')
      begin(raw)
      await other.hears()
      raw.drop(how)
      await until(() => server.realtime.stats().connections === 1, `${name}: gone`)
      expect(server.realtime.stats().subscriptions).toBe(1)
      await other.hears()
    }
    other.client.close()
  })

  test('an end within the handshake is none of ours', async () => {
    await using server = serve(topics)
    for (const how of ['end', 'reset'] as const) {
      const raw = await RawSocket.dial(portOf(server))
      raw.write('GET /connection/websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: webso')
      raw.drop(how)
    }
    const other = await bystander(server)
    await other.hears()
    expect(server.realtime.stats().connections).toBe(1)
    other.client.close()
  })
})
