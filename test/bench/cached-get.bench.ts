/**
 * (a) A cached GET, of a collection and of a proxy, against a raw `Bun.serve` handler that returns the same bytes, an Elysia handler, and nginx
 * with `proxy_cache`. Server CPU per request. Each slice of a peer has a slice of the raw handler beside it, on
 * connections that stay open, and the ratio is the median of these pairs: what else the machine does hits both.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { httpPool, median, pinned, type HttpPool } from './load.ts'
import { hasNginx } from './nginx.ts'

const peers = ['raw', 'elysia', 'belfry', 'belfry, token', 'belfry, proxy', 'nginx proxy_cache']
const warmUp = 10_000
const rounds = Number(process.env['ROUNDS'] ?? 20)
const requests = 500
const connections = 32

/** What a peer says of itself once it serves. */
export interface Said {
  readonly port: number
  /** Whose CPU time counts. */
  readonly pids: readonly number[]
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly bytes: number
}

interface Peer extends Said {
  readonly name: string
  readonly pool: HttpPool
  stop(): Promise<void>
  readonly microseconds: number[]
  /** Of the raw handler, beside each. */
  readonly raw: number[]
}

async function start(name: string): Promise<Peer> {
  const server = `${import.meta.dir}/cached-get.server.ts`
  const child = Bun.spawn([...pinned, process.execPath, server, name], {
    stdout: 'pipe',
    stderr: 'inherit',
    stdin: 'pipe',
  })
  const stop = async (): Promise<void> => {
    await child.stdin.end()
    await child.exited
  }
  for await (const chunk of child.stdout) {
    const said = JSON.parse(new TextDecoder().decode(chunk)) as Said
    const pool = await httpPool({ ...said, connections })
    await pool.run(warmUp)
    return { ...said, name, pool, stop, microseconds: [], raw: [] }
  }
  throw new Error(`${name} did not start`)
}

/** So far, with all threads; to the nanosecond, where `/proc/…/stat` counts hundredths of a second. */
function cpuMicroseconds(pids: readonly number[]): number {
  let nanoseconds = 0
  for (const pid of pids) {
    for (const task of readdirSync(`/proc/${pid}/task`)) {
      const text = readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'utf8')
      nanoseconds += Number(text.split(' ')[0])
    }
  }
  return nanoseconds / 1000
}

async function slice({ pids, pool }: Peer): Promise<number> {
  const before = cpuMicroseconds(pids)
  await pool.run(requests)
  return (cpuMicroseconds(pids) - before) / requests
}

async function round(raw: Peer, peer: Peer, isRawFirst: boolean): Promise<void> {
  if (isRawFirst) peer.raw.push(await slice(raw))
  peer.microseconds.push(await slice(peer))
  if (!isRawFirst) peer.raw.push(await slice(raw))
}

const digits = (value: number, many: number): number => Number(value.toFixed(many))

export async function run(): Promise<void> {
  if (!hasNginx) console.log('no nginx here (apt-get install nginx-light): it is left out')
  const running: Peer[] = []
  try {
    for (const name of peers) {
      if (name.startsWith('nginx') && !hasNginx) continue
      running.push(await start(name))
    }
    const [raw] = running
    if (!raw) throw new Error('the raw handler is always there')
    for (let at = 0; at < rounds; at++) {
      for (const peer of running) await round(raw, peer, at % 2 === 0)
    }
    console.log(
      `cached GET, ${raw.bytes} bytes, ${connections} connections, median of ${rounds} rounds of ${requests}`,
    )
    console.table(
      running.map(({ name, bytes, microseconds, raw: beside }) => ({
        peer: name,
        bytes,
        'server µs/request': digits(median(microseconds), 1),
        'raw beside it': digits(median(beside), 1),
        'of raw': digits(median(microseconds.map((one, at) => (beside[at] ?? 0) / one)), 3),
      })),
    )
  } finally {
    for (const { pool } of running) pool.close()
    await Promise.all(running.map((peer) => peer.stop()))
  }
}

if (import.meta.main) await run()
