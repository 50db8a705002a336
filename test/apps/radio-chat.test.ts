import { describe, expect, test } from 'bun:test'
import { fileURLToPath } from 'node:url'
import { sampleLines } from '../../src/apps/sample-lines.ts'
import { signToken } from '../../src/auth/auth.ts'
import { tempFolder, until } from '../harness.ts'
import { codeOf, dataOf, hear, offsetsOf, stockClient, subscribed } from '../realtime/stock.ts'
import { testSecret, type TestServer } from '../server.ts'
import { as, json, type Asker, type Page } from './exams-server.ts'
import { runRadio } from './radio-server.ts'

interface Shout {
  readonly id: number
  readonly userId: string
  readonly name: string
  readonly text: string
}

const tokenOf = (sub: string) =>
  signToken(testSecret, { sub }, { nowMs: Date.now(), ttlMs: 600_000 })

const say = (asker: Asker, text: unknown, room = 'lobby') =>
  asker.send('POST', `/api/chat/${room}`, { text })

/** As if so much time had passed since everything was said. */
async function later(server: TestServer, ms: number): Promise<void> {
  await server.rooms.store.write([{ sql: `update shouts set at = at - ${ms}`, params: [] }])
}

describe('POST /api/chat/:room', () => {
  test('is stored, told to the room with its row, and earns something, which its user hears and nobody else', async () => {
    using folder = tempFolder()
    await using server = await runRadio(folder)
    const ann = await as(server, 'ann')
    await ann.send('POST', '/api/profiles', { name: 'Ann' })
    const client = stockClient(server, 'websocket', { token: await tokenOf('ann') })
    const [room, own] = [await subscribed(client, 'chat:lobby'), hear(client, 'user:ann')]
    const other = hear(client, 'user:bob')
    await until(() => own.subscribed.length === 1 && other.left.length > 1, 'both are answered')
    expect(other.left).toEqual([0, 103])

    const said = await say(ann, 'Hello <b>all</b>')
    expect([said.status, said.headers.get('location')]).toEqual([201, '/api/shouts/1'])
    const shout = (await said.json()) as Shout
    expect(shout).toMatchObject({ id: 1, userId: 'ann', name: 'Ann', text: 'Hello <b>all</b>' })
    await until(() => room.publications.length + own.publications.length === 2, 'both are heard')
    expect(dataOf(room)).toMatchObject([{ collection: 'shouts', op: 'create', row: shout }])
    expect(dataOf(own)).toMatchObject([
      { collection: 'achievements', row: { userId: 'ann', kind: 'first-shout' } },
    ])
    const listed = await json<Page<Shout>>(server, '/api/shouts?room=lobby')
    expect(listed.items).toEqual([shout])
    client.disconnect()
  })

  test('by rpc over the socket that listens', async () => {
    using folder = tempFolder()
    await using server = await runRadio(folder)
    const client = stockClient(server, 'websocket', { token: await tokenOf('bob') })
    const room = await subscribed(client, 'chat:lobby')
    const { data } = await client.rpc('POST /api/chat/lobby', { text: 'over the socket' })
    expect(data).toMatchObject({ userId: 'bob', name: 'bob', text: 'over the socket' })
    await until(() => room.publications.length === 1, 'it is heard')
    expect(await room.subscription.presenceStats()).toEqual({ numClients: 1, numUsers: 1 })
    client.disconnect()
  })

  test('what is no message is refused, naming the field', async () => {
    using folder = tempFolder()
    await using server = await runRadio(folder)
    const ann = await as(server, 'ann')
    const fieldsOf = async (sent: Promise<Response>) => {
      const { errors } = (await (await sent).json()) as { errors?: { field: string }[] }
      return errors?.map(({ field }) => field)
    }
    for (const text of [undefined, 5, '', ' \n', 'x'.repeat(501), 'a\u0000b']) {
      expect(await fieldsOf(say(ann, text))).toEqual(['text'])
    }
    const forged = { text: 'hi', userId: 'bob', at: 0 }
    expect(await fieldsOf(ann.send('POST', '/api/chat/lobby', forged))).toEqual(['userId', 'at'])
    expect((await say(ann, 'hi', 'No%20room')).status).toBe(404)
    expect((await say(await as(server, null), 'hi')).status).toBe(401)
    expect((await json<Page>(server, '/api/shouts')).items).toEqual([])
  })

  test('five in ten seconds over all rooms: the sixth is refused, not stored, and does not count', async () => {
    using folder = tempFolder()
    await using server = await runRadio(folder)
    const [ann, bob] = [await as(server, 'ann'), await as(server, 'bob')]
    const rooms = ['a', 'b', 'a', 'b', 'a']
    for (const room of rooms) expect((await say(ann, 'hi', room)).status).toBe(201)
    for (let again = 0; again < 3; again += 1) {
      const refused = await say(ann, 'too much', 'c')
      expect(refused.status).toBe(429)
      const seconds = Number(refused.headers.get('retry-after'))
      expect(seconds).toBeGreaterThan(0)
      expect(seconds).toBeLessThanOrEqual(10)
    }
    expect((await say(bob, 'hi', 'a')).status).toBe(201)
    await later(server, 10_000)
    expect((await say(ann, 'hi', 'c')).status).toBe(201)
    const count = await json<{ count: number }>(server, '/api/shouts?userId=ann&count=true&limit=1')
    expect(count.count).toBe(6)
  })

  test('five at once beside others of the same user: never more get in', async () => {
    using folder = tempFolder()
    await using server = await runRadio(folder)
    const ann = await as(server, 'ann')
    const sent = await Promise.all(Array.from({ length: 20 }, (_, at) => say(ann, `${at}`)))
    expect(sent.filter(({ status }) => status === 201)).toHaveLength(5)
    expect(sent.filter(({ status }) => status === 429)).toHaveLength(15)
  })

  test('the tenth earns something once; the same key says it once', async () => {
    using folder = tempFolder()
    await using server = await runRadio(folder)
    const ann = await as(server, 'ann')
    for (let at = 0; at < 11; at += 1) {
      expect((await say(ann, `${at}`)).status).toBe(201)
      await later(server, 10_000)
    }
    const once = { 'idempotency-key': 'k' }
    const sent = () => ann.send('POST', '/api/chat/lobby', { text: 'once' }, once)
    const [first, second] = [await (await sent()).json(), await (await sent()).json()]
    expect(second).toEqual(first)
    const earned = await json<Page>(server, '/api/achievements?userId=ann')
    expect(earned.items.map(({ kind }) => kind)).toEqual(['ten-shouts', 'first-shout'])
    const moderator = await as(server, 'mo', { role: 'moderator' })
    expect((await ann.send('DELETE', '/api/shouts/1')).status).toBe(403)
    expect((await moderator.send('DELETE', '/api/shouts/1')).status).toBe(204)
  })
})

describe('a publication on chat:{room}', () => {
  test('is stored before it is acknowledged, in its author’s name, and heard as its row', async () => {
    using folder = tempFolder()
    await using server = await runRadio(folder)
    const client = stockClient(server, 'websocket', { token: await tokenOf('ann') })
    const room = await subscribed(client, 'chat:lobby')
    await room.subscription.publish({ text: 'hello' })
    const listed = await json<Page<Shout>>(server, '/api/shouts?room=lobby')
    expect(listed.items).toMatchObject([{ userId: 'ann', text: 'hello' }])
    await until(() => room.publications.length === 1, 'it is heard')
    expect(dataOf(room)).toMatchObject([{ collection: 'shouts', row: listed.items[0] }])
    client.disconnect()
  })

  test('is refused without a name, as no message, in no room, or after five in ten seconds', async () => {
    using folder = tempFolder()
    await using server = await runRadio(folder)
    const visitor = stockClient(server, 'websocket')
    const unknown = await subscribed(visitor, 'chat:lobby')
    expect(await codeOf(unknown.subscription.publish({ text: 'hi' }))).toBe(103)

    const client = stockClient(server, 'websocket', { token: await tokenOf('ann') })
    const room = await subscribed(client, 'chat:lobby')
    for (const data of [
      {},
      { text: 'hi', userId: 'bob' },
      { text: 5 },
      { text: '' },
      { text: 'x'.repeat(501) },
      'text',
    ]) {
      expect(await codeOf(room.subscription.publish(data))).toBe(107)
    }
    // Passes the schema, and is refused by the route.
    expect(await codeOf(room.subscription.publish({ text: '   ' }))).toBe(400)
    expect(await codeOf(client.publish('chat:No Room', { text: 'hi' }))).toBe(102)
    expect(await codeOf(client.publish('chat:NoRoom', { text: 'hi' }))).toBe(404)
    const said = Array.from({ length: 6 }, (_, at) => room.subscription.publish({ text: `${at}` }))
    const codes = await Promise.all(said.map(codeOf))
    expect(codes).toEqual([...Array.from({ length: 5 }, () => undefined), 111])
    await until(() => room.publications.length === 5, 'five are heard')
    const texts = dataOf(room).map((data) => (data as { row: Shout }).row.text)
    expect(texts).toEqual(['0', '1', '2', '3', '4'])
    for (const one of [visitor, client]) one.disconnect()
  })
})

interface Line {
  readonly user: string | null
  readonly text: string
}

/** A real day of #rust. A name stands for several users, so that no line waits for ten seconds. */
async function chatLog(): Promise<{ readonly user: string; readonly text: string }[]> {
  const path = fileURLToPath(
    new URL('../../db/samples/radio/irc_rust_2018-05.jsonl.gz', import.meta.url),
  )
  const counts = new Map<string, number>()
  const log: { user: string; text: string }[] = []
  for await (const lines of sampleLines(path)) {
    for (const line of lines) {
      if (line === '') continue
      const { user, text } = JSON.parse(line) as Line
      if (user === null) continue
      const count = counts.get(user) ?? 0
      counts.set(user, count + 1)
      log.push({ user: `${user}~${Math.floor(count / 5)}`, text })
    }
  }
  return log
}

/** Sent at the same time. */
const abreast = 16

describe('a real chat log', () => {
  test('1,179 messages of 121 people: whoever listens hears what is stored, in its order, also after being away', async () => {
    using folder = tempFolder()
    await using server = await runRadio(folder)
    const log = await chatLog()
    expect(log).toHaveLength(1_179)
    const [steady, restless] = [stockClient(server, 'websocket'), stockClient(server, 'websocket')]
    const room = 'chat:rust'
    const heard = {
      steady: await subscribed(steady, room),
      restless: await subscribed(restless, room),
    }

    const rest = log.values()
    let sent = 0
    const send = async (): Promise<void> => {
      for (const { user, text } of rest) {
        const response = await say(await as(server, user), text, 'rust')
        expect(response.status).toBe(201)
        sent += 1
        // Shorter than the history of 200.
        if (sent % 300 === 100) restless.disconnect()
        if (sent % 300 === 200) restless.connect()
      }
    }
    await Promise.all(Array.from({ length: abreast }, send))
    if (sent % 300 < 200) restless.connect()
    for (const { publications } of Object.values(heard)) {
      await until(() => publications.length >= log.length, 'all of them are heard', 20_000)
    }

    const stored: Shout[] = []
    let after = ''
    do {
      const path = `/api/shouts?room=rust&order=oldest&limit=100${after}`
      const { items, next } = await json<Page<Shout>>(server, path)
      stored.push(...items)
      after = next === null ? '' : `&after=${encodeURIComponent(next)}`
    } while (after !== '')
    expect(stored).toHaveLength(log.length)
    const said = (all: readonly { userId?: string; user?: string; text: string }[]) =>
      all.map(({ userId, user, text }) => `${userId ?? user}: ${text}`).toSorted()
    expect(said(stored)).toEqual(said(log))
    for (const one of Object.values(heard)) {
      expect(dataOf(one).map((data) => (data as { row: Shout }).row)).toEqual(stored)
      expect(offsetsOf(one)).toEqual(Array.from(stored, (_, at) => at + 1))
      expect(one.subscribed.slice(1).every(({ recovered }) => recovered)).toBe(true)
    }
    expect(heard.restless.subscribed.length).toBeGreaterThan(3)
    for (const client of [steady, restless]) client.disconnect()
  }, 120_000)
})
