/** Durable topics on several nodes: the database gives the offsets, and each node tells what the others said. */
import { expect, test } from 'bun:test'
import { must } from '../../src/lib/assert.ts'
import { createDurable } from '../../src/realtime/durable.ts'
import { createFollowed } from '../../src/realtime/followed.ts'
import { createHub } from '../../src/realtime/hub.ts'
import { limitsDefault } from '../../src/realtime/limits.ts'
import { createPump } from '../../src/realtime/pump.ts'
import { createPublications } from '../../src/store/store.ts'
import { createTestClock } from '../clock.ts'
import { createTestLog, openStore, tempFolder } from '../harness.ts'
import { createRandom } from '../lib/random.ts'
import { fragile, room, subscribe } from './durable.ts'
import { plansOf, RawClient, serve, until } from './serve.ts'

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

test('a change that every node tells by itself is told once, whoever is first', async () => {
  using folder = tempFolder()
  await using store = await openStore(folder.file('a.db'), [])
  await using one = serve(topics, { store, isShared: true })
  await using two = serve(topics, { store, isShared: true })
  const clients = [await RawClient.connect(one.wsUrl), await RawClient.connect(two.wsUrl)]
  for (const client of clients) await subscribe(client)
  // Now this node is ahead, now that one; between them somebody says something else.
  for (let seq = 1; seq <= 40; seq += 1) {
    for (const { realtime } of seq % 3 === 0 ? [one, two] : [two, one]) {
      for (const by of ['rows', 'others']) realtime.publish('chat:a', `${by} ${seq}`, { seq, by })
    }
    if (seq % 8 === 0) await one.realtime.submit('chat:a', `plain ${seq}`)
  }
  for (const { realtime } of [one, two, one]) await realtime.submit('chat:a', 'end')
  await until(() => clients.every((one) => one.publications.length >= 88), 'all of it')
  const told = clients.map(({ publications }) => publications.map(({ data }) => data as string))
  expect(told[0]).toEqual(told[1] ?? [])
  const changes = (told[0] ?? []).filter((text) => /rows|others/.test(text))
  expect(changes.toSorted()).toEqual([...new Set(changes)].toSorted())
  expect(changes).toHaveLength(80)
  for (const client of clients) client.close()
})

test('what another node tells of a change waits until this one has followed the log to it', async () => {
  using folder = tempFolder()
  const clock = createTestClock()
  await using store = await openStore(folder.file('a.db'), [])
  const reads: unknown[] = []
  const watched: typeof store = {
    ...store,
    async read(query, options) {
      const rows = await store.read(query, options)
      if (query.name === 'topic after') reads.push(rows)
      return rows
    },
  }
  await using one = serve(topics, { store, clock, isShared: true })
  const late = { clock, isShared: true, isFollowing: true } as const
  await using two = serve(topics, { store: watched, ...late })
  const client = await RawClient.connect(two.wsUrl)
  await subscribe(client)
  two.realtime.followed(6)
  one.realtime.publish('chat:a', 'change 7', { seq: 7, by: 'rows' })
  await one.realtime.submit('chat:a', 'after it')
  // Once: it would not wait for ever.
  clock.advance(500)
  await until(() => reads.length > 0, 'it is read')
  await client.call({ ping: {} })
  expect(offsetsOf(client)).toEqual([])
  two.realtime.followed(7)
  await until(() => offsetsOf(client).length === 2, 'told')
  expect(client.publications.map(({ data }) => data)).toEqual(['change 7', 'after it'])
  client.close()
})

test('who asks again and again where it cannot have been holds up nobody who publishes', async () => {
  using folder = tempFolder()
  await using store = await openStore(folder.file('a.db'), [])
  const [clock, log] = [createTestClock(), createTestLog()]
  const pump = createPump(clock, { turnMs: 8 })
  const hub = createHub({ plans: plansOf(topics), clock, pump }, limitsDefault)
  const match = must(hub.match('chat:a'), () => 'it is declared')
  let isOver = false
  const publications = createPublications(
    {
      ...store,
      async read(query, options) {
        const rows = await store.read(query, options)
        // Before this one is answered, there is the next.
        if (query.name === 'topic after' && !isOver) ask()
        return rows
      },
    },
    { isShared: false },
  )
  const followed = createFollowed(clock, log, false)
  const durable = createDurable({ hub, clock, log, publications, followed, onGap() {} })
  const ask = (): void => {
    const topic = must(hub.peek('chat:a'), () => 'it is alive')
    void durable.ready(match, { epoch: topic.epoch, offset: 99 })
  }
  await durable.publish(match, hub.encode(1))
  ask()
  expect((await durable.publish(match, hub.encode(2))).offset).toBe(2)
  isOver = true
  await durable.settled()
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
