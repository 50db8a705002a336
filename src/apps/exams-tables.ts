/**
 * What the exam-prep app stores. Every index is there for one filter and order of a collection
 * (`test/apps/exams-indexes.test.ts` asks SQLite for each), and its name says which.
 *
 *   sources ◄─ questions ◄─ answers          the bank: loaded once by `exams-seed.ts`
 *                  ▲
 *   tests ◄─ test_questions
 *     ▲
 *   attempts ─► users ◄─ leaderboard, study_plans, flashcards, notifications
 *
 * Marks are counted in HUNDREDTHS, as integers: a wrong answer of UPSC costs 0.66, and sums of fractions
 * would depend on the order in which they were added.
 */
import { desc, sql } from 'drizzle-orm'
import {
  check,
  index,
  integer,
  primaryKey,
  sqliteTable,
  text,
  uniqueIndex,
} from 'drizzle-orm/sqlite-core'

/** When the row was made, by the database's clock. */
const madeAt = () =>
  integer({ mode: 'timestamp_ms' })
    .notNull()
    .default(sql`(cast(unixepoch('subsec') * 1000 as integer))`)

/** Where questions come from, and on what terms they may be passed on. */
export const sources = sqliteTable('sources', {
  id: text().primaryKey(),
  title: text().notNull(),
  author: text().notNull(),
  url: text().notNull(),
  licence: text().notNull(),
  licenceUrl: text('licence_url').notNull(),
  notice: text().notNull(),
})

/** Without the right answer: that is in `answers`, which nobody may read. */
export const questions = sqliteTable(
  'questions',
  {
    id: text().primaryKey(),
    sourceId: text('source_id')
      .notNull()
      .references(() => sources.id),
    subject: text({ length: 80 }).notNull(),
    /** Empty where the source has none. */
    topic: text({ length: 80 }).notNull(),
    /** Of the paper; 0 for trivia, which has none. */
    year: integer().notNull(),
    text: text().notNull(),
    options: text({ mode: 'json' }).$type<readonly string[]>().notNull(),
  },
  (t) => [
    index('questions_subject').on(t.subject, t.id),
    index('questions_subject_year').on(t.subject, t.year, t.id),
    index('questions_topic').on(t.topic, t.id),
    index('questions_topic_subject').on(t.topic, t.subject, t.id),
    index('questions_topic_year').on(t.topic, t.year, t.id),
    index('questions_year').on(t.year, t.id),
    index('questions_year_subject').on(t.year, t.subject, t.id),
  ],
)

export const answers = sqliteTable('answers', {
  questionId: text('question_id')
    .primaryKey()
    .references(() => questions.id),
  /** 0-based, into the question's options. */
  answer: integer().notNull(),
  explanation: text(),
})

export const tests = sqliteTable(
  'tests',
  {
    id: text().primaryKey(),
    title: text().notNull(),
    /** Also the board that its attempts count on. */
    subject: text({ length: 80 }).notNull(),
    /** Of the paper; 0 for a set of trivia. */
    year: integer().notNull(),
    questionCount: integer('question_count').notNull(),
    /** Advice to the taker; nobody is stopped. */
    minutes: integer().notNull(),
    /** Hundredths of a mark for a right and for a wrong answer; the second is 0 or below. */
    rightPoints: integer('right_points').notNull(),
    wrongPoints: integer('wrong_points').notNull(),
  },
  (t) => [
    index('tests_subject').on(t.subject, t.id),
    index('tests_subject_year').on(t.subject, t.year, t.id),
    index('tests_year').on(t.year, t.id),
  ],
)

/** The key is the order: "questions of this test, by position" needs no index of its own. */
export const testQuestions = sqliteTable(
  'test_questions',
  {
    testId: text('test_id')
      .notNull()
      .references(() => tests.id),
    /** From 1. */
    position: integer().notNull(),
    questionId: text('question_id')
      .notNull()
      .references(() => questions.id),
  },
  (t) => [primaryKey({ columns: [t.testId, t.position] })],
)

/** How far the bank is loaded: a batch and its number are written in one transaction. */
export const bankLoads = sqliteTable('bank_loads', {
  /** Of what is loaded. */
  version: text().primaryKey(),
  /** Stored so far, of how many. */
  batches: integer().notNull(),
  total: integer().notNull(),
})

/** A taker as others see them. Whoever goes takes everything along. */
export const users = sqliteTable('users', {
  /** The token's `sub`. */
  id: text({ length: 200 }).primaryKey(),
  name: text({ length: 80 }).notNull(),
})

const owner = () =>
  text('user_id')
    .notNull()
    .references(() => users.id, { onDelete: 'cascade' })

/** Made by `POST /api/tests/:id/attempts` only; never changed. */
export const attempts = sqliteTable(
  'attempts',
  {
    id: integer().primaryKey({ autoIncrement: true }),
    userId: owner(),
    testId: text('test_id')
      .notNull()
      .references(() => tests.id),
    /** The taker's first, second … of this test. Only the first counts on the leaderboard. */
    number: integer().notNull(),
    /** By question, the option that was chosen; what is not there was left blank. */
    given: text({ mode: 'json' }).$type<Readonly<Record<string, number>>>().notNull(),
    right: integer().notNull(),
    wrong: integer().notNull(),
    blank: integer().notNull(),
    /** Hundredths of a mark. */
    points: integer().notNull(),
    pointsMax: integer('points_max').notNull(),
    at: madeAt(),
  },
  (t) => [
    uniqueIndex('attempts_number').on(t.userId, t.testId, t.number),
    index('attempts_newest').on(t.userId, t.id),
    index('attempts_test_newest').on(t.userId, t.testId, t.id),
    index('attempts_best').on(t.userId, t.points, t.id),
    index('attempts_test_best').on(t.userId, t.testId, t.points, t.id),
  ],
)

/** A sum over first attempts: by subject, and over all of them on the board `all`. */
export const leaderboard = sqliteTable(
  'leaderboard',
  {
    board: text().notNull(),
    userId: owner(),
    points: integer().notNull(),
    /** Tests that were counted. */
    tests: integer().notNull(),
  },
  (t) => [
    primaryKey({ columns: [t.board, t.userId] }),
    index('leaderboard_top').on(t.board, desc(t.points), desc(t.userId)),
    // For the account that goes.
    index('leaderboard_user').on(t.userId),
  ],
)

export const studyPlans = sqliteTable(
  'study_plans',
  {
    id: integer().primaryKey({ autoIncrement: true }),
    userId: owner(),
    subject: text({ length: 80 }).notNull(),
    goal: text({ length: 500 }).notNull(),
    questionsPerDay: integer('questions_per_day').notNull().default(20),
    examAt: integer('exam_at', { mode: 'timestamp_ms' }).notNull(),
    isDone: integer('is_done', { mode: 'boolean' }).notNull().default(false),
  },
  (t) => [
    // A refused value is told by the constraint's name: the column's.
    check('questions_per_day', sql`${t.questionsPerDay} between 1 and 500`),
    index('study_plans_soonest').on(t.userId, t.examAt, t.id),
    index('study_plans_done_soonest').on(t.userId, t.isDone, t.examAt, t.id),
  ],
)

export const flashcards = sqliteTable(
  'flashcards',
  {
    id: integer().primaryKey({ autoIncrement: true }),
    userId: owner(),
    deck: text({ length: 80 }).notNull(),
    front: text({ length: 2_000 }).notNull(),
    back: text({ length: 2_000 }).notNull(),
    /** Where it was made from; may be nowhere. */
    questionId: text('question_id').references(() => questions.id),
    /** Of a Leitner box: 0 is new, and the higher, the better known. */
    box: integer().notNull().default(0),
    dueAt: integer('due_at', { mode: 'timestamp_ms' }).notNull(),
  },
  (t) => [
    check('box', sql`${t.box} between 0 and 10`),
    index('flashcards_due').on(t.userId, t.dueAt, t.id),
    index('flashcards_deck_due').on(t.userId, t.deck, t.dueAt, t.id),
    index('flashcards_newest').on(t.userId, t.id),
    index('flashcards_deck_newest').on(t.userId, t.deck, t.id),
  ],
)

export const notifications = sqliteTable(
  'notifications',
  {
    id: integer().primaryKey({ autoIncrement: true }),
    userId: owner(),
    kind: text({ enum: ['attempt'] }).notNull(),
    text: text().notNull(),
    attemptId: integer('attempt_id').references(() => attempts.id, { onDelete: 'cascade' }),
    isRead: integer('is_read', { mode: 'boolean' }).notNull().default(false),
    at: madeAt(),
  },
  (t) => [
    index('notifications_newest').on(t.userId, t.id),
    index('notifications_unread').on(t.userId, t.isRead, t.id),
    index('notifications_attempt').on(t.attemptId),
  ],
)
