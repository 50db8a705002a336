import { beforeAll, describe, expect, test } from 'bun:test'
import Database from 'libsql'
import { bankBatches, readBank } from '../../src/apps/exams-bank.ts'
import { tempFolder, type TempFolder } from '../harness.ts'
import { as, json, loadExams, loadingMsMax, runExams, type Page } from './exams-server.ts'

beforeAll(loadExams, loadingMsMax)

/** The right answers, which no test can get from the server before an attempt. */
const items = await readBank()
const rightOf = new Map(items.map(({ answer }) => [answer.questionId, answer.answer]))
const places = bankBatches(items).flatMap((batch) => batch['test-questions'])

/** The first `right` questions of a test answered rightly, the next `wrong` ones wrongly. */
function sheet(testId: string, right: number, wrong = 0): Record<string, number> {
  const own = places.filter((place) => place.testId === testId).slice(0, right + wrong)
  return Object.fromEntries(
    own.map(({ questionId }, at) => {
      const answer = rightOf.get(questionId) ?? 0
      return [questionId, at < right ? answer : answer === 0 ? 1 : 0]
    }),
  )
}

interface Result {
  readonly attempt: Readonly<Record<string, unknown>> & { readonly id: number }
  readonly standings: readonly object[]
}

const paper = '/api/tests/upsc-gs1-2019/attempts'
const history = '/api/tests/history-001/attempts'

describe('an attempt', () => {
  test('is scored by the server', async () => {
    using folder = tempFolder()
    await using server = await runExams(folder)
    const ann = await as(server, 'ann', { name: 'Ann' })
    const answers = { ...sheet('upsc-gs1-2019', 10, 3) }
    const response = await ann.send('POST', paper, { answers })
    const result = (await response.json()) as Result
    expect([response.status, response.headers.get('location')]).toEqual([201, '/api/attempts/1'])
    expect(result).toEqual({
      attempt: {
        id: 1,
        userId: 'ann',
        testId: 'upsc-gs1-2019',
        number: 1,
        given: answers,
        ...{ right: 10, wrong: 3, blank: 95, points: 10 * 200 - 3 * 66, pointsMax: 108 * 200 },
        at: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
      },
      standings: [
        { board: 'all', userId: 'ann', points: 1_802, tests: 1 },
        { board: 'upsc-gs1', userId: 'ann', points: 1_802, tests: 1 },
      ],
    })
    expect(Math.abs(Date.parse(String(result.attempt['at'])) - Date.now())).toBeLessThan(60_000)
    expect(await json<unknown>(ann, '/api/attempts/1')).toEqual(result.attempt)
    expect(await json<unknown>(ann, '/api/users/ann')).toEqual({ id: 'ann', name: 'Ann' })
  })

  test('is refused with every wrong field, and leaves nothing', async () => {
    using folder = tempFolder()
    await using server = await runExams(folder)
    const ann = await as(server, 'ann')
    const post = async (body: unknown, path = history) => {
      const response = await ann.send('POST', path, body)
      const { errors } = (await response.json()) as { errors?: { field: string }[] }
      return [response.status, ...(errors ?? []).map(({ field }) => field)]
    }
    const answers = { 'otqa-history-1': 4, 'upsc-2': 0 }
    expect(await post({ answers, points: 100 })).toEqual([
      ...[400, 'points', 'answers.otqa-history-1', 'answers.upsc-2'],
    ])
    expect(await post({})).toEqual([400, 'answers'])
    expect(await post(undefined)).toEqual([400, 'body'])
    expect(await post([1])).toEqual([400, 'body'])
    expect(await post({ answers: {} }, '/api/tests/nothing/attempts')).toEqual([404])
    const broken = await server.get(history, { method: 'POST', headers: ann.headers, body: '{' })
    expect(broken.status).toBe(400)
    expect(counts(folder)).toEqual({ users: 0, attempts: 0, leaderboard: 0, notifications: 0 })
  })

  test('is for whoever is signed in, and made by its route alone', async () => {
    using folder = tempFolder()
    await using server = await runExams(folder)
    const visitor = await as(server, null)
    expect((await visitor.send('POST', history, { answers: {} })).status).toBe(401)
    const ann = await as(server, 'ann', { role: 'admin' })
    expect((await ann.send('POST', history, { answers: sheet('history-001', 1) })).status).toBe(201)
    const forged = { userId: 'ann', testId: 'history-001', number: 9, points: 9_999 }
    expect((await ann.send('POST', '/api/attempts', forged)).status).toBe(403)
    expect((await ann.send('PATCH', '/api/attempts/1', { points: 9_999 })).status).toBe(403)
    expect((await ann.send('DELETE', '/api/attempts/1')).status).toBe(403)
    expect((await ann.send('POST', '/api/leaderboard', { board: 'all' })).status).toBe(403)
    expect((await ann.send('PATCH', '/api/leaderboard/all,ann', { points: 9_999 })).status).toBe(
      403,
    )
  })

  test("is the taker's own: to others it is not there", async () => {
    using folder = tempFolder()
    await using server = await runExams(folder)
    const [ann, bob] = [await as(server, 'ann'), await as(server, 'bob')]
    await ann.send('POST', history, { answers: sheet('history-001', 2) })
    await bob.send('POST', history, { answers: sheet('history-001', 1) })
    const ids = async (asker: typeof ann, path: string) =>
      (await json<Page>(asker, path)).items.map(({ id }) => id)
    expect(await ids(ann, '/api/attempts')).toEqual([1])
    expect(await ids(bob, '/api/attempts')).toEqual([2])
    expect(await ids(bob, history)).toEqual([2])
    expect(await ids(bob, '/api/attempts?testId=history-001&order=best')).toEqual([2])
    for (const path of ['/api/attempts/1', '/api/attempts/1/review']) {
      expect([path, (await ann.get(path)).status]).toEqual([path, 200])
      expect([path, (await bob.get(path)).status]).toEqual([path, 404])
      expect([path, (await server.get(path)).status]).toEqual([path, 401])
    }
    for (const id of ['3', 'x', '1e0', '99999999999999999999']) {
      expect((await ann.get(`/api/attempts/${id}/review`)).status).toBe(404)
    }
  })

  test('tells the right answers afterwards', async () => {
    using folder = tempFolder()
    await using server = await runExams(folder)
    const ann = await as(server, 'ann')
    await ann.send('POST', paper, { answers: sheet('upsc-gs1-2019', 1, 1) })
    const response = await ann.get('/api/attempts/1/review')
    expect(response.headers.get('cache-control')).toBe('no-store')
    const { items: reviewed } = (await response.json()) as { items: Record<string, unknown>[] }
    expect(
      reviewed.map(({ position, given, isRight }) => [position, given !== null, isRight]),
    ).toEqual(Array.from({ length: 108 }, (_, at) => [at + 1, at < 2, at < 1]))
    const first = reviewed[0] as { question: { id: string }; answer: number; explanation: string }
    expect(first.answer).toBe(rightOf.get(first.question.id) ?? -1)
    expect(first.explanation.length).toBeGreaterThan(10)
  })
})

describe('the leaderboard', () => {
  test('adds up first attempts, over all tests and by subject', async () => {
    using folder = tempFolder()
    await using server = await runExams(folder)
    const [ann, bob] = [await as(server, 'ann', { name: 'Ann' }), await as(server, 'bob')]
    const top = async (board: string) =>
      (await json<Page>(ann, `/api/leaderboard?board=${board}`)).items.map(
        ({ userId, points, tests }) => [userId, points, tests],
      )
    expect(await top('all')).toEqual([])
    await ann.send('POST', history, { answers: sheet('history-001', 5) })
    await bob.send('POST', history, { answers: sheet('history-001', 6) })
    expect(await top('all')).toEqual([
      ['bob', 600, 1],
      ['ann', 500, 1],
    ])
    // The answers are known by now: another try is practice.
    const again = await ann.send('POST', history, { answers: sheet('history-001', 25) })
    expect(await again.json()).toMatchObject({
      attempt: { number: 2, points: 2_500 },
      standings: [],
    })
    await ann.send('POST', '/api/tests/history-002/attempts', { answers: sheet('history-002', 3) })
    await ann.send('POST', paper, { answers: sheet('upsc-gs1-2019', 0, 2) })
    expect(await top('all')).toEqual([
      ['ann', 668, 3],
      ['bob', 600, 1],
    ])
    expect(await top('history')).toEqual([
      ['ann', 800, 2],
      ['bob', 600, 1],
    ])
    expect(await top('upsc-gs1')).toEqual([['ann', -132, 1]])
    const named = await json<Page>(ann, '/api/leaderboard?board=all&expand=user')
    expect(named.items.map(({ user }) => user)).toEqual([
      { id: 'ann', name: 'Ann' },
      { id: 'bob', name: 'a taker' },
    ])
    expect((await server.get('/api/leaderboard')).status).toBe(401)
  })

  test('holds what the attempts add up to, whoever comes at once', async () => {
    using folder = tempFolder()
    await using server = await runExams(folder)
    const takers = await Promise.all(['a', 'b', 'c', 'd'].map((sub) => as(server, sub)))
    const tests = ['history-001', 'history-002', 'world-001']
    const responses = await Promise.all(
      takers.flatMap((taker, at) =>
        [...tests, ...tests].map((id) =>
          taker.send('POST', `/api/tests/${id}/attempts`, { answers: sheet(id, at + 1) }),
        ),
      ),
    )
    expect(new Set(responses.map(({ status }) => status))).toEqual(new Set([201]))
    const rows = query(
      folder,
      `select user_id, points, tests, (select sum(points) from attempts a
         where a.user_id = l.user_id and number = 1) as sum
       from leaderboard l where board = 'all' order by user_id`,
    )
    expect(rows).toEqual(
      ['a', 'b', 'c', 'd'].map((user, at) => {
        const points = 300 * (at + 1)
        return { user_id: user, points, tests: 3, sum: points }
      }),
    )
    expect(query(folder, 'select count(*) as count from attempts')).toEqual([{ count: 24 }])
  })
})

describe('one transaction', () => {
  // Whatever fails, and however late: an attempt without its leaderboard would be a lie for ever.
  test.each(['users', 'attempts', 'leaderboard', 'notifications'])(
    'when the statement on %s fails, nothing of the attempt remains',
    async (table) => {
      using folder = tempFolder()
      await using server = await runExams(folder)
      const ann = await as(server, 'ann')
      run(
        folder,
        `create trigger spoil after insert on ${table} begin select raise(abort, 'spoilt'); end`,
      )
      const answers = sheet('history-001', 2)
      const failed = await ann.send('POST', history, { answers }, { 'idempotency-key': 'k' })
      expect(failed.status).toBeGreaterThanOrEqual(400)
      expect(counts(folder)).toEqual({ users: 0, attempts: 0, leaderboard: 0, notifications: 0 })
      run(folder, 'drop trigger spoil')
      // A failure is no result to be remembered.
      const retried = await ann.send('POST', history, { answers }, { 'idempotency-key': 'k' })
      expect(retried.status).toBe(201)
      expect(counts(folder)).toEqual({ users: 1, attempts: 1, leaderboard: 2, notifications: 1 })
    },
  )
})

describe('Idempotency-Key', () => {
  test('the same key is one attempt, also when sent at once', async () => {
    using folder = tempFolder()
    await using server = await runExams(folder)
    const ann = await as(server, 'ann')
    const body = { answers: sheet('history-001', 4) }
    const post = async () => {
      const response = await ann.send('POST', history, body, { 'idempotency-key': 'one' })
      return { status: response.status, result: await response.json() }
    }
    const all = await Promise.all(Array.from({ length: 10 }, post))
    all.push(await post())
    expect(all).toEqual(all.map(() => all[0] as (typeof all)[0]))
    expect(all[0]).toMatchObject({ status: 201, result: { attempt: { id: 1, number: 1 } } })
    expect(counts(folder)).toEqual({ users: 1, attempts: 1, leaderboard: 2, notifications: 1 })
    expect(query(folder, 'select points, tests from leaderboard')).toEqual([
      { points: 400, tests: 1 },
      { points: 400, tests: 1 },
    ])
  })

  test('is of one user, and of one request', async () => {
    using folder = tempFolder()
    await using server = await runExams(folder)
    const [ann, bob] = [await as(server, 'ann'), await as(server, 'bob')]
    const post = async (who: typeof ann, path: string, answers: object) => {
      const response = await who.send('POST', path, { answers }, { 'idempotency-key': 'one' })
      return response.status
    }
    expect(await post(ann, history, {})).toBe(201)
    expect(await post(bob, history, {})).toBe(201)
    expect(await post(ann, paper, {})).toBe(422)
    expect(await post(ann, history, sheet('history-001', 1))).toBe(422)
    expect(query(folder, 'select user_id, test_id from attempts order by id')).toEqual([
      { user_id: 'ann', test_id: 'history-001' },
      { user_id: 'bob', test_id: 'history-001' },
    ])
  })

  test('without a key each request is an attempt', async () => {
    using folder = tempFolder()
    await using server = await runExams(folder)
    const ann = await as(server, 'ann')
    for (let at = 0; at < 3; at += 1) await ann.send('POST', history, { answers: {} })
    expect(query(folder, 'select number from attempts order by id')).toEqual([
      { number: 1 },
      { number: 2 },
      { number: 3 },
    ])
  })
})

/** Beside the server, on the same file. */
function withDatabase<T>(folder: TempFolder, use: (database: Database.Database) => T): T {
  const database = new Database(folder.file('test.db'))
  database.exec('pragma busy_timeout = 5000; pragma wal_autocheckpoint = 0')
  try {
    return use(database)
  } finally {
    database.close()
  }
}

const run = (folder: TempFolder, sql: string): void =>
  withDatabase(folder, (database) => void database.exec(sql))

const query = (folder: TempFolder, sql: string): unknown[] =>
  withDatabase(folder, (database) => database.prepare(sql).all())

function counts(folder: TempFolder): unknown {
  const tables = ['users', 'attempts', 'leaderboard', 'notifications']
  const columns = tables.map((table) => `(select count(*) from ${table}) as ${table}`)
  return query(folder, `select ${columns.join(', ')}`)[0]
}
