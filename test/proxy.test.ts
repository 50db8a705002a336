import { afterAll, beforeAll, expect, test } from 'bun:test'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { until } from './harness.ts'
import { startProxy } from './proxy.ts'

// Answers with what it is sent.
let server: Server
let target = 0

beforeAll(async () => {
  server = createServer((socket) => socket.on('error', () => undefined).pipe(socket))
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const address = server.address()
  target = typeof address === 'object' && address ? address.port : 0
})

afterAll(() => void server.close())

interface Peer {
  readonly socket: Socket
  readonly heard: () => string
  readonly failure: () => string | undefined
}

function open(port: number): Peer {
  let [text, failure]: [string, string | undefined] = ['', undefined]
  const socket = connect({ port, host: '127.0.0.1' })
  socket.on('data', (chunk) => (text += chunk.toString()))
  socket.on('error', (error) => (failure = 'code' in error ? String(error.code) : error.message))
  return { socket, heard: () => text, failure: () => failure }
}

test('what is sent arrives, in order and whole', async () => {
  await using proxy = await startProxy({ target })
  const peer = open(proxy.port)
  const sent = Array.from({ length: 20_000 }, (_, at) => `line ${at}\n`).join('')
  peer.socket.write(sent)
  await until(() => peer.heard().length === sent.length, 'all has come back')
  expect(peer.heard()).toBe(sent)
  peer.socket.end()
  await until(() => proxy.connections === 0, 'the end is passed on')
})

test('a delay holds each way, also when it grows shorter', async () => {
  await using proxy = await startProxy({ target, delayMs: 60 })
  const peer = open(proxy.port)
  const startedAt = performance.now()
  peer.socket.write('slow ')
  await until(() => proxy.connections === 1, 'it is open')
  await Bun.sleep(20)
  proxy.setDelay(0)
  peer.socket.write('fast')
  await until(() => peer.heard() === 'slow fast', 'both have come')
  // There at the old delay, back at the new one.
  expect(performance.now() - startedAt).toBeGreaterThanOrEqual(59)
  proxy.setDelay(60)
  const before = performance.now()
  peer.socket.write('!')
  await until(() => peer.heard() === 'slow fast!', 'it has come')
  expect(performance.now() - before).toBeGreaterThanOrEqual(119)
  peer.socket.destroy()
})

test('cut: what is open is reset, what comes is refused; then it passes again', async () => {
  await using proxy = await startProxy({ target })
  const old = open(proxy.port)
  old.socket.write('a')
  await until(() => old.heard() === 'a', 'it passes')
  proxy.cut()
  await until(() => old.failure() !== undefined, 'the old one is told')
  expect(old.failure()).toBe('ECONNRESET')
  const refused = open(proxy.port)
  await until(() => refused.failure() !== undefined, 'the new one is told')
  expect(refused.failure()).toBe('ECONNREFUSED')
  proxy.resume()
  const next = open(proxy.port)
  next.socket.write('b')
  await until(() => next.heard() === 'b', 'it passes again')
  next.socket.destroy()
})

test('half-open: it is taken and never answered; afterwards it is reset, not resumed with a hole', async () => {
  await using proxy = await startProxy({ target })
  const [old, idle] = [open(proxy.port), open(proxy.port)]
  for (const { socket } of [old, idle]) socket.write('a')
  await until(() => old.heard() === 'a' && idle.heard() === 'a', 'it passes')
  proxy.halfOpen()
  const late = open(proxy.port)
  for (const { socket } of [old, late]) socket.write('lost')
  await until(() => proxy.connections === 3, 'the new one is taken')
  await Bun.sleep(50)
  expect([old.heard(), late.heard()]).toEqual(['a', ''])
  expect([old.failure(), late.failure()]).toEqual([undefined, undefined])
  proxy.resume()
  await until(() => old.failure() !== undefined && late.failure() !== undefined, 'both are told')
  idle.socket.write('b')
  await until(() => idle.heard() === 'ab', 'one that lost nothing goes on')
  idle.socket.destroy()
})
