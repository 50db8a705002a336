/** Streams that come back after a restart, or at another node: what their ids are good for. */
import { describe, expect, test } from 'bun:test'
import { startProxy } from '../proxy.ts'
import { openRedis } from '../cache/redis.ts'
import { openStore, tempFolder } from '../harness.ts'
import { createRandom } from '../lib/random.ts'
import { requireService, startRedis } from '../services.ts'
import { room } from './durable.ts'
import { Reader, type Event } from './event-reader.ts'
import { serve, until, type TestServer } from './serve.ts'

const topics = {
  'chat:{room}': room,
  'plain:{room}': { subscribe: 'public', historySize: 100 },
  'short:{room}': { subscribe: 'public', historySize: 3, last: true },
} as const

const said = ({ messages }: Reader) =>
  messages.map(({ channel, data }) => `${channel} ${String(data)}`)
const gapsOf = ({ events }: Reader) =>
  events.flatMap(({ type, data }) => (type === 'gap' ? (data as { topics: string[] }).topics : []))

async function leave(reader: Reader, server: TestServer): Promise<void> {
  await reader.close()
  await until(() => server.realtime.stats().streams === 0, 'gone')
}

describe('after a restart', () => {
  test('a stream of durable topics is told exactly what it missed, and nothing else', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [])
    const names = 'chat:b,chat:a'
    let id: string
    {
      await using server = serve(topics, { store })
      const reader = await Reader.open(server, names)
      for (const n of [1, 2]) {
        for (const name of ['chat:a', 'chat:b']) await server.realtime.submit(name, n)
      }
      await until(() => reader.messages.length === 4, 'heard')
      await leave(reader, server)
      await server.realtime.submit('chat:b', 3)
      id = reader.lastEventId
    }
    await using server = serve(topics, { store })
    await server.realtime.submit('chat:a', 4)
    await using reader = await Reader.open(server, names, id)
    await until(() => reader.messages.length === 2, 'what it missed')
    await server.realtime.submit('chat:b', 5)
    await until(() => reader.messages.length === 3, 'and on')
    expect([said(reader).toSorted(), gapsOf(reader)]).toEqual([
      ['chat:a 4', 'chat:b 3', 'chat:b 5'],
      [],
    ])
    await using again = await Reader.open(server, 'chat:a,chat:b', reader.lastEventId)
    expect(again.events).toEqual([])
  })

  test('of what lives in memory a gap is told, by name, until it was told', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [])
    const names = 'chat:a,plain:a,short:a'
    let id: string
    {
      await using server = serve(topics, { store })
      const reader = await Reader.open(server, names)
      for (const name of names.split(',')) await server.realtime.submit(name, 1)
      await until(() => reader.messages.length === 3, 'heard')
      await leave(reader, server)
      await server.realtime.submit('chat:a', 2)
      id = reader.lastEventId
    }
    await using server = serve(topics, { store })
    await server.realtime.submit('short:a', 3)
    const reader = await Reader.open(server, names, id)
    expect(gapsOf(reader)).toEqual(['plain:a', 'short:a'])
    expect(said(reader).toSorted()).toEqual(['chat:a 2', 'short:a 3'])
    await leave(reader, server)
    // Cut while it was told: from each id on the way it is told what is left, and of the gap.
    for (const { id: on } of reader.events) {
      const cut = await Reader.open(server, names, on)
      expect(gapsOf(cut)).toEqual(['plain:a', 'short:a'])
      expect(said(cut)).toContain('short:a 3')
      await leave(cut, server)
    }
    await using after = await Reader.open(server, names, reader.lastEventId)
    expect(after.events).toEqual([])
  })

  test('what does not keep all of it, or came back to another life, is a gap', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [])
    await using server = serve(topics, { store })
    const reader = await Reader.open(server, 'chat:a')
    await server.realtime.submit('chat:a', 0)
    await until(() => reader.messages.length === 1, 'heard')
    await leave(reader, server)
    for (let n = 1; n <= 101; n += 1) await server.realtime.submit('chat:a', n)
    await using late = await Reader.open(server, 'chat:a', reader.lastEventId)
    expect([gapsOf(late), said(late)]).toEqual([['chat:a'], []])
    using another = tempFolder()
    await using other = await openStore(another.file('a.db'), [])
    await using elsewhere = serve(topics, { store: other })
    for (let n = 1; n <= 3; n += 1) await elsewhere.realtime.submit('chat:a', n)
    await using stranger = await Reader.open(elsewhere, 'chat:a', reader.lastEventId)
    expect(gapsOf(stranger)).toEqual(['chat:a'])
    // Of another topic, of fewer, of more, of no shape: nobody knows.
    const id = late.lastEventId
    const wrong = ['nonsense', `${id}.${id}`, id.replace('-', '_'), `${id}.`, 'x'.repeat(5_000)]
    for (const one of [...wrong, `${id.split('-')[0]}-zzzzzzzzzzz`]) {
      await using lost = await Reader.open(server, 'chat:a', one)
      expect(gapsOf(lost)).toEqual(['chat:a'])
    }
    for (let n = 1; n <= 3; n += 1) await server.realtime.submit('chat:b', n)
    await using moved = await Reader.open(server, 'chat:b', reader.lastEventId)
    expect(gapsOf(moved)).toEqual(['chat:b'])
  })

  test('from every id that was told, what comes after it comes; the bytes are those of all who hear the same', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [])
    await using server = serve(topics, { store })
    const random = createRandom(7)
    const names = ['chat:a', 'chat:b', 'plain:a']
    for (const name of names) await server.realtime.submit(name, 'before')
    const readers = [
      await Reader.open(server, names.join(',')),
      await Reader.open(server, names.toReversed().join(',')),
    ]
    const sent = Array.from({ length: 60 }, (_, n) => server.realtime.submit(random.pick(names), n))
    await Promise.all(sent)
    await until(() => readers.every(({ messages }) => messages.length === 60), 'heard')
    const [one] = readers
    const texts = readers.map(({ chunks }) => chunks.join('').replaceAll(/^retry: .*$/gm, ''))
    expect(texts[0]).toBe(texts[1] ?? '')
    for (const reader of readers) await reader.close()
    const all = one?.events ?? []
    for (const [index, { id }] of all.entries()) {
      const resumed = await Reader.open(server, names.join(','), id)
      expect([gapsOf(resumed), resumed.messages.map(({ data }) => data)]).toEqual([
        [],
        all.slice(index + 1).map(({ data }) => (data as { data: unknown }).data),
      ])
      // And what it is told on the way is as good.
      const [told] = resumed.events
      await resumed.close()
      if (!told) continue
      const twice = await Reader.open(server, names.join(','), told.id)
      expect(twice.messages).toEqual(resumed.messages.slice(1))
      await twice.close()
    }
  })

  test('an id is short: a stream of many topics counts as this process does', async () => {
    using folder = tempFolder()
    await using store = await openStore(folder.file('a.db'), [])
    await using server = serve(topics, { store })
    const many = (count: number) => Array.from({ length: count }, (_, n) => `chat:${n}`).join(',')
    await using few = await Reader.open(server, many(16))
    await server.realtime.submit('chat:1', 1)
    await until(() => few.messages.length === 1, 'heard')
    expect(few.lastEventId.length).toBeLessThan(16 * 20)
    await using more = await Reader.open(server, many(17))
    expect(more.lastEventId).toMatch(/^[0-9a-f]{8}:\d+$/)
    await using memory = await Reader.open(server, 'plain:a,short:a')
    expect(memory.lastEventId).toMatch(/^[0-9a-f]{8}:\d+$/)
    // An id of one form where the other is told now.
    for (const id of [few.lastEventId, more.lastEventId]) {
      await using fewer = await Reader.open(server, many(16), id)
      expect(fewer.events).toEqual([])
    }
  })
})

describe.skipIf(!requireService('redis-server'))('at another node', () => {
  async function pair() {
    const redis = await startRedis()
    const nodes = await Promise.all(
      [0, 1].map(async () => {
        const proxy = await startProxy({ target: redis.port })
        const opened = await openRedis(proxy.port)
        const shared = { redis: opened.redis, namespace: 'belfry:test', source: 'db' }
        return {
          proxy,
          opened,
          server: serve(topics, { shared: { ...shared, patienceMs: 20_000 } }),
        }
      }),
    )
    const [one, two] = nodes
    if (!one || !two) throw new Error('two were made')
    return {
      ...{ one, two, redis },
      async [Symbol.asyncDispose]() {
        for (const { server, opened, proxy } of nodes) {
          await server.stop()
          await opened[Symbol.asyncDispose]()
          await proxy[Symbol.asyncDispose]()
        }
        await redis[Symbol.asyncDispose]()
      },
    }
  }

  const names = 'plain:a,plain:b,short:a'

  test('a stream is told exactly what it missed, with what it has not heard there yet', async () => {
    await using both = await pair()
    const [here, there] = [both.one.server, both.two.server]
    const reader = await Reader.open(here, names)
    // The other one knows the topics, too.
    await using other = await Reader.open(there, names)
    for (const n of [1, 2]) await here.realtime.submit('plain:a', n)
    await there.realtime.submit('short:a', 3)
    await until(() => reader.messages.length === 3 && other.messages.length === 3, 'heard')
    await leave(reader, here)
    await here.realtime.submit('plain:b', 4)
    await there.realtime.submit('plain:a', 5)
    await using moved = await Reader.open(there, names, reader.lastEventId)
    await until(() => moved.messages.length === 2, 'what it missed')
    await here.realtime.submit('plain:a', 6)
    await until(() => moved.messages.length === 3, 'and on')
    expect([said(moved), gapsOf(moved)]).toEqual([['plain:b 4', 'plain:a 5', 'plain:a 6'], []])
    // The first node has forgotten the topics by now, or not: it is the same.
    await using back = await Reader.open(here, names, moved.lastEventId)
    expect(back.events).toEqual([])
  })

  test('a node that is late looks before it answers; without Redis it says what it cannot know', async () => {
    await using both = await pair()
    const [here, there] = [both.one.server, both.two.server]
    const reader = await Reader.open(here, names)
    await using other = await Reader.open(there, names)
    await here.realtime.submit('plain:a', 1)
    await until(() => reader.messages.length === 1 && other.messages.length === 1, 'heard')
    both.two.proxy.cut()
    await until(() => !both.two.opened.redis.isUp, 'cut off')
    await here.realtime.submit('plain:a', 2)
    await until(() => reader.messages.length === 2, 'heard here')
    await leave(reader, here)
    await using early = await Reader.open(there, names, reader.lastEventId)
    expect(gapsOf(early)).toEqual(['plain:a'])
    both.two.proxy.resume()
    await until(() => both.two.opened.redis.isUp, 'back')
    await using moved = await Reader.open(there, names, reader.lastEventId)
    expect(moved.events).toEqual([])
    await here.realtime.submit('plain:a', 3)
    await until(() => moved.messages.length === 1, 'and on')
    expect(said(moved)).toEqual(['plain:a 3'])
  })

  test('a Redis that was emptied is another life', async () => {
    await using both = await pair()
    const [here, there] = [both.one.server, both.two.server]
    const reader = await Reader.open(here, names)
    await here.realtime.submit('plain:a', 1)
    await until(() => reader.messages.length === 1, 'heard')
    const admin = new Bun.RedisClient(both.redis.url)
    await admin.send('FLUSHALL', [])
    admin.close()
    await here.realtime.submit('plain:a', 2)
    await until(() => gapsOf(reader).includes('plain:a'), 'told')
    await here.realtime.submit('plain:a', 3)
    const before = reader.events[0]?.id ?? ''
    await using moved = await Reader.open(there, names, before)
    expect(gapsOf(moved)).toContain('plain:a')
    expect(said(moved)).toEqual([])
    // Who was told of the gap goes on from there.
    const isOfIt = ({ type, data }: Event) =>
      type === 'gap' && (data as { topics: string[] }).topics.includes('plain:a')
    const gap = reader.events.find(isOfIt)?.id ?? ''
    await using told = await Reader.open(there, 'plain:a', gap.split('.')[0])
    await until(() => told.messages.length > 0, 'what came after')
    expect([gapsOf(told), said(told)]).toEqual([[], ['plain:a 3']])
    await reader.close()
  })
})
