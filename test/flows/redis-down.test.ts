/** No request fails while Redis is killed or stands still, and what nodes share is used again when it is back. */
import { expect, test } from 'bun:test'
import { communityApp, tickUntil } from '../apps/community-server.ts'
import { tempFolder, until } from '../harness.ts'
import { runServer } from '../server.ts'
import { requireService, startRedis, startSqld } from '../services.ts'
import { createRequests, load, secondTier, type Loaded } from './redis-down.ts'

const missing = !requireService('sqld') || !requireService('redis-server')

/** Some seconds of load, on two cores. */
const some = 150
/** More than any outage needs to be over: whoever gets here never finds it again. */
const tooMany = 20_000

test.skipIf(missing)(
  'a community on two nodes does not notice that Redis is away, and finds it again',
  async () => {
    using folderA = tempFolder()
    using folderB = tempFolder()
    await using primary = await startSqld()
    await using redis = await startRedis()
    const env = { DATABASE_URL: primary.url, REDIS_URL: redis.url }
    await using a = await runServer({ app: communityApp, folder: folderA, env })
    // Everybody and the newest posts; pages of the rest are 404 until their batch is there.
    await tickUntil(a, ({ batches }) => batches >= 1)
    await using b = await runServer({ app: communityApp, folder: folderB, env })
    const ports = [a, b].map(({ url }) => Number(new URL(url).port))
    const requests = createRequests(1)
    const during = async (isOver: (n: number) => boolean): Promise<Loaded> => {
      let asked = 0
      const options = { ports, connections: 4, isOver: () => isOver(asked++) || asked > tooMany }
      const loaded = await load(requests, options)
      expect(loaded.failures).toEqual([])
      expect(loaded.requests).toBeLessThan(tooMany)
      return loaded
    }
    /** Under load, which ends with it. */
    const usedAgain = async (): Promise<void> => {
      const before = await secondTier(ports)
      let isUsed = false
      const look = async (): Promise<void> => {
        const isAgain = async (): Promise<boolean> => {
          const { isUp, hits, sets } = await secondTier(ports)
          return isUp && hits > before.hits && sets > before.sets
        }
        await until(isAgain, 'redis is used again', 30_000).finally(() => (isUsed = true))
      }
      await Promise.all([during(() => isUsed), look()])
    }

    await usedAgain()
    await redis.kill()
    await during((n) => n >= some)
    expect((await secondTier(ports)).isUp).toBe(false)
    await redis.restart()
    await usedAgain()

    redis.pause()
    await during((n) => n >= some)
    redis.resume()
    await usedAgain()
  },
  120_000,
)
