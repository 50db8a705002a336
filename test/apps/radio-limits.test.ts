/** Each of the app's five policies, walked to its end over HTTP and a socket; whoever else asks is not touched. */
import { describe, expect, test } from 'bun:test'
import { signToken } from '../../src/auth/auth.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { createTestClock } from '../clock.ts'
import { tempFolder, until } from '../harness.ts'
import { codeOf, stockClient, subscribed } from '../realtime/stock.ts'
import { testSecret, type TestServer } from '../server.ts'
import { runRadio } from './radio-server.ts'

/** Behind one proxy, so that a test can come from anywhere. */
const env = { TRUSTED_PROXIES: 'loopback', STUDIO_CODE: 'four candles' }

const tokenOf = (sub: string) =>
  signToken(testSecret, { sub }, { nowMs: Date.now(), ttlMs: 600_000 })

interface Asking {
  /** Empty: a visitor. */
  readonly user?: string
  readonly from?: string
}

type Ask = (server: TestServer, asking: Asking) => Promise<Response>

/** `GET /path`, or `POST /path` with a body. */
function asking(method: string, path: string, body?: unknown): Ask {
  return async (server, { user, from = '192.0.2.1' }) => {
    const headers: Record<string, string> = { 'x-forwarded-for': from }
    if (user !== undefined) headers['authorization'] = `Bearer ${await tokenOf(user)}`
    if (body === undefined) return await server.get(path, { method, headers })
    headers['content-type'] = 'application/json'
    return await server.get(path, { method, headers, body: JSON.stringify(body) })
  }
}

const song = { title: 'Mess Is Mine', artist: 'Vance Joy' }
const request = asking('POST', '/api/requests', song)
const pledge = asking('POST', '/api/pledges', { cents: 500, note: 'for the bells' })
const ask = asking('GET', '/api/ask?q=when%20was%20vance%20joy%20on')
const guess = asking('POST', '/api/studio', { code: 'fork handles' })
const read = asking('GET', '/api/plays?limit=1')

interface Walk {
  readonly policy: string
  readonly quota: number
  readonly seconds: number
  readonly status: number
  readonly ask: Ask
  readonly as: Asking
  /** Whose budget is another one. */
  readonly other: Asking
  /** Who shares it. */
  readonly same: Asking
}

const ann = { user: 'ann' }
const elsewhere = { user: 'ann', from: '192.0.2.2' }
const bob = { user: 'bob' }
const minute = { seconds: 60, as: ann, other: bob, same: elsewhere }

const walks: readonly Walk[] = [
  { ...minute, policy: 'strict', quota: 20, status: 201, ask: request },
  { ...minute, policy: 'payment', quota: 10, status: 201, ask: pledge },
  { ...minute, policy: 'ai', quota: 30, status: 200, ask },
  // A visitor's by address; a user's wherever he comes from.
  {
    ...{ policy: 'api', quota: 100, seconds: 60, status: 200, ask: read },
    ...{ as: {}, other: { from: '192.0.2.2' }, same: {} },
  },
  // By address, whoever it says it is.
  {
    ...{ policy: 'login', quota: 5, seconds: 900, status: 403, ask: guess },
    ...{ as: {}, other: { from: '192.0.2.2' }, same: ann },
  },
]

describe('over HTTP', () => {
  test.each(walks)('$policy: $quota in $seconds s', async (walk) => {
    using folder = tempFolder()
    const time = createTestClock()
    await using server = await runRadio(folder, env, { ...systemClock, tick: time.tick })
    const { policy, quota, seconds } = walk
    for (let left = quota - 1; left >= 0; left--) {
      const response = await walk.ask(server, walk.as)
      expect([response.status, response.headers.get('ratelimit')]).toEqual([
        walk.status,
        `"${policy}";r=${left};t=${seconds}`,
      ])
      expect(response.headers.get('ratelimit-policy')).toBe(`"${policy}";q=${quota};w=${seconds}`)
    }
    for (const who of [walk.as, walk.same]) {
      const refused = await walk.ask(server, who)
      expect(refused.status).toBe(429)
      expect(refused.headers.get('retry-after')).toBe(String(seconds))
      expect(refused.headers.get('ratelimit')).toBe(`"${policy}";r=0;t=${seconds}`)
      expect(await refused.json()).toMatchObject({ code: 'too_many', status: 429 })
    }
    const other = await walk.ask(server, walk.other)
    expect([other.status, other.headers.get('ratelimit')]).toEqual([
      walk.status,
      `"${policy}";r=${quota - 1};t=${seconds}`,
    ])
    // What is under another policy is open to whoever used this one up.
    const unlike = walk.policy === 'api' ? ask : read
    expect((await unlike(server, walk.as)).status).toBe(200)
    time.advance(seconds * 1_000)
    expect((await walk.ask(server, walk.as)).status).toBe(walk.status)
  })
})

describe('over a socket', () => {
  const connected = async (server: TestServer, user: string) => {
    const client = stockClient(server, 'websocket', { token: await tokenOf(user) })
    const { subscription } = await subscribed(client, 'requests')
    return { client, subscription }
  }

  test('strict: requests that are published on their topic, and told to whoever listens', async () => {
    using folder = tempFolder()
    await using server = await runRadio(folder, env)
    const [one, two] = [await connected(server, 'ann'), await connected(server, 'bob')]
    const heard: unknown[] = []
    two.subscription.on('publication', ({ data }) => heard.push(data))
    for (let n = 0; n < 20; n++) await one.subscription.publish(song)
    expect(await codeOf(one.subscription.publish(song))).toBe(111)
    // A row each, which took its place in the budget of requests, too.
    expect((await request(server, ann)).status).toBe(429)
    await until(() => heard.length === 20, 'all are heard')
    expect(heard[0]).toMatchObject({ collection: 'requests', row: { ...song, userId: 'ann' } })
    await two.subscription.publish(song)
    for (const { client } of [one, two]) client.disconnect()
  })

  test.each([
    ['payment', 10, 'POST /api/pledges', { cents: 500 }],
    ['ai', 30, 'GET /api/ask?q=joy', null],
    ['api', 100, 'GET /api/mixes', null],
  ] as const)('%s: %i calls', async (_, quota, method, body) => {
    using folder = tempFolder()
    await using server = await runRadio(folder, env)
    const [one, two] = [await connected(server, 'ann'), await connected(server, 'bob')]
    for (let n = 0; n < quota; n++) await one.client.rpc(method, body)
    expect(await codeOf(one.client.rpc(method, body))).toBe(429)
    await two.client.rpc(method, body)
    for (const { client } of [one, two]) client.disconnect()
  })

  test('login: guesses by call count with those of requests, by the address of the socket', async () => {
    using folder = tempFolder()
    await using server = await runRadio(folder, { STUDIO_CODE: env.STUDIO_CODE })
    const { client } = await connected(server, 'ann')
    const call = () => codeOf(client.rpc('POST /api/studio', { code: 'fork handles' }))
    expect([await call(), await call(), await call()]).toEqual([403, 403, 403])
    expect([(await guess(server, {})).status, (await guess(server, bob)).status]).toEqual([
      403, 403,
    ])
    expect(await call()).toBe(429)
    client.disconnect()
  })
})

describe('what is asked for', () => {
  test('a question is answered from the log; the studio opens to its code, and to none without one', async () => {
    using folder = tempFolder()
    await using server = await runRadio(folder, env)
    const play = (await (await read(server, {})).json()) as {
      items: { artist: string; at: string }[]
    }
    const artist = encodeURIComponent(`Have you had ${play.items[0]?.artist}?`)
    const answer = await (await asking('GET', `/api/ask?q=${artist}`)(server, {})).json()
    const { at } = play.items[0] ?? {}
    expect(answer).toMatchObject({
      plays: expect.arrayContaining([expect.objectContaining({ at })]),
    })
    const nothing = await (await asking('GET', '/api/ask?q=zzz')(server, {})).json()
    expect(nothing).toMatchObject({ plays: [], answer: expect.stringContaining('none of') })
    expect((await asking('GET', '/api/ask')(server, {})).status).toBe(400)
    const open = asking('POST', '/api/studio', { code: 'four candles' })
    const { next } = (await (await open(server, {})).json()) as { next: { title: string }[] }
    expect(next).toHaveLength(5)
    await server.rooms.feeds.tick('on-air')
    const then = (await (await read(server, {})).json()) as { items: { title: string }[] }
    expect(then.items[0]?.title).toBe(next[0]?.title ?? '')

    using other = tempFolder()
    await using closed = await runRadio(other)
    for (const code of ['', 'four candles', 'undefined']) {
      expect((await asking('POST', '/api/studio', { code })(closed, {})).status).toBe(403)
    }
  })

  test('a pledge is one’s own, and of a sum that can be; a request is for whoever is signed in', async () => {
    using folder = tempFolder()
    await using server = await runRadio(folder, env)
    expect((await pledge(server, ann)).status).toBe(201)
    const listed = async (who: Asking) =>
      ((await (await asking('GET', '/api/pledges')(server, who)).json()) as { items: unknown[] })
        .items
    expect([(await listed(ann)).length, (await listed(bob)).length]).toEqual([1, 0])
    expect((await asking('GET', '/api/pledges')(server, {})).status).toBe(401)
    for (const body of [{ cents: 99 }, { cents: 100_001 }, { cents: 500, userId: 'bob' }]) {
      const { status } = await asking('POST', '/api/pledges', body)(server, ann)
      expect([400, 403, 409]).toContain(status)
    }
    expect((await request(server, {})).status).toBe(401)
    expect((await pledge(server, {})).status).toBe(401)
    expect((await asking('DELETE', '/api/requests/1')(server, bob)).status).toBe(404)
    expect((await request(server, ann)).status).toBe(201)
    expect((await asking('DELETE', '/api/requests/1')(server, bob)).status).toBe(403)
    expect((await asking('DELETE', '/api/requests/1')(server, ann)).status).toBe(204)
  })
})
