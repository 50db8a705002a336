/** Tokens and keys that are refused: one count for all doors and sockets, by address. */
import { describe, expect, test } from 'bun:test'
import { State } from 'centrifuge'
import { signToken } from '../../src/auth/auth.ts'
import { topic, type AppOptions } from '../../src/kit.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { tempFolder, until } from '../harness.ts'
import { RawClient } from '../realtime/serve.ts'
import { stockClient, transports } from '../realtime/stock.ts'
import { runServer, testSecret, type TestServer } from '../server.ts'

const app: Omit<AppOptions, 'name'> = {
  limits: { credentials: '3/min' },
  topics: { talk: topic({ subscribe: 'public' }), secret: topic({}) },
}

/** Behind one proxy, so that a test can come from anywhere. */
const env = { TRUSTED_PROXIES: 'loopback' }
const from = (address: string) => ({ 'x-forwarded-for': address })

const tokenOf = (claims: Record<string, unknown>, ttlMs = 600_000) =>
  signToken(testSecret, claims, { nowMs: Date.now(), ttlMs })

let forgeries = 0
/** Each another one, so that none is known already. */
const forged = () =>
  signToken(`${testSecret}!`, { sub: 'ann', n: ++forgeries }, { nowMs: Date.now(), ttlMs: 60_000 })

const socketUrl = (server: TestServer) => `${server.url.replace('http', 'ws')}/connection/websocket`

/** What comes of `connect` on a socket of its own: `error 111, close 3013`. */
async function connectWith(server: TestServer, token: string, address = '192.0.2.1') {
  const client = await RawClient.open(socketUrl(server), from(address))
  client.send(JSON.stringify({ id: 1, connect: { token } }))
  const isAnswered = () => client.replies.some((reply) => reply['connect'] !== undefined)
  await until(() => client.closed !== undefined || isAnswered(), 'an answer to connect')
  const errors = client.replies.flatMap(({ error }) => (error ? [`error ${error.code}, `] : []))
  const outcome = isAnswered() ? 'connected' : `${errors.join('')}close ${client.closed?.code}`
  client.close()
  return outcome
}

async function statusOf(server: TestServer, token: string, address = '192.0.2.1') {
  const headers = { authorization: `Bearer ${token}`, ...from(address) }
  return (await server.get('/api/health', { headers })).status
}

describe('tokens of sockets that are refused', () => {
  test('count with those of requests; then none is looked at for a while', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder, env })
    expect(await connectWith(server, await forged())).toBe('close 3500')
    expect(await statusOf(server, await forged())).toBe(401)
    expect(await connectWith(server, 'nonsense')).toBe('close 3500')
    expect(await connectWith(server, await forged())).toBe('error 111, close 3013')
    const { verifications } = server.rooms.auth.stats()
    for (let time = 0; time < 5; time++) {
      expect(await connectWith(server, await forged())).toBe('error 111, close 3013')
    }
    expect(await statusOf(server, await forged())).toBe(429)
    expect(server.rooms.auth.stats().verifications).toBe(verifications)
    expect(await connectWith(server, await tokenOf({ sub: 'ann' }), '192.0.2.2')).toBe('connected')
    const visitor = await RawClient.open(socketUrl(server), from('192.0.2.1'))
    expect(await visitor.call({ connect: {} })).toMatchObject({ connect: { ping: 25 } })
    visitor.close()
  })

  test('count in the headers of connect, with refresh, and of subscriptions', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder, env })
    const client = await RawClient.open(socketUrl(server), from('192.0.2.1'))
    await client.call({ connect: {} })
    const subscribe = async () => {
      const token = await forged()
      return (await client.call({ subscribe: { channel: 'secret', token } })).error?.code
    }
    expect([await subscribe(), await subscribe()]).toEqual([103, 103])
    const other = await RawClient.open(socketUrl(server), from('192.0.2.1'))
    await other.call({ connect: {} })
    other.send(JSON.stringify({ id: 9, refresh: { token: await forged() } }))
    await until(() => other.closed?.code === 3500, 'refused')
    expect([await subscribe(), await subscribe()]).toEqual([111, 111])
    const pass = await tokenOf({ channel: 'secret' })
    const wanted = { subscribe: { channel: 'secret', token: pass } }
    expect((await client.call(wanted)).error?.code).toBe(111)
    expect((await client.call({ refresh: { token: pass } })).error?.code).toBe(111)
    // What it has, it keeps.
    expect((await client.call({ subscribe: { channel: 'talk' } })).error).toBeUndefined()
    const third = await RawClient.open(socketUrl(server), from('192.0.2.1'))
    third.send('{"id":1,"connect":{"headers":{"Authorization":"Basic YW5u"}}}')
    await until(() => third.closed?.code === 3013, 'not looked at')
    client.close()
  })

  test('that were good once do not count: a house may come back with tokens of yesterday', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder, env })
    for (let n = 0; n < 5; n++) {
      const old = await signToken(testSecret, { sub: 'ann', n }, { nowMs: 0, ttlMs: 1_000 })
      expect(await statusOf(server, old)).toBe(401)
      const client = await RawClient.open(socketUrl(server), from('192.0.2.1'))
      expect((await client.call({ connect: { token: old } })).error?.code).toBe(109)
      client.close()
    }
    expect(await statusOf(server, await tokenOf({ sub: 'ann' }))).toBe(200)
  })

  test.each([...transports])(
    'the stock client over %s waits, and comes in by itself when it is over',
    async (transport) => {
      using folder = tempFolder()
      let shiftMs = 0
      const clock = { ...systemClock, tick: () => systemClock.tick() + shiftMs }
      await using server = await runServer({ app, folder, clock })
      for (let time = 0; time < 3; time++) {
        const wrong = stockClient(server, transport, { token: await forged() })
        const ends: number[] = []
        wrong.on('disconnected', ({ code }) => void ends.push(code))
        wrong.connect()
        await until(() => ends.length > 0, 'ended')
        expect(ends).toEqual([3500])
      }
      const one = stockClient(server, transport, { token: await forged() })
      const good = stockClient(server, transport, { token: await tokenOf({ sub: 'ann' }) })
      let tries = 0
      const ends: number[] = []
      // The first is refused as one too many; from then on nobody is looked at.
      one.on('connecting', ({ code }) => void (code === 3013 && tries++))
      one.on('error', ({ error }) => void (error.code === 111 && tries++))
      for (const client of [one, good]) client.on('disconnected', ({ code }) => ends.push(code))
      one.connect()
      await until(() => tries > 0, 'refused')
      good.connect()
      await until(() => tries > 3, 'comes back')
      expect([ends, good.state]).toEqual([[], State.Connecting])
      one.disconnect()
      shiftMs = 61_000
      await until(() => good.state === State.Connected, 'let in')
      expect(ends).toEqual([0])
      good.disconnect()
    },
  )
})

describe('a thousand', () => {
  const many = 1_000
  const tally = async (ask: (n: number) => Promise<Response>) => {
    const counts: Record<number, number> = {}
    for (let n = 0; n < many; n++) {
      const { status } = await ask(n)
      counts[status] = (counts[status] ?? 0) + 1
    }
    return counts
  }
  const withKey = (server: TestServer, key: string, address: string) =>
    server.get('/api/health', { headers: { 'x-api-key': key, ...from(address) } })
  const withToken = (server: TestServer, token: string, address: string) =>
    server.get('/api/health', { headers: { authorization: `Bearer ${token}`, ...from(address) } })

  test('bad tokens, or keys, of one address: sixty and one are looked at', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app: {}, folder, env })
    const [head, body] = (await tokenOf({ sub: 'ann' })).split('.')
    const guess = (n: number) => `${head}.${body}.${String(n).padStart(42, 'a')}A`
    expect(await tally((n) => withToken(server, guess(n), '192.0.2.1'))).toEqual({
      401: 60,
      429: 940,
    })
    expect(server.rooms.auth.stats().verifications).toBe(61)
    const { key } = await server.rooms.auth.keys.create({ name: 'k', scopes: ['read:*'] })
    const other = key.at(-5) === 'A' ? 'B' : 'A'
    const wrong = (n: number) => key.slice(0, -5) + other + String(n).padStart(4, '0')
    expect(await tally((n) => withKey(server, wrong(n), '192.0.2.2'))).toEqual({
      401: 60,
      429: 940,
    })
    // Those who are right are somewhere else.
    expect((await withKey(server, key, '192.0.2.3')).status).toBe(200)
    expect((await withKey(server, key, '192.0.2.2')).status).toBe(429)
  })

  test('addresses with a bad token each: each is told, and nobody else is kept out', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app: {}, folder, env })
    const addressOf = (n: number) => `198.51.${n >> 8}.${n & 255}`
    const token = await tokenOf({ sub: 'ann' })
    const bad = (n: number) => withToken(server, `${token.slice(0, -8)}${n}AAAA`, addressOf(n))
    expect(await tally(bad)).toEqual({ 401: many })
    expect((await withToken(server, token, addressOf(1))).status).toBe(200)
  })
})
