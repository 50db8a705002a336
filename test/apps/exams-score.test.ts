import { describe, expect, test } from 'bun:test'
import { marks, parseSheet, scoreSheet } from '../../src/apps/exams-score.ts'
import { faultOf } from '../harness.ts'

const questions = [
  { id: 'a', optionCount: 4, answer: 0 },
  { id: 'b', optionCount: 4, answer: 3 },
  { id: 'c', optionCount: 2, answer: 1 },
  { id: 'd', optionCount: 4, answer: 2 },
]
const upsc = { rightPoints: 200, wrongPoints: -66 }

async function problems(body: unknown): Promise<string[]> {
  const fault = await faultOf(() => parseSheet(body, questions))
  expect(fault.code).toBe('invalid')
  return (fault.fields ?? []).map(({ field, message }) => `${field} ${message}`)
}

describe('parseSheet', () => {
  test('takes options by question; null and nothing are blank', () => {
    expect(parseSheet({ answers: { a: 0, c: 1, d: null } }, questions)).toEqual({ a: 0, c: 1 })
    expect(parseSheet({ answers: {} }, questions)).toEqual({})
  })

  test('names every wrong field', async () => {
    const answers = { a: 4, b: -1, c: 2, d: 1.5, x: 0, ['__proto__']: 1 }
    expect(await problems({ answers, score: 1 })).toEqual([
      'score is not a field of an attempt (answers)',
      'answers.a must be 0 to 3, or null',
      'answers.b must be 0 to 3, or null',
      'answers.c must be 0 to 1, or null',
      'answers.d must be 0 to 3, or null',
      'answers.x is no question of this test',
      'answers.__proto__ is no question of this test',
    ])
    expect(await problems({ answers: { a: '0', b: true } })).toHaveLength(2)
  })

  test.each([null, undefined, [], 'answers', 3])('refuses %j as a body', async (body) => {
    expect(await problems(body)).toEqual(['body the body must be a JSON object'])
  })

  test('refuses answers that are missing or no object', async () => {
    expect(await problems({})).toEqual(['answers is required'])
    expect(await problems({ answers: null })).toEqual(['answers must be an object'])
    expect(await problems({ answers: [0, 1] })).toEqual(['answers must be an object'])
  })

  test('tells of twenty problems at most', async () => {
    const many = Object.fromEntries(Array.from({ length: 50 }, (_, at) => [`x${at}`, 0]))
    expect(await problems({ answers: many })).toHaveLength(20)
  })
})

describe('scoreSheet', () => {
  test('counts right, wrong and blank, in hundredths', () => {
    expect(scoreSheet({ a: 0, b: 3, c: 0 }, questions, upsc)).toEqual({
      right: 2,
      wrong: 1,
      blank: 1,
      points: 334,
      pointsMax: 800,
    })
  })

  test('nothing given is nothing lost; all wrong is below zero', () => {
    expect(scoreSheet({}, questions, upsc)).toMatchObject({ blank: 4, points: 0 })
    expect(scoreSheet({ a: 1, b: 1, c: 0, d: 1 }, questions, upsc)).toMatchObject({
      wrong: 4,
      points: -264,
    })
  })
})

test('marks are written as people read them', () => {
  expect([marks(18_268), marks(-66), marks(0)]).toEqual(['182.68', '-0.66', '0.00'])
})
