import { beforeAll, describe, expect, test } from 'bun:test'
import { Centrifuge } from 'centrifuge'
import { notificationTopic } from '../../src/apps/exams-notify.ts'
import { systemClock, type Clock } from '../../src/lib/clock.ts'
import { tempFolder, until } from '../harness.ts'
import { as, listen, loadExams, loadingMsMax, runExams } from './exams-server.ts'

beforeAll(loadExams, loadingMsMax)

const stream = '/api/notifications/stream'
const attempt = '/api/tests/history-001/attempts'

describe('GET /api/notifications/stream', () => {
  test("tells a user of the user's own attempts, and nobody else", async () => {
    using folder = tempFolder()
    await using server = await runExams(folder)
    const [ann, bob] = [await as(server, 'ann'), await as(server, 'bob')]
    await using anns = await listen(server, stream, ann.headers)
    await using bobs = await listen(server, stream, bob.headers)
    expect(anns.response.status).toBe(200)
    expect(anns.response.headers.get('content-type')).toStartWith('text/event-stream')
    expect(anns.response.headers.get('cache-control')).toBe('no-store')
    await until(() => server.rooms.realtime.stats().connections === 2, 'both streams are open')

    await ann.send('POST', attempt, { answers: {} })
    await until(() => anns.events().length > 0, 'ann hears')
    await bob.send('POST', attempt, { answers: {} })
    await until(() => bobs.events().length > 0, 'bob hears')
    const heard = (from: typeof anns) =>
      from.events().map(({ channel, data }) => [channel, data.collection, data.op, data.row])
    expect(heard(anns)).toEqual([
      [
        'notifications:ann',
        'notifications',
        'create',
        expect.objectContaining({ userId: 'ann', kind: 'attempt', attemptId: 1, isRead: false }),
      ],
    ])
    expect(heard(bobs)).toEqual([
      [
        'notifications:bob',
        'notifications',
        'create',
        expect.objectContaining({ userId: 'bob', attemptId: 2 }),
      ],
    ])
  })

  test('resumes where it was', async () => {
    using folder = tempFolder()
    await using server = await runExams(folder)
    const ann = await as(server, 'ann')
    let id = ''
    {
      await using first = await listen(server, stream, ann.headers)
      await until(() => first.text().includes('id: '), 'it is open')
      await ann.send('POST', attempt, { answers: {} })
      await until(() => first.events().length === 1, 'it is heard')
      id = [...first.text().matchAll(/^id: (.*)$/gm)].at(-1)?.[1] ?? ''
    }
    await ann.send('POST', attempt, { answers: {} })
    const headers = { ...ann.headers, 'last-event-id': id }
    await using second = await listen(server, stream, headers)
    await until(() => second.events().length > 0, 'what was missed comes')
    expect(second.events().map(({ data }) => data.row['attemptId'])).toEqual([2])
  })

  test('beats while nothing happens', async () => {
    using folder = tempFolder()
    // A heartbeat is due each 25 s: here each 25 ms.
    const hasty: Clock = { ...systemClock, every: (ms, run) => systemClock.every(ms / 1_000, run) }
    await using server = await runExams(folder, hasty)
    const ann = await as(server, 'ann')
    await using anns = await listen(server, stream, ann.headers)
    await until(() => anns.text().includes(': hb\n\n'), 'a heartbeat comes')
  })

  test('is for whoever is signed in', async () => {
    using folder = tempFolder()
    await using server = await runExams(folder)
    expect((await server.get(stream)).status).toBe(401)
    // The rows are where they were: the stream hides none of them.
    const ann = await as(server, 'ann')
    await ann.send('POST', attempt, { answers: {} })
    expect((await ann.get('/api/notifications/1')).status).toBe(200)
  })
})

describe('the topic of a user', () => {
  test('admits that user alone, over WebSocket and SSE', async () => {
    using folder = tempFolder()
    await using server = await runExams(folder)
    const bob = await as(server, 'bob')
    expect((await bob.get('/api/stream?topics=notifications:ann')).status).toBe(403)
    expect((await server.get('/api/stream?topics=notifications:ann')).status).toBe(403)
    const client = new Centrifuge(`${server.url.replace('http', 'ws')}/connection/websocket`, {
      token: bob.headers['authorization']?.slice('Bearer '.length) ?? '',
    })
    const outcome = (channel: string) => {
      const subscription = client.newSubscription(channel)
      const settled = new Promise<string>((resolve) => {
        subscription.on('subscribed', () => resolve('subscribed'))
        subscription.on('unsubscribed', ({ code }) => resolve(`refused ${code}`))
      })
      subscription.subscribe()
      return settled
    }
    const outcomes = [outcome('notifications:ann'), outcome('notifications:bob')]
    client.connect()
    expect(await Promise.all(outcomes)).toEqual(['refused 103', 'subscribed'])
    client.disconnect()
  })

  test('is named by an id without what ends a segment', () => {
    expect(notificationTopic('ann')).toBe('notifications:ann')
    expect(notificationTopic('urn:user:1, 2')).toBe('notifications:urn%3Auser%3A1%2C%202')
    expect(notificationTopic('x'.repeat(241))).toBeNull()
    expect(notificationTopic('')).toBeNull()
  })

  test('a user whose id has colons hears, too', async () => {
    using folder = tempFolder()
    await using server = await runExams(folder)
    const urn = await as(server, 'urn:user:1')
    await using heard = await listen(server, stream, urn.headers)
    await until(() => heard.text().includes('id: '), 'it is open')
    await urn.send('POST', attempt, { answers: {} })
    await until(() => heard.events().length === 1, 'it is heard')
  })
})
