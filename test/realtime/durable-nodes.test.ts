/** Durable topics on several nodes: the database gives the offsets, and each node tells what the others said. */
import { expect, test } from 'bun:test'
import { createTestClock } from '../clock.ts'
import { openStore, tempFolder } from '../harness.ts'
import { createRandom } from '../lib/random.ts'
import { fragile, room, subscribe } from './durable.ts'
import { RawClient, serve, until } from './serve.ts'

const topics = { 'chat:{room}': room } as const

const offsetsOf = (client: RawClient) => client.publications.map(({ offset }) => offset)

test('an offset is never given out twice, and both tell in one order', async () => {
  using folder = tempFolder()
  await using store = await openStore(folder.file('a.db'), [])
  await using one = serve(topics, { store })
  await using two = serve(topics, { store })
  const clients = [await RawClient.connect(one.wsUrl), await RawClient.connect(two.wsUrl)]
  for (const client of clients) await subscribe(client)
  const said = await Promise.all(
    Array.from({ length: 40 }, (_, n) => (n % 2 ? one : two).realtime.submit('chat:a', n)),
  )
  for (const server of [one, two]) await server.realtime.submit('chat:a', 'end')
  expect(new Set(said.map(({ offset }) => offset)).size).toBe(40)
  const [first, second] = clients
  // Without following, the first node has not heard the second one's last word.
  await until(() => first?.publications.length === 41, 'the first')
  await until(() => second?.publications.length === 42, 'the second')
  for (const client of clients) {
    expect(offsetsOf(client)).toEqual(client.publications.map((_, index) => index + 1))
    client.close()
  }
  expect(second?.publications.slice(0, 41)).toEqual(first?.publications ?? [])
})

test('who only listens hears what another node was told, in time', async () => {
  using folder = tempFolder()
  const clock = createTestClock()
  await using store = await openStore(folder.file('a.db'), [])
  await using one = serve(topics, { store, clock, isShared: true })
  await using two = serve(topics, { store, clock, isShared: true })
  const client = await RawClient.connect(one.wsUrl)
  await subscribe(client)
  for (let n = 1; n <= 90; n += 1) await two.realtime.submit('chat:a', n)
  await until(() => {
    clock.advance(500)
    return client.publications.length === 90
  }, 'all of them')
  expect(offsetsOf(client)).toEqual(client.publications.map((_, index) => index + 1))
  client.close()
})

test('what another node has said and pruned already is lost, and who listens is told', async () => {
  using folder = tempFolder()
  const clock = createTestClock()
  await using store = await openStore(folder.file('a.db'), [])
  const plans = { 'chat:{room}': { ...room, historySize: 1_000 } }
  await using one = serve(plans, { store, clock, isShared: true })
  await using two = serve(plans, { store, clock, isShared: true })
  const client = await RawClient.connect(one.wsUrl)
  await subscribe(client)
  await one.realtime.submit('chat:a', 0)
  const stream = await fetch(`${one.url}/api/stream?topics=chat:a`)
  for (let n = 1; n <= 300; n += 1) await two.realtime.submit('chat:a', n)
  const told = () => client.replies.find(({ push }) => push?.unsubscribe)?.push
  await until(() => {
    clock.advance(500)
    return told() !== undefined
  }, 'is told')
  expect(told()?.unsubscribe).toMatchObject({ code: 2500 })
  const heard = await stream.text()
  const id = /id: (\S+)/.exec(heard)?.[1] ?? ''
  expect(offsetsOf(client)).toEqual([1])
  await until(() => {
    clock.advance(500)
    return (
      one.realtime.history('chat:a', { limit: 0, since: undefined, reverse: false }).offset === 301
    )
  }, 'the rest is read')
  const { epoch } = await subscribe(client)
  await client.call({ unsubscribe: { channel: 'chat:a' } })
  const again = await subscribe(client, { recover: true, epoch, offset: 1 })
  expect(again).toMatchObject({ recovered: false, offset: 301 })
  const resumed = await fetch(`${one.url}/api/stream?topics=chat:a`, {
    headers: { 'last-event-id': id },
  })
  const reader = resumed.body?.getReader()
  const first = new TextDecoder().decode((await reader?.read())?.value)
  expect(first).toContain('event: gap')
  await reader?.cancel()
  client.close()
})

test('who comes from a node that is ahead is not told that anything is lost', async () => {
  using folder = tempFolder()
  await using store = await openStore(folder.file('a.db'), [])
  await using one = serve(topics, { store })
  await using two = serve(topics, { store })
  const before = await RawClient.connect(one.wsUrl)
  const { epoch } = await subscribe(before)
  for (let n = 1; n <= 3; n += 1) await two.realtime.submit('chat:a', n)
  const client = await RawClient.connect(one.wsUrl)
  const recovered = await subscribe(client, { recover: true, epoch, offset: 2 })
  expect(recovered).toMatchObject({ recovered: true, publications: [{ offset: 3 }] })
  await until(() => offsetsOf(before).length === 3, 'and so does who was there')
  for (const of of [before, client]) of.close()
})

test('property: four nodes, commits refused or forgotten: every listener the same, without a hole', async () => {
  using folder = tempFolder()
  await using store = await openStore(folder.file('a.db'), [])
  const random = createRandom(31)
  const clock = createTestClock()
  const size = 10_000
  const plans = {
    'chat:{room}': { ...room, historySize: size, persist: { size, ttlMs: 3_600_000 } },
  }
  const stores = Array.from({ length: 4 }, () => fragile(store))
  const servers = stores.map((own) => serve(plans, { store: own, clock, isShared: true }))
  const clients: RawClient[] = []
  for (const server of servers) {
    const client = await RawClient.connect(server.wsUrl)
    await subscribe(client)
    clients.push(client)
  }
  for (const { state } of stores) {
    state.next = () =>
      (['pass', 'pass', 'pass', 'refuse', 'forget'] as const)[random.below(5)] ?? 'pass'
  }
  const acknowledged = new Map<number, number>()
  for (let n = 0; n < 400; n += 4) {
    const some = servers.map(async ({ realtime }, index) => {
      const data = n + index
      if (random.below(3) === 0) return
      const position = await realtime.submit('chat:a', data).catch(() => {})
      if (position) acknowledged.set(data, position.offset)
    })
    await Promise.all(some)
    if (random.below(2) === 0) clock.advance(random.below(1_500))
  }
  for (const { state } of stores) state.next = () => 'pass'
  const last = await servers[0]?.realtime.submit('chat:a', -1)
  await until(() => {
    clock.advance(500)
    return clients.every((client) => client.publications.at(-1)?.offset === last?.offset)
  }, 'all have heard all')
  const [first, ...others] = clients
  const heard = first?.publications ?? []
  expect(heard.map(({ offset }) => offset)).toEqual(heard.map((_, index) => index + 1))
  for (const other of others) expect(other.publications).toEqual(heard)
  for (const [data, offset] of acknowledged) expect(heard[offset - 1]?.data).toBe(data)
  expect(acknowledged.size).toBeGreaterThan(100)
  for (const client of clients) client.close()
  for (const server of servers) await server.stop()
})
