/** What is asked of a publication before it is one: the topic's message and limits. */
import { describe, expect, test } from 'bun:test'
import { t } from 'elysia'
import { topic, app } from '../../src/kit.ts'
import type { TopicOptions } from '../../src/realtime/declare.ts'
import { compilePlan } from '../../src/plan/plan.ts'
import { createTestClock } from '../clock.ts'
import { RawClient, serve } from './serve.ts'

/** As an app file declares it. */
function declared(options: TopicOptions) {
  const [plan] = compilePlan(app({ name: 'a', topics: { 'chat:{room}': topic(options) } })).topics
  if (!plan) throw new Error('no plan')
  return { 'chat:{room}': plan }
}

const publish = async (client: RawClient, data: unknown, channel = 'chat:a') =>
  (await client.call({ publish: { channel, data } })).error

const open = { subscribe: 'public', publish: 'public' } as const

describe('message', () => {
  const message = t.Object({
    text: t.String({ maxLength: 5 }),
    at: t.Optional(t.Object({ x: t.Number() })),
  })
  const topics = declared({ ...open, history: { size: 10, ttl: '1h' }, message })

  test('a client is told which field is wrong, and nobody hears of it', async () => {
    await using server = serve(topics)
    const client = await RawClient.connect(server.wsUrl)
    expect(await publish(client, { text: 'hello' })).toBeUndefined()
    expect(await publish(client, { text: 'hello!' })).toEqual({
      code: 107,
      message: 'bad request: data.text: expected string length less or equal to 5',
      temporary: false,
    } as never)
    for (const data of [{}, 5, null, [], 'text', { text: 1 }, { text: 'a', txet: 'b' }]) {
      expect((await publish(client, data))?.code, JSON.stringify(data)).toBe(107)
    }
    expect((await publish(client, { text: 'a', 'quo"te\n': 1 }))?.code).toBe(107)
    const { offset } = server.realtime.history('chat:a', {
      limit: 0,
      since: undefined,
      reverse: false,
    })
    expect(offset).toBe(1)
    client.close()
  })

  test('nested fields that it does not name are left out', async () => {
    await using server = serve(topics)
    const client = await RawClient.connect(server.wsUrl)
    expect(await publish(client, { text: 'a', at: { x: 1, y: 2 } })).toBeUndefined()
    const query = { limit: 1, since: undefined, reverse: true }
    const [kept] = server.realtime.history('chat:a', query).publications
    expect(JSON.parse(kept?.data ?? '')).toEqual({ text: 'a', at: { x: 1 } })
    client.close()
  })

  test('the server API gets a problem that names the field; a broadcast says it in its place', async () => {
    const plans = { ...topics, open: { subscribe: 'public' as const } }
    await using server = serve(plans)
    const post = async (path: string, body: unknown) => {
      const headers = { 'x-api-key': 'key', 'content-type': 'application/json' }
      const init = { method: 'POST', headers, body: JSON.stringify(body) }
      const response = await fetch(`${server.url}/api/${path}`, init)
      return { status: response.status, body: (await response.json()) as Record<string, unknown> }
    }
    const refused = await post('publish', { channel: 'chat:a', data: { text: 1 } })
    expect(refused.status).toBe(400)
    expect(refused.body.errors).toEqual([{ field: 'data.text', message: 'expected string' }])
    expect((await post('publish', { channel: 'chat:a', data: { text: 'a' } })).status).toBe(200)
    const both = await post('broadcast', { channels: ['chat:a', 'open'], data: { text: 1 } })
    expect(both.body.result).toMatchObject({
      responses: [{ error: { code: 107 } }, { result: { offset: 1 } }],
    })
  })

  test('what the server itself says is not asked', async () => {
    await using server = serve(topics)
    expect(server.realtime.publish('chat:a', 'anything').offset).toBe(1)
  })
})

describe('limit', () => {
  test('a user has one quota over connections and rooms; a refusal does not count', async () => {
    const clock = createTestClock()
    await using server = serve(declared({ ...open, limit: '3/10s' }), { clock })
    const [one, two] = [
      await RawClient.connect(server.wsUrl, 'user:ann'),
      await RawClient.connect(server.wsUrl, 'user:ann'),
    ]
    const bob = await RawClient.connect(server.wsUrl, 'user:bob')
    expect(await publish(one, 1)).toBeUndefined()
    clock.advance(4_000)
    expect(await publish(two, 2)).toBeUndefined()
    expect(await publish(two, 3, 'chat:b')).toBeUndefined()
    for (let n = 0; n < 5; n += 1) {
      expect(await publish(one, 4)).toMatchObject({ code: 111, temporary: true })
    }
    expect(await publish(bob, 1)).toBeUndefined()
    clock.advance(6_000)
    expect(await publish(one, 5)).toBeUndefined()
    expect((await publish(one, 6))?.code).toBe(111)
    for (const client of [one, two, bob]) client.close()
  })

  test('each connection has its own; what the user may not does not count against it', async () => {
    const clock = createTestClock()
    const limit = { user: '3/10s', connection: '2/1s' } as const
    await using server = serve(declared({ ...open, limit }), { clock })
    const [one, two] = [
      await RawClient.connect(server.wsUrl, 'user:ann'),
      await RawClient.connect(server.wsUrl, 'user:ann'),
    ]
    for (const client of [one, one, two]) expect(await publish(client, 1)).toBeUndefined()
    expect((await publish(one, 2))?.code).toBe(111)
    clock.advance(9_500)
    // Of these the connection's window would be full, had they counted.
    for (let n = 0; n < 5; n += 1) expect((await publish(two, 2))?.code).toBe(111)
    clock.advance(500)
    expect(await publish(two, 3)).toBeUndefined()
    expect(await publish(two, 4)).toBeUndefined()
    for (const client of [one, two]) client.close()
  })

  test('visitors of one address have one; what is no message does not count; the server is not limited', async () => {
    const clock = createTestClock()
    const plan = declared({ ...open, limit: '1/10s', message: t.String() })
    await using server = serve(plan, { clock })
    const [one, two] = [
      await RawClient.connect(server.wsUrl),
      await RawClient.connect(server.wsUrl),
    ]
    expect((await publish(one, 5))?.code).toBe(107)
    expect(await publish(one, 'a')).toBeUndefined()
    expect((await publish(one, 'b'))?.code).toBe(111)
    expect((await publish(two, 'c'))?.code).toBe(111)
    for (let n = 0; n < 5; n += 1) await server.realtime.submit('chat:a', 'd')
    for (const client of [one, two]) client.close()
  })

  test('what is too large does not count', async () => {
    const limit = { user: '1/10s', connection: '1/10s' } as const
    await using server = serve(declared({ ...open, limit }), {
      limits: { publicationBytesMax: 100 },
    })
    const client = await RawClient.connect(server.wsUrl, 'user:ann')
    for (let n = 0; n < 3; n += 1) {
      expect((await publish(client, 'x'.repeat(200)))?.code).toBe(106)
    }
    expect(await publish(client, 'x')).toBeUndefined()
    expect((await publish(client, 'x'))?.code).toBe(111)
    client.close()
  })
})
