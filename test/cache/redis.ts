/** A connection to a real Redis, and the tier on it. */
import { createRedisTier } from '../../src/cache/cache.ts'
import type { SharedTier } from '../../src/cache/tier.ts'
import { systemClock, type Clock } from '../../src/lib/clock.ts'
import { createRedis, type Redis } from '../../src/store/store.ts'
import { readConfig } from '../../src/config.ts'
import { createTestLog, patientMs, until } from '../harness.ts'

export interface TestRedis extends AsyncDisposable {
  readonly redis: Redis
  readonly tier: SharedTier
  readonly log: ReturnType<typeof createTestLog>
}

export interface OpenOptions {
  readonly clock?: Clock
  readonly namespace?: string
  readonly valueBytesMax?: number
  /** False: it is not there yet. */
  readonly isUp?: boolean
  /** Undefined: as in life. */
  readonly commandMs?: number | undefined
}

export async function openRedis(
  server: number | string,
  { clock = systemClock, namespace = 'belfry:test', isUp = true, ...rest }: OpenOptions = {},
): Promise<TestRedis> {
  const { commandMs, ...options } = { commandMs: patientMs, ...rest }
  const log = createTestLog()
  const url = typeof server === 'string' ? server : `redis://127.0.0.1:${server}`
  const { redis: target } = readConfig('test', { REDIS_URL: url })
  if (!target) throw new Error('no target')
  const redis = createRedis({ clock, log }, { target, commandMs })
  const tier = createRedisTier({ redis, clock }, { namespace, ...options })
  redis.start()
  await tier.start()
  if (isUp) await until(() => tier.isUp, 'redis is up')
  return {
    redis,
    tier,
    log,
    async [Symbol.asyncDispose]() {
      await tier.stop()
      await redis.stop()
    },
  }
}

/** All that was sent has been answered. */
export function settled({ redis }: TestRedis): Promise<void> {
  return until(() => redis.stats().pending === 0, 'nothing is on its way')
}
