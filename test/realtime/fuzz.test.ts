/**
 * Random commands with random fields: whatever comes, each is answered once or its connection ends with a
 * documented code, replies are lines of JSON, nothing throws within, and nothing is left behind.
 */
import { expect, test } from 'bun:test'
import { closes, errors } from '../../src/realtime/protocol.ts'
import { createRandom } from '../lib/random.ts'
import { createTestClock } from '../clock.ts'
import { RawClient, serve, until, type plansOf } from './serve.ts'

const topics = {
  'open:{name}': { subscribe: 'public', publish: 'public', historySize: 5, presence: true },
  'last:{name}': { subscribe: 'public', last: true },
  'secret:{name}': { presence: true, historySize: 5 },
} as const satisfies Parameters<typeof plansOf>[0]

const methods = [
  ...['connect', 'subscribe', 'unsubscribe', 'publish', 'history', 'presence', 'presence_stats'],
  ...['rpc', 'send', 'refresh', 'sub_refresh', 'ping', 'dance', 'constructor', '__proto__'],
]
const channels = ['open:a', 'open:b', 'last:a', 'secret:a', 'nothing', '', 'open:', 'open:a:b']
const tokens = [
  ...['user:ann', 'user:ann:50000', 'user:bob', 'user:ann::open:b,secret:a', 'expired', 'x', ''],
  ...['topic||secret:a', 'topic|ann|secret:a|50000', 'topic|ann|open:a'],
]
const fields = [
  ...[
    'channel',
    'token',
    'data',
    'recover',
    'offset',
    'epoch',
    'since',
    'limit',
    'reverse',
    'subs',
  ],
  ...['headers', 'method', 'type', 'flag', 'join_leave', 'tf', 'positioned', 'name'],
]

const knownErrors: ReadonlySet<number> = new Set([
  ...Object.values(errors).map(({ code }) => code),
  404,
])
const knownCloses: ReadonlySet<number> = new Set(Object.values(closes).map(({ code }) => code))

test.each([1, 2, 3, 4])('random commands (seed %d)', async (seed) => {
  const { next: random, below, pick: one } = createRandom(seed)
  const clock = createTestClock()
  await using server = serve(topics, {
    clock,
    limits: { commandsBurst: 100_000, replyBytesMax: 4_000 },
    call: ({ path }) =>
      Promise.resolve(
        path === '/a'
          ? { ok: true, data: '{"a":[1]}' }
          : { ok: false, error: { code: 404, message: 'no "such" path', temporary: false } },
      ),
  })

  const scalar = (): unknown =>
    one([null, true, false, 0, 1, -1, 2, 1.5, 2 ** 31, 1e300, '', 'x', '\n', '\u2028"\\', [], {}])
  const value = (field: string): unknown => {
    if (random() < 0.2) return scalar()
    switch (field) {
      case 'channel':
        return one(channels)
      case 'token':
        return one(tokens)
      case 'method':
        return one(['GET /a', 'GET /b', 'POST /a', 'a', 'GET a', 'get /a', 'GET /a b'])
      case 'since':
        return { offset: value('offset'), epoch: value('epoch') }
      case 'subs':
        return { [one(channels)]: { recover: true, offset: value('offset'), epoch: scalar() } }
      case 'headers':
        return { authorization: one([`Bearer ${one(tokens)}`, 'Basic x', '']) }
      case 'recover':
      case 'reverse':
      case 'join_leave':
        return random() < 0.7
      case 'offset':
      case 'limit':
        return below(8) - 1
      case 'type':
      case 'flag':
        return below(3)
      case 'data':
        return one([1, 'text', { deep: [{ er: null }] }, 'x'.repeat(2_000)])
      default:
        return scalar()
    }
  }
  const command = (id: number): string => {
    const method = one(methods)
    const params: Record<string, unknown> = {}
    const likely = ['channel', ...(method === 'rpc' ? ['method'] : []), 'data']
    for (const field of likely) if (random() < 0.9) params[field] = value(field)
    for (let left = below(4); left > 0; left -= 1) {
      const field = one(fields)
      params[field] = value(field)
    }
    if (method === 'connect' && random() < 0.9) return `{"id":${id},"ping":{}}`
    return `{"id":${id},${JSON.stringify(method)}:${JSON.stringify(params)}}`
  }

  let answered = 0
  let refused = 0
  const ends = new Map<number, number>()
  for (let round = 0; round < 60; round += 1) {
    const client = await RawClient.connect(server.wsUrl, one(['user:ann', 'user:ann::open:b', '']))
    const sent: { id: number; method: string }[] = []
    for (let frame = 0; frame < 6 && !client.closed; frame += 1) {
      const lines = Array.from({ length: 1 + below(6) }, () => {
        const id = 100 + sent.length
        const line = command(id)
        sent.push({ id, method: Object.keys(JSON.parse(line) as object)[1] ?? '' })
        return line
      })
      client.send(lines.join('\n'))
      if (random() < 0.3) clock.advance(below(30) * 1_000)
      if (random() < 0.3) server.realtime.publish(one(['open:a', 'open:b', 'last:a']), frame)
    }
    client.send('{"id":99,"ping":{}}')
    await until(
      () => client.closed !== undefined || client.replies.some(({ id }) => id === 99),
      'the end of it',
    )
    // An rpc is answered out of turn; nothing else is.
    const waiting = () =>
      sent.filter(({ id, method }) => method !== 'send' && !client.replies.some((r) => r.id === id))
    if (client.closed) {
      ends.set(client.closed.code, (ends.get(client.closed.code) ?? 0) + 1)
      expect(knownCloses).toContain(client.closed.code)
    } else {
      await until(() => client.closed !== undefined || waiting().length === 0, 'each is answered')
    }
    const ids = client.replies.flatMap(({ id }) => (id === undefined ? [] : [id]))
    expect(new Set(ids).size).toBe(ids.length)
    for (const { error } of client.replies) {
      if (!error) continue
      refused += 1
      expect(knownErrors).toContain(error.code)
    }
    answered += ids.length
    client.close()
  }
  await until(() => server.realtime.stats().connections === 0, 'all gone')
  expect(server.realtime.stats()).toMatchObject({ sockets: 0, subscriptions: 0 })
  expect(server.realtime.connectionsOf('ann')).toEqual([])
  expect(server.errors).toEqual([])
  // It went both ways.
  expect(answered - refused).toBeGreaterThan(100)
  expect(refused).toBeGreaterThan(100)
  expect(ends.size).toBeGreaterThan(1)
})
