/** Topics that outlive the process: what was acknowledged is there, where it was, and is heard once. */
import { describe, expect, test } from 'bun:test'
import { Fault } from '../../src/fault.ts'
import { createPublications, type Store } from '../../src/store/store.ts'
import { createTestClock } from '../clock.ts'
import { openStore, tempFolder } from '../harness.ts'
import { createRandom } from '../lib/random.ts'
import { fragile, room, subscribe } from './durable.ts'
import { RawClient, serve, until, type Subscribed } from './serve.ts'

const topics = {
  'chat:{room}': room,
  'members:{room}': { ...room, subscribe: 'signed-in' },
  'plain:{room}': { subscribe: 'public', historySize: 10 },
} as const

const everything = { limit: -1, since: undefined, reverse: false }

const dataOf = (list: readonly { readonly data: unknown }[] | undefined) =>
  list?.map(({ data }) => data) ?? []

describe('after a restart', () => {
  test('offset, epoch and history are what they were, and a subscriber recovers exactly what it missed', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [])
    let before: Subscribed
    {
      await using server = serve(topics, { store })
      const client = await RawClient.connect(server.wsUrl)
      before = await subscribe(client)
      for (let n = 1; n <= 5; n += 1) await server.realtime.submit('chat:a', { n })
      await until(() => client.publications.length === 5, 'all heard')
      expect(client.publications.map(({ offset }) => offset)).toEqual([1, 2, 3, 4, 5])
      client.close()
    }
    await using server = serve(topics, { store })
    expect((await server.realtime.submit('chat:a', { n: 6 })).offset).toBe(6)
    const client = await RawClient.connect(server.wsUrl)
    const since = { recover: true, epoch: before.epoch, offset: 2 }
    const after = await subscribe(client, since)
    expect(after).toMatchObject({ recovered: true, epoch: before.epoch })
    expect(dataOf(after.publications)).toEqual([3, 4, 5, 6].map((n) => ({ n })))
    const { history } = await client.call({
      history: { channel: 'chat:a', limit: 2, reverse: true },
    })
    expect(history).toMatchObject({ offset: 6, publications: [{ offset: 6 }, { offset: 5 }] })
    client.close()
  })

  test('the first thing a client does may be anything: subscribe, history, publish, by the token', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [])
    {
      await using server = serve(topics, { store })
      for (const name of ['chat:a', 'chat:b', 'chat:c', 'chat:d', 'chat:e']) {
        for (let n = 1; n <= 3; n += 1) await server.realtime.submit(name, n)
      }
    }
    const identify = () => ({
      ok: true as const,
      identity: {
        kind: 'user' as const,
        user: { id: 'ann', channels: ['chat:d'] },
        expiresAtMs: undefined,
      },
    })
    await using server = serve(topics, { store, identify })
    const client = await RawClient.open(server.wsUrl)
    // In one frame: each waits for its topic, and they are answered in order.
    client.send(
      [
        { id: 1, connect: { token: 'ann' } },
        { id: 2, history: { channel: 'chat:a', limit: -1 } },
        { id: 3, subscribe: { channel: 'chat:b' } },
        { id: 4, unsubscribe: { channel: 'chat:b' } },
        { id: 5, publish: { channel: 'chat:c', data: 4 } },
      ]
        .map((command) => JSON.stringify(command))
        .join('\n'),
    )
    await until(() => client.replies.some(({ id }) => id === 5), 'all answered')
    expect(client.replies.map(({ id }) => id)).toEqual([1, 2, 3, 4, 5])
    expect(client.replies[0]?.['connect']).toMatchObject({ subs: { 'chat:d': { offset: 3 } } })
    expect(client.replies[1]?.['history']).toMatchObject({ offset: 3 })
    expect(client.replies[2]?.subscribe).toMatchObject({ offset: 3 })
    expect(client.replies[4]).toMatchObject({ publish: {} })
    const stream = await fetch(`${server.url}/api/stream?topics=chat:e,plain:a`)
    const reader = stream.body?.getReader()
    let text = ''
    const readTo = async (wanted: string) => {
      while (!text.includes(wanted)) text += new TextDecoder().decode((await reader?.read())?.value)
    }
    await readTo('\nid: ')
    await server.realtime.submit('chat:e', 'heard')
    await readTo('"data":"heard","offset":4}')
    await reader?.cancel()
    client.close()
  })

  test('what follows a subscription by token waits for it, too', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [])
    await using server = serve(topics, { store })
    const client = await RawClient.connect(server.wsUrl)
    const [channel, token] = ['members:a', 'topic||members:a']
    const commands = [
      { id: 51, subscribe: { channel, token } },
      { id: 52, unsubscribe: { channel } },
    ]
    client.send(commands.map((command) => JSON.stringify(command)).join('\n'))
    await until(() => client.replies.length === 3, 'both are answered')
    expect(client.replies.slice(1).map(({ id }) => id)).toEqual([51, 52])
    expect(server.realtime.stats().subscriptions).toBe(0)
    client.close()
  })

  test('a topic that cannot be read is a temporary error, the end of a stream, 503', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [])
    const fault = new Fault('unavailable', 'the primary database cannot be reached')
    const blind = { ...store, read: () => Promise.reject(fault) }
    await using server = serve(topics, { store: blind })
    const client = await RawClient.connect(server.wsUrl)
    const refused = await client.call({ subscribe: { channel: 'chat:a' } })
    expect(refused.error).toMatchObject({ code: 100, temporary: true })
    const stream = await (await fetch(`${server.url}/api/stream?topics=chat:a`)).text()
    expect(stream).toMatch(/^retry: \d{4}\n\n$/)
    expect((await fetch(`${server.url}/api/topics/chat:a/history`)).status).toBe(503)
    client.close()
  })

  test('who may not hear a topic does not bring it alive', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [])
    await using server = serve(topics, { store })
    const client = await RawClient.connect(server.wsUrl)
    const refused = await client.call({ subscribe: { channel: 'members:a' } })
    expect(refused.error?.code).toBe(103)
    expect(server.realtime.stats().topics).toBe(0)
    client.close()
  })

  test('a database put back from a backup has another epoch: its offsets went back', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [])
    const epochs: string[] = []
    for (const life of ['one', 'one', 'two']) {
      await using server = serve(topics, { store: { ...store, identity: () => life } })
      epochs.push((await server.realtime.submit('chat:a', 1)).epoch)
    }
    expect(epochs[0]).toBe(epochs[1] ?? '')
    expect(epochs[2]).not.toBe(epochs[0] ?? '')
  })
})

describe('acknowledged is committed', () => {
  test('nobody hears it before; many that wait share one commit; the change log knows nothing of it', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [])
    const held = fragile(store)
    await using server = serve(topics, { store: held })
    const client = await RawClient.connect(server.wsUrl)
    await subscribe(client)
    held.state.held = true
    let acknowledged = 0
    const all = Array.from({ length: 200 }, async (_, n) => {
      await server.realtime.submit('chat:a', n)
      acknowledged += 1
    })
    await client.call({ ping: {} })
    await client.call({ ping: {} })
    expect([acknowledged, client.publications.length]).toEqual([0, 0])
    held.state.held = false
    await Promise.all(all)
    await until(() => client.publications.length === 200, 'all heard')
    expect(dataOf(client.publications)).toEqual(Array.from({ length: 200 }, (_, n) => n))
    expect(held.state.writes).toBeLessThanOrEqual(2)
    expect(store.stats().seq).toBe(0)
    client.close()
  })

  test('what is refused is heard by nobody, and the next one has its offset', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [])
    const weak = fragile(store)
    await using server = serve(topics, { store: weak })
    const client = await RawClient.connect(server.wsUrl)
    await subscribe(client)
    expect((await client.call({ publish: { channel: 'chat:a', data: 1 } })).error).toBeUndefined()
    weak.state.next = () => 'refuse'
    const refused = await client.call({ publish: { channel: 'chat:a', data: 2 } })
    expect(refused.error).toMatchObject({ code: 100, temporary: true })
    await expect(server.realtime.submit('chat:a', 2)).rejects.toThrow('it did not happen')
    weak.state.next = () => 'pass'
    expect((await client.call({ publish: { channel: 'chat:a', data: 3 } })).error).toBeUndefined()
    await until(() => client.publications.length === 2, 'both')
    expect(client.publications.map(({ data, offset }) => [offset, data])).toEqual([
      [1, 1],
      [2, 3],
    ])
    client.close()
  })

  test('a commit that failed and happened is told, once, without another publication', async () => {
    using folder = tempFolder()
    const clock = createTestClock()
    await using store = await openStore(folder.file('a.db'), [])
    const weak = fragile(store)
    await using server = serve(topics, { store: weak, clock })
    const client = await RawClient.connect(server.wsUrl)
    await subscribe(client)
    weak.state.next = () => 'forget'
    expect(await server.realtime.submit('chat:a', 1).catch(String)).toContain('nobody knows')
    weak.state.next = () => 'pass'
    await until(() => {
      clock.advance(1_000)
      return client.publications.length === 1
    }, 'it is told')
    await server.realtime.submit('chat:a', 2)
    await until(() => client.publications.length === 2, 'the next')
    expect(client.publications.map(({ data, offset }) => [offset, data])).toEqual([
      [1, 1],
      [2, 2],
    ])
    client.close()
  })

  test('the server’s own word on a topic that cannot be kept is in the log, once', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [])
    const weak = fragile(store)
    await using server = serve(topics, { store: weak })
    weak.state.next = () => 'refuse'
    for (let n = 0; n < 3; n += 1) server.realtime.publish('chat:a', n)
    await until(() => weak.state.writes > 0, 'tried')
    await server.realtime.submit('chat:a', 3).catch(() => {})
    expect(server.errors).toEqual(['realtime.publication-lost'])
  })

  test('the same key twice while the first one waits is one publication; of a refused one it is free', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [])
    const weak = fragile(store)
    await using server = serve(topics, { store: weak })
    const say = () => server.realtime.submit('chat:a', 1, { key: 'k' })
    weak.state.next = () => 'refuse'
    const refused = await Promise.allSettled([say(), say()])
    expect(refused.map(({ status }) => status)).toEqual(['rejected', 'rejected'])
    weak.state.next = () => 'pass'
    const [one, two] = await Promise.all([say(), say()])
    expect([one.offset, two.offset, (await say()).offset]).toEqual([1, 1, 1])
  })

  test('what waits is bounded: more is refused at once, and what waits is not lost', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [])
    const held = fragile(store)
    await using server = serve(topics, { store: held })
    held.state.held = true
    const first = server.realtime.submit('chat:a', 0)
    await until(() => held.state.writes > 0, 'the first is on its way')
    const others = Array.from({ length: 10_100 }, () => server.realtime.submit('chat:a', 1))
    const refused = others.slice(10_000).map((one) => one.then(String, ({ code }) => String(code)))
    expect(new Set(await Promise.all(refused))).toEqual(new Set(['too_many']))
    held.state.held = false
    expect((await first).offset).toBe(1)
    expect((await others[9_999])?.offset).toBe(10_001)
  })

  test('conflated and durable: what is replaced is not committed', async () => {
    using folder = tempFolder()
    const clock = createTestClock()
    await using store = await openStore(folder.file('a.db'), [])
    const plans = { 'chat:{room}': { ...room, conflate: { everyMs: 1_000 } } }
    await using server = serve(plans, { store, clock })
    await server.realtime.submit('chat:a', 1)
    for (const n of [2, 3, 4]) await server.realtime.submit('chat:a', n)
    clock.advance(1_000)
    await server.realtime.settled()
    const { publications } = await createPublications(store, { isShared: false }).load(
      'chat:a',
      10,
      0,
    )
    expect(publications.map(({ data, offset }) => [offset, data])).toEqual([
      [1, '1'],
      [2, '4'],
    ])
  })

  test('a drain waits for what is accepted', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [])
    {
      await using server = serve(topics, { store })
      for (let n = 0; n < 50; n += 1) server.realtime.publish('chat:a', n)
      await server.realtime.drain()
    }
    expect(
      (await createPublications(store, { isShared: false }).load('chat:a', 100, 0)).publications,
    ).toHaveLength(50)
  })
})

test('property: refusals, unknown commits and restarts: each acknowledged once, offsets without a hole', async () => {
  using folder = tempFolder()
  await using store = await openStore(folder.file('a.db'), [])
  const random = createRandom(23)
  const size = 10_000
  const plans = {
    'chat:{room}': { ...room, historySize: size, persist: { size, ttlMs: 3_600_000 } },
  }
  const weak = fragile(store)
  const acknowledged = new Map<number, number>()
  let position: { epoch: string; offset: number } | undefined
  const heard: { offset: number; data: number }[] = []
  let n = 0
  for (let life = 0; life < 6; life += 1) {
    const clock = createTestClock()
    await using server = serve(plans, { store: weak, clock })
    const client = await RawClient.connect(server.wsUrl)
    const reply = await subscribe(client, position ? { recover: true, ...position } : {})
    if (position) expect(reply.recovered).toBe(true)
    for (const one of reply.publications ?? []) heard.push(one as (typeof heard)[number])
    weak.state.next = () =>
      (['pass', 'pass', 'refuse', 'forget'] as const)[random.below(4)] ?? 'pass'
    for (let round = 0; round < 30; round += 1) {
      const some = Array.from({ length: 1 + random.below(5) }, () => (n += 1))
      await Promise.all(
        some.map((one) =>
          server.realtime.submit('chat:a', one).then(
            ({ offset }) => acknowledged.set(one, offset),
            () => {},
          ),
        ),
      )
      if (random.below(3) === 0) clock.advance(1_000)
    }
    weak.state.next = () => 'pass'
    const last = await server.realtime.submit('chat:a', 0)
    await until(() => client.publications.at(-1)?.offset === last.offset, 'the last one')
    heard.push(...(client.publications as unknown as typeof heard))
    position = { epoch: reply.epoch, offset: last.offset }
    client.close()
  }
  expect(heard.map(({ offset }) => offset)).toEqual(heard.map((_, index) => index + 1))
  const told = heard.filter(({ data }) => data > 0)
  expect(new Set(told.map(({ data }) => data)).size).toBe(told.length)
  for (const [data, offset] of acknowledged)
    expect(heard[offset - 1]).toMatchObject({ data, offset })
  expect(acknowledged.size).toBeGreaterThan(100)
  expect(told.length).toBeGreaterThan(acknowledged.size)
})

describe('replay', () => {
  const clockNow = Date.UTC(2026, 0, 1)
  const get = async (url: string, path: string, headers: Record<string, string> = {}) => {
    const response = await fetch(`${url}/api/topics/${path}`, { headers })
    return { status: response.status, body: (await response.json()) as Record<string, unknown> }
  }
  const offsets = ({ body }: { body: Record<string, unknown> }) =>
    (body['publications'] as { offset: number }[]).map(({ offset }) => offset)

  test('of a time, in pages, forwards and back; also of topics in memory', async () => {
    using folder = tempFolder()
    const clock = createTestClock(clockNow)
    await using store = await openStore(folder.file('a.db'), [])
    await using server = serve(topics, { store, clock })
    for (const topic of ['chat:a', 'plain:a']) {
      for (let n = 1; n <= 6; n += 1) {
        await server.realtime.submit(topic, n)
        clock.advance(1_000)
      }
      const start = topic === 'chat:a' ? 0 : 6_000
      const at = (second: number) => new Date(clockNow + start + second * 1_000).toISOString()
      const history = `${topic}/history`
      const all = await get(server.url, history)
      expect(all.body).toMatchObject({ offset: 6, next: null })
      expect(all.body['publications']).toHaveLength(6)
      expect((all.body['publications'] as object[])[1]).toEqual({ offset: 2, at: at(1), data: 2 })
      const some = `${history}?since=${at(1)}&until=${at(4)}`
      expect(offsets(await get(server.url, some))).toEqual([2, 3, 4])
      expect(offsets(await get(server.url, `${some}&reverse=true`))).toEqual([4, 3, 2])
      const page = await get(server.url, `${some}&limit=2`)
      expect([offsets(page), page.body['next']]).toEqual([[2, 3], 3])
      const rest = await get(server.url, `${some}&limit=2&after=3`)
      expect([offsets(rest), rest.body['next']]).toEqual([[4], null])
      const back = `${history}?since=${Date.parse(at(1))}&reverse=true&limit=2&after=4`
      expect(offsets(await get(server.url, back))).toEqual([3, 2])
    }
  })

  test('asks the topic’s rule, and what it is asked', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [])
    await using server = serve(topics, { store })
    await server.realtime.submit('members:a', 1)
    expect((await get(server.url, 'members:a/history')).status).toBe(403)
    const ann = { authorization: 'Bearer user:ann' }
    expect((await get(server.url, 'members:a/history', ann)).status).toBe(200)
    expect((await get(server.url, 'members:a/history', { 'x-api-key': 'key' })).status).toBe(200)
    expect((await get(server.url, 'nothing/history')).status).toBe(404)
    expect((await get(server.url, '%/history')).status).toBe(404)
    const wrong =
      'chat:a/history?since=yesterday&until=2026-01-01T00:00&limit=0&after=-1&reverse=1&x=1'
    const { status, body } = await get(server.url, wrong)
    expect(status).toBe(400)
    expect((body['errors'] as { field: string }[]).map(({ field }) => field)).toEqual([
      ...['since', 'until', 'after', 'limit', 'reverse', 'x'],
    ])
  })
})

describe('what is kept', () => {
  const kept = async (store: Store) =>
    (
      await store.read({ sql: 'select "offset" from belfry_publications order by 1', params: [] })
    ).map(([offset]) => Number(offset))

  test('on disk is bounded by number and age, and reads leave out what is over at once', async () => {
    using folder = tempFolder()
    const clock = createTestClock()
    await using store = await openStore(folder.file('a.db'), [])
    const persist = { size: 100, ttlMs: 60_000 }
    await using server = serve(
      { 'chat:{room}': { ...room, historySize: 5, persist } },
      { store, clock },
    )
    for (let n = 1; n <= 300; n += 1) await server.realtime.submit('chat:a', n)
    const url = `${server.url}/api/topics/chat:a/history?limit=1000`
    const replayed = async () =>
      ((await (await fetch(url)).json()) as { publications: unknown[] }).publications.length
    expect(await replayed()).toBe(100)
    expect((await kept(store)).length).toBeLessThanOrEqual(100 + 64)
    expect(server.realtime.history('chat:a', everything).publications).toHaveLength(5)
    clock.advance(59_000)
    await server.realtime.submit('chat:a', 301)
    clock.advance(1_001)
    expect(await replayed()).toBe(1)
    // Nobody publishes any more: the clock does it.
    await until(async () => {
      clock.advance(10_000)
      return (await kept(store)).length === 0
    }, 'all gone')
    expect((await server.realtime.submit('chat:a', 302)).offset).toBe(302)
  })

  test('is removed by the server API, and counts on', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [])
    await using server = serve(topics, { store })
    for (let n = 1; n <= 3; n += 1) await server.realtime.submit('chat:a', n)
    const headers = { 'x-api-key': 'key', 'content-type': 'application/json' }
    const init = { method: 'POST', headers, body: '{"channel":"chat:a"}' }
    expect((await fetch(`${server.url}/api/history_remove`, init)).status).toBe(200)
    expect(await kept(store)).toEqual([])
    expect((await server.realtime.submit('chat:a', 4)).offset).toBe(4)
  })
})
