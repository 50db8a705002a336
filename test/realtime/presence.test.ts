/** Who is there: presence, counts, and coming and going, over each transport of the stock client. */
import { describe, expect, test } from 'bun:test'
import { createTestClock } from '../clock.ts'
import { createAttendance } from '../../src/realtime/attendance.ts'
import { createPresence } from '../../src/realtime/presence.ts'
import type { plansOf } from './serve.ts'
import { RawClient, serve, until } from './serve.ts'
import { codeOf, hear, stockClient, subscribed, transports } from './stock.ts'

const topics = {
  'room:{name}': { subscribe: 'public', publish: 'public', presence: true },
  'club:{name}': { subscribe: 'signed-in', presence: true },
  plain: { subscribe: 'public' },
} as const satisfies Parameters<typeof plansOf>[0]

const names = (clients: Record<string, { user: string }>) =>
  Object.values(clients)
    .map(({ user }) => user)
    .sort()

describe.each([...transports])('over %s', (transport) => {
  test('members are listed and counted, and gone when their connection is', async () => {
    await using server = serve(topics)
    const ann = stockClient(server, transport, { token: 'user:ann' })
    const tab = stockClient(server, transport, { token: 'user:ann' })
    const visitor = stockClient(server, transport)
    await subscribed(ann, 'room:a')
    await subscribed(tab, 'room:a')
    const heard = await subscribed(visitor, 'room:a')
    const { clients } = await visitor.presence('room:a')
    expect(names(clients)).toEqual(['', 'ann', 'ann'])
    const hers = Object.values(clients).find(({ user }) => user === 'ann')
    expect(hers).toMatchObject({ user: 'ann', connInfo: { name: 'ANN' } })
    expect(Object.keys(clients)).toContain(hers?.client ?? '')
    expect(await heard.subscription.presenceStats()).toEqual({ numClients: 3, numUsers: 2 })

    tab.disconnect()
    heard.subscription.unsubscribe()
    await until(() => server.realtime.stats().subscriptions === 1, 'two are gone')
    expect(server.realtime.connectionsOf('ann')).toHaveLength(1)
    expect(await ann.presenceStats('room:a')).toEqual({ numClients: 1, numUsers: 1 })
    expect((await ann.presence('room:b')).clients).toEqual({})
    ann.disconnect()
    await until(() => server.realtime.stats().connections === 1, 'the last')
    expect(await visitor.presenceStats('room:a')).toEqual({ numClients: 0, numUsers: 0 })
    visitor.disconnect()
  })

  test('who may not hear a topic may not ask who does; where none is kept it is 108', async () => {
    await using server = serve(topics)
    const client = stockClient(server, transport)
    client.connect()
    expect(await codeOf(client.presence('club:a'))).toBe(103)
    expect(await codeOf(client.presenceStats('club:a'))).toBe(103)
    expect(await codeOf(client.presence('plain'))).toBe(108)
    expect(await codeOf(client.presence('nothing'))).toBe(102)
    client.disconnect()
  })

  test('those who ask are told who comes and goes, however it goes', async () => {
    await using server = serve(topics)
    const watcher = stockClient(server, transport, { token: 'user:watcher' })
    const watching = hear(watcher, 'room:a', { joinLeave: true })
    watcher.connect()
    await until(() => watching.joins.length === 1, 'itself')
    const silent = stockClient(server, transport)
    const other = await subscribed(silent, 'room:a')
    const ann = stockClient(server, transport, { token: 'user:ann' })
    const hers = await subscribed(ann, 'room:a')
    await until(() => watching.joins.length === 3, 'all three')
    expect(watching.joins).toMatchObject([
      { user: 'watcher', connInfo: { name: 'WATCHER' } },
      { user: '' },
      { user: 'ann', connInfo: { name: 'ANN' } },
    ])
    hers.subscription.unsubscribe()
    await until(() => watching.leaves.length === 1, 'unsubscribed')
    server.realtime.connectionsOf('ann')[0]?.end({ code: 3503, reason: 'force disconnect' })
    silent.disconnect()
    await until(() => watching.leaves.length === 2, 'disconnected')
    expect(watching.leaves).toMatchObject([{ user: 'ann' }, { user: '' }])
    expect(other.joins).toEqual([])
    await watcher.publish('room:a', 'still there')
    await until(() => watching.publications.length === 1, 'heard')
    watching.subscription.unsubscribe()
    await watcher.presenceStats('room:a')
    watcher.disconnect()
  })
})

test('more members than fit a reply are an error, never a part; they can be counted', async () => {
  await using server = serve(topics, { limits: { replyBytesMax: 3_000 } })
  const clients: RawClient[] = []
  for (let n = 0; n < 40; n += 1) {
    const client = await RawClient.connect(server.wsUrl, `user:u${n}`)
    await client.call({ subscribe: { channel: 'room:a' } })
    clients.push(client)
  }
  const [first] = clients
  expect((await first?.call({ presence: { channel: 'room:a' } }))?.error?.code).toBe(106)
  expect(await first?.call({ presence_stats: { channel: 'room:a' } })).toMatchObject({
    presence_stats: { num_clients: 40, num_users: 40 },
  })
  for (const client of clients) client.close()
})

test('a crowd that comes and goes is told in fewer and larger frames, and to at most 1,000', async () => {
  const clock = createTestClock()
  const attendance = createAttendance(clock, createPresence())
  const frames: string[][] = []
  const observe = () => {
    const heard: string[] = []
    frames.push(heard)
    return attendance.observe('room:a', { push: (frame) => void heard.push(frame) })
  }
  for (let n = 0; n < 1_000; n += 1) expect(observe()).toBe(true)
  expect(observe()).toBe(false)
  const join = (n: number) =>
    attendance.join('room:a', { client: `c${n}`, user: '', info: `{"client":"c${n}"}` })
  const turn = () => new Promise((resolve) => setImmediate(resolve))
  join(1)
  join(2)
  await turn()
  expect(frames[0]).toEqual([
    '{"push":{"channel":"room:a","join":{"info":{"client":"c1"}}}}\n' +
      '{"push":{"channel":"room:a","join":{"info":{"client":"c2"}}}}',
  ])
  // A thousand hear it: the next frame leaves 100 ms later.
  for (let n = 3; n <= 99; n += 1) {
    join(n)
    await turn()
    clock.advance(1)
  }
  expect(frames[0]).toHaveLength(1)
  clock.advance(10)
  expect(frames[0]).toHaveLength(2)
  expect(frames[0]?.[1]?.split('\n')).toHaveLength(97)
  expect(frames[1_000]).toEqual([])
})
