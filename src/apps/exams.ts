/**
 * Exam preparation: `belfry serve --app exams`. 16,954 real questions, tests made of them, attempts that the
 * server scores, a leaderboard, study plans, flashcards and notifications that arrive live.
 *
 * Who sees what: the bank, the tests and the leaderboard are common; what a taker makes is the taker's own,
 * and somebody else's is a 404; right answers are read by nobody, and told after an attempt only
 * (`GET /api/attempts/:id/review`). Data and its licences: db/samples/exams/SOURCE.md.
 */
import { app, asc, collection, desc, feed, topic } from '../kit.ts'

import { examRoutes } from './exams-routes.ts'
import { loadBank } from './exams-seed.ts'
import {
  answers,
  attempts,
  bankLoads,
  flashcards,
  leaderboard,
  notifications,
  questions,
  sources,
  studyPlans,
  testQuestions,
  tests,
  users,
} from './exams-tables.ts'
import { notificationTopic } from './exams-notify.ts'
import { own, type Asker } from './own-rows.ts'

const asOwner = ({ user }: Asker) => user && { userId: user.id }

/** May change the row, but not give it to somebody else. */
const ifOwner = ({ user, row }: Asker & { readonly row: { readonly userId: string } }) =>
  row.userId === user?.id && { userId: row.userId }

const isOwner = ({ user, row }: Asker & { readonly row: { readonly userId: string } }) =>
  row.userId === user?.id

export default app({
  name: 'exams',

  collections: {
    // The bank. Changes only when another version of the files is loaded.
    sources: collection(sources, { ttl: '1h', stale: '1d', read: 'public' }),
    questions: collection(questions, {
      ttl: '5m',
      stale: '1h',
      read: 'public',
      filters: ['subject', 'topic', 'year'],
      orders: {
        id: asc(questions.id),
        subject: [asc(questions.subject), asc(questions.id)],
        newest: [desc(questions.year), desc(questions.id)],
      },
      expand: { source: questions.sourceId },
    }),
    // No rule: nobody reads them, whatever their role. They are here because feeds write collections.
    answers: collection(answers, {}),
    bank: collection(bankLoads, {}),

    tests: collection(tests, {
      ttl: '5m',
      stale: '1h',
      read: 'public',
      filters: ['subject', 'year'],
      orders: { id: asc(tests.id), newest: [desc(tests.year), desc(tests.id)] },
      children: { questions: testQuestions.testId, attempts: attempts.testId },
    }),
    'test-questions': collection(testQuestions, {
      ttl: '5m',
      stale: '1h',
      read: 'public',
      filters: ['testId'],
      expand: { question: testQuestions.questionId },
    }),

    users: collection(users, {
      ttl: '5m',
      read: 'signed-in',
      create: ({ user }) => user && { id: user.id },
      update: ({ user, row }) => row.id === user?.id,
      remove: ({ user, row }) => row.id === user?.id,
    }),
    // Written by `POST /api/tests/:id/attempts` alone.
    attempts: collection(attempts, {
      ttl: '60s',
      read: own(attempts.userId),
      filters: ['testId'],
      orders: { newest: desc(attempts.id), best: [desc(attempts.points), desc(attempts.id)] },
      expand: { test: attempts.testId },
    }),
    leaderboard: collection(leaderboard, {
      ttl: '5m',
      stale: '1h',
      read: 'signed-in',
      filters: ['board'],
      orders: { top: [asc(leaderboard.board), desc(leaderboard.points), desc(leaderboard.userId)] },
      expand: { user: leaderboard.userId },
      live: ({ board }) => `leaderboard:${board}`,
    }),
    'study-plans': collection(studyPlans, {
      ttl: '60s',
      read: own(studyPlans.userId),
      create: asOwner,
      update: ifOwner,
      remove: isOwner,
      filters: ['isDone'],
      orders: { soonest: asc(studyPlans.examAt) },
    }),
    flashcards: collection(flashcards, {
      ttl: '60s',
      read: own(flashcards.userId),
      create: asOwner,
      update: ifOwner,
      remove: isOwner,
      filters: ['deck'],
      orders: { due: asc(flashcards.dueAt), newest: desc(flashcards.id) },
      expand: { question: flashcards.questionId },
    }),
    notifications: collection(notifications, {
      ttl: '30s',
      read: own(notifications.userId),
      // To be marked as read is all that happens to one.
      update: ({ user, row, input }) =>
        row.userId === user?.id && Object.keys(input).every((column) => column === 'isRead'),
      remove: isOwner,
      filters: ['isRead'],
      orders: { newest: desc(notifications.id) },
      live: ({ userId }) => notificationTopic(userId),
    }),
  },

  topics: {
    'leaderboard:{board}': topic({ subscribe: 'signed-in', history: { size: 20, ttl: '5m' } }),
    'notifications:{user}': topic({
      subscribe: ({ user, params }) =>
        user !== null && notificationTopic(user.id) === `notifications:${params.user}`,
      history: { size: 50, ttl: '1h' },
    }),
  },

  feeds: {
    // Some ten seconds at the first start; afterwards a tick does nothing at all.
    bank: feed({
      every: '100ms',
      into: ['sources', 'questions', 'answers', 'tests', 'test-questions', 'bank'],
      load: loadBank,
    }),
  },

  routes: examRoutes,
})
