/**
 * The store in process, against `@libsql/client` called directly, Drizzle on it, and bun:sqlite as the
 * floor. A file of its own per peer, the same pragmas for all (WAL, synchronous = normal).
 *
 * Wall time is what one caller waits; main-thread CPU is what everybody else on the event loop waits.
 * A peer that runs SQL in the caller's thread has them equal: nothing else runs meanwhile.
 */
import { Database } from 'bun:sqlite'
import { createClient } from '@libsql/client'
import { and, desc, eq, sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/libsql'
import { openStore, tempFolder, type TempFolder } from '../harness.ts'
import { median, rounded } from './load.ts'
import {
  categoryName,
  fillFile,
  fillStore,
  insertSql,
  listSql,
  noteAt,
  noteParams,
  notes,
  notesCount,
  ownerName,
  pointSql,
  pragmas,
} from './notes.ts'

const rounds = Number(process.env['ROUNDS'] ?? 5)
const measureMs = 200

/** One op at a time, or so many callers at once. */
const tasks = [
  { task: 'point read', writers: 1 },
  { task: 'point read', writers: 16 },
  { task: 'list of 20', writers: 1 },
  { task: 'list of 20', writers: 16 },
  { task: 'insert', writers: 1 },
  { task: 'insert', writers: 16 },
  { task: 'insert', writers: 256 },
] as const

type Task = (typeof tasks)[number]

interface Peer {
  readonly name: string
  /** Each answers with its rows, now or later. */
  point(n: number): unknown
  list(n: number): unknown
  insert(n: number): unknown
  /** What as many callers at once come to where that is not `insert` for each: one transaction. */
  insertGroup?(first: number, count: number): void
  close(): unknown
}

/** Every call another row, in an order that no cache can guess. */
const idAt = (n: number): number => ((n * 7_919) % notesCount) + 1
const listAt = (n: number): [owner: string, category: string] => [
  ownerName(n),
  categoryName(n * 37),
]

function floor(folder: TempFolder): Peer {
  const file = folder.file('floor.db')
  fillFile(file)
  const db = new Database(file)
  for (const one of pragmas) db.run(one)
  const [point, list, insert] = [pointSql, listSql, insertSql].map((text) => db.prepare(text))
  const insertOne = (n: number) => insert?.run(...(noteParams(noteAt(n)) as string[]))
  return {
    name: 'bun:sqlite, prepared (floor)',
    point: (n) => point?.values(idAt(n)),
    list: (n) => list?.values(...listAt(n)),
    insert: insertOne,
    insertGroup: db.transaction((first: number, count: number) => {
      for (let n = 0; n < count; n += 1) insertOne(first + n)
    }),
    close: () => db.close(),
  }
}

async function libsqlOn(folder: TempFolder, name: string) {
  const file = folder.file(`${name}.db`)
  fillFile(file)
  const client = createClient({ url: `file:${file}` })
  for (const one of pragmas) await client.execute(one)
  return client
}

async function libsql(folder: TempFolder): Promise<Peer> {
  const client = await libsqlOn(folder, 'client')
  return {
    name: '@libsql/client',
    point: async (n) => (await client.execute({ sql: pointSql, args: [idAt(n)] })).rows,
    list: async (n) => (await client.execute({ sql: listSql, args: listAt(n) })).rows,
    insert: (n) => client.execute({ sql: insertSql, args: noteParams(noteAt(n)) as string[] }),
    close: () => client.close(),
  }
}

async function drizzled(folder: TempFolder): Promise<Peer> {
  const client = await libsqlOn(folder, 'drizzle')
  const db = drizzle(client)
  return {
    name: 'drizzle on it',
    point: (n) =>
      db
        .select()
        .from(notes)
        .where(eq(notes.id, idAt(n))),
    list(n) {
      const [owner, category] = listAt(n)
      return db
        .select()
        .from(notes)
        .where(and(eq(notes.owner, owner), eq(notes.category, category)))
        .orderBy(desc(notes.createdAt), desc(notes.id))
        .limit(20)
    },
    insert: (n) => db.insert(notes).values(noteAt(n)),
    close: () => client.close(),
  }
}

async function drizzledPrepared(folder: TempFolder): Promise<Peer> {
  const client = await libsqlOn(folder, 'prepared')
  const db = drizzle(client)
  const { owner, category } = notes
  const isOf = and(eq(owner, sql.placeholder('owner')), eq(category, sql.placeholder('category')))
  const order = [desc(notes.createdAt), desc(notes.id)]
  const point = db
    .select()
    .from(notes)
    .where(eq(notes.id, sql.placeholder('id')))
    .prepare()
  const list = db
    .select()
    .from(notes)
    .where(isOf)
    .orderBy(...order)
    .limit(20)
    .prepare()
  const slots = Object.keys(noteAt(0)).map((name) => [name, sql.placeholder(name)])
  const insert = db
    .insert(notes)
    .values(Object.fromEntries(slots) as never)
    .prepare()
  return {
    name: 'drizzle on it, prepared',
    point: (n) => point.all({ id: idAt(n) }),
    list: (n) => list.all({ owner: listAt(n)[0], category: listAt(n)[1] }),
    insert: (n) => insert.run({ ...noteAt(n) }),
    close: () => client.close(),
  }
}

async function belfry(folder: TempFolder): Promise<Peer> {
  const store = await openStore(folder.file('belfry/belfry.db'), [notes])
  const insertOf = (n: number) => ({ sql: insertSql, params: noteParams(noteAt(n)) })
  await fillStore(store, notesCount)
  return {
    name: 'belfry store',
    point: (n) => store.read({ sql: pointSql, params: [idAt(n)] }),
    list: (n) => store.read({ sql: listSql, params: listAt(n) }),
    insert: (n) => store.write([insertOf(n)]),
    close: () => store.stop(),
  }
}

interface Figures {
  readonly wall: number
  readonly main: number
  readonly all: number
}

/** Microseconds per op. */
async function measure(peer: Peer, { task, writers }: Task, from: number): Promise<Figures> {
  const one = (n: number): unknown => {
    if (task === 'point read') return peer.point(n)
    return task === 'list of 20' ? peer.list(n) : peer.insert(n)
  }
  let ops = 0
  const all = process.cpuUsage()
  const main = process.threadCpuUsage()
  const at = performance.now()
  while (performance.now() - at < measureMs) {
    const first = from + ops
    ops += writers
    if (writers === 1) await one(first)
    else if (task === 'insert' && peer.insertGroup) peer.insertGroup(first, writers)
    else await Promise.all(Array.from({ length: writers }, (_, n) => one(first + n)))
  }
  const wall = (performance.now() - at) * 1_000
  const used = ({ user, system }: NodeJS.CpuUsage) => (user + system) / ops
  return {
    wall: wall / ops,
    main: used(process.threadCpuUsage(main)),
    all: used(process.cpuUsage(all)),
  }
}

/** A bench of wrong answers is none. */
async function check(peer: Peer): Promise<void> {
  const counts = await Promise.all(
    [peer.point(1), peer.list(1)].map(async (rows) => ((await rows) as unknown[]).length),
  )
  if (counts.join() !== '1,20') throw new Error(`${peer.name} answered ${counts.join()} rows`)
}

export async function run(): Promise<void> {
  using folder = tempFolder()
  const peers = [
    floor(folder),
    await libsql(folder),
    await drizzled(folder),
    await drizzledPrepared(folder),
    await belfry(folder),
  ]
  const figures = new Map(peers.map((peer) => [peer, tasks.map((): Figures[] => [])]))
  try {
    for (const peer of peers) await check(peer)
    // The first round warms up.
    for (let round = -1; round < rounds; round += 1) {
      for (const [at, task] of tasks.entries()) {
        for (const peer of peers) {
          const figure = await measure(peer, task, round * 20_011 + 20_011)
          if (round >= 0) figures.get(peer)?.[at]?.push(figure)
        }
      }
    }
  } finally {
    for (const peer of peers) await peer.close()
  }
  print(peers, figures)
}

function print(peers: readonly Peer[], figures: ReadonlyMap<Peer, Figures[][]>): void {
  console.log(
    `\nthe store in process, ${notesCount} rows, µs per op, median of ${rounds} rounds of ${measureMs} ms; ` +
      'all WAL and synchronous = normal, a file each.\nbelfry runs SQL in threads and writes a log entry ' +
      'with each row; the others block the loop for all of their wall time.\nbun:sqlite puts 16 and 256 ' +
      'inserts into one transaction; the clients commit each insert; belfry answers each by itself.',
  )
  for (const [at, { task, writers }] of tasks.entries()) {
    console.log(`${task}, ${writers} at once`)
    const of = (peer: Peer, key: keyof Figures): number =>
      median(figures.get(peer)?.[at]?.map((one) => one[key]) ?? [])
    const client = peers[1]
    console.table(
      peers.map((peer) => ({
        peer: peer.name,
        'wall µs': rounded(of(peer, 'wall')),
        'main-thread CPU µs': rounded(of(peer, 'main')),
        'process CPU µs': rounded(of(peer, 'all')),
        ...(client && {
          'wall, client = 1': rounded(of(peer, 'wall') / of(client, 'wall')),
          'main thread, client = 1': rounded(of(peer, 'main') / of(client, 'main')),
        }),
      })),
    )
  }
}

if (import.meta.main) await run()
