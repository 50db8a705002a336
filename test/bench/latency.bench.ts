/**
 * Publication latency while a reader thread runs a query of several seconds: the event loop never
 * waits for SQL. From the call of publish to the last of the subscribers, against the same without.
 */
import { Centrifuge } from 'centrifuge'
import { topic } from '../../src/kit.ts'
import { tempFolder, until } from '../harness.ts'
import { runServer, type TestServer } from '../server.ts'
import { slowQuery } from '../store/slow.ts'
import { median } from './load.ts'

const subscribers = 50
const publications = 150
const everyMs = 20

/** About three seconds and a half on such a machine. */
const steps = 25_000_000

interface Sample {
  readonly 'p50 ms': number
  readonly 'p99 ms': number
  readonly 'other reads': number
}

async function measure(server: TestServer, isDone: () => boolean): Promise<Sample> {
  const clients = Array.from(
    { length: subscribers },
    () => new Centrifuge(`${server.url.replace('http', 'ws')}/connection/websocket`),
  )
  const heard: number[] = []
  await Promise.all(
    clients.map(async (client) => {
      const subscription = client.newSubscription('ticks')
      subscription.on(
        'publication',
        ({ data }) => void heard.push(performance.now() - (data as number)),
      )
      subscription.subscribe()
      client.connect()
      await subscription.ready()
    }),
  )
  let reads = 0
  let sent = 0
  for (; sent < publications && !isDone(); sent++) {
    server.rooms.realtime.publish('ticks', performance.now())
    await server.rooms.store.read({ sql: 'select count(*) from log', params: [] })
    reads++
    await Bun.sleep(everyMs)
  }
  await until(() => heard.length === sent * subscribers, 'all are heard')
  for (const client of clients) client.disconnect()
  const sorted = heard.toSorted((a, b) => a - b)
  const round = (ms: number | undefined) => Math.round((ms ?? Number.NaN) * 100) / 100
  return {
    'p50 ms': round(median(sorted)),
    'p99 ms': round(sorted[Math.floor(sorted.length * 0.99)]),
    'other reads': reads,
  }
}

export async function run(): Promise<void> {
  using folder = tempFolder()
  await using server = await runServer({
    folder,
    app: { topics: { ticks: topic({ subscribe: 'public' }) } },
  })
  const quiet = await measure(server, () => false)
  let isDone = false
  const startedAt = performance.now()
  const slow = server.rooms.store.read({ sql: slowQuery(steps), params: [] })
  void slow.then(() => (isDone = true))
  const busy = await measure(server, () => isDone)
  const stillRuns = !isDone
  await slow
  const seconds = Math.round((performance.now() - startedAt) / 100) / 10
  console.log(
    `\npublication to ${subscribers} subscribers, one each ${everyMs} ms; the query took ${seconds} s${stillRuns ? '' : ' and ended early'}`,
  )
  console.table({ 'no query': quiet, 'during the query': busy })
}

if (import.meta.main) await run()
