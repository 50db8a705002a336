/**
 * Requests per second of server CPU, over HTTP with rules on: every request carries a token, and its
 * owner sees and makes only rows of theirs. Belfry against PocketBase and a plain Elysia + Drizzle server,
 * all on one core, in rounds that visit every peer, so that drift hits all alike.
 *
 * Uncached means that Belfry's cache has never been asked the question: another id each time, and lists
 * after a write that has invalidated every list. `cached` asks sixteen questions again and again.
 */
import { signToken } from '../../src/auth/auth.ts'
import { openStore, tempFolder, type TempFolder } from '../harness.ts'
import { testSecret } from '../server.ts'
import { cpuSeconds, httpStream, median, requestBytes, rounded } from './load.ts'
import type { HttpRequest } from './load.ts'
import {
  categories,
  categoryName,
  fillFile,
  fillStore,
  noteAt,
  notes,
  notesCount,
  ownerName,
  owners,
} from './notes.ts'
import { ownerRules, pocketbaseId, pocketbaseName, startPocketbase } from './pocketbase.ts'
import { startServer } from './start.ts'

const rounds = Number(process.env['ROUNDS'] ?? 5)
const measureMs = 500

/** Until it counts, so that code is compiled however busy the machine is; no more than `warmUpMs` each. */
const warmUpRequests = 2_000
const warmUpMs = 2_000
const connections = 32

const tasks = [
  'create',
  'read by id',
  'list of 20',
  'read by id, cached',
  'list of 20, cached',
] as const
type Task = (typeof tasks)[number]

interface Peer {
  readonly name: string
  readonly port: number
  readonly pid: number
  /** Of the nth note's owner. */
  token(n: number): string
  create(n: number): HttpRequest
  read(n: number): HttpRequest
  list(n: number): HttpRequest
  readonly hasCache: boolean
  stop(): unknown
}

/** Filled before its server starts: that may take both cores. */
async function fill(peer: 'belfry' | 'plain', folder: TempFolder): Promise<void> {
  if (peer === 'plain') return fillFile(folder.file('plain.db'))
  await using store = await openStore(folder.file('test.db'), [notes])
  await fillStore(store, notesCount)
}

/** Belfry and the plain server speak the same paths and take the same tokens. */
async function startOurs(peer: 'belfry' | 'plain', folder: TempFolder): Promise<Peer> {
  await fill(peer, folder)
  const nowMs = Date.now()
  const tokens = await Promise.all(
    Array.from({ length: owners }, (_, n) =>
      signToken(testSecret, { sub: ownerName(n) }, { nowMs, ttlMs: 3_600_000 }),
    ),
  )
  const { port, pid, stop } = await startServer(['http-store.server.ts', peer, folder.path])
  return {
    name: peer === 'belfry' ? 'belfry' : 'Elysia + Drizzle',
    port,
    pid,
    token: (n) => `Bearer ${tokens[n % owners] ?? ''}`,
    create(n) {
      const { category, title, body } = noteAt(n)
      return { method: 'POST', path: '/api/notes', body: { category, title, body } }
    },
    read: (n) => ({ path: `/api/notes/${n + 1}` }),
    list: (n) => ({ path: `/api/notes?category=${categoryOf(n)}` }),
    hasCache: peer === 'belfry',
    stop,
  }
}

async function startTheirs(folder: string): Promise<Peer> {
  const { port, pid, users, stop } = await startPocketbase(folder, ownerRules)
  const records = '/api/collections/notes/records'
  return {
    name: pocketbaseName,
    port,
    pid,
    token: (n) => users[n % owners]?.token ?? '',
    create(n) {
      const { category, title, body } = noteAt(n)
      const owner = users[n % owners]?.id
      return { method: 'POST', path: records, body: { owner, category, title, body } }
    },
    read: (n) => ({ path: `${records}/${pocketbaseId(n)}` }),
    // Without the count that it makes by default, and with the order that the others have.
    list: (n) => ({
      path: `${records}?perPage=20&skipTotal=1&sort=-created,-id&filter=(category=%22${categoryOf(n)}%22)`,
    }),
    hasCache: false,
    stop,
  }
}

/** Note n's own list: every owner's every category comes once in 2,000 requests. */
const categoryOf = (n: number): string => categoryName(Math.floor(n / owners))
const lists = owners * categories

/** Questions that `cached` asks again and again. */
const repeated = 16

/** Another note each time, in an order in which neighbours are far apart. */
const noteOf = (n: number): number => (n * 7_919) % notesCount

interface Figure {
  readonly perCpuSecond: number
  readonly perSecond: number
  readonly hitShare: number
}

/** `from` goes on where the round before ended, so that no id is asked twice. */
async function measure(
  peer: Peer,
  task: Task,
  from: number,
  isWarmUp: boolean,
): Promise<Figure & { to: number }> {
  const ask = (n: number): [owner: number, request: HttpRequest] => {
    switch (task) {
      case 'create':
        return [n, peer.create(n)]
      case 'read by id':
        return [noteOf(n), peer.read(noteOf(n))]
      case 'list of 20':
        return [n % lists, peer.list(n % lists)]
      case 'read by id, cached':
        return [n % repeated, peer.read(n % repeated)]
      case 'list of 20, cached':
        return [n % repeated, peer.list(n % repeated)]
    }
  }
  const bytes = ([owner, request]: ReturnType<typeof ask>): Uint8Array =>
    requestBytes(peer.port, { ...request, headers: { authorization: peer.token(owner) } })

  if (task === 'list of 20') await one(peer, bytes([0, peer.create(0)]))
  const cpu = await cpuSeconds(peer.pid)
  const at = performance.now()
  const { requests, hits } = await httpStream({
    port: peer.port,
    connections,
    next(n) {
      const isOver = performance.now() - at > (isWarmUp ? warmUpMs : measureMs)
      // A second time through the lists would find them in the cache.
      const enough = isWarmUp ? warmUpRequests : task === 'list of 20' ? lists : Infinity
      if (isOver || n >= enough) return undefined
      return bytes(ask(from + n))
    },
  })
  const seconds = (performance.now() - at) / 1_000
  const used = (await cpuSeconds(peer.pid)) - cpu
  return {
    perCpuSecond: requests / used,
    perSecond: requests / seconds,
    hitShare: hits / requests,
    to: from + requests,
  }
}

async function one({ port }: Peer, request: Uint8Array): Promise<void> {
  await httpStream({ port, connections: 1, next: (n) => (n === 0 ? request : undefined) })
}

/** A bench of wrong answers is none. */
async function check(peer: Peer): Promise<void> {
  const get = async ({ path }: HttpRequest, owner: number): Promise<string> => {
    const headers = { authorization: peer.token(owner) }
    const response = await fetch(`http://127.0.0.1:${peer.port}${path}`, { headers })
    return `${response.status} ${await response.text()}`
  }
  const [list, mine, others] = [
    await get(peer.list(7), 7),
    await get(peer.read(7), 7),
    await get(peer.read(7), 8),
  ]
  const items = list.match(/"title"/g)?.length
  const isRight = items === 20 && mine.startsWith('200 ') && others.startsWith('404 ')
  if (!isRight) throw new Error(`${peer.name}: ${items} items, ${mine}, for others: ${others}`)
}

export async function run(): Promise<void> {
  using theirs = tempFolder()
  using plain = tempFolder()
  using belfry = tempFolder()
  const peers: Peer[] = []
  const figures = new Map<string, Figure[]>()
  const of = (peer: Peer, task: Task): Figure[] => {
    const key = `${peer.name} ${task}`
    const known = figures.get(key) ?? []
    figures.set(key, known)
    return known
  }
  const next = new Map<string, number>()
  try {
    peers.push(await startTheirs(theirs.path))
    peers.push(await startOurs('plain', plain))
    peers.push(await startOurs('belfry', belfry))
    for (const peer of peers) await check(peer)
    // The first round warms up.
    for (let round = -1; round < rounds; round += 1) {
      for (const task of tasks) {
        for (const peer of peers) {
          if (task.endsWith('cached') && !peer.hasCache) continue
          const key = `${peer.name} ${task}`
          const { to, ...figure } = await measure(peer, task, next.get(key) ?? 0, round < 0)
          next.set(key, to)
          if (round >= 0) of(peer, task).push(figure)
        }
      }
    }
  } finally {
    for (const peer of peers) await peer.stop()
  }
  print(peers, of)
}

function print(peers: readonly Peer[], of: (peer: Peer, task: Task) => readonly Figure[]): void {
  console.log(
    `\nover HTTP, owner rule and token on every request, ${notesCount} rows, ${connections} connections, ` +
      `servers on one core,\nmedian of ${rounds} rounds of ${measureMs} ms; belfry also writes its log`,
  )
  const middle = (peer: Peer, task: Task, key: keyof Figure): number =>
    median(of(peer, task).map((figure) => figure[key]))
  console.table(
    tasks.flatMap((task) =>
      peers
        .filter((peer) => of(peer, task).length > 0)
        .map((peer) => {
          const uncached = task.replace(', cached', '') as Task
          const ahead = (other: Peer | undefined): number =>
            other
              ? rounded(
                  middle(peer, task, 'perCpuSecond') / middle(other, uncached, 'perCpuSecond'),
                )
              : Number.NaN
          return {
            task,
            peer: peer.name,
            'requests / server CPU-second': Math.round(middle(peer, task, 'perCpuSecond')),
            'server µs/request': rounded(1e6 / middle(peer, task, 'perCpuSecond')),
            'requests / second': Math.round(middle(peer, task, 'perSecond')),
            'hit share': rounded(middle(peer, task, 'hitShare')),
            'of PocketBase': ahead(peers[0]),
            'of Elysia + Drizzle': ahead(peers[1]),
          }
        }),
    ),
  )
}

if (import.meta.main) await run()
