/** What one node asks or tells all: who answers, who is not waited for, what is done later. */
import { describe, expect, test } from 'bun:test'
import { systemClock } from '../../src/lib/clock.ts'
import { createRedisNodes } from '../../src/realtime/nodes-redis.ts'
import { createRedisPresence } from '../../src/realtime/presence-redis.ts'
import { openRedis } from '../cache/redis.ts'
import { createTestLog, until } from '../harness.ts'
import { startProxy } from '../proxy.ts'
import { requireService, startRedis, type Service } from '../services.ts'
import { RawClient, serve } from './serve.ts'

const namespace = 'belfry:nodes'

/** Longer than a busy machine takes; a test that waits for somebody to be late says less. */
const answerMsDefault = 5_000

interface Options {
  readonly answerMs?: number
  readonly nodeMs?: number
}

async function startNode(server: Service, name: string, options: Options = {}) {
  const { answerMs = answerMsDefault, nodeMs = 60_000 } = options
  const proxy = await startProxy({ target: server.port })
  const opened = await openRedis(proxy.port)
  const deps = { redis: opened.redis, clock: systemClock, log: createTestLog() }
  const nodes = createRedisNodes(deps, { namespace, node: name, answerMs })
  const presence = createRedisPresence(deps, { namespace, node: name, nodeMs })
  const asked: string[] = []
  nodes.onAsked((text) => {
    asked.push(text)
    return Promise.resolve(`${name} heard ${text}`)
  })
  nodes.start()
  presence.start()
  const admin = new Bun.RedisClient(server.url)
  const isSigned = async () => (await admin.send('ZSCORE', [`${namespace}:nodes`, name])) !== null
  await until(isSigned, `${name} has given a sign`)
  await until(() => opened.redis.stats().isListening, `${name} listens`)
  return {
    ...{ nodes, asked, proxy, admin, redis: opened.redis },
    async [Symbol.asyncDispose]() {
      admin.close()
      nodes.stop()
      presence.stop()
      await opened[Symbol.asyncDispose]()
      await proxy[Symbol.asyncDispose]()
    },
  }
}

describe.skipIf(!requireService('redis-server'))('over Redis', () => {
  test('all others are asked, and answer to whom it was that asked', async () => {
    await using server = await startRedis()
    await using a = await startNode(server, 'a')
    await using b = await startNode(server, 'b')
    await using c = await startNode(server, 'c')
    const [one, two] = await Promise.all([
      a.nodes.ask('how many?', 'question'),
      b.nodes.ask('who\n"is" there? ✓', 'action'),
    ])
    expect([one.isPartial, one.texts.toSorted()]).toEqual([
      false,
      ['b heard how many?', 'c heard how many?'],
    ])
    expect([two.isPartial, two.texts.toSorted()]).toEqual([
      false,
      ['a heard who\n"is" there? ✓', 'c heard who\n"is" there? ✓'],
    ])
    expect([a.asked.length, b.asked.length, c.asked.length]).toEqual([1, 1, 2])
    // Long answers, and many at once.
    const long = 'x'.repeat(300_000)
    const many = await Promise.all(Array.from({ length: 20 }, () => a.nodes.ask(long, 'question')))
    expect(many.every(({ texts, isPartial }) => texts.length === 2 && !isPartial)).toBeTrue()
  })

  test('who is alone, or without Redis, has nobody to wait for', async () => {
    await using server = await startRedis()
    await using a = await startNode(server, 'a')
    await a.admin.send('ZADD', [`${namespace}:nodes`, '1', 'long dead'])
    expect(await a.nodes.ask('?', 'question')).toEqual({ texts: [], isPartial: false })
    a.proxy.cut()
    await until(() => !a.redis.isUp, 'Redis is away')
    expect(await a.nodes.ask('?', 'question')).toEqual({ texts: [], isPartial: true })
  })

  test('who is alive and silent is waited for once, until it has answered again', async () => {
    await using server = await startRedis()
    await using a = await startNode(server, 'a', { answerMs: 2_000 })
    await using b = await startNode(server, 'b')
    await using c = await startNode(server, 'c')
    c.proxy.halfOpen()
    const first = await a.nodes.ask('1', 'question')
    expect(first).toEqual({ texts: ['b heard 1'], isPartial: true })
    // A hundred times the bound would be minutes: longer than a test may take.
    for (let n = 0; n < 100; n += 1) {
      expect((await a.nodes.ask('2', 'question')).isPartial).toBeTrue()
    }
    c.proxy.resume()
    await until(() => c.redis.isUp && c.redis.stats().isListening, 'it is back')
    await until(async () => !(await a.nodes.ask('3', 'question')).isPartial, 'it answers')
    expect(c.asked).toContain('3')
    expect(b.asked).toContain('1')
  })

  test('who is dead is not waited for', async () => {
    const nodeMs = 2_000
    await using server = await startRedis()
    await using a = await startNode(server, 'a', { nodeMs, answerMs: 2_000 })
    const b = await startNode(server, 'b', { nodeMs })
    expect((await a.nodes.ask('1', 'question')).texts).toEqual(['b heard 1'])
    b.proxy.cut()
    const isGone = async () => !(await a.nodes.ask('2', 'question')).isPartial
    await until(isGone, 'it counts as dead')
    await b[Symbol.asyncDispose]()
  })

  test('what is to be done is done later by who did not listen, once and in its order; questions are over', async () => {
    await using server = await startRedis()
    await using a = await startNode(server, 'a', { answerMs: 2_000 })
    await using b = await startNode(server, 'b')
    await a.nodes.ask('before', 'question')
    b.proxy.cut()
    await until(() => !b.redis.stats().isListening, 'it is deaf')
    for (const n of [1, 2, 3]) await a.nodes.ask(`do ${n}`, 'action')
    await a.nodes.ask('what?', 'question')
    expect(b.asked).toEqual(['before'])
    b.proxy.resume()
    await until(() => b.asked.length >= 4, 'it has caught up')
    await until(async () => !(await a.nodes.ask('do 4', 'action')).isPartial, 'it answers')
    expect([...new Set(b.asked)]).toEqual(['before', 'do 1', 'do 2', 'do 3', 'do 4'])
    expect(b.asked.filter((text) => text !== 'do 4')).toHaveLength(4)
    expect(a.asked).toEqual([])
    // One that comes new has nothing to do with what was before.
    await using c = await startNode(server, 'c')
    await a.nodes.ask('do 5', 'action')
    expect(c.asked).toEqual(['do 5'])
  })

  test('what the channel lost is noticed with the next', async () => {
    await using server = await startRedis()
    await using a = await startNode(server, 'a')
    await using b = await startNode(server, 'b')
    await a.nodes.ask('1', 'action')
    // Kept, and told to nobody.
    const entry = [`${namespace}:orders`, '*', 'f', 'a', 't', 'lost']
    await a.admin.send('XADD', entry)
    await a.nodes.ask('2', 'action')
    await until(() => b.asked.length === 3, 'it has done all')
    expect(b.asked.toSorted()).toEqual(['1', '2', 'lost'])
    // Its own it has done.
    await until(() => a.redis.stats().pending === 0, 'it has looked')
    expect(a.asked).toEqual([])
    // An emptied Redis is no reason to do anything again.
    await a.admin.send('FLUSHALL', [])
    await a.nodes.ask('3', 'action')
    await until(() => b.asked.length === 4, 'and on')
    expect(b.asked.at(-1)).toBe('3')
  })

  test('an order that a node does not know is refused, one that fails is told, an answer that is too long is cut', async () => {
    await using server = await startRedis()
    await using a = await startNode(server, 'a')
    await using opened = await openRedis(server.port)
    const shared = { redis: opened.redis, namespace, source: 'db', patienceMs: 20_000 }
    await using node = serve({ 'topic:{name}': { subscribe: 'public' } }, { shared })
    const ask = async (order: unknown): Promise<Record<string, unknown>> => {
      const { texts } = await a.nodes.ask(JSON.stringify(order), 'question')
      return JSON.parse(texts[0] ?? '{"nobody":true}') as Record<string, unknown>
    }
    await until(async () => 'items' in (await ask({ ask: 'info' })), 'it is there')
    expect(await ask({ act: 'dance' })).toEqual({ fault: 'invalid' })
    expect(await ask({ ask: 'the way' })).toEqual({ fault: 'invalid' })
    expect(await ask({ act: 'unsubscribe', who: { user: 'ann' }, topic: 'none' })).toEqual({
      fault: 'not_found',
    })
    expect(await ask(7)).toEqual({ fault: 'internal' })

    // Fifty users with such names are more than the 2 MiB of an answer.
    const clients: RawClient[] = []
    for (let n = 0; n < 50; n += 1) {
      clients.push(await RawClient.connect(node.wsUrl, `user:${n}${'x'.repeat(50_000)}`))
    }
    clients.push(await RawClient.connect(node.wsUrl, 'user:ann'))
    const { isCut, items } = await ask({ ask: 'connections', max: 1_000 })
    expect(isCut).toBeTrue()
    expect((items as unknown[]).length).toBeWithin(40, 45)
    const one = await ask({ ask: 'connections', who: { user: 'ann' }, max: 1_000 })
    expect(one).toEqual({ items: [expect.objectContaining({ user: 'ann' })] })
    for (const client of clients) client.close()
  })
})
