/** What nodes tell each other of a feed, over a real Redis that forgets, and between clocks that differ. */
import { describe, expect, test } from 'bun:test'
import { createRelay, type News, type RelayOptions } from '../../src/feeds/relay.ts'
import { Fault } from '../../src/fault.ts'
import { systemClock, type Clock } from '../../src/lib/clock.ts'
import { scriptOf } from '../../src/store/store.ts'
import { openRedis } from '../cache/redis.ts'
import { createTestClock } from '../clock.ts'
import { createTestLog, until } from '../harness.ts'
import { requireService, startRedis } from '../services.ts'
import { turns } from './setup.ts'

const flushScript = scriptOf(`redis.call('FLUSHALL')`)

async function startNode(
  port: number,
  skewMs = 0,
  options: Partial<RelayOptions> = {},
  clock: Clock = { ...systemClock, now: () => Date.now() + skewMs },
) {
  const opened = await openRedis(port)
  const { redis } = opened
  const news: News[] = []
  const wanted = new Set<string>()
  /** What goes wrong between this node and Redis. */
  const fault = { isAway: false, isLate: false, late: 0 }
  const between = {
    get isUp() {
      return redis.isUp && !fault.isAway
    },
    async script(...asked: Parameters<typeof redis.script>) {
      if (!fault.isLate) return await redis.script(...asked)
      fault.late++
      throw new Fault('timeout', 'redis took too long')
    },
    publish: redis.publish,
    subscribe: redis.subscribe,
  }
  const relay = createRelay(
    { clock, log: createTestLog(), redis: between, namespace: 'belfry:test' },
    {
      feed: 'prices',
      onNews: (one) => void news.push(one),
      onWant(keys, isWanted) {
        for (const key of keys)
          if (isWanted) wanted.add(key)
          else wanted.delete(key)
      },
      // Longer than a busy machine holds up a sign.
      nodeMs: 2_000,
      ...options,
    },
  )
  relay.start()
  await until(() => redis.stats().isListening, 'listens')
  const values = () =>
    new Map(news.flatMap((one) => (one.values ?? []).map((v) => [v[0], v] as const)))
  return {
    ...{ relay, redis, news, wanted, values, fault },
    /** As a crash: nobody is told. */
    async die() {
      await redis.stop()
    },
    async [Symbol.asyncDispose]() {
      relay.stop()
      await opened[Symbol.asyncDispose]()
    },
  }
}

describe.skipIf(!requireService('redis-server'))('relay', () => {
  test('who asks knows what others want, from before and from now on, and until they do not', async () => {
    await using server = await startRedis()
    await using first = await startNode(server.port)
    const names = Array.from({ length: 1_500 }, (_, n) => `k${n}`)
    for (const name of names) first.relay.want(name, true)
    await using second = await startNode(server.port)
    second.relay.want('own', true)
    second.relay.lead(true)
    await until(() => second.wanted.size === 1_500, 'what was wanted before')
    expect(second.wanted.has('own')).toBe(false)
    first.relay.want('more', true)
    await until(() => second.wanted.has('more'), 'what is wanted now')
    for (const name of names.slice(10)) first.relay.want(name, false)
    await until(() => second.wanted.size === 11, 'what is not any more')
    second.relay.lead(false)
    expect(second.wanted.size).toBe(0)
  })

  test('a key that two want is wanted until the last of them does not', async () => {
    await using server = await startRedis()
    await using leader = await startNode(server.port)
    leader.relay.lead(true)
    await using first = await startNode(server.port)
    await using second = await startNode(server.port)
    first.relay.want('a', true)
    second.relay.want('a', true)
    second.relay.want('b', true)
    await until(() => leader.wanted.size === 2, 'wanted')
    first.relay.want('a', false)
    second.relay.want('b', false)
    await until(() => !leader.wanted.has('b'), 'not wanted')
    expect(leader.wanted.has('a')).toBe(true)
    second.relay.want('a', false)
    await until(() => leader.wanted.size === 0, 'by nobody')
  })

  test('a node that dies wants nothing any more', async () => {
    await using server = await startRedis()
    await using leader = await startNode(server.port)
    leader.relay.lead(true)
    await using first = await startNode(server.port)
    first.relay.want('a', true)
    await until(() => leader.wanted.has('a'), 'wanted')
    await first.die()
    await until(() => leader.wanted.size === 0, 'forgotten')
  })

  test('a Redis that has forgotten all is told again', async () => {
    await using server = await startRedis()
    await using leader = await startNode(server.port)
    await using first = await startNode(server.port)
    first.relay.want('a', true)
    await until(() => leader.redis.stats().pending === 0, 'told')
    await leader.redis.script(flushScript, [], [])
    leader.relay.lead(true)
    await until(() => leader.wanted.has('a'), 'told again')
    await server.restart()
    await until(() => first.redis.isUp && leader.redis.isUp, 'up again')
    first.relay.want('b', true)
    await until(() => leader.wanted.has('b') && leader.wanted.has('a'), 'told both')
  })

  test('what Redis had no time for is given and read again within a second, not with the next sign', async () => {
    await using server = await startRedis()
    const clock = createTestClock()
    // The next sign is an hour away; a Redis that is really late meanwhile is no failure.
    const node = () => startNode(server.port, 0, { nodeMs: 3 * 3_600_000 }, clock)
    const soon = (isSo: () => boolean, what: string) =>
      until(() => {
        clock.advance(100)
        return isSo()
      }, what)
    await using leader = await node()
    await using follower = await node()
    leader.relay.lead(true)
    follower.relay.want('a', true)
    await soon(() => leader.wanted.has('a'), 'told')

    follower.fault.isLate = true
    follower.relay.want('late', true)
    await soon(() => follower.fault.late > 0, 'it was not told')
    follower.fault.isLate = false
    await soon(() => leader.wanted.has('late'), 'told again')

    follower.fault.isAway = true
    follower.relay.want('away', true)
    follower.relay.want('a', false)
    await turns()
    follower.fault.isAway = false
    await soon(() => leader.wanted.has('away') && !leader.wanted.has('a'), 'told when it is back')

    leader.relay.lead(false)
    leader.fault.isLate = true
    leader.relay.lead(true)
    await soon(() => leader.fault.late > 0, 'they were not read')
    await turns()
    leader.fault.isLate = false
    await soon(() => leader.wanted.size === 2, 'read again')
  })

  test('values travel as they are, in as many messages as it takes, and their age, not their time', async () => {
    await using server = await startRedis()
    await using leader = await startNode(server.port, 3_600_000)
    await using follower = await startNode(server.port, -60_000)
    const large = JSON.stringify({ text: '"quoted" \n€'.repeat(1_500), n: 1 })
    const values = Array.from(
      { length: 50 },
      (_, n) => [`k"${n}`, large, Date.now() + 3_600_000 - 5_000] as const,
    )
    const unchanged = Array.from(
      { length: 2_000 },
      (_, n) => [`a key of some length ${n}`, 'sum'] as const,
    )
    leader.relay.tell({ values, unchanged, absent: ['gone'], failed: ['down'] })
    await until(() => follower.news.some(({ failed }) => failed?.includes('down')), 'told')
    expect(follower.values().size).toBe(50)
    for (const [, text, asOfMs] of follower.values().values()) {
      expect(text).toBe(large)
      expect(Math.abs(Date.now() - 60_000 - 5_000 - asOfMs)).toBeLessThan(4_000)
    }
    expect(follower.news.flatMap((one) => one.unchanged ?? [])).toEqual(
      unchanged.map(([...one]) => one),
    )
    expect(follower.news.flatMap((one) => one.absent ?? [])).toEqual(['gone'])
    // Nobody hears what it says itself.
    expect(leader.news).toEqual([])
  })
})
