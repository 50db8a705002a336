/** What befalls nodes that share a Redis: cut off, emptied, full, gone back in time. */
import { describe, expect, test } from 'bun:test'
import type { BrokerRedis } from '../../src/realtime/broker-redis.ts'
import { stateScript } from '../../src/realtime/broker-scripts.ts'
import { faultOf, until } from '../harness.ts'
import { startProxy } from '../proxy.ts'
import { requireService, startRedis } from '../services.ts'
import { historyOf, redisNode, type Ear, type Node } from './node.ts'

const declared = { plain: {}, 'room:{name}': { historySize: 100 } } as const

const dataOf = ({ told }: Ear) => told.map(({ data }) => data)
const offsetsOf = ({ told }: Ear) => told.map(({ offset }) => offset)
const upTo = (count: number) => Array.from({ length: count }, (_, index) => index + 1)

/** Soon, and not for what a busy machine takes. */
const soonAlone = 2_000

/** Two nodes; the second one's way to Redis can be cut. Without Redis each is alone after `patienceMs`. */
async function pair(patienceMs?: number) {
  const server = await startRedis()
  const proxy = await startProxy({ target: server.port })
  const patience = patienceMs === undefined ? {} : { patienceMs }
  const [near, far] = await Promise.all([
    redisNode(declared, { port: server.port, ...patience }),
    redisNode(declared, { port: proxy.port, ...patience }),
  ])
  const admin = new Bun.RedisClient(server.url)
  return {
    ...{ server, proxy, near, far, admin },
    async [Symbol.asyncDispose]() {
      admin.close()
      await near[Symbol.asyncDispose]()
      await far[Symbol.asyncDispose]()
      await proxy[Symbol.asyncDispose]()
      await server[Symbol.asyncDispose]()
    },
  }
}

/** Calls after each message. */
const telling =
  (redis: BrokerRedis, onHeard: (text: string) => void): BrokerRedis['subscribe'] =>
  (channel, onMessage, onReady) =>
    redis.subscribe(
      channel,
      (text) => {
        onMessage(text)
        onHeard(text)
      },
      onReady,
    )

const isUp = (node: Node) => node.redis?.redis.isUp === true
const isDown = (node: Node) => !isUp(node)

describe.skipIf(!requireService('redis-server'))('over Redis', () => {
  test('a node that is cut off is late, and nobody is sent away, as long as history has all', async () => {
    await using both = await pair()
    const { near, far, proxy } = both
    const ear = await far.listen('room:a')
    await near.publish('room:a', 1)
    await until(() => ear.told.length === 1, 'the first')
    proxy.cut()
    await until(() => isDown(far), 'it is cut off')
    for (const n of [2, 3, 4]) await near.publish('room:a', n)
    expect(ear.told.length).toBe(1)
    // Somebody who comes meanwhile is told where this node is.
    const late = await far.listen('room:a', { ...ear.start, offset: 3 })
    expect([late.recovered, late.start.offset]).toEqual([false, 1])
    proxy.resume()
    await until(() => ear.told.length === 4 && late.told.length === 3, 'what was missed')
    await near.publish('room:a', 5)
    await until(() => ear.told.length === 5, 'what followed')
    expect([dataOf(ear), offsetsOf(ear), ear.isLost]).toEqual([upTo(5), upTo(5), false])
    expect([offsetsOf(late), late.isLost]).toEqual([[2, 3, 4, 5], false])
  })

  test('what the channel lost is read back: when the next number comes, or somebody who has heard it', async () => {
    await using server = await startRedis()
    await using near = await redisNode(declared, { port: server.port })
    let isDeaf = false
    await using far = await redisNode(declared, {
      port: server.port,
      tamper: (redis) => ({
        ...{ script: redis.script, isUp: true },
        subscribe: (channel, onMessage, onReady) =>
          redis.subscribe(channel, (text) => void (isDeaf || onMessage(text)), onReady),
      }),
    })
    const ears = await Promise.all(['room:a', 'room:b'].map((name) => far.listen(name)))
    for (const name of ['room:a', 'room:b']) await near.publish(name, 1)
    await until(() => ears.every(({ told }) => told.length === 1), 'heard')
    isDeaf = true
    for (const name of ['room:a', 'room:b']) for (const n of [2, 3]) await near.publish(name, n)
    const last = await near.publish('room:b', 4)
    const came = await far.listen('room:b', last)
    expect([came.recovered, came.told]).toEqual([true, []])
    isDeaf = false
    await near.publish('room:a', 4)
    await until(() => ears.every(({ told }) => told.length === 4), 'all of it')
    for (const ear of ears) expect([dataOf(ear), ear.isLost]).toEqual([upTo(4), false])
  })

  test('what is not kept any more is said: the listener is sent to come back', async () => {
    await using both = await pair()
    const { near, far, proxy } = both
    const ear = await far.listen('plain')
    const { epoch } = await near.publish('plain', 1)
    await until(() => ear.told.length === 1, 'the first')
    proxy.cut()
    await until(() => isDown(far), 'it is cut off')
    await near.publish('plain', 2)
    proxy.resume()
    await until(() => ear.isLost, 'sent away')
    const back = await far.listen('plain', { epoch, offset: 1 })
    expect([back.recovered, back.start]).toEqual([false, { epoch, offset: 2 }])
    await near.publish('plain', 3)
    await until(() => back.told.length === 1, 'and on')
    expect([dataOf(ear), back.told]).toEqual([[1], [{ offset: 3, data: 3 }]])
  })

  test('a node that is cut off serves its own under an epoch of its own, and comes back', async () => {
    await using both = await pair(soonAlone)
    const { near, far, proxy } = both
    const [ear, other] = [await far.listen('room:a'), await near.listen('room:a')]
    const { epoch } = await far.publish('room:a', 1)
    await until(() => ear.told.length === 1, 'the first')
    proxy.halfOpen()
    const sent = [far.publish('room:a', 'x'), far.publish('room:a', 'y')]
    await until(() => ear.isLost, 'sent away')
    const back = await far.listen('room:a', { epoch, offset: 1 })
    const own = await Promise.all(sent)
    expect(back.recovered).toBeFalse()
    expect(back.start.epoch).not.toBe(epoch)
    expect(own).toEqual([1, 2].map((offset) => ({ epoch: back.start.epoch, offset })))
    // Who comes back at once hears what sent it away.
    await until(() => back.told.length === 2, 'served')
    expect(dataOf(back)).toEqual(['x', 'y'])
    const newcomer = await far.listen('room:new')
    expect(await far.publish('room:new', 'z')).toEqual({ ...newcomer.start, offset: 1 })

    await near.publish('room:a', 2)
    proxy.resume()
    await until(() => back.isLost && newcomer.isLost, 'sent away once more')
    const again = await far.listen('room:a', { ...back.start, offset: 2 })
    expect([again.recovered, again.start]).toEqual([false, { epoch, offset: 2 }])
    // Whoever had been at the other node has missed nothing.
    const moved = await far.listen('room:a', { epoch, offset: 1 })
    expect([moved.recovered, dataOf(moved)]).toEqual([true, [2]])
    await far.publish('room:a', 3)
    await until(() => again.told.length === 1 && other.told.length === 3, 'one again')
    expect([dataOf(other), other.isLost]).toEqual([[1, 2, 3], false])
  })

  test('what Redis leaves unanswered goes out alone in the order it was published', async () => {
    await using both = await pair(soonAlone)
    const { far, server } = both
    const ear = await far.listen('room:a')
    await far.publish('room:a', 0)
    server.pause()
    const sent = upTo(3_000).map((n) => far.publish('room:a', n))
    const positions = await Promise.all(sent)
    expect(positions.map(({ offset }) => offset)).toEqual(upTo(3_000))
    expect(new Set(positions.map(({ epoch }) => epoch)).size).toBe(1)
    await until(() => ear.isLost, 'sent away')
    expect(historyOf(await far.open('room:a')).at(-1)).toEqual({ offset: 3_000, data: 3_000 })
    server.resume()
  })

  test('a Redis that stands still for a moment holds publications up, and nobody is sent away', async () => {
    await using server = await startRedis()
    await using node = await redisNode(declared, { port: server.port, commandMs: 100 })
    const ears = [await node.listen('room:a'), await node.listen('plain')]
    const sent = upTo(50).flatMap((n) => [node.publish('room:a', n), node.publish('plain', n)])
    server.pause()
    for (const n of upTo(50))
      sent.push(node.publish('room:a', n + 50), node.publish('plain', n + 50))
    const opening = node.open('room:b')
    // Others have no patience: the breaker opens.
    await node.redis?.redis.get('a').catch(() => {})
    expect(isDown(node)).toBeTrue()
    for (const n of upTo(50)) {
      sent.push(node.publish('room:a', n + 100), node.publish('plain', n + 100))
    }
    server.resume()
    const positions = await Promise.all(sent)
    const { epoch } = await opening
    expect(positions.map(({ offset }) => offset)).toEqual(upTo(150).flatMap((n) => [n, n]))
    await until(() => ears.every(({ told }) => told.length === 150), 'heard')
    for (const ear of ears) expect([dataOf(ear), ear.isLost]).toEqual([upTo(150), false])
    await using other = await redisNode(declared, { port: server.port })
    expect((await other.open('room:b')).epoch).toBe(epoch)
  })

  test('a Redis that was emptied, or killed, is a new epoch everywhere', async () => {
    await using both = await pair()
    const { near, far, admin, server } = both
    const ears = [await near.listen('room:a'), await far.listen('room:a')]
    const { epoch } = await near.publish('room:a', 1)
    await until(() => ears.every(({ told }) => told.length === 1), 'the first')
    await admin.send('FLUSHALL', [])
    const anew = await far.publish('room:a', 2)
    expect(anew).toEqual({ epoch: expect.not.stringMatching(epoch), offset: 1 })
    await until(() => ears.every(({ isLost }) => isLost), 'sent away')
    const back = [await near.listen('room:a', { epoch, offset: 1 }), await far.listen('room:a')]
    expect(back.map((one) => [one.recovered, one.start])).toEqual([
      [false, anew],
      [false, anew],
    ])
    await server.restart()
    await until(() => back.every(({ isLost }) => isLost), 'without a publication')
    const [a, b] = [await near.open('room:a'), await far.open('room:a')]
    await until(() => a.epoch === b.epoch, 'one again')
    expect([a.offset, b.offset, a.epoch === anew.epoch]).toEqual([0, 0, false])
  })

  test('a Redis that has gone back gives numbers twice: they are another epoch', async () => {
    await using both = await pair()
    const { near, far, admin } = both
    const ears = [await near.listen('room:a'), await far.listen('room:a')]
    const keys = ['meta', 'log'].map((part) => `belfry:test:{room%3Aa}:${part}`)
    const { epoch } = await near.publish('room:a', 1)
    const copies = await Promise.all(keys.map((key) => admin.send('COPY', [key, `${key}.old`])))
    expect(copies).toEqual([1, 1])
    await near.publish('room:a', 2)
    await until(() => ears.every(({ told }) => told.length === 2), 'heard')
    for (const key of keys) await admin.send('COPY', [`${key}.old`, key, 'REPLACE'])
    const twice = await near.publish('room:a', 'another second')
    expect(twice).toEqual({ epoch, offset: 2 })
    await until(() => ears.every(({ isLost }) => isLost), 'sent away')
    const back = await far.listen('room:a', { epoch, offset: 2 })
    expect([back.recovered, back.start.epoch === epoch]).toEqual([false, false])
  })

  test('what goes out alone has a number of its own, also if Redis is back before it goes', async () => {
    await using server = await startRedis()
    await using near = await redisNode(declared, { port: server.port })
    const gate = Promise.withResolvers<void>()
    let isRefusing = false
    await using far = await redisNode(declared, {
      port: server.port,
      tamper: (redis) => ({
        isUp: true,
        async script(script, keys, args) {
          if (isRefusing && script === stateScript) await gate.promise
          if (isRefusing) throw new Error('refused')
          return await redis.script(script, keys, args)
        },
        subscribe: redis.subscribe,
      }),
    })
    const other = await far.open('room:b')
    const ear = await far.listen('room:a')
    const { epoch } = await near.publish('room:a', 1)
    await until(() => ear.told.length === 1, 'heard')
    isRefusing = true
    // Somebody knows more than this node: it asks, and is left without an answer.
    const asked = far.broker.ready(await near.open('room:a'), { epoch, offset: 2 })
    const sent = far.publish('room:a', 'alone')
    await until(() => ear.isLost, 'sent away')
    gate.resolve()
    await asked
    isRefusing = false
    // As after every answer it looks what else is to be read.
    await far.broker.ready(other, { epoch: other.epoch, offset: 99 })
    expect((await sent).epoch).not.toBe(epoch)
  })

  test('what every node says by itself, each change of the log, is published once', async () => {
    await using both = await pair()
    const { near, far, server } = both
    const ear = await near.listen('room:a')
    // Not in step: one node is ahead, then the other; and one has left something out.
    const said = [near, far, far, near].flatMap((node, n) =>
      upTo(10).map((seq) =>
        node.publish('room:a', `${seq + 5 * n}`, { seq: seq + 5 * n, by: 'rows' }),
      ),
    )
    await Promise.all(said)
    await near.publish('room:a', 'end')
    await until(() => dataOf(ear).at(-1) === 'end', 'the end')
    const all = dataOf(ear).slice(0, -1).map(Number)
    // What one has left out is late, and not lost.
    expect(all.toSorted((a, b) => a - b)).toEqual(upTo(25))
    // Another collection on the same table tells the same change as its own.
    for (const node of [near, far]) await node.publish('room:a', 'other', { seq: 25, by: 'others' })
    // Another database, or this one after a backup was put back, counts for itself.
    await using elsewhere = await redisNode(declared, { port: server.port, source: 'other' })
    await elsewhere.publish('room:a', 'again', { seq: 1, by: 'rows' })
    await until(() => dataOf(ear).at(-1) === 'again', 'again')
    expect(dataOf(ear).slice(-3)).toEqual(['end', 'other', 'again'])
  })

  test('what a feed says is said once, by whichever node is first, and again when it differs', async () => {
    await using both = await pair()
    const { near, far } = both
    const ear = await near.listen('plain')
    for (const value of ['a', 'b', 'a']) {
      for (const node of [near, far, near]) await node.publish('plain', value, 'differs')
    }
    await near.publish('plain', 'a')
    await until(() => ear.told.length === 4, 'heard')
    expect([dataOf(ear), offsetsOf(ear)]).toEqual([['a', 'b', 'a', 'a'], upTo(4)])
  })

  test('a change is not told before this node has followed the log to it, nor what comes after', async () => {
    await using server = await startRedis()
    await using near = await redisNode(declared, { port: server.port })
    const heard: string[] = []
    const onHeard = (text: string) => void heard.push(text)
    await using far = await redisNode(declared, {
      port: server.port,
      isFollowing: true,
      tamper: (redis) => ({ isUp: true, script: redis.script, subscribe: telling(redis, onHeard) }),
    })
    const [ear, calm] = [await far.listen('room:a'), await far.listen('room:b')]
    await near.publish('room:a', 'change 7', { seq: 7, by: 'rows' })
    await near.publish('room:a', 'after it')
    await near.publish('room:b', 'elsewhere')
    await until(() => heard.length === 3 && calm.told.length === 1, 'the node knows')
    expect(ear.told).toEqual([])
    far.followed.reach(6)
    expect(ear.told).toEqual([])
    far.followed.reach(7)
    await until(() => ear.told.length === 2, 'told')
    expect(dataOf(ear)).toEqual(['change 7', 'after it'])
  })

  test.each([
    ['told', false, 3],
    ['told before it began to listen', true, 3],
    ['more than is held', false, 1_100],
  ])(
    'what is said while a node reads where a topic is, is not lost: %s',
    async (_, isDeaf, count) => {
      await using server = await startRedis()
      await using near = await redisNode(declared, { port: server.port, patienceMs: 20_000 })
      const gate = Promise.withResolvers<void>()
      let heard = 0
      let listens: (() => void) | undefined
      await using far = await redisNode(declared, {
        port: server.port,
        tamper: (redis) => ({
          isUp: true,
          async script(script, keys, args) {
            const answer = await redis.script(script, keys, args)
            if (script === stateScript) await gate.promise
            return answer
          },
          subscribe(channel, onMessage, onReady) {
            const hear = (text: string): void => {
              heard += 1
              if (!isDeaf) onMessage(text)
            }
            listens = onReady
            return redis.subscribe(channel, hear, isDeaf ? () => {} : onReady)
          },
        }),
      })
      await until(() => far.redis?.redis.stats().isListening === true, 'it listens')
      const opening = far.open('room:a')
      await until(() => far.redis?.redis.stats().pending === 0, 'it has read')
      await Promise.all(upTo(count).map((n) => near.publish('room:a', n)))
      await until(() => heard === count, 'the node was told')
      if (isDeaf) listens?.()
      gate.resolve()
      const topic = await opening
      await until(() => topic.offset === count, 'it has caught up')
      expect(historyOf(topic).map(({ data }) => data)).toEqual(upTo(count).slice(-100))
    },
  )

  test('what is on its way on the channel is not taken for lost, though nothing keeps it', async () => {
    await using server = await startRedis()
    await using near = await redisNode(declared, { port: server.port })
    const late: (() => void)[] = []
    let isSlow = false
    await using far = await redisNode(declared, {
      port: server.port,
      tamper: (redis) => ({
        isUp: true,
        async script(script, keys, args) {
          const answer = await redis.script(script, keys, args)
          for (const tell of late.splice(0)) setImmediate(tell)
          return answer
        },
        subscribe: (channel, onMessage, onReady) =>
          redis.subscribe(
            channel,
            (text) => (isSlow ? void late.push(() => onMessage(text)) : onMessage(text)),
            onReady,
          ),
      }),
    })
    const ear = await far.listen('plain')
    await near.publish('plain', 1)
    await until(() => ear.told.length === 1, 'heard')
    isSlow = true
    for (const n of [2, 3]) await near.publish('plain', n)
    const last = await near.publish('plain', 4)
    await until(() => late.length === 3, 'on its way')
    // Somebody comes who has heard it, so this node looks; and then it arrives.
    const came = await far.listen('plain', last)
    await until(() => ear.told.length === 4, 'it has come')
    expect([came.start.offset, dataOf(ear), ear.isLost]).toEqual([4, upTo(4), false])
  })

  test('a Redis that is full: this node goes on alone, and is back when there is room', async () => {
    await using server = await startRedis()
    // It goes alone because Redis refuses, not because this machine is busy.
    await using near = await redisNode(declared, { port: server.port })
    const admin = new Bun.RedisClient(server.url)
    const ear = await near.listen('room:a')
    const { epoch } = await near.publish('room:a', 1)
    await admin.send('CONFIG', ['SET', 'maxmemory', '1'])
    const own = await near.publish('room:a', 2)
    expect(own).toEqual({ epoch: expect.not.stringMatching(epoch), offset: 1 })
    await until(() => ear.isLost, 'sent away')
    await admin.send('CONFIG', ['SET', 'maxmemory', '0'])
    const topic = await near.open('room:a')
    await until(() => topic.epoch === epoch, 'shared again')
    expect(await near.publish('room:a', 3)).toEqual({ epoch, offset: 2 })
    const gone = await faultOf(() =>
      near.broker.publish(topic, near.hub.encode('x'.repeat(70_000))),
    )
    expect(gone.code).toBe('too_large')
    admin.close()
  })

  test('a node finds Redis a moment after its start: who came meanwhile is not sent away', async () => {
    await using server = await startRedis()
    await using node = await redisNode(declared, { port: server.port, isUp: false })
    const ear = await node.listen('room:a')
    const position = await node.publish('room:a', 1)
    await until(() => ear.told.length === 1, 'heard')
    expect([position.epoch, ear.isLost]).toEqual([ear.start.epoch, false])
    await using other = await redisNode(declared, { port: server.port })
    expect((await other.open('room:a')).epoch).toBe(position.epoch)
  })
})
