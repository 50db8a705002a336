/** At most one publication per key and interval; the latest wins, and the last word is always heard. */
import { describe, expect, test } from 'bun:test'
import { createConflator, type ConflateLimits } from '../../src/realtime/conflate.ts'
import { createTestClock } from '../clock.ts'
import { createRandom } from '../lib/random.ts'
import { RawClient, serve, until } from './serve.ts'

interface Said {
  readonly key: string
  readonly n: number
  readonly bytes: number
}

function start(limits: Partial<ConflateLimits> = {}) {
  const clock = createTestClock()
  const heard: { at: number; key: string; n: number }[] = []
  const hear = ({ key, n }: Said) => void heard.push({ at: clock.tick(), key, n })
  const conflator = createConflator<Said>(
    { clock, go: (_, said) => hear(said) },
    { conflatedKeysMax: 100, conflatedBytesMax: 1_000, ...limits },
  )
  const say = (key: string, n: number, topic = 't') => {
    const said = { key, n, bytes: n > 100 ? 200 : 100 }
    if (!conflator.holds(topic, 1_000, key, said)) hear(said)
  }
  return { clock, conflator, heard, say }
}

describe('conflate', () => {
  test('the first goes at once, the latest at the end of the interval, and opens the next', () => {
    const { clock, conflator, heard, say } = start()
    say('a', 1)
    clock.advance(300)
    say('a', 2)
    say('a', 3)
    expect(heard).toEqual([{ at: 0, key: 'a', n: 1 }])
    clock.advance(900)
    say('a', 4)
    clock.advance(2_000)
    say('a', 5)
    expect(heard.slice(1)).toEqual([
      { at: 1_000, key: 'a', n: 3 },
      { at: 2_000, key: 'a', n: 4 },
      { at: 3_200, key: 'a', n: 5 },
    ])
    clock.advance(1_000)
    expect([conflator.keys, conflator.bytes]).toEqual([0, 0])
  })

  test('each key has an interval of its own, and so has each topic', () => {
    const { clock, heard, say } = start()
    say('a', 1)
    clock.advance(100)
    say('b', 1)
    say('a', 2)
    say('a', 9, 'other')
    clock.advance(800)
    say('b', 2)
    clock.advance(100)
    expect(heard.slice(3)).toEqual([{ at: 1_000, key: 'a', n: 2 }])
    clock.advance(100)
    expect(heard.slice(4)).toEqual([{ at: 1_100, key: 'b', n: 2 }])
  })

  test('a flush lets everything go', () => {
    const { clock, conflator, heard, say } = start()
    for (const key of ['a', 'b']) for (let n = 1; n <= 3; n += 1) say(key, n)
    conflator.flush()
    expect(heard.slice(2).map(({ key, n }) => key + n)).toEqual(['a3', 'b3'])
    expect([conflator.keys, conflator.bytes]).toEqual([0, 0])
    clock.advance(5_000)
    expect(heard).toHaveLength(4)
  })

  test('above the bounds nothing waits, and nothing older comes after', () => {
    const { clock, conflator, heard, say } = start({ conflatedKeysMax: 2, conflatedBytesMax: 250 })
    for (const key of ['a', 'b', 'c']) say(key, 1)
    say('c', 2)
    expect(heard.map(({ key, n }) => key + n)).toEqual(['a1', 'b1', 'c1', 'c2'])
    say('a', 2)
    say('b', 2)
    expect([conflator.keys, conflator.bytes]).toEqual([2, 200])
    const tight = start({ conflatedBytesMax: 150 })
    for (const key of ['a', 'b']) tight.say(key, 1)
    for (const key of ['a', 'b']) tight.say(key, 2)
    tight.say('a', 101)
    expect(tight.heard.map(({ key, n }) => key + n)).toEqual(['a1', 'b1', 'b2', 'a101'])
    tight.clock.advance(1_000)
    expect(tight.heard).toHaveLength(4)
    expect([tight.conflator.keys, tight.conflator.bytes]).toEqual([0, 0])
    clock.advance(1_000)
    expect(heard.slice(4).map(({ key, n }) => key + n)).toEqual(['a2', 'b2'])
  })

  test('property: never two of a key within an interval, never an older one later, the last always', () => {
    const random = createRandom(7)
    const { clock, conflator, heard, say } = start({ conflatedBytesMax: 10_000 })
    const last = new Map<string, number>()
    for (let n = 0; n < 5_000; n += 1) {
      clock.advance(random.below(200))
      const key = 'abcde'[random.below(5)] ?? 'a'
      say(key, n)
      last.set(key, n)
    }
    clock.advance(1_000)
    for (const [key, n] of last) {
      const own = heard.filter((one) => one.key === key)
      expect(own.at(-1)?.n).toBe(n)
      for (const [at, one] of own.entries()) {
        const before = own[at - 1]
        if (!before) continue
        expect(one.at - before.at).toBeGreaterThanOrEqual(1_000)
        expect(one.n).toBeGreaterThan(before.n)
      }
    }
    clock.advance(1_000)
    expect(conflator.keys).toBe(0)
  })
})

describe('a conflated topic', () => {
  const topics = {
    'ticker:{market}': {
      subscribe: 'public',
      historySize: 10,
      conflate: { everyMs: 1_000, key: (data: unknown) => (data as { token: string }).token },
    },
    level: { subscribe: 'public', publish: 'public', conflate: { everyMs: 500 } },
  } as const

  test('subscribers and history have the same, in contiguous offsets', async () => {
    const clock = createTestClock()
    await using server = serve(topics, { clock })
    const client = await RawClient.connect(server.wsUrl)
    await client.call({ subscribe: { channel: 'ticker:sol' } })
    for (let price = 1; price <= 50; price += 1) {
      server.realtime.publish('ticker:sol', { token: 'a', price })
      server.realtime.publish('ticker:sol', { token: 'b', price })
    }
    clock.advance(1_000)
    await until(() => client.publications.length === 4, 'two of each')
    const heard = client.publications.map(({ data, offset }) => ({ data, offset }))
    expect(heard).toEqual([
      { offset: 1, data: { token: 'a', price: 1 } },
      { offset: 2, data: { token: 'b', price: 1 } },
      { offset: 3, data: { token: 'a', price: 50 } },
      { offset: 4, data: { token: 'b', price: 50 } },
    ])
    const query = { limit: -1, since: undefined, reverse: false }
    const { publications } = server.realtime.history('ticker:sol', query)
    expect(publications.map(({ offset, data }) => ({ offset, data: JSON.parse(data) }))).toEqual(
      heard,
    )
    client.close()
  })

  test('what waits is heard before a drain ends the connections', async () => {
    const clock = createTestClock()
    await using server = serve(topics, { clock })
    const client = await RawClient.connect(server.wsUrl)
    await client.call({ subscribe: { channel: 'level' } })
    for (const data of [1, 2, 3]) await client.call({ publish: { channel: 'level', data } })
    await server.realtime.drain()
    await until(() => client.closed !== undefined, 'closed')
    expect(client.publications.map(({ data }) => data)).toEqual([1, 3])
    // Requests that are still under way have their say, too.
    for (const data of [4, 5]) server.realtime.publish('level', data)
    const offset = server.realtime.publish('level', 6).offset
    expect(offset).toBe(5)
  })

  test('a key that cannot be told refuses the publication', async () => {
    await using server = serve(topics)
    expect(() => server.realtime.publish('ticker:sol', null)).toThrow('internal error')
    expect(() => server.realtime.publish('ticker:sol', { token: {} })).toThrow('internal error')
    expect(server.errors).toEqual(['realtime.key-threw', 'realtime.key-invalid'])
  })
})
