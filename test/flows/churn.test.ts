/** What those who came and went leave behind: nothing. A hundred thousand of them, and the memory: churn.bench.ts. */
import { heapStats } from 'bun:jsc'
import { expect, test } from 'bun:test'
import { topic } from '../../src/kit.ts'
import { tempFolder, until } from '../harness.ts'
import { runServer } from '../server.ts'
import { churn } from './churn.ts'

test('two thousand who came and went leave no object behind', async () => {
  using folder = tempFolder()
  await using server = await runServer({
    folder,
    app: { topics: { news: topic({ subscribe: 'public', history: { size: 10, ttl: '1h' } }) } },
  })
  const { realtime } = server.rooms
  /** Objects on the heap, of server and clients, once so many more have gone. */
  const objectsAfter = async (cycles: number): Promise<number> => {
    await churn({ port: server.port, topic: 'news', cycles, atOnce: 50 })
    await until(() => realtime.stats().connections === 0, 'everybody is gone')
    realtime.publish('news', 'to nobody')
    Bun.gc(true)
    return heapStats().objectCount
  }
  const few = await objectsAfter(500)
  const many = await objectsAfter(2_000)
  expect(realtime.stats()).toMatchObject({ sockets: 0, streams: 0, subscriptions: 0 })
  // One object kept of each would be 2,000.
  expect(many - few).toBeLessThan(1_000)
})
