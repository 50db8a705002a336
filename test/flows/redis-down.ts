/** A community's load on some nodes, and what their second tier does meanwhile: for a Redis that goes and comes. */
import { signToken } from '../../src/auth/auth.ts'
import { communityWorkload, type WorkRequest } from '../apps/community-workload.ts'
import { httpClient, quantile, requestBytes } from '../bench/load.ts'
import { testApiKey, testSecret } from '../server.ts'

export interface LoadOptions {
  readonly ports: readonly number[]
  /** To each node, one request outstanding on each. */
  readonly connections: number
  /** Asked before each request. */
  readonly isOver: () => boolean
  /** Of all connections together; as fast as it goes if not given. Latency counts from when one was due. */
  readonly perSecond?: number
}

export interface Loaded {
  readonly requests: number
  /** Answers from 500 on, and connections that were lost. */
  readonly failures: readonly string[]
  /** Answers from 400 to 499. */
  readonly refused: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly maxMs: number
}

export interface Requests {
  next(): Promise<{ readonly request: WorkRequest; readonly headers: Record<string, string> }>
}

/** The workload without an end, its writers signed in. */
export function createRequests(seed: number): Requests {
  const requests = communityWorkload(seed)
  const tokens = new Map<string, Promise<string>>()
  const tokenOf = (sub: string): Promise<string> => {
    let token = tokens.get(sub)
    const times = { nowMs: Date.now(), ttlMs: 3_600_000 }
    if (!token) tokens.set(sub, (token = signToken(testSecret, { sub }, times)))
    return token
  }
  return {
    async next() {
      const request = requests.next().value
      const { user } = request
      const token = user === undefined ? undefined : await tokenOf(user)
      return { request, headers: token === undefined ? {} : { authorization: `Bearer ${token}` } }
    },
  }
}

export async function load(requests: Requests, options: LoadOptions): Promise<Loaded> {
  const { ports, connections, isOver, perSecond } = options
  const latencies: number[] = []
  const failures: string[] = []
  let refused = 0
  const total = ports.length * connections
  const everyMs = perSecond === undefined ? 0 : (1000 * total) / perSecond
  const startedAt = performance.now()

  const run = async (port: number, turn: number): Promise<void> => {
    const client = await httpClient(port)
    for (let n = 0; !isOver(); n++) {
      const { request, headers } = await requests.next()
      const { method, path, body } = request
      const bytes = requestBytes(port, { method, path, headers, body })
      let dueAt = performance.now()
      if (everyMs > 0) {
        const at = startedAt + (n + turn / total) * everyMs
        if (at > dueAt) await Bun.sleep(at - dueAt)
        dueAt = at
      }
      try {
        await client.ask(bytes)
      } catch (error) {
        const said = String(error)
        const [line = ''] = said.split('\r\n', 1)
        if (/HTTP\/1.1 4/.test(line)) refused++
        else failures.push(`${method} ${path}: ${line} ${/"detail":"[^"]*"/.exec(said)?.[0] ?? ''}`)
      }
      latencies.push(performance.now() - dueAt)
    }
    client.close()
  }
  const all = ports.flatMap((port, node) =>
    Array.from({ length: connections }, (_, at) => run(port, at * ports.length + node)),
  )
  await Promise.all(all)
  return {
    requests: latencies.length,
    failures,
    refused,
    p50Ms: quantile(latencies, 0.5),
    p99Ms: quantile(latencies, 0.99),
    maxMs: Math.max(0, ...latencies),
  }
}

export interface SecondTier {
  readonly isUp: boolean
  /** Answers that came from there. */
  readonly hits: number
  readonly sets: number
}

/** Of all nodes together, as an operator sees it. */
export async function secondTier(ports: readonly number[]): Promise<SecondTier> {
  const each = await Promise.all(
    ports.map(async (port) => {
      const url = `http://127.0.0.1:${port}/api/admin/cache/stats`
      const response = await fetch(url, { headers: { 'x-api-key': testApiKey } })
      const { l2, shared } = (await response.json()) as Stats
      return { hits: l2.hits, sets: shared.sets, isUp: shared.isUp }
    }),
  )
  return {
    isUp: each.every(({ isUp }) => isUp),
    hits: each.reduce((sum, { hits }) => sum + hits, 0),
    sets: each.reduce((sum, { sets }) => sum + sets, 0),
  }
}

interface Stats {
  readonly l2: { readonly hits: number }
  readonly shared: { readonly sets: number; readonly isUp: boolean }
}
