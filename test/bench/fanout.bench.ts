/**
 * Fan-out of 128-byte JSON to S subscribers of one topic: this room behind its own doors against raw
 * `Bun.serve` publish of the same frames. One publication outstanding, and sixteen published in a tick.
 */
import { median } from './load.ts'
import {
  openAudience,
  peerNames,
  sample,
  startPeer,
  topicName,
  type Peer,
  type PeerName,
} from './peer.ts'

const sizes = (process.env['SIZES'] ?? '1000,5000,15000').split(',').map(Number)
const ticks = [1, 16] as const
const rounds = Number(process.env['ROUNDS'] ?? 3)

/** Deliveries per measurement: about two seconds of work each way. */
const deliveries = { 1: 300_000, 16: 4_800_000 } as const

/**
 * Publications before it counts. A child that just took its connections in is still compiling and
 * collecting; measured without this, a thousand subscribers showed that and not the fan-out (0.78 of
 * raw, and 1.03 in the steady state).
 */
const warmUpPublications = 3_000
const warmUpDeliveries = 4_800_000

/** Publication `offset`, as a socket receives it, without the frame's header. */
function lineBytes(offset: number): number {
  return socketFrame.length + String(offset).length
}

/** For 126 to 65,535 bytes. */
const frameHeaderBytes = 4

const socketFrame = `{"push":{"channel":"${topicName}","pub":{"data":${JSON.stringify(sample)},"offset":}}}`

/** Slices of a round: the peers take turns. */
const turns = 10

/** Sockets that this process may have open. Above it one peer is measured after the other. */
const socketsMax = 18_000

/** Times that the event loop is watched: by a timer, so not while it is measured what a delivery costs. */
const watchedTimes = 10

interface Figures {
  readonly perCpuSecond: number
  readonly perSecond: number
  /** Longest CPU time in which the server's event loop did nothing else. */
  readonly blockMs: number
}

/** A peer with its audience. */
interface Subject {
  readonly name: PeerName
  readonly peer: Peer
  /** So many in one tick; resolves when all have all. */
  publish(count: number): Promise<void>
  close(): void
}

async function open(name: PeerName, size: number): Promise<Subject> {
  const peer = await startPeer(name)
  const audience = await openAudience(peer, size)
  let offset = 0
  let expected = audience.bytes()
  const bytesOf = name === 'belfry-sse' ? eventBytes : lineBytes
  return {
    name,
    peer,
    async publish(count) {
      let chunk = 0
      for (let n = 1; n <= count; n += 1) chunk += bytesOf(offset + n)
      if (name === 'belfry-sse') chunk += chunkBytes(chunk)
      else if (name === 'raw') chunk += frameHeaderBytes * count
      // What leaves together is the lines of one frame.
      else chunk += frameHeaderBytes + count - 1
      offset += count
      expected += size * chunk
      await Promise.all([peer.publish(count), audience.reach(expected)])
    },
    close() {
      audience.close()
      peer.stop()
    },
  }
}

/** Each tick's figures of each, measured in turns: whatever else the machine does, it does to all. */
async function measure(subjects: readonly Subject[], size: number): Promise<Figures[][]> {
  const warmUps = Math.min(warmUpPublications, warmUpDeliveries / size)
  for (const { publish } of subjects) {
    for (let n = 0; n < warmUps; n += 16) await publish(16)
  }
  const figures: Figures[][] = subjects.map(() => [])
  for (const perTick of ticks) {
    const times = Math.max(1, Math.ceil(deliveries[perTick] / size / perTick / turns))
    const spent = subjects.map(() => ({ cpu: 0, wall: 0 }))
    for (let turn = 0; turn < turns; turn += 1) {
      for (const [n, { peer, publish }] of subjects.entries()) {
        const cpu = await peer.cpuSeconds()
        const at = performance.now()
        for (let time = 0; time < times; time += 1) await publish(perTick)
        const sums = spent[n]
        if (!sums) continue
        sums.wall += (performance.now() - at) / 1_000
        sums.cpu += (await peer.cpuSeconds()) - cpu
      }
    }
    const sent = turns * times * perTick * size
    for (const [n, { peer, publish }] of subjects.entries()) {
      await peer.watch()
      for (let time = 0; time < watchedTimes; time += 1) await publish(perTick)
      const blockMs = await peer.watch()
      const { cpu = Number.NaN, wall = Number.NaN } = spent[n] ?? {}
      figures[n]?.push({ perCpuSecond: sent / cpu, perSecond: sent / wall, blockMs })
    }
  }
  return figures
}

/** An event, as a stream receives it. */
function eventBytes(offset: number): number {
  const id = `id: 00000000:${offset}\n`
  const data = `data: {"channel":"${topicName}","data":${JSON.stringify(sample)},"offset":${offset}}\n\n`
  return id.length + data.length
}

/** What HTTP/1.1's chunked coding puts around each chunk. */
function chunkBytes(length: number): number {
  return length.toString(16).length + 4
}

const names = (process.env['PEERS']?.split(',') ?? peerNames) as readonly PeerName[]

export async function run(): Promise<void> {
  for (const size of sizes) {
    const results = new Map<PeerName, Figures[][]>(names.map((name) => [name, []]))
    for (let round = 0; round < rounds; round += 1) {
      const together = size * names.length <= socketsMax
      for (const group of together ? [names] : names.map((name) => [name])) {
        const subjects: Subject[] = []
        for (const name of group) subjects.push(await open(name, size))
        const figures = await measure(subjects, size)
        for (const [n, { name, close }] of subjects.entries()) {
          results.get(name)?.push(figures[n] ?? [])
          close()
        }
      }
    }
    console.log(`fan-out to ${size} subscribers, thousand deliveries, median of ${rounds} rounds`)
    const of = (name: PeerName, tick: number, key: keyof Figures) =>
      median(results.get(name)?.map((figures) => figures[tick]?.[key] ?? 0) ?? [])
    console.table(
      names.flatMap((name) =>
        ticks.map((perTick, tick) => ({
          peer: name,
          'per tick': perTick,
          'per server CPU-second': Math.round(of(name, tick, 'perCpuSecond') / 1_000),
          'per second': Math.round(of(name, tick, 'perSecond') / 1_000),
          'of raw, CPU': ratio(of(name, tick, 'perCpuSecond'), of('raw', tick, 'perCpuSecond')),
          'of raw, wall': ratio(of(name, tick, 'perSecond'), of('raw', tick, 'perSecond')),
          'longest block, CPU ms': Math.round(of(name, tick, 'blockMs')),
        })),
      ),
    )
  }
}

function ratio(a: number, b: number): number {
  return Math.round((a / b) * 100) / 100
}

if (import.meta.main) await run()
