/**
 * What it costs requests when Redis is killed, or stands still (SIGSTOP), and how soon it is used again: two nodes on
 * one primary, with the community app and its workload at a steady rate, two writes of a hundred among it. `NODES=1`
 * is one node on its own file, for machines that two nodes and a primary keep busy.
 */
import { createRequests, load, secondTier } from '../flows/redis-down.ts'
import { tempFolder } from '../harness.ts'
import { requireService, startRedis, startSqld } from '../services.ts'
import { rounded } from './load.ts'

const normalSeconds = Number(process.env['NORMAL_SECONDS'] ?? 10)
const downSeconds = Number(process.env['DOWN_SECONDS'] ?? 30)
const perSecond = Number(process.env['PER_SECOND'] ?? 400)
const nodesCount = Number(process.env['NODES'] ?? 2)
const connections = 16

async function startNode(database: string, redis: string) {
  const server = `${import.meta.dir}/redis-down.server.ts`
  const child = Bun.spawn([process.execPath, server, database, redis], {
    stdout: 'pipe',
    stderr: 'inherit',
  })
  for await (const chunk of child.stdout) {
    const { port } = JSON.parse(new TextDecoder().decode(chunk)) as { readonly port: number }
    return { port, stop: () => child.kill() }
  }
  throw new Error('a node did not start')
}

export async function run(): Promise<void> {
  if (!requireService('redis-server') || !requireService('sqld')) return
  await using primary = nodesCount > 1 ? await startSqld() : undefined
  await using redis = await startRedis()
  using folder = tempFolder()
  const database = primary?.url ?? `file:${folder.file('community.db')}`
  const nodes: Awaited<ReturnType<typeof startNode>>[] = []
  // One after the other: the first one loads the sample.
  for (let n = 0; n < nodesCount; n++) nodes.push(await startNode(database, redis.url))
  const ports = nodes.map(({ port }) => port)
  const requests = createRequests(1)
  const rows: Record<string, string | number>[] = []
  const during = async (phase: string, seconds: number): Promise<void> => {
    const until = performance.now() + seconds * 1000
    const isOver = (): boolean => performance.now() > until
    const before = await secondTier(ports)
    const loaded = await load(requests, { ports, connections, isOver, perSecond })
    const after = await secondTier(ports)
    const fives = loaded.failures.length
    rows.push({
      phase,
      requests: loaded.requests,
      '5xx': fives,
      '4xx': loaded.refused,
      'p50 ms': rounded(loaded.p50Ms),
      'p99 ms': rounded(loaded.p99Ms),
      'max ms': rounded(loaded.maxMs),
      'found in Redis': after.hits - before.hits,
      'put there': after.sets - before.sets,
    })
    if (fives > 0) console.warn(loaded.failures.slice(0, 3))
  }
  /** From now, under load. */
  const usedAgain = async (phase: string): Promise<void> => {
    const startedAt = performance.now()
    const before = await secondTier(ports)
    let isOver = false
    const loading = load(requests, { ports, connections, isOver: () => isOver, perSecond })
    const seconds = (): number => (performance.now() - startedAt) / 1000
    let upAfter = 0
    for (;;) {
      const { isUp, hits, sets } = await secondTier(ports)
      if (isUp && upAfter === 0) upAfter = seconds()
      // Nobody finds there what it has itself: one node alone can only put.
      const isUsed = nodesCount > 1 ? hits > before.hits : sets > before.sets
      if (isUsed || seconds() > 30) break
      await Bun.sleep(50)
    }
    console.log(`${phase}: up after ${rounded(upAfter)} s, used after ${rounded(seconds())} s`)
    isOver = true
    await loading
  }
  try {
    await during('(warm-up)', normalSeconds)
    await during('normal', normalSeconds)
    await redis.kill()
    await during('killed', downSeconds)
    await redis.restart()
    await usedAgain('started again, empty')
    await during('normal', normalSeconds)
    const paused = during('paused (SIGSTOP)', downSeconds)
    redis.pause()
    await paused
    redis.resume()
    await usedAgain('resumed')
    await during('normal', normalSeconds)
  } finally {
    for (const node of nodes) node.stop()
  }
  console.log(`${perSecond} requests a second to ${nodesCount} nodes of the community app`)
  console.table(rows)
}

if (import.meta.main) await run()
