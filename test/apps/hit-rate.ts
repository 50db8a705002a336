/**
 * How many reads of the community app are answered from memory, by its workload on a clock that moves by hand:
 * each request comes a fixed time after the one before, however long the machine takes for it.
 */
import { copyFileSync } from 'node:fs'
import { signToken } from '../../src/auth/auth.ts'
import type { TempFolder } from '../harness.ts'
import { createTestClock } from '../clock.ts'
import { communityApp, loadCommunity } from './community-server.ts'
import { communityPages, communityWorkload, type WorkRequest } from './community-workload.ts'
import { runServer, testSecret } from '../server.ts'

export interface HitRateOptions {
  readonly seed: number
  /** Before anything is counted, and after each page was asked for once. */
  readonly warmUp: number
  readonly requests: number
  readonly perSecond: number
  readonly env?: Readonly<Record<string, string>>
}

export interface HitRate {
  readonly reads: number
  /** Shares of the reads. */
  readonly memory: number
  readonly combined: number
  /** Of the database, by whoever asked, and ahead of them. */
  readonly queriesPer1000: number
  /** Loads that nobody waited for. */
  readonly aheadPer1000: number
  /** Answers that the log mended without a load. */
  readonly repairsPer1000: number
}

export async function measureHitRate(
  folder: TempFolder,
  { seed, warmUp, requests, perSecond, env = {} }: HitRateOptions,
): Promise<HitRate> {
  const made = await loadCommunity()
  copyFileSync(made.folder.file('test.db'), folder.file('test.db'))
  const clock = createTestClock()
  await using server = await runServer({ app: communityApp, folder, clock, env })
  const { cache, store } = server.rooms
  const times = { nowMs: clock.now(), ttlMs: 24 * 3_600_000 }
  const tokens = new Map<string, Promise<string>>()
  const send = async ({ method, path, body, user }: WorkRequest): Promise<void> => {
    const init: RequestInit = { method }
    if (user !== undefined) {
      let token = tokens.get(user)
      if (!token) tokens.set(user, (token = signToken(testSecret, { sub: user }, times)))
      init.headers = { authorization: `Bearer ${await token}`, 'content-type': 'application/json' }
      init.body = JSON.stringify(body)
    }
    const response = await server.get(path, init)
    await response.arrayBuffer()
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status}`)
  }
  const work = communityWorkload(seed)
  const run = async (count: number): Promise<number> => {
    let reads = 0
    for (let sent = 0; sent < count; sent++) {
      const request = work.next().value
      clock.advance(1_000 / perSecond)
      await send(request)
      if (request.method === 'GET') reads++
    }
    return reads
  }
  for (const path of communityPages) await send({ method: 'GET', path })
  await run(warmUp)
  const before = { ...cache.stats(), queries: store.stats().reads }
  const reads = await run(requests)
  const after = { ...cache.stats(), queries: store.stats().reads }
  // A page of children asks twice: for the parent, and for the list.
  const asked = after.hits + after.misses - before.hits - before.misses
  const misses = after.misses - before.misses
  const shared = after.sharedHits - before.sharedHits
  const ahead = after.reloads + after.refreshes - before.reloads - before.refreshes
  return {
    reads,
    memory: 1 - misses / asked,
    combined: 1 - Math.max(0, misses - shared) / asked,
    queriesPer1000: ((after.queries - before.queries) / requests) * 1_000,
    aheadPer1000: (ahead / requests) * 1_000,
    repairsPer1000: ((after.repairs - before.repairs) / requests) * 1_000,
  }
}
