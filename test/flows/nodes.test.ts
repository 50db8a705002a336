/**
 * Several nodes on one Redis that is cut off, paused, emptied and killed, under random publishers and subscribers
 * that move between nodes. For every subscriber: offsets are contiguous within an epoch or it was told otherwise;
 * `recovered: true` is followed by exactly what was missed; one place in one epoch says one thing everywhere. And
 * when all is well again, all nodes are one.
 */
import { describe, expect, test } from 'bun:test'
import type { Position } from '../../src/realtime/realtime.ts'
import { until as comesTrue } from '../harness.ts'
import { createRandom } from '../lib/random.ts'
import { requireService, startRedis } from '../services.ts'
import {
  names,
  RawSubscriber,
  startNode,
  StockSubscriber,
  StreamReader,
  Truth,
  whereabouts,
  type Node,
} from './nodes.ts'

const steps = 120
const subscribersCount = 12

/** Of one step: what happens to the nodes' way to Redis, and to Redis. */
const troubles = ['cut', 'half-open', 'resume', 'resume', 'pause', 'empty', 'kill'] as const

const positionOf = async ({ server }: Node, name: string) => {
  await server.realtime.ready([name])
  const { epoch, offset } = server.realtime.history(name, {
    limit: 0,
    since: undefined,
    reverse: false,
  })
  return { epoch, offset }
}

describe.skipIf(!requireService('redis-server'))('nodes on one Redis', () => {
  test.each([
    [2, 1],
    [2, 2],
    [3, 3],
    [3, 4],
  ])(
    '%i of them say nothing wrong, whatever happens to it (seed %i)',
    async (count, seed) => {
      const random = createRandom(seed)
      const truth = new Truth()
      await using redis = await startRedis()
      const nodes = await Promise.all(Array.from({ length: count }, () => startNode(redis)))
      const raw = Array.from(
        { length: subscribersCount },
        (_, n) => new RawSubscriber(truth, `raw ${n}`),
      )
      const stock = nodes.map((node, n) => new StockSubscriber(truth, `stock ${n}`, node))
      const streams = nodes.map((node, n) => new StreamReader(truth, `stream ${n}`, node))
      const until = async (isSo: Parameters<typeof comesTrue>[0], what: string, ms?: number) => {
        try {
          await comesTrue(isSo, what, ms)
        } catch (cause) {
          const where = whereabouts(nodes, [...raw, ...stock], streams)
          throw new Error(`seed ${seed}, ${what}:\n${where}`, { cause })
        }
      }
      for (const one of raw) one.connect(random.pick(nodes))
      await until(() => raw.every(({ isSettled }) => isSettled), 'subscribed')
      await until(() => streams.every(({ isOpen }) => isOpen), 'streams are open')

      let number = 0
      const publish = async (node: Node, name: string): Promise<void> => {
        const data = { n: (number += 1) }
        const position = await node.server.realtime.submit(name, data)
        truth.check(name, position, data)
      }
      const burst = (size: number): Promise<unknown> =>
        Promise.all(
          Array.from({ length: size }, () => publish(random.pick(nodes), random.pick(names))),
        )
      const disturb = async (): Promise<void> => {
        const { proxy } = random.pick(nodes)
        switch (random.pick(troubles)) {
          case 'cut':
            return proxy.cut()
          case 'half-open':
            return proxy.halfOpen()
          case 'resume':
            return proxy.resume()
          case 'pause': {
            redis.pause()
            await burst(10)
            return redis.resume()
          }
          case 'empty': {
            const admin = new Bun.RedisClient(redis.url)
            await admin.send('FLUSHALL', [])
            return admin.close()
          }
          case 'kill':
            return await redis.restart()
        }
      }

      for (let step = 0; step < steps; step += 1) {
        if (random.below(6) === 0) await disturb()
        const mover = random.pick(raw)
        if (mover.isConnected) {
          if (random.below(3) === 0) mover.disconnect()
        } else mover.connect(random.pick(nodes))
        if (random.below(6) === 0) random.pick(streams).move(random.pick(nodes))
        const sent = burst(random.below(20))
        if (random.below(3) > 0) await sent
        if (random.below(6) === 0) {
          // Sometimes all is well for a while, so that there is something to lose.
          for (const { proxy } of nodes) proxy.resume()
          await until(() => nodes.every(({ isUp }) => isUp), 'all are up')
        }
      }

      for (const { proxy } of nodes) proxy.resume()
      for (const one of raw) if (!one.isConnected) one.connect(random.pick(nodes))
      await until(() => nodes.every(({ isUp }) => isUp), 'all are up', 20_000)
      for (const name of names) {
        /**
         * Where all nodes are, if that is one place. It may change once more: to a node on a machine that is busy Redis
         * may seem to be away.
         */
        const place = async (): Promise<Position | undefined> => {
          const [first, ...others] = await Promise.all(nodes.map((node) => positionOf(node, name)))
          const isOne = others.every((one) => Bun.deepEquals(one, first))
          return isOne ? first : undefined
        }
        await until(async () => (await place()) !== undefined, `${name} is one again`, 20_000)
        await publish(random.pick(nodes), name)
        const haveArrived = async (): Promise<boolean> => {
          const at = await place()
          return [...raw, ...stock].every(({ positions }) => {
            const position = positions.get(name)
            return at && position?.epoch === at.epoch && position.offset >= at.offset
          })
        }
        await until(haveArrived, `all are at the end of ${name}`, 20_000)
        // A stream that was told of a gap knows where it is with the next publication.
        const areRead = async (): Promise<boolean> => {
          const at = await place()
          if (at && streams.every(({ offsets }) => (offsets.get(name) ?? 0) >= at.offset))
            return true
          await publish(random.pick(nodes), name)
          return false
        }
        await until(areRead, `streams are at the end of ${name}`)
      }
      for (const one of raw) one.disconnect()
      for (const one of [...stock, ...streams]) one.stop()
      for (const node of nodes) await node[Symbol.asyncDispose]()

      expect(truth.problems).toEqual([])
      // Each way was taken, or the run has shown nothing.
      const { heard, ...ways } = truth.counts
      expect(heard).toBeGreaterThan(1_000)
      expect(Math.min(...Object.values(ways))).toBeGreaterThan(0)
    },
    120_000,
  )
})
