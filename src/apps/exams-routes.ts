/**
 * What collections cannot say by themselves:
 *
 *   POST /api/tests/:id/attempts       score an answer sheet, store it with what follows from it
 *   GET  /api/attempts/:id/review      the right answers, once one has tried
 *   GET  /api/notifications/stream     one's own notifications, as server-sent events
 */
import type { Load, Routes, User } from '../kit.ts'
import { Fault } from '../fault.ts'
import { questionsOf, submitAttempt, type ExamTables } from './exams-attempt.ts'
import { notificationTopic } from './exams-notify.ts'
import { attempts } from './exams-tables.ts'

export const examRoutes: Routes = (server, { db, topics }) =>
  server
    .post('/api/tests/:id/attempts', async ({ params, body, user, load, request, set }) => {
      const taker = signedIn(user, 'to take a test')
      const key = request.headers.get('idempotency-key')
      const result = await submitAttempt(
        { db, load },
        { user: taker, testId: params.id, body, key },
      )
      set.status = 201
      set.headers['location'] = `/api/attempts/${result.attempt.id}`
      return result
    })
    .get('/api/attempts/:id/review', async ({ params, user, load, set }) => {
      const review = await reviewOf(load, signedIn(user, 'to review an attempt'), params.id)
      set.headers['cache-control'] = 'no-store'
      return review
    })
    .get('/api/notifications/stream', ({ user, request }) => {
      const listener = signedIn(user, 'to hear your notifications')
      const topic = notificationTopic(listener.id)
      if (topic === null) throw new Fault('invalid', 'this user id is too long to be heard')
      return topics.stream(request, [topic])
    })

function signedIn(user: User | null, what: string): User {
  if (!user) throw new Fault('unauthenticated', `sign in ${what}`)
  return user
}

/** Faults: `not_found`, which an attempt of somebody else is, too. */
async function reviewOf(load: Load<ExamTables>, user: User, id: string): Promise<object> {
  const attempt = /^\d{1,15}$/.test(id) ? await load.one(attempts.id, Number(id)) : undefined
  if (!attempt || attempt.userId !== user.id) throw new Fault('not_found', 'no such attempt')
  const given = new Map(Object.entries(attempt.given))
  const placed = await questionsOf(load, attempt.testId)
  return {
    attemptId: attempt.id,
    testId: attempt.testId,
    items: placed.map(({ position, question, answer: { answer, explanation } }) => ({
      position,
      question,
      given: given.get(question.id) ?? null,
      answer,
      isRight: given.get(question.id) === answer,
      explanation,
    })),
  }
}
