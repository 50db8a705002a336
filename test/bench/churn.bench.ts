/**
 * Memory of `belfry serve` after a hundred thousand connects and disconnects, in each of the ways that
 * there are to go; and with 15,000 idle subscribers, and when they have gone.
 */
import { churn } from '../flows/churn.ts'
import { tempFolder, until } from '../harness.ts'
import { source, spawnBelfry } from '../process.ts'
import { openAudience } from './audience.ts'
import { pinned } from './load.ts'
import { costsOf } from './peer.ts'
import { protocols, topicName } from './wire.ts'

const cycles = Number(process.env['CYCLES'] ?? 100_000)
const subscribers = Number(process.env['SUBSCRIBERS'] ?? 15_000)
const atOnce = 200

/** What a process takes for its first connections, it takes once: code that is compiled, room that is kept. */
const warmUp = 5_000

/** Nobody asks the server for a collection: the engine makes it when it is idle. */
const restMs = 15_000

const app = `
import { app, topic } from 'belfry'
export default app({
  name: 'churn',
  topics: { ${topicName}: topic({ subscribe: 'public', history: { size: 100, ttl: '1h' } }) },
})
`

export async function run(): Promise<void> {
  using folder = tempFolder()
  await Bun.write(folder.file('app.ts'), app)
  await using server = await spawnBelfry({
    command: [...pinned, ...source],
    args: ['serve', 'app.ts'],
    cwd: folder.path,
    env: { LOG_LEVEL: 'error' },
  })
  const { port, url } = server
  const { rssBytes, cpuSeconds } = costsOf(server.pid)
  const connections = async (): Promise<number> =>
    ((await (await fetch(`${url}/api/health`)).json()) as { connections: number }).connections
  const rows: Record<string, Record<string, number>> = {}
  let fresh = 0
  let atRest = 0
  const note = async (when: string, perMany = 0): Promise<number> => {
    const rss = await lowest(rssBytes)
    fresh ||= rss
    rows[when] = {
      'MB resident': Math.round(rss / 1e5) / 10,
      'of at rest': Math.round((rss / fresh) * 1_000) / 1_000,
      ...(atRest > 0 && { 'of the first 5,000': Math.round((rss / atRest) * 1_000) / 1_000 }),
      ...(perMany > 0 && { 'bytes each': Math.round((rss - atRest) / perMany) }),
    }
    return rss
  }
  const come = async (count: number): Promise<void> => {
    await churn({ port, topic: topicName, cycles: count, atOnce })
    await until(async () => (await connections()) === 0, 'everybody is gone')
  }
  await note('at rest')
  await come(warmUp)
  atRest = await note(`after ${warmUp} who came and went`)
  const cpu = await cpuSeconds()
  await come(cycles)
  const used = (await cpuSeconds()) - cpu
  await note(`after ${cycles} more`)
  const peer = {
    name: 'belfry' as const,
    port,
    protocol: protocols.belfry,
    subscribers: connections,
  }
  const audience = await openAudience(peer, subscribers)
  await note(`with ${subscribers} idle subscribers`, subscribers)
  audience.close()
  await until(async () => (await connections()) === 0, 'everybody is gone')
  await note('when they have gone')
  console.log(`\n${Math.round((used * 1e6) / cycles)} µs of the server for each who came and went`)
  console.table(rows)
}

/** Of what is seen while nothing happens. */
async function lowest(rssBytes: () => Promise<number>): Promise<number> {
  let least = Infinity
  const until = performance.now() + restMs
  while (performance.now() < until) {
    least = Math.min(least, await rssBytes())
    await Bun.sleep(500)
  }
  return least
}

if (import.meta.main) {
  await run()
  process.exit()
}
