/** Feeds that listen instead of asking: through the whole server, from a stream that a test speaks. */
import { expect, test } from 'bun:test'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { Fault } from '../../src/fault.ts'
import { app, collection, feed, topic } from '../../src/kit.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { compilePlan } from '../../src/plan/plan.ts'
import { createFollower } from '../../src/upstream/upstream.ts'
import { createTestLog, tempFolder, until } from '../harness.ts'
import { runServer, type TestServer } from '../server.ts'
import { setUp, plain } from './setup.ts'

const trades = sqliteTable('trades', {
  id: text().primaryKey(),
  price: integer().notNull(),
})

const quiet = { silenceMs: 60_000, lengthMax: 1_000, isCatchingUp: false }

/** Server-sent events to whoever is connected. */
function startProvider() {
  const writers = new Set<ReadableStreamDefaultController<string>>()
  let connects = 0
  const server = Bun.serve({
    hostname: '127.0.0.1',
    port: 0,
    idleTimeout: 0,
    fetch(request) {
      connects++
      let own: ReadableStreamDefaultController<string> | undefined
      const body = new ReadableStream<string>({
        start(controller) {
          own = controller
          writers.add(controller)
          controller.enqueue(': hello\n\n')
        },
        cancel: () => void (own && writers.delete(own)),
      })
      request.signal.addEventListener('abort', () => void (own && writers.delete(own)))
      return new Response(body.pipeThrough(new TextEncoderStream()), {
        headers: { 'content-type': 'text/event-stream' },
      })
    },
  })
  return {
    url: `http://127.0.0.1:${server.port}/?key=secret`,
    get connects() {
      return connects
    },
    isHeard: () => writers.size > 0,
    say(value: unknown) {
      for (const one of writers) one.enqueue(`data: ${JSON.stringify(value)}\n\n`)
    },
    end() {
      for (const one of writers) one.close()
      writers.clear()
    },
    [Symbol.asyncDispose]: async () => await server.stop(true),
  }
}

/** Where rows and a value of a stream go. */
const shown = {
  collections: { trades: collection(trades, { read: 'public', live: () => 'trades' }) },
  topics: {
    trades: topic({ subscribe: 'public' }),
    last: topic({ subscribe: 'public', last: true }),
  },
} as const

async function rowsOf(server: TestServer): Promise<unknown[]> {
  return ((await (await server.get('/api/trades')).json()) as { items: unknown[] }).items
}

async function lastOf(server: TestServer): Promise<unknown> {
  return await (await server.get('/api/topics/last/last')).json()
}

test('rows are upserted and a value is published; stale while the stream is away', async () => {
  await using provider = startProvider()
  using folder = tempFolder()
  await using server = await runServer({
    folder,
    app: {
      ...shown,
      feeds: {
        rows: feed({
          stream: { url: () => provider.url, parse: ({ data }) => [JSON.parse(String(data))] },
          into: 'trades',
        }),
        value: feed({
          stream: { url: provider.url, parse: ({ data }) => JSON.parse(String(data)) as unknown },
          publish: 'last',
        }),
      },
    },
  })
  await until(() => provider.connects === 2, 'both are connected')
  provider.say({ id: 'a', price: 1 })
  provider.say({ id: 'b', price: 1 })
  provider.say({ id: 'a', price: 2 })
  const rows = () => rowsOf(server)
  const wanted = [
    { id: 'a', price: 2 },
    { id: 'b', price: 1 },
  ]
  await until(async () => Bun.deepEquals(await rows(), wanted), 'the rows are there')

  const last = () => lastOf(server)
  await until(async () => Bun.deepEquals(await last(), { id: 'a', price: 2 }), 'the last is')
  provider.end()
  await until(async () => ((await last()) as { stale?: true }).stale === true, 'it is stale')
  await until(() => provider.connects === 4, 'they are connected again')
  provider.say({ id: 'a', price: 2 })
  await until(async () => Bun.deepEquals(await last(), { id: 'a', price: 2 }), 'it is fresh')
  expect(server.log.lines.map(({ fields }) => String(fields['error'])).join()).not.toMatch(/secret/)
})

test('what was said between two connections is loaded at the beginning of the next', async () => {
  await using provider = startProvider()
  using folder = tempFolder()
  let known = [{ id: 'a', price: 1 }]
  let isNews = true
  await using server = await runServer({
    folder,
    app: {
      ...shown,
      feeds: {
        rows: feed({
          stream: { url: provider.url, parse: ({ data }) => [JSON.parse(String(data))] },
          load: () => known,
          into: 'trades',
        }),
        value: feed({
          stream: { url: provider.url, parse: ({ data }) => JSON.parse(String(data)) as unknown },
          load: () => (isNews ? known.at(-1) : null),
          publish: 'last',
        }),
      },
    },
  })
  const rows = () => rowsOf(server)
  const last = () => lastOf(server)
  const isTold = async () =>
    Bun.deepEquals(await rows(), known) && Bun.deepEquals(await last(), known.at(-1))
  await until(isTold, 'what was said before the first')
  known = [...known, { id: 'b', price: 2 }]
  provider.end()
  await until(isTold, 'what was said before the second')
  expect(provider.connects).toBe(4)
  // Nothing new is no reason to stay stale.
  isNews = false
  provider.end()
  await until(() => provider.connects === 6, 'they are connected again')
  await until(isTold, 'it is not stale')
})

test('a message that nobody understands is told in the log, and the others are taken', async () => {
  await using provider = startProvider()
  using folder = tempFolder()
  await using server = await runServer({
    folder,
    app: {
      topics: { last: topic({ subscribe: 'public', last: true }) },
      feeds: {
        value: feed({
          stream: {
            url: provider.url,
            parse({ data }) {
              if (data === '1') throw new Error('oh')
              return data === '2' ? undefined : JSON.parse(String(data))
            },
          },
          publish: 'last',
        }),
      },
    },
  })
  await until(provider.isHeard, 'it is connected')
  for (const n of [1, 2, 3]) provider.say(n)
  await until(async () => {
    const response = await server.get('/api/topics/last/last')
    return response.ok && (await response.json()) === 3
  }, 'the third is there')
  expect(server.log.lines.filter(({ event }) => event === 'feed.not_understood').length).toBe(1)
})

test('only who leads is connected', async () => {
  await using provider = startProvider()
  let units = 0
  const listeners: (() => void)[] = []
  const { feeds, log } = setUp(
    {
      into: plain.into,
      stream: { ...quiet, url: provider.url, parse: () => null },
    },
    {
      follow: (options) => createFollower({ clock: systemClock, log: createTestLog() }, options),
      lease: () => ({
        get units() {
          return units
        },
        leave: () => Promise.resolve(),
        onChange: (listener) => void listeners.push(listener),
      }),
    },
  )
  feeds.start()
  expect(provider.connects).toBe(0)
  const change = (to: number) => {
    units = to
    for (const listener of listeners) listener()
  }
  change(1)
  await until(provider.isHeard, 'it is connected')
  change(0)
  await until(() => !provider.isHeard(), 'it is not any more')
  change(1)
  await until(provider.isHeard, 'it is again')
  await feeds.stop()
  expect(log.lines.filter(({ level }) => level === 'error')).toEqual([])
})

test('a publication that does not get through ends no stream', async () => {
  await using provider = startProvider()
  let refused = 0
  const told: unknown[] = []
  const { feeds, log } = setUp(
    {
      publish: 'last',
      stream: {
        ...quiet,
        url: provider.url,
        parse: ({ data }) => JSON.parse(String(data)) as unknown,
      },
    },
    {
      follow: (options) => createFollower({ clock: systemClock, log: createTestLog() }, options),
      publish(_, data) {
        told.push(data)
        if (refused++ < 2) throw new Fault('unavailable', 'full')
      },
    },
  )
  feeds.start()
  await until(provider.isHeard, 'it is connected')
  provider.say(1)
  await until(() => refused === 1, 'refused')
  provider.end()
  // That it is stale is refused, too.
  await until(() => refused === 2, 'refused again')
  await until(provider.isHeard, 'it is connected again')
  provider.say(2)
  await until(() => told.includes(2), 'told')
  await feeds.stop()
  expect(log.lines.filter(({ level }) => level === 'error')).toEqual([])
})

test('streams that are none', () => {
  const problems = (stream: object, rest: object = { publish: 't' }): string[] => {
    try {
      compilePlan(
        app({
          name: 'a',
          topics: { t: topic({ subscribe: 'public' }) },
          feeds: { f: feed({ stream, ...rest } as never) },
        }),
      )
      return []
    } catch (error) {
      if (!(error instanceof Fault)) throw error
      return (error.fields ?? []).map(({ field, message }) => `${field}: ${message}`)
    }
  }
  const parse = () => null
  expect(problems({ url: 'wss://x.test', parse })).toEqual([])
  expect(problems({ url: 'wss://x.test', parse }, { every: '1s', publish: 't' })).toEqual([
    'feeds.f.every: is not an option (stream, load, budget, into, publish)',
  ])
  expect(problems({ url: 'wss://x.test', parse }, { load: 1, budget: 'b', publish: 't' })).toEqual([
    'feeds.f.load: must be a function',
    'feeds.f.budget: no budget is declared under b',
  ])
  expect(problems({ url: 'x.test', headers: {}, silence: '1ms', lengthMax: 0 }, {})).toEqual([
    'feeds.f: needs into (collections) or publish (a topic)',
    'feeds.f.stream.url: must be like https://… (server-sent events) or wss://… (a WebSocket)',
    'feeds.f.stream.parse: must be a function',
    'feeds.f.stream.headers: must be a function of the environment',
    'feeds.f.stream.lengthMax: must be a positive integer',
    'feeds.f.stream.silence: must be at least 1000ms',
  ])
  expect(problems({ url: 'https://x.test', parse, subscribe: () => [] })).toEqual([
    'feeds.f.stream.subscribe: is for WebSockets: server-sent events are asked for by their URL',
  ])
})
