import { expect, test } from 'bun:test'
import { systemClock } from '../../src/lib/clock.ts'

test('a wait of more than 2^31 ms does not end at once', async () => {
  let isOver = false
  const cancel = systemClock.after(30 * 24 * 3_600_000, () => (isOver = true))
  await Bun.sleep(20)
  expect(isOver).toBe(false)
  cancel()
})
