/** Scoring, without a database: an answer sheet is checked against its test, then counted. */
import { Fault, type FieldProblem } from '../fault.ts'

/** One question of a test, with what scoring needs of it. */
export interface ScoredQuestion {
  readonly id: string
  readonly optionCount: number
  /** 0-based. */
  readonly answer: number
}

/** Hundredths of a mark. */
export interface Marking {
  readonly rightPoints: number
  readonly wrongPoints: number
}

/** By question, the option that was chosen. */
export type AnswerSheet = Readonly<Record<string, number>>

export interface Score {
  readonly right: number
  readonly wrong: number
  readonly blank: number
  readonly points: number
  readonly pointsMax: number
}

/** Problems told of one sheet: a client that mixed up two tests need not hear of a hundred. */
const problemsMax = 20

/**
 * The body of `POST /api/tests/:id/attempts`: `{ "answers": { "<question id>": <option, from 0> } }`; null,
 * or not being there, is a question left blank. Faults: `invalid`, naming each wrong field.
 */
export function parseSheet(body: unknown, questions: readonly ScoredQuestion[]): AnswerSheet {
  const { answers, ...others } = record(body, 'body', 'the body must be a JSON object')
  const problems: FieldProblem[] = Object.keys(others).map((field) => ({
    field,
    message: 'is not a field of an attempt (answers)',
  }))
  if (answers === undefined) problems.push({ field: 'answers', message: 'is required' })
  const sheet = answers === undefined ? {} : record(answers, 'answers', 'must be an object')
  const byId = new Map(questions.map((question) => [question.id, question]))
  const given: [string, number][] = []
  for (const [id, option] of Object.entries(sheet)) {
    const question = byId.get(id)
    const message = question ? optionProblem(option, question) : 'is no question of this test'
    if (message !== undefined) problems.push({ field: `answers.${id.slice(0, 100)}`, message })
    else if (typeof option === 'number') given.push([id, option])
  }
  if (problems.length > 0) {
    throw new Fault('invalid', 'the attempt is not valid', {
      fields: problems.slice(0, problemsMax),
    })
  }
  return Object.fromEntries(given)
}

function optionProblem(option: unknown, { optionCount }: ScoredQuestion): string | undefined {
  if (option === null) return undefined
  const isOption =
    typeof option === 'number' && Number.isInteger(option) && option >= 0 && option < optionCount
  return isOption ? undefined : `must be 0 to ${optionCount - 1}, or null`
}

function record(value: unknown, field: string, message: string): Readonly<Record<string, unknown>> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return { ...value }
  throw new Fault('invalid', 'the attempt is not valid', { fields: [{ field, message }] })
}

/** Every question of the test is right, wrong or blank. Points may be below zero, as on the real paper. */
export function scoreSheet(
  sheet: AnswerSheet,
  questions: readonly ScoredQuestion[],
  { rightPoints, wrongPoints }: Marking,
): Score {
  const given = new Map(Object.entries(sheet))
  const right = questions.filter(({ id, answer }) => given.get(id) === answer).length
  const blank = questions.filter(({ id }) => !given.has(id)).length
  const wrong = questions.length - right - blank
  return {
    ...{ right, wrong, blank },
    points: right * rightPoints + wrong * wrongPoints,
    pointsMax: questions.length * rightPoints,
  }
}

/** Hundredths as people read them: `182.68`. */
export function marks(points: number): string {
  return (points / 100).toFixed(2)
}

/** Where a first attempt counts: over all tests, and among those of its subject. */
export function boardsOf(subject: string): readonly string[] {
  return ['all', subject]
}
