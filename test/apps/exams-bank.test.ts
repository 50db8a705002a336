import { describe, expect, test } from 'bun:test'
import {
  bankBatches,
  batchRowsMax,
  parseTrivia,
  parseUpsc,
  readBank,
  type BankBatch,
} from '../../src/apps/exams-bank.ts'
import { faultOf } from '../harness.ts'

const items = await readBank()
const batches = bankBatches(items)
const all = <K extends keyof BankBatch>(path: K): BankBatch[K][number][] =>
  batches.flatMap((batch) => [...batch[path]])

describe('readBank', () => {
  test('reads all of both files, each id once', () => {
    expect(items).toHaveLength(1_431 + 15_523)
    expect(new Set(items.map(({ question }) => question.id)).size).toBe(items.length)
  })

  test('keeps question and answer apart', () => {
    expect(items[0]).toEqual({
      question: {
        id: 'upsc-2',
        sourceId: 'upsc',
        subject: 'Indian Polity and Governance',
        topic: 'Constitutional and Non-constitutional Bodies',
        year: 2024,
        text: 'How many Delimitation Commissions have been constituted by the Government of India till December 2023?',
        options: ['One', 'Two', 'Three', 'Four'],
      },
      answer: {
        questionId: 'upsc-2',
        answer: 3,
        explanation: expect.stringContaining('in 2002 under the Delimitation Act, 2002.'),
      },
    })
    expect(items.at(-1)).toEqual({
      question: {
        id: 'otqa-world-4875',
        sourceId: 'opentriviaqa',
        subject: 'world',
        topic: '',
        year: 0,
        text: 'What type of festival is the Summerfest, held annually in Milwaukee, Wisconsin, US?',
        options: ['Film festival', 'Music festival', 'Food festival', 'Beer festival'],
      },
      answer: { questionId: 'otqa-world-4875', answer: 1, explanation: null },
    })
  })
})

describe('parseUpsc, parseTrivia', () => {
  const good = { id: 'x', category: 'c', question: 'q', options: ['a', 'b'], answer: 1 }

  test.each([
    [{ ...good, answer: 2 }, 'answer is none of the options'],
    [{ ...good, answer: -1 }, 'answer is none of the options'],
    [{ ...good, answer: 0.5 }, 'answer is no integer'],
    [{ ...good, options: ['a'] }, 'options is no list of two or more texts'],
    [{ ...good, options: ['a', 1] }, 'options is no list of two or more texts'],
    [{ ...good, question: '' }, 'question is no text'],
  ])('%j: %s', async (row, problem) => {
    const fault = await faultOf(() => parseTrivia(JSON.stringify(row)))
    expect([fault.code, fault.message]).toEqual(['internal', `question bank: x: ${problem}`])
  })

  test('an empty explanation is none', () => {
    const row = { ...good, subject: 's', topic: 't', year: 2020, explanation: '' }
    expect(parseUpsc(JSON.stringify(row)).answer).toEqual({
      questionId: 'x',
      answer: 1,
      explanation: null,
    })
  })
})

describe('bankBatches', () => {
  test('holds every question and answer once, and no batch is longer than its limit', () => {
    expect(all('questions')).toEqual(items.map(({ question }) => question))
    expect(all('answers')).toEqual(items.map(({ answer }) => answer))
    const sizes = batches.map((batch) =>
      Object.values(batch).reduce((sum, rows) => sum + rows.length, 0),
    )
    expect(Math.max(...sizes)).toBeLessThanOrEqual(batchRowsMax)
  })

  test('refers only to what was there before: sources, then questions, then tests with all of theirs', () => {
    const stored = new Set<string>()
    const early: string[] = []
    const refer = (to: string) => void (stored.has(to) || early.push(to))
    for (const batch of batches) {
      for (const { id } of batch.sources) stored.add(`source ${id}`)
      for (const { id, sourceId } of batch.questions) {
        refer(`source ${sourceId}`)
        stored.add(`question ${id}`)
      }
      for (const { questionId } of batch.answers) refer(`question ${questionId}`)
      for (const { questionId } of batch['test-questions']) refer(`question ${questionId}`)
      for (const one of batch.tests) {
        const own = batch['test-questions'].filter(({ testId }) => testId === one.id)
        expect(own.map(({ position }) => position)).toEqual(
          Array.from({ length: one.questionCount }, (_, at) => at + 1),
        )
      }
    }
    expect(early).toEqual([])
  })

  test('no question is in two tests', () => {
    const ids = all('test-questions').map(({ questionId }) => questionId)
    expect(new Set(ids).size).toBe(ids.length)
    expect(ids).toHaveLength(16_851)
  })

  test('makes a paper of each whole year, and sets of 25', () => {
    const tests = new Map(all('tests').map((one) => [one.id, one]))
    expect(tests.size).toBe(14 + 617)
    expect(tests.get('upsc-gs1-2019')).toEqual({
      id: 'upsc-gs1-2019',
      title: 'UPSC GS1 2019',
      subject: 'upsc-gs1',
      year: 2019,
      questionCount: 108,
      minutes: 120,
      rightPoints: 200,
      wrongPoints: -66,
    })
    expect(tests.get('history-001')).toEqual({
      id: 'history-001',
      title: 'History: 25 questions, 1 of 65',
      subject: 'history',
      year: 0,
      questionCount: 25,
      minutes: 15,
      rightPoints: 100,
      wrongPoints: 0,
    })
    expect([tests.has('upsc-gs1-2010'), tests.has('history-066')]).toEqual([false, false])
  })
})
