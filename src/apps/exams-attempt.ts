/**
 * One attempt: scored here, never by the taker, and stored with all that follows from it in ONE transaction:
 *
 *   sheet ─► checked, scored (reads only) ─► ┌ profile, if it is the taker's first visit
 *                                            │ attempt, numbered
 *                                            │ leaderboard, if it is the first attempt of this test
 *                                            └ notification ─► the log ─► live, to this user alone
 *
 * Only the first attempt counts: afterwards the taker may read the right answers. With an idempotency key a
 * request that is sent again gets the answer of the first, and nothing is stored twice.
 */
import { and, eq, sql, type SQL } from 'drizzle-orm'
import type { Db, Load, Tx, User } from '../kit.ts'
import { Fault } from '../fault.ts'
import { boardsOf, marks, parseSheet, scoreSheet } from './exams-score.ts'
import {
  answers,
  attempts,
  leaderboard,
  notifications,
  questions,
  testQuestions,
  tests,
  users,
} from './exams-tables.ts'

/** Tables whose rows the routes look up. */
export type ExamTables =
  | typeof answers
  | typeof attempts
  | typeof questions
  | typeof testQuestions
  | typeof tests

export interface AttemptRequest {
  readonly user: User
  readonly testId: string
  readonly body: unknown
  /** `Idempotency-Key`, when it was given. */
  readonly key: string | null
}

/** A row of a table as JSON has it. */
type Json<T> = { readonly [K in keyof T]: T[K] extends Date ? string : T[K] }

export interface AttemptResult {
  readonly attempt: Json<typeof attempts.$inferSelect>
  /** The taker's rows of the leaderboard which this attempt changed: none after the first attempt. */
  readonly standings: readonly (typeof leaderboard.$inferSelect)[]
}

/** One question of a test, in its place, with its right answer. */
export interface PlacedQuestion {
  readonly position: number
  readonly question: typeof questions.$inferSelect
  readonly answer: typeof answers.$inferSelect
}

/** Faults: `not_found`, `invalid` (each wrong field named), `reused`, `unavailable`, `timeout`. */
export async function submitAttempt(
  { db, load }: { readonly db: Db; readonly load: Load<ExamTables> },
  { user, testId, body, key }: AttemptRequest,
): Promise<AttemptResult> {
  const [test, placed] = await Promise.all([load.one(tests.id, testId), questionsOf(load, testId)])
  if (!test) throw new Fault('not_found', 'no such test')
  const scored = placed.map(({ question, answer }) => ({
    id: question.id,
    optionCount: question.options.length,
    answer: answer.answer,
  }))
  const sheet = parseSheet(body, scored)
  const score = scoreSheet(sheet, scored, test)

  const store = async (tx: Tx): Promise<AttemptResult> => {
    await tx
      .insert(users)
      .values({ id: user.id, name: nameOf(user) })
      .onConflictDoNothing()
    const [attempt] = await tx
      .insert(attempts)
      .values({ userId: user.id, testId, number: nextNumber(user, testId), given: sheet, ...score })
      .returning()
    if (!attempt) throw new Fault('internal', 'the attempt was not stored')
    const standings = attempt.number === 1 ? await count(tx, user, test.subject, score.points) : []
    await tx.insert(notifications).values({
      userId: user.id,
      kind: 'attempt',
      text: `${test.title}: ${marks(score.points)} of ${marks(score.pointsMax)} marks, ${score.right} right, ${score.wrong} wrong, ${score.blank} blank`,
      attemptId: attempt.id,
    })
    return { attempt: { ...attempt, at: attempt.at.toISOString() }, standings }
  }
  // The same key with another test or another sheet is a mistake, and refused.
  return await db.transaction(store, { once: { key, user, request: ['attempt', testId, body] } })
}

/** The questions of a test in its order, none if there is no such test. */
export async function questionsOf(
  load: Load<ExamTables>,
  testId: string,
): Promise<readonly PlacedQuestion[]> {
  const places = await load.many(testQuestions.testId, testId)
  places.sort((a, b) => a.position - b.position)
  return await Promise.all(
    places.map(async ({ position, questionId }) => {
      const [question, answer] = await Promise.all([
        load.one(questions.id, questionId),
        load.one(answers.questionId, questionId),
      ])
      if (!question || !answer) throw new Fault('internal', `question ${questionId} is not whole`)
      return { position, question, answer }
    }),
  )
}

/**
 * Two attempts sent at once are two numbers: transactions come one after another. Within the insert,
 * because to a primary far away each statement is a round trip, and all of them have two seconds.
 */
function nextNumber(user: User, testId: string): SQL<number> {
  const own = and(eq(attempts.userId, user.id), eq(attempts.testId, testId))
  return sql<number>`(select coalesce(max(${attempts.number}), 0) + 1 from ${attempts} where ${own})`
}

async function count(
  tx: Tx,
  user: User,
  subject: string,
  points: number,
): Promise<AttemptResult['standings']> {
  return await tx
    .insert(leaderboard)
    .values(boardsOf(subject).map((board) => ({ board, userId: user.id, points, tests: 1 })))
    .onConflictDoUpdate({
      target: [leaderboard.board, leaderboard.userId],
      set: {
        points: sql`${leaderboard.points} + excluded.points`,
        tests: sql`${leaderboard.tests} + excluded.tests`,
      },
    })
    .returning()
}

/** Until the taker says otherwise (`PATCH /api/users/:id`): the token's `name`, if it has one. */
function nameOf({ name }: User): string {
  return typeof name === 'string' && name !== '' ? name.slice(0, 80).toWellFormed() : 'a taker'
}
