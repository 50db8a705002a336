/** `SIMULATION_SEED=7 bun test test/flows/simulation.test.ts` is the same run again, to the last read. */
import { expect, test } from 'bun:test'
import { simulate } from './simulation.ts'

const given = process.env['SIMULATION_SEED']
/** In these every way to an answer is taken. */
const looked = [1, 2, 3, 4]
const seeds = given === undefined ? [...looked, Date.now() % 1_000_000] : [Number(given)]
const reads = 50_000

for (const seed of seeds) {
  for (const isSleepy of [false, true]) {
    test(`seed ${seed}${isSleepy ? ', nodes that sleep' : ''}: nothing stale is shown`, async () => {
      const { violations, states } = await simulate({ seed, reads, isSleepy })
      expect(violations.slice(0, 5)).toEqual([])
      // Of the others nobody has looked.
      if (!looked.includes(seed)) return
      for (const state of ['hit', 'l2', 'miss', 'miss, joined', 'stale']) {
        expect([state, states[state] ?? 0]).not.toEqual([state, 0])
      }
    })
  }
}

test('a seed is a run', async () => {
  const [one, other] = [
    await simulate({ seed: 5, reads: 3_000 }),
    await simulate({ seed: 5, reads: 3_000 }),
  ]
  expect(one.seen).toEqual(other.seen)
})
