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

let ticked = 0
const clock = {
  ...systemClock,
  now: () => systemClock.now() + skewMs,
  // As a decision read it: to write it down later is too late on a busy machine.
  tick: () => (ticked = systemClock.tick()),
}
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
// The best of many readings: on a busy machine a process may stand still between two of them.
const startedMs = Math.max(
  ...Array.from({ length: 1000 }, () => systemClock.now() - systemClock.tick()),
)

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
  const at = Math.floor((startedMs + ticked) * 1000)
  const isAlone = limiter.stats().alone > before
  if (ok) print(isAlone ? { at, by: 'alone' } : { at: told, by: 'redis' })
  // Refusals come from memory, without a turn of the event loop.
  await new Promise((resolve) => setImmediate(resolve))
}
await redis.stop()
