import { describe } from 'bun:test'
import { createMemoryTier } from '../../src/cache/tier-memory.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { tierContract } from '../contracts/tier.ts'
import { requireService, startRedis } from '../services.ts'
import { openRedis, settled } from './redis.ts'

const bodyBytesMax = 100_000

describe('in memory', () => {
  tierContract(async () => {
    const entryBytesMax = 2 * bodyBytesMax - 1
    const bounds = { entriesMax: 100, bytesMax: 10 * entryBytesMax, entryBytesMax }
    const tier = createMemoryTier(bounds, systemClock)
    return {
      bodyBytesMax,
      get: async (key) => tier.get(key),
      set: async (key, entry) => tier.set(key, entry),
      delete: async (key) => tier.delete(key),
      [Symbol.asyncDispose]: async () => undefined,
    }
  })
})

describe.skipIf(!requireService('redis-server'))('in Redis', () => {
  tierContract(async () => {
    const server = await startRedis()
    const opened = await openRedis(server.port, { valueBytesMax: bodyBytesMax })
    const { tier } = opened
    return {
      bodyBytesMax,
      get: (key) => tier.get(key),
      async set(key, entry) {
        tier.set(key, entry, 60_000)
        await settled(opened)
      },
      async delete(key) {
        tier.delete(key)
        await settled(opened)
      },
      async [Symbol.asyncDispose]() {
        await opened[Symbol.asyncDispose]()
        await server[Symbol.asyncDispose]()
      },
    }
  })
})
