/** Servers to compare, each in processes of its own, behind one interface. */
import { childrenOf } from '../process.ts'
import { pinned } from './load.ts'
import { hasNats, startNats } from './nats.ts'
import { hasNchan, startNchan } from './nchan.ts'
import { npmServer } from './npm-peers.ts'
import { protocols, type Protocol } from './wire.ts'

/** Raw `Bun.serve` publish is the bound; then this room behind its own doors; then what others made. */
export const peerNames = [
  'raw',
  'belfry',
  'belfry-sse',
  'nchan',
  'nats',
  'ws-node',
  'ws-bun',
  'socket.io-node',
  'socket.io-bun',
] as const
export type PeerName = (typeof peerNames)[number]

export interface Peer {
  readonly name: PeerName
  readonly port: number
  readonly protocol: Protocol
  /** Publishes `count` in one tick; resolves when that is said. */
  publish(count: number): Promise<void>
  /** Watches the child's event loop from now on; tells its longest block since the last call, in ms; 0 where it does not know. */
  watch?(): Promise<number>
  /** Of all its processes, after a garbage collection where it can be asked for one. */
  rssBytes(): Promise<number>
  /** Sockets or streams that hear the topic. */
  subscribers(): Promise<number>
  /** All its processes have used so far. */
  cpuSeconds(): Promise<number>
  stop(): void
}

export type Order =
  | { readonly kind: 'publish'; readonly count: number }
  | { readonly kind: 'report' }
  | { readonly kind: 'watch' }

export interface Report {
  readonly port: number
  readonly subscribers: number
  readonly blockMs: number
}

/** Fetches what can be fetched, and says of the others why they are not here. */
export async function availablePeers(wanted: readonly PeerName[]): Promise<PeerName[]> {
  const why = new Map<PeerName, string>()
  if (!hasNchan) why.set('nchan', '`apt-get install nginx libnginx-mod-nchan` brings it')
  if (!hasNats) why.set('nats', '`apt-get install nats-server` brings it')
  for (const name of wanted.filter((one) => one in npmPeers)) {
    if (name.endsWith('-node') && Bun.which('node') === null) why.set(name, 'there is no node')
    else {
      const { problem } = await npmServer()
      if (problem !== undefined) why.set(name, problem)
    }
  }
  for (const name of wanted) {
    if (why.has(name)) console.warn(`skipped: peer ${name}: ${why.get(name)}`)
  }
  return wanted.filter((name) => !why.has(name))
}

const npmPeers: Partial<Record<PeerName, readonly [runtime: 'node' | 'bun', serves: string]>> = {
  'ws-node': ['node', 'ws'],
  'ws-bun': ['bun', 'ws'],
  'socket.io-node': ['node', 'socket.io'],
  'socket.io-bun': ['bun', 'socket.io'],
}

const protocolsOf: Readonly<Record<PeerName, Protocol>> = {
  raw: protocols.plain,
  belfry: protocols.belfry,
  'belfry-sse': protocols.events,
  nchan: protocols.nchan,
  nats: protocols.nats,
  'ws-node': protocols.plain,
  'ws-bun': protocols.plain,
  'socket.io-node': protocols.socketio,
  'socket.io-bun': protocols.socketio,
}

export async function startPeer(name: PeerName): Promise<Peer> {
  const protocol = protocolsOf[name]
  if (name === 'nchan' || name === 'nats') {
    const { pid, ...rest } = await (name === 'nchan' ? startNchan() : startNats())
    return { name, protocol, ...costsOf(pid), ...rest }
  }
  return await startScript(name, protocol, await commandOf(name))
}

async function commandOf(name: PeerName): Promise<string[]> {
  const npm = npmPeers[name]
  if (!npm) return [process.execPath, `${import.meta.dir}/peer.server.ts`, name]
  const { file } = await npmServer()
  const [runtime, serves] = npm
  return runtime === 'node'
    ? ['node', '--expose-gc', file, serves]
    : [process.execPath, file, serves]
}

async function startScript(
  name: PeerName,
  protocol: Protocol,
  command: readonly string[],
): Promise<Peer> {
  const waiting: ((report: Report) => void)[] = []
  const first = Promise.withResolvers<Report>()
  waiting.push(first.resolve)
  const child = Bun.spawn([...pinned, ...command], {
    stdio: ['ignore', 'inherit', 'inherit'],
    ipc: (report) => waiting.shift()?.(report as Report),
    // What Node understands, too.
    serialization: 'json',
  })
  const ask = (order: Order) =>
    new Promise<Report>((resolve) => {
      waiting.push(resolve)
      child.send(order)
    })
  const { port } = await first.promise
  const { cpuSeconds, rssBytes } = costsOf(child.pid)
  return {
    name,
    port,
    protocol,
    publish: async (count) => void (await ask({ kind: 'publish', count })),
    watch: async () => (await ask({ kind: 'watch' })).blockMs,
    async rssBytes() {
      await ask({ kind: 'report' })
      return await rssBytes()
    },
    subscribers: async () => (await ask({ kind: 'report' })).subscribers,
    cpuSeconds,
    stop: () => child.kill(),
  }
}

/** Of a process and those it started, as Linux counts them. */
export function costsOf(pid: number): Pick<Peer, 'cpuSeconds' | 'rssBytes'> {
  const pids = [pid, ...childrenOf(pid)]
  const sum = async (of: (one: number) => Promise<number>): Promise<number> =>
    (await Promise.all(pids.map(of))).reduce((a, b) => a + b, 0)
  return { cpuSeconds: () => sum(runSeconds), rssBytes: () => sum(residentBytes) }
}

/** To the nanosecond, of all its threads: `stat` counts in hundredths of a second. */
async function runSeconds(pid: number): Promise<number> {
  const tasks = new Bun.Glob('*/schedstat').scan({ cwd: `/proc/${pid}/task` })
  let nanoseconds = 0
  for await (const path of tasks) {
    const text = await Bun.file(`/proc/${pid}/task/${path}`).text()
    nanoseconds += Number(text.split(' ')[0])
  }
  return nanoseconds / 1e9
}

const pageBytes = 4_096

async function residentBytes(pid: number): Promise<number> {
  const text = await Bun.file(`/proc/${pid}/statm`).text()
  return Number(text.split(' ')[1]) * pageBytes
}
