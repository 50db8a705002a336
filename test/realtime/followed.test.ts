/** Waiting for the log. */
import { expect, test } from 'bun:test'
import { createFollowed } from '../../src/realtime/followed.ts'
import { createTestClock } from '../clock.ts'
import { createTestLog } from '../harness.ts'

const isDone = async (wait: Promise<void> | undefined): Promise<boolean> =>
  (await Promise.race([wait?.then(() => 'done'), Promise.resolve('not yet')])) === 'done'

test('a change is waited for until the log is there, and no longer than a database may be away', async () => {
  const [clock, log] = [createTestClock(), createTestLog()]
  const followed = createFollowed(clock, log, true)
  expect(followed.when(0)).toBeUndefined()
  const [five, six, far] = [followed.when(5), followed.when(6), followed.when(99)]
  followed.reach(5)
  followed.reach(3)
  await five
  expect([await isDone(six), await isDone(far)]).toEqual([false, false])
  expect(followed.when(5)).toBeUndefined()
  followed.reach(6)
  await six
  clock.advance(4_999)
  expect(await isDone(far)).toBeFalse()
  expect(log.lines).toEqual([])
  clock.advance(1)
  await far
  expect(log.lines.map(({ event }) => event)).toEqual(['realtime.log-not-followed'])
})

test('without a log nothing is waited for', () => {
  expect(createFollowed(createTestClock(), createTestLog(), false).when(99)).toBeUndefined()
})
