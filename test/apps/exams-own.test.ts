import { beforeAll, describe, expect, test } from 'bun:test'
import { tempFolder } from '../harness.ts'
import type { TestServer } from '../server.ts'
import {
  as,
  json,
  loadExams,
  loadingMsMax,
  runExams,
  type Asker,
  type Page,
} from './exams-server.ts'

beforeAll(loadExams, loadingMsMax)

const plan = { subject: 'Modern India', goal: 'ten a day', examAt: '2027-05-23T04:00:00Z' }
const card = { deck: 'dates', front: 'Plassey?', back: '1757', dueAt: '2026-01-01T00:00:00Z' }

async function twoTakers(server: TestServer): Promise<[ann: Asker, bob: Asker]> {
  const [ann, bob] = [await as(server, 'ann'), await as(server, 'bob')]
  await ann.send('POST', '/api/users', { name: 'Ann' })
  await bob.send('POST', '/api/users', { name: 'Bob' })
  return [ann, bob]
}

describe.each([
  ['study-plans', plan, { goal: 'twenty a day' }],
  ['flashcards', card, { box: 1 }],
])('%s', (path, row, change) => {
  test("are the taker's own", async () => {
    using folder = tempFolder()
    await using server = await runExams(folder)
    const [ann, bob] = await twoTakers(server)
    const made = await ann.send('POST', `/api/${path}`, { ...row, userId: 'bob' })
    expect([made.status, await made.json()]).toEqual([
      201,
      expect.objectContaining({ id: 1, userId: 'ann' }),
    ])
    expect((await json<Page>(ann, `/api/${path}`)).items).toHaveLength(1)
    expect((await json<Page>(bob, `/api/${path}`)).items).toEqual([])
    expect((await bob.get(`/api/${path}/1`)).status).toBe(404)
    expect((await server.get(`/api/${path}`)).status).toBe(401)
    expect([403, 404]).toContain((await bob.send('PATCH', `/api/${path}/1`, change)).status)
    expect([403, 404]).toContain((await bob.send('DELETE', `/api/${path}/1`)).status)
    const changed = await ann.send('PATCH', `/api/${path}/1`, { ...change, userId: 'bob' })
    expect(await changed.json()).toMatchObject({ id: 1, userId: 'ann', ...change })
    expect((await ann.send('DELETE', `/api/${path}/1`)).status).toBe(204)
  })

  test('need a profile first', async () => {
    using folder = tempFolder()
    await using server = await runExams(folder)
    const carl = await as(server, 'carl')
    expect((await carl.send('POST', `/api/${path}`, row)).status).toBe(409)
  })
})

test('values out of range are refused by the name of their column', async () => {
  using folder = tempFolder()
  await using server = await runExams(folder)
  const [ann] = await twoTakers(server)
  const detail = async (path: string, body: unknown) => {
    const response = await ann.send('POST', path, body)
    return [response.status, ((await response.json()) as { detail: string }).detail]
  }
  expect(await detail('/api/study-plans', { ...plan, questionsPerDay: 0 })).toEqual([
    400,
    'a constraint of the table is not met: questions_per_day',
  ])
  expect(await detail('/api/flashcards', { ...card, box: 11 })).toEqual([
    400,
    'a constraint of the table is not met: box',
  ])
})

test('a profile is made and renamed by its user alone', async () => {
  using folder = tempFolder()
  await using server = await runExams(folder)
  const [ann, bob] = await twoTakers(server)
  expect((await ann.send('POST', '/api/users', { id: 'eve', name: 'Eve' })).status).toBe(409)
  expect((await server.get('/api/users')).status).toBe(401)
  expect((await bob.send('PATCH', '/api/users/ann', { name: 'Bob' })).status).toBe(403)
  expect((await bob.send('DELETE', '/api/users/ann')).status).toBe(403)
  expect(await (await ann.send('PATCH', '/api/users/ann', { name: 'Anna' })).json()).toEqual({
    id: 'ann',
    name: 'Anna',
  })
})

test('an attempt keeps the name that a profile has', async () => {
  using folder = tempFolder()
  await using server = await runExams(folder)
  await twoTakers(server)
  const ann = await as(server, 'ann', { name: 'Somebody else' })
  await ann.send('POST', '/api/tests/history-001/attempts', { answers: {} })
  expect(await json<unknown>(ann, '/api/users/ann')).toEqual({ id: 'ann', name: 'Ann' })
})

test('a taker who goes takes everything along', async () => {
  using folder = tempFolder()
  await using server = await runExams(folder)
  const [ann, bob] = await twoTakers(server)
  await ann.send('POST', '/api/study-plans', plan)
  await ann.send('POST', '/api/flashcards', card)
  for (const one of [ann, bob]) {
    await one.send('POST', '/api/tests/history-001/attempts', { answers: {} })
  }
  const lists = ['attempts', 'study-plans', 'flashcards', 'notifications']
  const lengths = async (asker: Asker) =>
    await Promise.all(
      lists.map(async (path) => (await json<Page>(asker, `/api/${path}`)).items.length),
    )
  const top = async () =>
    (await json<Page>(bob, '/api/leaderboard?board=all')).items.map(({ userId }) => userId)
  expect([await lengths(ann), await top()]).toEqual([
    [1, 1, 1, 1],
    ['bob', 'ann'],
  ])
  expect((await ann.send('DELETE', '/api/users/ann')).status).toBe(204)
  // Also what was in the cache.
  expect([await lengths(ann), await lengths(bob), await top()]).toEqual([
    [0, 0, 0, 0],
    [1, 0, 0, 1],
    ['bob'],
  ])
})

test('a notification is read, marked as read, and removed by its own user', async () => {
  using folder = tempFolder()
  await using server = await runExams(folder)
  const [ann, bob] = await twoTakers(server)
  await ann.send('POST', '/api/tests/history-001/attempts', { answers: {} })
  const unread = async () =>
    (await json<Page>(ann, '/api/notifications?isRead=false')).items.map(({ text }) => text)
  expect(await unread()).toEqual([
    'History: 25 questions, 1 of 65: 0.00 of 25.00 marks, 0 right, 0 wrong, 25 blank',
  ])
  expect((await bob.get('/api/notifications/1')).status).toBe(404)
  expect([403, 404]).toContain(
    (await bob.send('PATCH', '/api/notifications/1', { isRead: true })).status,
  )
  const forged = await ann.send('PATCH', '/api/notifications/1', { isRead: true, text: 'won' })
  expect(forged.status).toBe(403)
  expect((await ann.send('PATCH', '/api/notifications/1', { isRead: true })).status).toBe(200)
  expect(await unread()).toEqual([])
  expect((await bob.send('POST', '/api/notifications', { text: 'x' })).status).toBe(403)
  expect((await ann.send('DELETE', '/api/notifications/1')).status).toBe(204)
})
