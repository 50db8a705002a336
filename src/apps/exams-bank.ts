/**
 * The question banks that ship with the app (db/samples/exams/SOURCE.md) → rows, in batches.
 *
 *   file ─► gunzip, a chunk at a time ─► lines ─► Item ─► batches: questions with their answers, then tests
 *
 * Invariants: a batch refers only to itself and to batches before it; a test is in one batch with all of
 * its questions, so nobody sees half of one; no question is in two tests, so that what a taker is told
 * after one test is of no use in another. Reading is asynchronous: 7 MB of text would hold the event loop
 * for a tenth of a second.
 */
import { Fault } from '../fault.ts'
import triviaFile from '../../db/samples/exams/opentriviaqa/opentriviaqa_7categories.jsonl.gz' with { type: 'file' }
import upscFile from '../../db/samples/exams/upsc/upsc_prelims_gs1.jsonl.gz' with { type: 'file' }
import type { answers, questions, sources, testQuestions, tests } from './exams-tables.ts'
import { sampleLines } from './sample-lines.ts'

/** One question as the app knows it, with its answer. */
export interface Item {
  readonly question: typeof questions.$inferInsert
  readonly answer: typeof answers.$inferInsert
}

/** Rows by collection path: what one tick of the feed gives. */
export interface BankBatch {
  readonly sources: readonly (typeof sources.$inferInsert)[]
  readonly questions: readonly (typeof questions.$inferInsert)[]
  readonly answers: readonly (typeof answers.$inferInsert)[]
  readonly tests: readonly (typeof tests.$inferInsert)[]
  readonly 'test-questions': readonly (typeof testQuestions.$inferInsert)[]
}

/** Rows of a batch, at most: one transaction of about 10 ms, so that writers wait no longer for it. */
export const batchRowsMax = 500

/** A set of trivia; what is left over of a category (at most 24) is in no set. */
const setSize = 25

/** A year with fewer questions than this was not the whole paper. */
const paperSizeMin = 50

export const sourceRows: readonly (typeof sources.$inferInsert)[] = [
  {
    id: 'upsc',
    title: 'UPSC Civil Services Prelims, General Studies Paper 1, 2011 to 2024',
    author: 'Union Public Service Commission (questions), Srinivas (explanations)',
    url: 'https://github.com/mous9270/upsc',
    licence: 'MIT',
    licenceUrl: 'https://opensource.org/license/mit',
    notice: 'Copyright (c) 2025 Srinivas. Duplicates and questions with images were left out.',
  },
  {
    id: 'opentriviaqa',
    title: 'OpenTriviaQA, seven categories',
    author: 'uberspot and the contributors of OpenTriviaQA',
    url: 'https://github.com/uberspot/OpenTriviaQA',
    licence: 'CC BY-SA 4.0',
    licenceUrl: 'https://creativecommons.org/licenses/by-sa/4.0/',
    notice:
      'Share-alike: whoever passes these questions on does so under the same licence. Converted to JSON, ids added.',
  },
]

/** Changes with the files and with what is made of them: another version is loaded over the one before. */
export async function bankVersion(): Promise<string> {
  const bytes = await Promise.all([upscFile, triviaFile].map((path) => Bun.file(path).bytes()))
  return `1-${bytes.map((one) => Bun.hash(one).toString(36)).join('-')}`
}

/** Both banks in file order. Faults: `internal` if a file is not what it was made to be. */
export async function readBank(): Promise<Item[]> {
  const items: Item[] = []
  for await (const some of sampleLines(upscFile)) items.push(...some.map(parseUpsc))
  for await (const some of sampleLines(triviaFile)) items.push(...some.map(parseTrivia))
  return items
}

export function bankBatches(items: readonly Item[]): BankBatch[] {
  return [
    { ...nothing, sources: sourceRows },
    ...chunks(items, batchRowsMax / 2).map((some) => ({
      ...nothing,
      questions: some.map(({ question }) => question),
      answers: some.map(({ answer }) => answer),
    })),
    ...testBatches([...papersOf(items), ...setsOf(items)]),
  ]
}

const nothing: BankBatch = {
  ...{ sources: [], questions: [], answers: [], tests: [] },
  'test-questions': [],
}

interface TestWithQuestions {
  readonly test: typeof tests.$inferInsert
  readonly questionIds: readonly string[]
}

/** UPSC gives two marks for a right answer and takes a third of that, rounded down, for a wrong one. */
function papersOf(items: readonly Item[]): TestWithQuestions[] {
  const papers = Map.groupBy(
    items.filter(({ question }) => question.sourceId === 'upsc'),
    ({ question }) => question.year,
  )
  return [...papers]
    .filter(([, paper]) => paper.length >= paperSizeMin)
    .map(([year, paper]) => ({
      test: {
        id: `upsc-gs1-${year}`,
        title: `UPSC GS1 ${year}`,
        subject: 'upsc-gs1',
        year,
        questionCount: paper.length,
        ...{ minutes: 120, rightPoints: 200, wrongPoints: -66 },
      },
      questionIds: paper.map(({ question }) => question.id),
    }))
}

function setsOf(items: readonly Item[]): TestWithQuestions[] {
  const categories = Map.groupBy(
    items.filter(({ question }) => question.sourceId === 'opentriviaqa'),
    ({ question }) => question.subject,
  )
  return [...categories].flatMap(([category, all]) => {
    const sets = chunks(all, setSize).filter((set) => set.length === setSize)
    return sets.map((set, at) => ({
      test: {
        id: `${category}-${String(at + 1).padStart(3, '0')}`,
        title: `${titled(category)}: ${setSize} questions, ${at + 1} of ${sets.length}`,
        subject: category,
        year: 0,
        questionCount: setSize,
        ...{ minutes: 15, rightPoints: 100, wrongPoints: 0 },
      },
      questionIds: set.map(({ question }) => question.id),
    }))
  })
}

function testBatches(all: readonly TestWithQuestions[]): BankBatch[] {
  const batches: TestWithQuestions[][] = []
  let rows = Infinity
  for (const one of all) {
    const count = 1 + one.questionIds.length
    rows += count
    if (rows > batchRowsMax) {
      batches.push([])
      rows = count
    }
    batches.at(-1)?.push(one)
  }
  return batches.map((batch) => ({
    ...nothing,
    tests: batch.map(({ test }) => test),
    'test-questions': batch.flatMap(({ test, questionIds }) =>
      questionIds.map((questionId, at) => ({ testId: test.id, position: at + 1, questionId })),
    ),
  }))
}

function chunks<T>(all: readonly T[], size: number): T[][] {
  const count = Math.ceil(all.length / size)
  return Array.from({ length: count }, (_, at) => all.slice(at * size, (at + 1) * size))
}

/** `science-technology` → `Science technology`. */
function titled(category: string): string {
  const words = category.replaceAll('-', ' ')
  return words.charAt(0).toUpperCase() + words.slice(1)
}

/** Faults: `internal`, naming the line's id. */
export function parseUpsc(line: string): Item {
  const { text, number, options, answer } = reader(line)
  const id = text('id')
  return {
    question: {
      id,
      sourceId: 'upsc',
      subject: text('subject'),
      topic: text('topic'),
      year: number('year'),
      text: text('question'),
      options: options(),
    },
    answer: { questionId: id, answer: answer(), explanation: text('explanation', '') || null },
  }
}

/** Faults: as above. */
export function parseTrivia(line: string): Item {
  const { text, options, answer } = reader(line)
  const id = text('id')
  return {
    question: {
      id,
      sourceId: 'opentriviaqa',
      subject: text('category'),
      topic: '',
      year: 0,
      text: text('question'),
      options: options(),
    },
    answer: { questionId: id, answer: answer(), explanation: null },
  }
}

function reader(line: string) {
  const value: unknown = JSON.parse(line)
  const row: Readonly<Record<string, unknown>> =
    typeof value === 'object' && value !== null ? { ...value } : {}
  const fault = (field: string, message: string): Fault =>
    new Fault('internal', `question bank: ${String(row['id'])}: ${field} ${message}`)

  const text = (field: string, otherwise?: string): string => {
    const found = row[field] ?? otherwise
    if (typeof found !== 'string' || (found === '' && otherwise === undefined)) {
      throw fault(field, 'is no text')
    }
    return found
  }
  const number = (field: string): number => {
    const found = row[field]
    if (typeof found !== 'number' || !Number.isInteger(found)) throw fault(field, 'is no integer')
    return found
  }
  const options = (): readonly string[] => {
    const found = row['options']
    const isList = Array.isArray(found) && found.length >= 2
    if (!isList || !found.every((one) => typeof one === 'string')) {
      throw fault('options', 'is no list of two or more texts')
    }
    return found
  }
  const answer = (): number => {
    const found = number('answer')
    if (found < 0 || found >= options().length) throw fault('answer', 'is none of the options')
    return found
  }
  return { text, number, options, answer }
}
