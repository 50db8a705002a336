import { beforeAll, expect, test } from 'bun:test'
import { tempFolder } from '../harness.ts'
import { createRandom } from '../lib/random.ts'
import { loadCommunity, loadingMsMax, runCommunity } from './community-server.ts'
import { communityPages, communityWorkload, zipf } from './community-workload.ts'
import { as } from './exams-server.ts'

beforeAll(loadCommunity, loadingMsMax)

const take = (seed: number, count: number) => [...communityWorkload(seed).take(count)]

test('the same seed is the same workload, another one another', () => {
  expect(take(1, 500)).toEqual(take(1, 500))
  expect(take(2, 500)).not.toEqual(take(1, 500))
})

test('two of a hundred requests write, most of them votes; reads are pages, by Zipf', () => {
  const requests = take(3, 200_000)
  const writes = requests.filter(({ method }) => method === 'POST')
  expect(writes.length / requests.length).toBeCloseTo(0.02, 2)
  const votes = writes.filter(({ path }) => path.endsWith('/vote'))
  expect(votes.length / writes.length).toBeCloseTo(0.7, 1)
  for (const { user } of writes) expect(user).toMatch(/^se-\d+$/)

  const pages = new Set(communityPages)
  expect(pages.size).toBe(communityPages.length)
  expect(pages.size).toBeGreaterThan(2_500)
  const counts = new Map<string, number>()
  for (const { method, path } of requests) {
    if (method !== 'GET') continue
    expect(pages.has(path)).toBe(true)
    counts.set(path, (counts.get(path) ?? 0) + 1)
  }
  const sorted = [...counts.values()].toSorted((a, b) => b - a)
  const [first = 0] = sorted
  // The tenth is asked for a tenth as often, nearly, and the hundredth a hundredth.
  expect((sorted[9] ?? 0) / first).toBeCloseTo(10 ** -0.99, 1.5)
  expect(((sorted[99] ?? 0) * 100) / first).toBeCloseTo(1, 0)
  expect(counts.size / pages.size).toBeGreaterThan(0.95)
})

test('Zipf of exponent 0 is fair', () => {
  const draw = zipf(createRandom(1), ['a', 'b', 'c', 'd'], 0)
  const drawn = Map.groupBy(Array.from({ length: 8_000 }, draw), (one) => one)
  for (const { length } of drawn.values()) expect(Math.abs(length - 2_000)).toBeLessThan(200)
})

test('the app serves every page, and takes the writes', async () => {
  using folder = tempFolder()
  await using server = await runCommunity(folder)
  for (const page of communityPages)
    expect([page, (await server.get(page)).status]).toEqual([page, 200])
  const writes = take(4, 5_000).filter(({ method }) => method === 'POST')
  for (const { method, path, body, user } of writes) {
    if (method !== 'POST') continue
    const { status } = await (await as(server, user ?? '')).send(method, path, body)
    expect([path, status]).toEqual([path, path.endsWith('/vote') ? 200 : 201])
  }
}, 60_000)
