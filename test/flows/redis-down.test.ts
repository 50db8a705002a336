/** No request fails while Redis is killed or stands still, and what nodes share is used again when it is back. */
import { expect, test } from 'bun:test'
import { communityApp, tickUntil } from '../apps/community-server.ts'
import { tempFolder, until } from '../harness.ts'
import { runServer } from '../server.ts'
import { requireService, startRedis } from '../services.ts'
import { createRequests, load, secondTier, type Loaded } from './redis-down.ts'

const missing = !requireService('redis-server')

/** Some seconds of load, on two cores. */
const some = 300
/** More than any outage needs to be over: whoever gets here never finds it again. */
const tooMany = 20_000

test.skipIf(missing)(
  'a community does not notice that Redis is away, and uses it again',
  async () => {
    using folder = tempFolder()
    await using redis = await startRedis()
    const env = { REDIS_URL: redis.url }
    await using server = await runServer({ app: communityApp, folder, env, redisMs: undefined })
    // Everybody and the newest posts; pages of the rest are 404 until their batch is there.
    await tickUntil(server, ({ batches }) => batches >= 1)
    const ports = [Number(new URL(server.url).port)]
    const requests = createRequests(1)
    const during = async (isOver: (n: number) => boolean): Promise<Loaded> => {
      let asked = 0
      const options = { ports, connections: 8, isOver: () => isOver(asked++) || asked > tooMany }
      const loaded = await load(requests, options)
      expect(loaded.failures).toEqual([])
      expect(loaded.requests).toBeLessThan(tooMany)
      return loaded
    }
    /** Under load, which ends with it. One node alone can only put; two-tiers.test.ts has those that find. */
    const usedAgain = async (): Promise<void> => {
      const before = await secondTier(ports)
      let isUsed = false
      const look = async (): Promise<void> => {
        const isAgain = async (): Promise<boolean> => {
          const { isUp, sets } = await secondTier(ports)
          return isUp && sets > before.sets
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
