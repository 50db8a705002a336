import { beforeAll, expect, test } from 'bun:test'
import { tempFolder } from '../harness.ts'
import { loadCommunity, loadingMsMax } from './community-server.ts'
import { measureHitRate } from './hit-rate.ts'

beforeAll(loadCommunity, loadingMsMax)

test('99 of 100 reads are answered from memory while two of 100 requests write', async () => {
  using folder = tempFolder()
  const options = { seed: 3, warmUp: 4_000, requests: 8_000, perSecond: 1_000 }
  const { memory, queriesPer1000, repairsPer1000 } = await measureHitRate(folder, options)
  // Finding out what is read in which table took 71, with a tag for each row 93 to 96.
  expect(memory).toBeGreaterThan(0.985)
  expect(queriesPer1000).toBeLessThan(40)
  expect(repairsPer1000).toBeGreaterThan(5)
}, 120_000)
