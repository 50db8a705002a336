/** Connections that come and go at random: whatever a listener does not hear, it is told of. */
import { expect, test } from 'bun:test'
import { createClient, type Gap } from '../../src/client/client.ts'
import { topic } from '../../src/kit.ts'
import { tempFolder, until } from '../harness.ts'
import { createRandom } from '../lib/random.ts'
import { runServer } from '../server.ts'

const publicationsMax = 2_000

const topics = {
  /** Shorter than an absence may be, so that both happen: recovered, and not. */
  short: topic({ subscribe: 'public', history: { size: 8, ttl: '1h' } }),
  bare: topic({ subscribe: 'public' }),
  last: topic({ subscribe: 'public', last: true }),
}

interface Heard {
  readonly numbers: number[]
  /** Since the number before: by how much, or undefined where nobody knows. */
  gaps: (number | undefined)[]
}

test.each([1, 2, 3])('a listener hears every number in order, or a gap (seed %i)', async (seed) => {
  const random = createRandom(seed)
  using folder = tempFolder()
  await using server = await runServer({ app: { topics }, folder })
  const client = createClient({ url: server.url, centrifuge: { minReconnectDelay: 1 } })
  const wrong: string[] = []
  const heard = new Map<string, Heard>()
  for (const name of Object.keys(topics)) {
    const one: Heard = { numbers: [], gaps: [] }
    heard.set(name, one)
    client.subscribe(name, {
      message(data) {
        const number = data as number
        const before = one.numbers.at(-1)
        const missing = number - (before ?? number - 1) - 1
        const told = one.gaps.includes(undefined)
          ? missing
          : one.gaps.reduce<number>((sum, gap) => sum + (gap ?? 0), 0)
        // The first one it hears begins at nothing: what was before, nobody promised.
        if (before !== undefined && told !== missing) {
          wrong.push(`${name}: ${before}, then ${number}, and told of ${told}`)
        }
        one.numbers.push(number)
        one.gaps = []
      },
      gap: ({ missed }: Gap) => one.gaps.push(missed),
    })
  }
  const { realtime } = server.rooms
  const listening = () =>
    Object.values(client.centrifuge.subscriptions()).every(({ state }) => state === 'subscribed')
  await until(listening, 'it listens to all')
  let number = 0
  const publish = (count: number): void => {
    for (let left = count; left > 0; left -= 1) {
      number += 1
      for (const name of heard.keys()) realtime.publish(name, number)
    }
  }
  const allHeard = () => [...heard.values()].every(({ numbers }) => numbers.at(-1) === number)
  while (number < publicationsMax) {
    client.connect()
    // Or goes away again before it listens, or before it heard.
    if (random.next() < 0.8) {
      await until(listening, 'it listens to all')
      publish(1 + random.below(20))
      if (random.next() < 0.8) await until(allHeard, 'it heard')
    }
    client.centrifuge.disconnect()
    if (random.next() < 0.5) await until(() => realtime.stats().connections === 0, 'it is away')
    publish(random.below(15))
  }
  client.connect()
  await until(listening, 'it listens to all')
  publish(1)
  await until(allHeard, 'the last')
  expect(wrong).toEqual([])
  for (const { numbers } of heard.values()) {
    expect(numbers.length).toBeGreaterThan(publicationsMax / 10)
    expect(numbers.length).toBeLessThan(number)
  }
  client.close()
})
