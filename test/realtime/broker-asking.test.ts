/**
 * When a node asks Redis where a topic is: as often as there is something to learn. What it heard before it asked
 * is no reason to ask again, and what nobody heard while it asked is.
 */
import { describe, expect, test } from 'bun:test'
import { stateScript } from '../../src/realtime/broker-scripts.ts'
import { until } from '../harness.ts'
import { requireService, startRedis } from '../services.ts'
import { historyOf, redisNode } from './node.ts'

const declared = { plain: {}, 'room:{name}': { historySize: 100 } } as const

/** Of one question each, and the few that answers give rise to. A loop would ask some thousand times a second. */
const askedMost = 10

/** Two nodes; what the second one asks is counted and may be held, and what it hears may be held or lost. */
async function pair() {
  const server = await startRedis()
  const near = await redisNode(declared, { port: server.port })
  const held: string[] = []
  const far = {
    asked: 0,
    heard: 'passed on' as 'held' | 'lost' | 'passed on',
    /** Of questions, before they are asked, and of answers, before they are given. */
    question: Promise.resolve(),
    answer: Promise.resolve(),
    onMessage: (_: string): void => {},
    /** Listening begins: something may have been lost. */
    onReady: (): void => {},
    held,
    lost: 0,
    release(): void {
      far.heard = 'passed on'
      for (const text of held.splice(0)) far.onMessage(text)
    },
  }
  const node = await redisNode(declared, {
    port: server.port,
    tamper: (redis) => ({
      isUp: true,
      async script(script, keys, args, ms) {
        if (script !== stateScript) return await redis.script(script, keys, args, ms)
        far.asked += 1
        await far.question
        const answer = await redis.script(script, keys, args, ms)
        await far.answer
        return answer
      },
      subscribe(channel, onMessage, onReady) {
        Object.assign(far, { onMessage, onReady })
        const hear = (text: string): void => {
          if (far.heard === 'held') held.push(text)
          else if (far.heard === 'lost') far.lost += 1
          else onMessage(text)
        }
        return redis.subscribe(channel, hear, onReady)
      },
    }),
  })
  await until(() => node.redis?.redis.stats().isListening === true, 'it listens')
  const admin = new Bun.RedisClient(server.url)
  return {
    ...{ near, far, node, admin },
    async [Symbol.asyncDispose]() {
      admin.close()
      await near[Symbol.asyncDispose]()
      await node[Symbol.asyncDispose]()
      await server[Symbol.asyncDispose]()
    },
  }
}

describe.skipIf(!requireService('redis-server'))('a node asks Redis', () => {
  test.each(['plain', 'room:a'])('once where %s is when it begins anew', async (name) => {
    await using both = await pair()
    const { near, node, far, admin } = both
    const [ear, other] = [await node.listen(name), await near.listen(name)]
    await near.publish(name, 1)
    await until(() => ear.told.length === 1, 'the first')
    await admin.send('FLUSHALL', [])
    far.asked = 0
    far.onReady()
    await until(() => ear.isLost && other.isLost, 'sent away')
    const back = await node.listen(name)
    for (const _ of Array(100)) await admin.send('PING', [])
    await near.publish(name, 2)
    await until(() => back.told.length === 1, 'and on')
    expect([back.start.offset, back.told]).toEqual([0, [{ offset: 1, data: 2 }]])
    expect(far.asked).toBeLessThan(askedMost)
  })

  test('once more when it hears of an epoch that is over', async () => {
    await using both = await pair()
    const { near, node, far, admin } = both
    const ear = await node.listen('plain')
    await near.publish('plain', 1)
    await until(() => ear.told.length === 1, 'the first')
    far.heard = 'held'
    await near.publish('plain', 'of before')
    await until(() => far.held.length === 1, 'on its way')
    await admin.send('FLUSHALL', [])
    far.onReady()
    await until(() => ear.isLost, 'sent away')
    const back = await node.listen('plain')
    far.asked = 0
    far.release()
    await near.publish('plain', 2)
    await until(() => back.told.length === 1, 'and on')
    expect(back.told).toEqual([{ offset: 1, data: 2 }])
    expect(far.asked).toBeLessThan(askedMost)
  })

  test('once where a topic is of which it hears a number twice, though nothing is kept', async () => {
    await using both = await pair()
    const { near, node, far, admin } = both
    const ear = await node.listen('plain')
    for (const n of [1, 2]) await near.publish('plain', n)
    await until(() => ear.told.length === 2, 'heard')
    // Redis goes back to before the second, and then on, before this node can ask.
    await admin.send('HINCRBY', ['belfry:test:{plain}:meta', 'o', '-1'])
    const gate = Promise.withResolvers<void>()
    far.question = gate.promise
    far.asked = 0
    const anew = [await near.publish('plain', 'other 2'), await near.publish('plain', 3)]
    expect(anew.map(({ offset }) => offset)).toEqual([2, 3])
    await until(() => far.asked === 1, 'it wonders')
    gate.resolve()
    await until(() => ear.isLost, 'sent away')
    const back = await node.listen('plain')
    expect(back.start.epoch).not.toBe(ear.start.epoch)
    await near.publish('plain', 4)
    await until(() => back.told.length === 1, 'and on')
    expect(far.asked).toBeLessThan(askedMost)
  })

  test('again when listening began while it came back from being alone', async () => {
    await using both = await pair()
    const { near, node, far, admin } = both
    const ear = await node.listen('room:a')
    await near.publish('room:a', 1)
    await until(() => ear.told.length === 1, 'the first')
    await admin.send('CONFIG', ['SET', 'maxmemory', '1'])
    await node.publish('room:a', 'alone')
    await until(() => ear.isLost, 'it is alone')
    far.heard = 'lost'
    const gate = Promise.withResolvers<void>()
    far.answer = gate.promise
    far.asked = 0
    await admin.send('CONFIG', ['SET', 'maxmemory', '0'])
    await until(() => far.asked === 1, 'it asks')
    await until(() => node.redis?.redis.stats().pending === 0, 'Redis has answered')
    await near.publish('room:a', 2)
    await until(() => far.lost === 1, 'nobody heard it')
    far.heard = 'passed on'
    far.onReady()
    gate.resolve()
    const topic = await node.open('room:a')
    await until(() => topic.offset === 2, 'it has caught up')
    expect(historyOf(topic).map(({ data }) => data)).toEqual([1, 2])
  })
})
