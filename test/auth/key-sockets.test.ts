/** Who came in by an API key goes when the key does: sockets and streams, here and at other nodes. */
import { describe, expect, test } from 'bun:test'
import { keyHolder } from '../../src/auth/auth.ts'
import { createEviction } from '../../src/auth/eviction.ts'
import { topic } from '../../src/kit.ts'
import type { Clock } from '../../src/lib/clock.ts'
import { createTestClock, shiftedClock } from '../clock.ts'
import { tempFolder, until } from '../harness.ts'
import { runServer, testApiKey, type TestServer } from '../server.ts'
import { requireService, startSqld } from '../services.ts'
import { openSocket, openStream } from './live.ts'

const app = { topics: { news: topic({ subscribe: 'public' }) } }
const headed = (key: string) => ({ headers: { 'x-api-key': key } })
const make = async (server: TestServer, ttlMs?: number, scopes = ['admin']) =>
  await server.rooms.auth.keys.create({ name: 'k', scopes, ttlMs })

const connect = '{"id":1,"connect":{}}'
const stream = '/api/stream?topics=news'

/** One of each way in that stays open. */
async function openAll(server: TestServer, key: string) {
  const socket = openSocket(server, headed(key))
  await socket.connect()
  return {
    socket,
    streams: [
      await openStream(server, stream, headed(key)),
      await openStream(server, `/connection/sse?cf_connect=${connect}`, headed(key)),
      await openStream(server, '/connection/http_stream', {
        ...headed(key),
        method: 'POST',
        body: connect,
      }),
    ],
  }
}

/** What each was told at its end. */
async function endsOf({ socket, streams }: Awaited<ReturnType<typeof openAll>>) {
  await Promise.all(streams.map(({ ended }) => ended))
  return [await socket.closed, ...streams.map(({ text }) => text.includes('"code":3500'))]
}

const gone = [3500, false, true, true]

describe('sockets and streams of an API key', () => {
  test('are closed with 3500 when it is revoked; of others they stay, of API_KEY too', async () => {
    using folder = tempFolder()
    await using server = await runServer({ folder, app })
    const [one, other] = [await make(server), await make(server, undefined, ['read:*'])]
    const opened = await openAll(server, one.key)
    const stays = await openAll(server, other.key)
    using mine = openSocket(server, headed(testApiKey))
    await mine.connect()
    await server.rooms.auth.keys.revoke(one.id)
    expect(await endsOf(opened)).toEqual(gone)
    expect(server.rooms.realtime.stats()).toMatchObject({ sockets: 4, streams: 1 })
    await server.rooms.auth.keys.revoke(other.id)
    expect(await endsOf(stays)).toEqual(gone)
    expect(server.rooms.realtime.stats()).toMatchObject({ sockets: 1, streams: 0 })
  })

  test('that were identified before and connect afterwards are closed, too', async () => {
    using folder = tempFolder()
    await using server = await runServer({ folder, app })
    const { key, id } = await make(server)
    using opened = openSocket(server, headed(key))
    await opened.opened
    await server.rooms.auth.keys.revoke(id)
    expect(await opened.closed).toBe(3500)
  })

  test('are closed with 3500 when its time is over', async () => {
    using folder = tempFolder()
    const clock = shiftedClock()
    // A second of whoever looks after those who are connected.
    const every: Clock['every'] = (ms, run) => clock.every(ms === 1_000 ? 20 : ms, run)
    await using server = await runServer({ folder, app, clock: { ...clock, every } })
    const { key } = await make(server, 3_600_000)
    const long = await make(server)
    const opened = await openAll(server, key)
    using stays = openSocket(server, headed(long.key))
    await stays.connect()
    clock.by += 3_600_001
    expect(await endsOf(opened)).toEqual(gone)
    expect(server.rooms.realtime.stats()).toMatchObject({ sockets: 1, streams: 0 })
  })
})

test('who was on the way in when a key was revoked is closed within twenty seconds', () => {
  const clock = createTestClock()
  const revoked: ((id: string) => void)[] = []
  const eviction = createEviction({
    clock,
    revocations: { has: () => false, onRevoked() {} },
    keys: { onRevoked: (listener) => void revoked.push(listener) },
  })
  const inside: string[] = []
  eviction.from({
    of: () => [],
    users: () => [],
    holding: (isWanted) =>
      inside.filter(isWanted).map((key) => ({
        identity: keyHolder,
        end: () => void inside.splice(inside.indexOf(key), 1),
      })),
  })
  for (const tell of revoked) tell('one')
  inside.push('one', 'other')
  clock.advance(250)
  expect(inside).toEqual(['other'])
  clock.advance(19_500)
  inside.push('one')
  clock.advance(500)
  expect(inside).toEqual(['other'])
  eviction.stop()
})

describe.skipIf(!requireService('sqld'))('several nodes', () => {
  test('what one of them revokes the others close', async () => {
    await using primary = await startSqld()
    using folder = tempFolder()
    const env = { DATABASE_URL: primary.url }
    await using here = await runServer({ folder, app, env })
    await using there = await runServer({ folder, app, env })
    const { key, id } = await make(here)
    await until(() => there.rooms.auth.identifyKey(key).ok, 'the other node hears of the key')
    const opened = await openAll(there, key)
    await here.rooms.auth.keys.revoke(id)
    expect(await endsOf(opened)).toEqual(gone)
  })
})
