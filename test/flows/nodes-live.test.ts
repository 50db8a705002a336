/** Two whole servers on one database and one Redis: what is said at one is heard at both, once, by one number. */
import { describe, expect, test } from 'bun:test'
import { signToken } from '../../src/auth/auth.ts'
import { until } from '../harness.ts'
import { RawClient } from '../realtime/serve.ts'
import { dataOf, hear, offsetsOf, stockClient, subscribed } from '../realtime/stock.ts'
import { testSecret } from '../server.ts'
import { isRun, json, pair } from './pair.ts'

describe.skipIf(!isRun)('two servers, one database, one Redis', () => {
  test('a change is told once, whoever made it, with one number at both', async () => {
    await using both = await pair()
    const clients = both.servers.map((server) => stockClient(server, 'websocket'))
    const heard = await Promise.all(clients.map((client) => subscribed(client, 'rows')))
    const kept = await Promise.all(clients.map((client) => subscribed(client, 'kept-rows')))
    for (let n = 1; n <= 20; n += 1) {
      const server = both.servers[n % 2 === 0 ? 0 : 1]
      const body = JSON.stringify({ text: `t${n}` })
      const { status } = await server.get('/api/messages', { method: 'POST', headers: json, body })
      expect(status).toBe(201)
    }
    await until(() => heard.every(({ publications }) => publications.length >= 20), 'heard')
    // Both servers have followed the log to here, and would have said it twice by now.
    const [last] = await Promise.all(
      both.servers.map((server) => server.rooms.realtime.submit('rows', 'end')),
    )
    expect(last?.offset).toBeGreaterThan(20)
    await until(() => heard.every(({ publications }) => publications.length === 22), 'the end')
    const [first, second] = heard
    expect(first && offsetsOf(first)).toEqual(Array.from({ length: 22 }, (_, index) => index + 1))
    expect(second?.publications).toEqual(first?.publications ?? [])
    const texts = (first ? dataOf(first) : [])
      .slice(0, 20)
      .map((data) => (data as { row: { text: string } }).row.text)
    expect(texts.toSorted()).toEqual(Array.from({ length: 20 }, (_, n) => `t${n + 1}`).toSorted())
    // What the database keeps is told once, too.
    for (const { rooms } of both.servers) await rooms.realtime.submit('kept-rows', 'end')
    await until(() => kept.every(({ publications }) => publications.length >= 22), 'kept')
    const allOf = (one: Parameters<typeof dataOf>[0] | undefined) =>
      (one ? dataOf(one) : []).map((data) => JSON.stringify(data)).toSorted()
    for (const one of kept) expect(allOf(one)).toEqual(allOf(first))
    // Who moves to the other server has missed what was said meanwhile, and gets it there.
    const mover = await RawClient.connect(
      both.servers[1].url.replace('http', 'ws') + '/connection/websocket',
    )
    const epoch = heard[0]?.subscribed[0]?.streamPosition?.epoch
    const since = { recover: true, epoch, offset: 15 }
    const { subscribe } = await mover.call({ subscribe: { channel: 'rows', ...since } })
    expect(subscribe).toMatchObject({ recovered: true })
    expect(subscribe?.publications?.map(({ offset }) => offset)).toEqual([
      16, 17, 18, 19, 20, 21, 22,
    ])
    mover.close()
    for (const client of clients) client.disconnect()
  })

  test('publications of clients, presence, coming and going, and durable topics know no border', async () => {
    await using both = await pair()
    const [ann, bob] = [
      stockClient(both.servers[0], 'websocket'),
      stockClient(both.servers[1], 'websocket'),
    ]
    const heard = hear(ann, 'said', { joinLeave: true })
    const kept = hear(ann, 'kept')
    ann.connect()
    await until(() => heard.subscribed.length + kept.subscribed.length === 2, 'subscribed')
    const other = await subscribed(bob, 'said')
    await until(() => heard.joins.length >= 1, 'told who came')
    expect(await other.subscription.presenceStats()).toEqual({ numClients: 2, numUsers: 1 })
    expect(Object.keys((await ann.presence('said')).clients)).toHaveLength(2)
    await other.subscription.publish('hello')
    await until(() => heard.publications.length === 1, 'heard')
    bob.disconnect()
    await until(() => heard.leaves.length === 1, 'told who left')
    expect(await heard.subscription.presenceStats()).toEqual({ numClients: 1, numUsers: 1 })

    const body = JSON.stringify({ channel: 'kept', data: 1 })
    await both.servers[1].get('/api/publish', { method: 'POST', headers: json, body })
    await until(() => kept.publications.length === 1, 'heard, and kept')
    ann.disconnect()
  })

  test('of rows each hears what is his, at either, also of another’s history', async () => {
    await using both = await pair()
    const sign = (claims: {
      readonly sub: string
      readonly tenant: string
      readonly role?: string
    }) => signToken(testSecret, claims, { nowMs: Date.now(), ttlMs: 600_000 })
    const ann = await sign({ sub: 'ann', tenant: 'a' })
    const staff = await sign({ sub: 'bob', tenant: 'b', role: 'staff' })
    const clients = [
      stockClient(both.servers[0], 'websocket', { token: ann }),
      stockClient(both.servers[1], 'websocket', { token: staff }),
    ]
    const heard = clients.map((client) => hear(client, 'own'))
    for (const client of clients) client.connect()
    await until(() => heard.every((one) => one.subscribed.length === 1), 'subscribed')
    for (let n = 1; n <= 8; n += 1) {
      const body = JSON.stringify({ tenant: n % 4 < 2 ? 'a' : 'b', note: `n${n}` })
      const server = both.servers[n % 2 === 0 ? 0 : 1]
      expect(
        (await server.get('/api/tickets', { method: 'POST', headers: json, body })).status,
      ).toBe(201)
    }
    await until(() => heard.every(({ publications }) => publications.length >= 4), 'heard')
    const seen = (one: Parameters<typeof dataOf>[0]) =>
      dataOf(one).map((data) => Object.values((data as { row: object }).row).slice(1))
    const [annsOwn, staffsOwn] = heard.map(seen)
    expect(annsOwn).toEqual([['a'], ['a'], ['a'], ['a']])
    expect(staffsOwn).toEqual([...[2, 3, 6, 7].map((n) => ['b', `n${n}`])])
    for (const client of clients) client.disconnect()
    // What the other server has said, read at this one.
    const mover = stockClient(both.servers[1], 'websocket', { token: ann })
    const moved = await subscribed(mover, 'own')
    // The last row is not for the one who listened here: it may still be on its way.
    const kept = async () => (await moved.subscription.history({ limit: 100 })).publications
    await until(async () => (await kept()).length >= 4, 'it has come')
    expect(seen({ ...moved, publications: await kept() })).toEqual([['a'], ['a'], ['a'], ['a']])
    mover.disconnect()
  })

  test('without Redis each serves its own, and both are one again when it is back', async () => {
    await using both = await pair()
    const clients = both.servers.map((server) => stockClient(server, 'websocket'))
    const heard = await Promise.all(clients.map((client) => subscribed(client, 'rows')))
    await both.redis.kill()
    const body = JSON.stringify({ text: 'alone' })
    await both.servers[0].get('/api/messages', { method: 'POST', headers: json, body })
    // The log reaches both, each tells its own: nobody is left out.
    const isTold = ({ publications }: (typeof heard)[number]) => publications.length > 0
    await until(() => heard.every(isTold), 'told by each server')
    await both.redis.restart()
    const isOne = (): boolean => {
      const epochs = heard.map(({ subscribed: told }) => told.at(-1)?.streamPosition?.epoch)
      return new Set(epochs).size === 1
    }
    await until(isOne, 'one epoch', 20_000)
    await both.servers[1].rooms.realtime.submit('rows', 'again')
    await until(() => heard.every((one) => dataOf(one).at(-1) === 'again'), 'heard by both', 20_000)
    for (const client of clients) client.disconnect()
  }, 60_000)
})
