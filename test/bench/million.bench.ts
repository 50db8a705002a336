/**
 * A collection of a million rows, each question asked for the first time: one row by id, page 1 of a
 * filtered list, and page 10,000 of it by cursor. They cost about the same, because each is a walk down
 * an index and a short one along it.
 *
 * Over HTTP, and in the room alone (rule, query, cache, store thread, encoding).
 */
import { Database } from 'bun:sqlite'
import { index, integer, real, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { collection, desc } from '../../src/kit.ts'
import { must } from '../../src/lib/assert.ts'
import { openStore, tempFolder, type TempFolder } from '../harness.ts'
import { runServer, type TestServer } from '../server.ts'
import { httpClient, median, quantile, requestBytes, rounded, type HttpClient } from './load.ts'

const rowsCount = Number(process.env['ROWS'] ?? 1_000_000)

/** Each list is a quarter of the table: long enough for page 10,000. */
const regions = 4
const pageSize = 20
const deepPage = 10_000

/** The walk to the deep page takes the largest steps that are allowed. */
const walkLimit = 100

const rounds = 5
const asksPerRound = 100

const readings = sqliteTable(
  'readings',
  {
    id: integer().primaryKey(),
    region: text().notNull(),
    at: integer().notNull(),
    price: real().notNull(),
    note: text().notNull(),
  },
  (t) => [index('readings_newest').on(t.region, t.at, t.id)],
)

const app = {
  collections: {
    readings: collection(readings, {
      ttl: '1h',
      read: 'public',
      create: 'public',
      filters: ['region'],
      orders: { newest: desc(readings.at) },
    }),
  },
}

/** The store makes the table; the rows come from a statement of the engine's own, and are not logged. */
async function fill(folder: TempFolder): Promise<void> {
  const file = folder.file('test.db')
  await using store = await openStore(file, [readings])
  await store.stop()
  const db = new Database(file)
  const triggers = db.query("select name from sqlite_master where type = 'trigger'").values()
  // Belfry makes them again when it starts.
  for (const [name] of triggers) db.run(`drop trigger "${String(name)}"`)
  db.run(
    `with recursive n(i) as (select 1 union all select i + 1 from n where i < ?)
     insert into readings select i, 'region' || (i % ${regions}), i * 1000, i / 7.0,
       'a reading of some length, number ' || i from n`,
    [rowsCount],
  )
  db.close(true)
}

interface Question {
  readonly task: string
  /** Under `/api/readings`; another each time where that is what makes it a first time. */
  path(n: number): string
}

interface Figures {
  readonly http: number[]
  readonly room: number[]
  misses: number
}

export async function run(): Promise<void> {
  using folder = tempFolder()
  const startedAt = performance.now()
  await fill(folder)
  await using server = await runServer({ folder, app })
  const cursor = await deepCursor(server)
  const readyS = (performance.now() - startedAt) / 1_000
  const list = '?region=region1'
  const questions: Question[] = [
    { task: 'by id', path: (n) => `/${((n * 7_919) % rowsCount) + 1}` },
    { task: 'page 1', path: () => list },
    { task: `page ${deepPage}`, path: () => `${list}&after=${cursor}` },
  ]
  const figures = new Map<Question, Figures>(
    questions.map((question) => [question, { http: [], room: [], misses: 0 }]),
  )
  const client = await httpClient(server.port)
  // The first round warms up.
  for (let round = -1; round < rounds; round += 1) {
    for (const [question, all] of figures) {
      const seen = await ask(server, client, question, round + 1)
      if (round < 0) continue
      all.http.push(...seen.http)
      all.room.push(...seen.room)
      all.misses += seen.misses
    }
  }
  client.close()
  print(figures, readyS)
}

/** Page by page, as a client would get there. */
async function deepCursor({ rooms }: TestServer): Promise<string> {
  const { collections } = rooms
  const plan = must(collections.plans[0], () => 'the app has a collection')
  let after = ''
  for (let seen = 0; seen < (deepPage - 1) * pageSize; seen += walkLimit) {
    const limit = Math.min(walkLimit, (deepPage - 1) * pageSize - seen)
    const search = `?region=region1&limit=${limit}${after && `&after=${after}`}`
    const { entry } = await collections.list(plan, null, search)
    after = must(nextOf(entry.body), () => `the list ends before page ${deepPage}`)
  }
  return after
}

function nextOf(body: Uint8Array): string | null {
  return (JSON.parse(new TextDecoder().decode(body)) as { readonly next: string | null }).next
}

async function ask(
  { rooms, port }: TestServer,
  client: HttpClient,
  { path }: Question,
  round: number,
): Promise<Figures> {
  const { collections, cache } = rooms
  const plan = must(collections.plans[0], () => 'the app has a collection')
  const figures: Figures = { http: [], room: [], misses: 0 }
  const { misses } = cache.stats()
  for (let n = 0; n < asksPerRound; n += 1) {
    const first = (round * asksPerRound + n) * 2
    await invalidate(rooms)
    figures.http.push(await client.ask(requestBytes(port, { path: `/api/readings${path(first)}` })))
    await invalidate(rooms)
    const asked = path(first + 1)
    const at = performance.now()
    if (asked.startsWith('/')) await collections.read(plan, null, asked.slice(1))
    else await collections.list(plan, null, asked)
    figures.room.push(performance.now() - at)
  }
  figures.misses = cache.stats().misses - misses
  return figures
}

/** A new row takes every list of the table out of the cache. */
async function invalidate({ collections }: TestServer['rooms']): Promise<void> {
  const plan = must(collections.plans[0], () => 'the app has a collection')
  await collections.create(plan, null, { region: 'region0', at: 0, price: 0, note: 'new' })
}

function print(figures: ReadonlyMap<Question, Figures>, readyS: number): void {
  const all = [...figures.values()]
  const asked = rounds * asksPerRound * 2
  console.log(
    `\na collection of ${rowsCount} rows, uncached (a write before each question), ` +
      `${rounds} rounds of ${asksPerRound};\nfilled and walked to page ${deepPage} in ${Math.round(readyS)} s`,
  )
  const ratio = (values: readonly number[], key: 'http' | 'room'): number =>
    rounded(median(values) / Math.min(...all.map((one) => median(one[key]))))
  console.table(
    [...figures].map(([{ task }, { http, room, misses }]) => ({
      task,
      'HTTP p50 ms': rounded(median(http)),
      'HTTP p99 ms': rounded(quantile(http, 0.99)),
      'of the fastest': ratio(http, 'http'),
      'room p50 ms': rounded(median(room)),
      'room, of the fastest': ratio(room, 'room'),
      'hit share': rounded(1 - misses / asked),
    })),
  )
}

if (import.meta.main) await run()
