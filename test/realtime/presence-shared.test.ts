/** Presence under its contract, and what only nodes that share it have to bear. */
import { describe, expect, test } from 'bun:test'
import { systemClock } from '../../src/lib/clock.ts'
import { createPresence } from '../../src/realtime/presence.ts'
import { createRedisPresence } from '../../src/realtime/presence-redis.ts'
import { openRedis } from '../cache/redis.ts'
import {
  clientsOf,
  listening,
  memberOf,
  presenceContract,
  type PresenceNode,
} from '../contracts/presence.ts'
import { createTestLog, until } from '../harness.ts'
import { startProxy } from '../proxy.ts'
import { requireService, startRedis } from '../services.ts'

interface SharedNode extends PresenceNode, AsyncDisposable {}

/** Of life, in a smaller step; longer than a busy machine holds up a sign. */
const nodeMs = 2_000

let made = 0

async function sharedNode(port: number, ofNodeMs?: number): Promise<SharedNode> {
  const opened = await openRedis(port)
  const presence = createRedisPresence(
    { redis: opened.redis, clock: systemClock, log: createTestLog() },
    {
      namespace: 'belfry:test',
      node: `n${(made += 1)}`,
      ...(ofNodeMs ? { nodeMs: ofNodeMs } : {}),
    },
  )
  const node = listening(presence)
  await until(() => opened.redis.stats().isListening, 'it hears')
  return {
    ...node,
    async [Symbol.asyncDispose]() {
      presence.stop()
      await until(() => opened.redis.stats().pending === 0, 'said')
      await opened[Symbol.asyncDispose]()
    },
  }
}

describe('in memory', () =>
  presenceContract(() => {
    const nodes = [listening(createPresence())]
    return Promise.resolve({ nodes, [Symbol.asyncDispose]: () => Promise.resolve() })
  }))

describe.skipIf(!requireService('redis-server'))('over Redis', () => {
  describe.each([1, 2, 3])('with %i nodes', (count) =>
    presenceContract(async () => {
      const server = await startRedis()
      const starts = Array.from({ length: count }, () => sharedNode(server.port))
      const nodes = await Promise.all(starts)
      return {
        nodes,
        async [Symbol.asyncDispose]() {
          for (const node of nodes) await node[Symbol.asyncDispose]()
          await server[Symbol.asyncDispose]()
        },
      }
    }),
  )

  test('members of a node that died leave, and others are told; a node that only slept brings its own back', async () => {
    await using server = await startRedis()
    await using proxy = await startProxy({ target: server.port })
    await using alive = await sharedNode(server.port, nodeMs)
    await using other = await sharedNode(proxy.port, nodeMs)
    alive.presence.add('a', memberOf('stays'))
    for (const topic of ['a', 'b']) other.presence.add(topic, memberOf('goes'))
    // What was said while the connection was being made is told by the next look.
    const isListed = async (of: PresenceNode, ...clients: string[]) =>
      Bun.deepEquals(await clientsOf(of, 'a'), clients)
    await until(() => isListed(alive, 'goes', 'stays'), 'both are there')
    await until(() => alive.told.length === 2, 'they came')
    proxy.cut()
    await until(() => alive.told.length === 4, 'they left')
    expect(alive.told.slice(2).toSorted()).toEqual(['-a/goes', '-b/goes'])
    expect([await clientsOf(alive, 'a'), await clientsOf(alive, 'b')]).toEqual([['stays'], []])
    // Cut off, a node answers for its own.
    expect(await clientsOf(other, 'a')).toEqual(['goes'])
    other.presence.add('a', memberOf('came meanwhile'))
    other.presence.remove('b', 'goes')
    proxy.resume()
    await until(() => alive.told.length === 6, 'they came back')
    expect(alive.told.slice(4).toSorted()).toEqual(['+a/came meanwhile', '+a/goes'])
    expect(await clientsOf(alive, 'b')).toEqual([])
    await until(() => isListed(other, 'came meanwhile', 'goes', 'stays'), 'all are there')
  })

  test('a Redis that was emptied has everybody again with the next sign of their nodes', async () => {
    await using server = await startRedis()
    await using one = await sharedNode(server.port, nodeMs)
    await using two = await sharedNode(server.port, nodeMs)
    one.presence.add('a', memberOf('c1'))
    two.presence.add('a', memberOf('c2'))
    await two.presence.list('a')
    const admin = new Bun.RedisClient(server.url)
    await admin.send('FLUSHALL', [])
    await until(async () => (await clientsOf(one, 'a')).length === 2, 'both are there again')
    await server.restart()
    await until(async () => (await clientsOf(two, 'a')).length === 2, 'both are there once more')
    admin.close()
  })

  test('a node that stops leaves nothing behind', async () => {
    await using server = await startRedis()
    {
      await using node = await sharedNode(server.port)
      node.presence.add('a', memberOf('c1'))
      await node.presence.list('a')
      node.presence.remove('a', 'c1')
    }
    const admin = new Bun.RedisClient(server.url)
    expect(await admin.send('KEYS', ['*'])).toEqual([])
    admin.close()
  })
})
