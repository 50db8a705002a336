/**
 * How long a create takes while so many subscribers hear of it. Servers on one core; the subscribers are
 * a process of their own, so that who measures does not wait for them.
 *
 *   alone          the next write comes when everybody has heard of the last, and no sooner than 80 ms after
 *                  it: a server that has rested is slower than one that is warm, whoever listens
 *   back to back   the next write comes as soon as the last is answered, into the middle of its fan-out
 */
import { tempFolder } from '../harness.ts'
import { startListeners, type Listeners } from './listeners.ts'
import { cpuSeconds, httpClient, median, quantile, requestBytes, rounded } from './load.ts'
import type { HttpClient } from './load.ts'
import { noteAt } from './notes.ts'
import { pocketbaseName, publicRules, startPocketbase } from './pocketbase.ts'
import { startServer } from './start.ts'

const sizes = (process.env['SIZES'] ?? '0,100,1000,10000').split(',').map(Number)

const rounds = 3

/** Per peer, size and round: as many writes as fit into both. */
const writesMax = 100
const aloneMs = 1_600
const rushMs = 900
const restMs = 80

/** Before they count. */
const warmUp = 50

/** Deliveries that have not come by then do not come. */
const patienceMs = 10_000

interface Peer {
  readonly name: string
  readonly pid: number
  readonly client: HttpClient
  readonly listeners: Listeners
  readonly request: Uint8Array
  /** Deliveries that must have come so far. */
  expected: number
  subscribers: number
  stop(): unknown
}

async function startPeer(
  name: string,
  { port, pid, stop }: { port: number; pid: number; stop(): unknown },
  kind: 'belfry' | 'pocketbase',
  path: string,
): Promise<Peer> {
  const listeners = startListeners(kind, port)
  const client = await httpClient(port)
  const { owner, category, title, body } = noteAt(1)
  return {
    name,
    pid,
    client,
    listeners,
    request: requestBytes(port, { method: 'POST', path, body: { owner, category, title, body } }),
    expected: 0,
    subscribers: 0,
    async stop() {
      client.close()
      listeners.stop()
      await stop()
    },
  }
}

interface Figures {
  readonly answeredMs: readonly number[]
  /** From the request until the last subscriber has heard. */
  readonly heardMs: readonly number[]
  readonly cpuMs: number
  /** Of the deliveries that were due. */
  readonly heardShare: number
}

async function measure(peer: Peer, isAlone: boolean): Promise<Figures> {
  const { client, listeners, request, subscribers } = peer
  const answeredMs: number[] = []
  const heardMs: number[] = []
  const before = peer.expected
  const cpu = await cpuSeconds(peer.pid)
  const from = performance.now()
  while (answeredMs.length < writesMax && performance.now() - from < (isAlone ? aloneMs : rushMs)) {
    const at = performance.now()
    answeredMs.push(await client.ask(request))
    peer.expected += subscribers
    if (!isAlone) continue
    await listeners.reach(peer.expected, patienceMs)
    const heard = performance.now() - at
    heardMs.push(heard)
    await Bun.sleep(Math.max(0, restMs - heard))
  }
  const heard = await listeners.reach(peer.expected, patienceMs)
  const used = (await cpuSeconds(peer.pid)) - cpu
  const due = peer.expected - before
  const heardShare = due === 0 ? 1 : (heard - before) / due
  peer.expected = heard
  return { answeredMs, heardMs, cpuMs: (used * 1_000) / answeredMs.length, heardShare }
}

export async function run(): Promise<void> {
  using ours = tempFolder()
  using theirs = tempFolder()
  const rows: Record<string, string | number>[] = []
  const peers: Peer[] = []
  try {
    const belfry = await startServer(['write-live.server.ts', ours.path])
    peers.push(await startPeer('belfry', belfry, 'belfry', '/api/notes'))
    const options = { users: 0, isFilled: false }
    const pocketbase = await startPocketbase(theirs.path, publicRules, options)
    const records = '/api/collections/notes/records'
    peers.push(await startPeer(pocketbaseName, pocketbase, 'pocketbase', records))
    for (const { client, request } of peers) {
      for (let n = 0; n < warmUp; n += 1) await client.ask(request)
    }
    for (const size of sizes) {
      for (const peer of peers) {
        await peer.listeners.open(size)
        peer.subscribers = size
      }
      const figures = peers.map((peer) => ({ peer, alone: [] as Figures[], rush: [] as Figures[] }))
      for (let round = 0; round < rounds; round += 1) {
        for (const { peer, alone, rush } of figures) {
          alone.push(await measure(peer, true))
          rush.push(await measure(peer, false))
        }
      }
      for (const { peer, alone, rush } of figures) rows.push(row(peer, alone, rush))
    }
  } finally {
    for (const peer of peers) await peer.stop()
  }
  console.log(
    `\na create while subscribers hear of it (belfry: WebSocket, PocketBase: SSE; no rules), ${rounds} rounds ` +
      `of at most ${writesMax} writes, ${aloneMs} ms alone and ${rushMs} ms back to back`,
  )
  console.table(rows)
}

function row({ name, subscribers }: Peer, alone: readonly Figures[], rush: readonly Figures[]) {
  const ms = (all: readonly Figures[], key: 'answeredMs' | 'heardMs', share: number): number =>
    rounded(
      quantile(
        all.flatMap((one) => one[key]),
        share,
      ),
    )
  const writes = (all: readonly Figures[]) => all.flatMap(({ answeredMs }) => answeredMs).length
  return {
    subscribers,
    peer: name,
    'alone p50 ms': ms(alone, 'answeredMs', 0.5),
    'alone p99 ms': ms(alone, 'answeredMs', 0.99),
    'back to back p50 ms': ms(rush, 'answeredMs', 0.5),
    'back to back p99 ms': ms(rush, 'answeredMs', 0.99),
    'all have heard p50 ms': ms(alone, 'heardMs', 0.5),
    'server CPU ms/write': rounded(median(alone.map(({ cpuMs }) => cpuMs))),
    writes: `${writes(alone)} + ${writes(rush)}`,
    heard: rounded(Math.min(...[...alone, ...rush].map(({ heardShare }) => heardShare))),
  }
}

if (import.meta.main) await run()
