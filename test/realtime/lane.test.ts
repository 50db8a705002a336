/** The way to Redis when it is full. */
import { expect, test } from 'bun:test'
import { must } from '../../src/lib/assert.ts'
import { createLane, type Job } from '../../src/realtime/broker-lane.ts'
import type { Position } from '../../src/realtime/recovery.ts'
import { createTestClock } from '../clock.ts'
import { faultOf } from '../harness.ts'
import { plansOf } from './serve.ts'

const plan = must(plansOf({ a: {} })[0], () => 'it is declared')
const job: Job = {
  match: { name: 'a', plan, params: {} },
  encoded: { data: '1', bytes: 1 },
  once: undefined,
}

test('who finds it full is refused as too many, and told how long what waits will take', async () => {
  const clock = createTestClock()
  const taken: PromiseWithResolvers<Position>[] = []
  let offset = 0
  const lane = createLane({
    clock,
    wayOf: () => 'shared',
    share() {
      const one = Promise.withResolvers<Position>()
      taken.push(one)
      return one.promise
    },
    publishAlone: () => ({ epoch: 'alone', offset: 0 }),
  })
  /** Redis takes so many, each in so many ms. */
  const take = async (count: number, ms: number): Promise<void> => {
    for (let n = 0; n < count; n += 1) {
      clock.advance(ms)
      taken.shift()?.resolve({ epoch: 'e', offset: (offset += 1) })
      // The answer, and what follows from it.
      await Promise.resolve()
      await Promise.resolve()
    }
  }
  const refusal = () => faultOf(() => lane.publish(job))
  let outcomes: unknown[] = []
  const fill = async (count: number): Promise<void> => {
    for (let n = 0; n < count; n += 1) outcomes.push(lane.publish(job))
  }

  await fill(51_000)
  expect(taken).toHaveLength(1_000)
  const atFirst = await refusal()
  expect([atFirst.code, atFirst.retryAfterMs]).toEqual(['too_many', 1_020])
  // Twenty times as slow for a while: the wait tells.
  await take(1_000, 0.4)
  await fill(1_000)
  const later = (await refusal()).retryAfterMs ?? 0
  expect(later).toBeGreaterThan(15_000)
  expect(later).toBeLessThan(20_400)
  await take(51_000, 0)
  await lane.settled()
  outcomes = await Promise.all(outcomes)
  expect(outcomes.at(-1)).toEqual({ epoch: 'e', offset: 52_000 })
})
