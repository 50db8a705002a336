import { describe, expect, test } from 'bun:test'
import { Centrifuge, type PublicationContext, type SubscribedContext } from 'centrifuge'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { signToken } from '../../src/auth/auth.ts'
import { collection, desc, topic } from '../../src/kit.ts'
import { tempFolder, until } from '../harness.ts'
import { runServer, testApiKey, testSecret, type TestServer } from '../server.ts'
import { slowQuery } from '../store/slow.ts'

const notes = sqliteTable('notes', { id: integer().primaryKey(), text: text().notNull() })

const app = {
  collections: {
    notes: collection(notes, {
      read: 'public',
      create: 'public',
      orders: { newest: desc(notes.id) },
      live: () => 'notes',
    }),
  },
  topics: {
    notes: topic({ subscribe: 'public', history: { size: 100, ttl: '1h' } }),
    'inbox:{user}': topic({ subscribe: ({ user, params }) => user?.id === params['user'] }),
  },
}

interface Note {
  readonly op: string
  readonly row: { readonly id: number; readonly text: string }
}

function connect(server: TestServer, options: { token?: string } = {}): Centrifuge {
  const client = new Centrifuge(`${server.url.replace('http', 'ws')}/connection/websocket`, {
    minReconnectDelay: 1,
    maxReconnectDelay: 20,
    ...options,
  })
  client.connect()
  return client
}

/** A subscriber to `notes`: what it heard, and how each of its subscriptions began. */
async function listen(server: TestServer) {
  const client = connect(server)
  const heard: number[] = []
  const subscribed: SubscribedContext[] = []
  const subscription = client.newSubscription('notes')
  subscription.on('publication', ({ data }) => void heard.push((data as Note).row.id))
  subscription.on('subscribed', (context) => void subscribed.push(context))
  subscription.subscribe()
  await subscription.ready()
  return { client, heard, subscribed }
}

const create = (server: TestServer, id: number) =>
  server.rooms.collections.create(planOf(server), null, { id, text: `note ${id}` })

function planOf(server: TestServer) {
  const [plan] = server.rooms.collections.plans
  if (!plan) throw new Error('the app has a collection')
  return plan
}

describe('a change of a collection', () => {
  test('is heard by the stock client, and who refetches on hearing it sees it', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    const client = connect(server)
    const seen: unknown[] = []
    const subscription = client.newSubscription('notes')
    subscription.on('publication', ({ data }: PublicationContext) => {
      const { row } = data as Note
      void server
        .get('/api/notes?limit=1')
        .then((response) => response.json())
        .then((page) => seen.push([row.id, (page as { items: Note['row'][] }).items[0]?.id]))
    })
    subscription.subscribe()
    await subscription.ready()
    for (let id = 1; id <= 20; id++) {
      await server.get('/api/notes')
      await create(server, id)
      await until(() => seen.length === id, `note ${id} is heard`)
    }
    expect(seen).toEqual(Array.from({ length: 20 }, (_, at) => [at + 1, at + 1]))
    client.disconnect()
  })

  test('missed by a client that was away: exactly those 50 come, in order', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    const { client, heard, subscribed } = await listen(server)
    await create(server, 1)
    await until(() => heard.length === 1, 'the first is heard')
    client.disconnect()
    await until(() => server.rooms.realtime.stats().connections === 0, 'it is away')
    for (let id = 2; id <= 51; id++) await create(server, id)
    client.connect()
    await until(() => subscribed.length === 2, 'it is back')
    await create(server, 52)
    await until(() => heard.includes(52), 'it is live again')
    expect(heard).toEqual(Array.from({ length: 52 }, (_, at) => at + 1))
    expect(subscribed[1]).toMatchObject({ wasRecovering: true, recovered: true })
    client.disconnect()
  })

  test('missed for longer than the history reaches: told so, no silent hole', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    const { client, heard, subscribed } = await listen(server)
    client.disconnect()
    await until(() => server.rooms.realtime.stats().connections === 0, 'it is away')
    await create(server, 1)
    client.connect()
    await until(() => subscribed.length === 2, 'it is back')
    expect(subscribed[1]).toMatchObject({ wasRecovering: true, recovered: true })
    client.disconnect()
    await until(() => server.rooms.realtime.stats().connections === 0, 'it is away again')
    for (let id = 2; id <= 103; id++) await create(server, id)
    client.connect()
    await until(() => subscribed.length === 3, 'it is back again')
    expect(subscribed[2]).toMatchObject({ wasRecovering: true, recovered: false })
    expect(heard).toEqual([1])
    client.disconnect()
  })
})

test('while a reader runs a long query, publications arrive and other reads go on', async () => {
  using folder = tempFolder()
  await using server = await runServer({ app, folder })
  const { client, heard } = await listen(server)
  // Longer than the test, which ends it.
  let isSlowDone = false
  const end = (): void => void (isSlowDone = true)
  server.rooms.store.read({ sql: slowQuery(200_000_000), params: [] }).then(end, end)
  for (let id = 1; id <= 50; id++) {
    await create(server, id)
    const read = await server.get(`/api/notes/${id}`)
    expect(read.headers.get('x-cache')).toBe('miss')
  }
  await until(() => heard.length === 50, 'all are heard')
  expect(isSlowDone).toBe(false)
  client.disconnect()
}, 30_000)

test('the server API publishes with its key only, and rules decide who hears', async () => {
  using folder = tempFolder()
  await using server = await runServer({ app, folder })
  const publish = (headers: Record<string, string>, body: unknown) =>
    server.get('/api/publish', {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify(body),
    })
  const message = { channel: 'inbox:ann', data: { hello: 'ann' } }
  expect((await publish({}, message)).status).toBe(401)
  expect((await publish({ 'x-api-key': 'wrong' }, message)).status).toBe(401)

  const token = await signToken(testSecret, { sub: 'ann' }, { nowMs: Date.now(), ttlMs: 60_000 })
  const ann = connect(server, { token })
  const visitor = connect(server)
  const heard: unknown[] = []
  const errors: unknown[] = []
  const hers = ann.newSubscription('inbox:ann')
  hers.on('publication', ({ data }) => void heard.push(data))
  hers.subscribe()
  await hers.ready()
  const theirs = visitor.newSubscription('inbox:ann')
  theirs.on('unsubscribed', ({ code }) => void errors.push(code))
  theirs.subscribe()
  await until(() => errors.length === 1, 'the visitor is refused')
  expect(errors).toEqual([103])

  const response = await publish({ 'x-api-key': testApiKey }, message)
  expect(await response.json()).toMatchObject({ result: { offset: 1 } })
  await until(() => heard.length === 1, 'ann hears')
  expect(heard).toEqual([{ hello: 'ann' }])
  const unknown = await publish({ 'x-api-key': testApiKey }, { channel: 'nope', data: 1 })
  expect(unknown.status).toBe(404)
  ann.disconnect()
  visitor.disconnect()
})

test('a stream resumes where it was, for a plain EventSource', async () => {
  using folder = tempFolder()
  await using server = await runServer({ app, folder })
  const read = async (headers: Record<string, string>, count: number): Promise<string[]> => {
    const response = await server.get('/api/stream?topics=notes', { headers })
    expect(response.headers.get('content-type')).toStartWith('text/event-stream')
    const decoder = new TextDecoder()
    let received = ''
    for await (const chunk of response.body ?? []) {
      received += decoder.decode(chunk, { stream: true })
      if ([...received.matchAll(/^data: \{"channel"/gm)].length >= count) break
    }
    return received.split('\n')
  }
  await create(server, 1)
  const first = read({}, 1)
  await until(() => server.rooms.realtime.stats().connections === 1, 'the stream is open')
  await create(server, 2)
  const lines = await first
  const id = lines.findLast((line) => line.startsWith('id: '))?.slice(4) ?? ''
  expect(lines.filter((line) => line.includes('"row":{"id":2,')).length).toBe(1)
  await create(server, 3)
  await create(server, 4)
  const resumed = await read({ 'last-event-id': id }, 2)
  const data = resumed.filter((line) => line.startsWith('data: {"channel"'))
  expect(data.map((line) => JSON.parse(line.slice(6)).data.row.id)).toEqual([3, 4])
})

test('a server that stops tells its subscribers to come back, and lets streams end', async () => {
  using folder = tempFolder()
  await using server = await runServer({ app, folder })
  const { client } = await listen(server)
  const codes: number[] = []
  client.on('connecting', ({ code }) => void codes.push(code))
  const stream = await server.get('/api/stream?topics=notes')
  const ended = stream.text()
  await server.stop()
  await until(() => codes.includes(3001), 'the client is told')
  expect(await ended).toStartWith('retry: ')
  client.disconnect()
})
