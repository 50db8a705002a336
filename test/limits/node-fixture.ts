/**
 * One node that takes what it gets: `bun node-fixture.ts <redis port> <quota> <window ms> <wall clock's error in ms>`.
 * Prints what it has let through, a line each; ends with its input.
 */
import { createLimiter } from '../../src/limits/limits.ts'
import type { SharedPort } from '../../src/limits/shared.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { createRedis } from '../../src/store/store.ts'
import { createTestLog } from '../harness.ts'

/** When, in true µs; and who said so: Redis, or this node alone. */
export interface Let {
  readonly at: number
  readonly by: 'redis' | 'alone'
}

const [port = 0, quota = 1, windowMs = 1, skewMs = 0] = process.argv.slice(2).map(Number)

const clock = { ...systemClock, now: () => systemClock.now() + skewMs }
const redis = createRedis({ clock, log: createTestLog() }, { target: { host: '127.0.0.1', port } })
let told = 0
const shared: SharedPort = {
  get isUp() {
    return redis.isUp
  },
  async script(...question) {
    const answer = await redis.script(...question)
    told = Array.isArray(answer) ? Number(answer[0]) : 0
    return answer
  },
}
const limiter = createLimiter({ clock, shared })
const asks = [{ policy: { name: 'p', quota, windowMs }, key: 'k' }]
const trueUs = (): number => Math.floor((performance.timeOrigin + performance.now()) * 1000)

let isOver = false
void (async () => {
  for await (const _ of Bun.stdin.stream()) continue
  isOver = true
})()

redis.start()
const print = (one: Let): void => void process.stdout.write(`${JSON.stringify(one)}\n`)
while (!isOver) {
  const before = limiter.stats().alone
  const { ok } = await limiter.take(asks)
  const isAlone = limiter.stats().alone > before
  if (ok) print(isAlone ? { at: trueUs(), by: 'alone' } : { at: told, by: 'redis' })
  // Refusals come from memory, without a turn of the event loop.
  await new Promise((resolve) => setImmediate(resolve))
}
await redis.stop()
