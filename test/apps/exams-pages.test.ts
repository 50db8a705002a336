import { beforeAll, describe, expect, test } from 'bun:test'
import { readBank } from '../../src/apps/exams-bank.ts'
import { tempFolder } from '../harness.ts'
import type { TestServer } from '../server.ts'
import { as, json, loadExams, loadingMsMax, runExams, type Page } from './exams-server.ts'

const items = await readBank()
beforeAll(loadExams, loadingMsMax)

describe('loading the bank', () => {
  test('shows no test before all of its questions, and keeps nobody waiting', async () => {
    const { health, missing, loaded } = await loadExams()
    expect(health).toBe(200)
    expect(Object.keys(missing).length).toBeGreaterThan(0)
    expect(new Set(Object.values(missing))).toEqual(new Set([0]))
    expect(loaded).toMatchObject({ questions: 16_954, tests: 631 })
  })

  test('goes on where it was stopped', async () => {
    const { resumed } = await loadExams()
    expect(resumed.batches).toBeGreaterThanOrEqual(3)
    expect(resumed.questions).toBe(250 * (resumed.batches - 1))
    expect(resumed.tests).toBe(0)
  })

  test('writes nothing once all is there', async () => {
    using folder = tempFolder()
    await using server = await runExams(folder)
    const { seq } = server.rooms.store.stats()
    for (let tick = 0; tick < 3; tick += 1) await server.rooms.feeds.tick('bank')
    expect([server.rooms.store.stats().seq - seq, server.rooms.feeds.stats()[0]?.changes]).toEqual([
      0, 0,
    ])
  })
})

describe('right answers and explanations', () => {
  test('are read by nobody, whatever the role', async () => {
    using folder = tempFolder()
    await using server = await runExams(folder)
    for (const path of ['/api/answers', '/api/answers/upsc-2', '/api/bank']) {
      expect([path, (await server.get(path)).status]).toEqual([path, 401])
      const admin = await as(server, 'ann', { role: 'admin' })
      expect([path, (await admin.get(path)).status]).toEqual([path, 403])
    }
  })

  test('are in no list and no row that a taker may read', async () => {
    using folder = tempFolder()
    await using server = await runExams(folder)
    const ann = await as(server, 'ann')
    const paths = [
      '/api/questions?limit=100&expand=source',
      '/api/questions/upsc-2',
      '/api/tests',
      '/api/tests/upsc-gs1-2024/questions?limit=100&expand=question',
      '/api/test-questions?testId=upsc-gs1-2024&expand=question',
      '/api/flashcards?expand=question',
    ]
    const secret = items.find(({ question }) => question.id === 'upsc-2')?.answer.explanation ?? ''
    for (const path of paths) {
      const text = await (await ann.get(path)).text()
      expect([path, text.includes(secret), /"(answer|explanation)"/.test(text)]).toEqual([
        path,
        false,
        false,
      ])
    }
    // Neither can they be asked for by what lists offer.
    for (const search of ['expand=answer', 'answer=3', 'order=answer', 'expand=answers']) {
      expect([search, (await ann.get(`/api/questions?${search}`)).status]).toEqual([search, 400])
    }
  })
})

describe('lists', () => {
  test('a test shows its questions in order, each with its text', async () => {
    using folder = tempFolder()
    await using server = await runExams(folder)
    const path = '/api/tests/history-001/questions?expand=question&limit=100'
    const { items: placed } = await json<Page>(server, path)
    expect(placed.map(({ position }) => position)).toEqual(
      Array.from({ length: 25 }, (_, at) => at + 1),
    )
    expect(placed[0]?.['question']).toMatchObject({ subject: 'history', sourceId: 'opentriviaqa' })
    expect((await server.get('/api/tests/history-999/questions')).status).toBe(404)
  })

  test('every question tells its source, and the source its licence', async () => {
    using folder = tempFolder()
    await using server = await runExams(folder)
    const path = '/api/questions/otqa-world-1?expand=source'
    const { source } = await json<{ source: object }>(server, path)
    expect(source).toMatchObject({ id: 'opentriviaqa', licence: 'CC BY-SA 4.0' })
  })

  /** The ids of all pages from `start`, in the order of the list. */
  async function walk(
    server: TestServer,
    search: string,
    direction: 'next' | 'prev',
    start: string | null = null,
  ): Promise<{ readonly ids: string[]; readonly end: Page }> {
    const ids: string[] = []
    const parameter = direction === 'next' ? 'after' : 'before'
    for (let cursor = start; ;) {
      const more = cursor === null ? '' : `&${parameter}=${encodeURIComponent(cursor)}`
      const page = await json<Page<{ id: string }>>(
        server,
        `/api/questions?limit=100&${search}${more}`,
      )
      const own = page.items.map(({ id }) => id)
      ids.push(...(direction === 'next' ? own : own.toReversed()))
      cursor = page[direction]
      if (cursor === null) return { ids, end: page }
    }
  }

  const byId = (a: string, b: string) => Buffer.compare(Buffer.from(a), Buffer.from(b))
  const orders = {
    id: items.map(({ question }) => question.id).toSorted(byId),
    subject: items
      .map(({ question }) => question)
      .toSorted((a, b) => byId(a.subject, b.subject) || byId(a.id, b.id))
      .map(({ id }) => id),
    newest: items
      .map(({ question }) => question)
      .toSorted((a, b) => b.year - a.year || byId(b.id, a.id))
      .map(({ id }) => id),
  }

  test.each(Object.entries(orders))(
    'all 16,954 questions by %s, forwards and back again',
    async (order, expected) => {
      using folder = tempFolder()
      await using server = await runExams(folder)
      const { ids, end } = await walk(server, `order=${order}`, 'next')
      expect(ids.length).toBe(16_954)
      expect(ids).toEqual(expected)
      const back = await walk(server, `order=${order}`, 'prev', end.prev)
      const lastPage = end.items.length
      expect(back.ids).toEqual(expected.slice(0, -lastPage).toReversed())
    },
    60_000,
  )

  test('within a filter, both ways', async () => {
    using folder = tempFolder()
    await using server = await runExams(folder)
    const expected = items
      .filter(({ question }) => question.subject === 'world')
      .map(({ question }) => question.id)
      .toSorted(byId)
    const { ids, end } = await walk(server, 'subject=world', 'next')
    expect(ids).toEqual(expected)
    const back = await walk(server, 'subject=world', 'prev', end.prev)
    expect(back.ids).toEqual(expected.slice(0, -end.items.length).toReversed())
    const three = 'subject=Modern%20India&year=2019&topic='
    const { items: none } = await json<Page>(server, `/api/questions?${three}`)
    expect(none).toEqual([])
  })
})
