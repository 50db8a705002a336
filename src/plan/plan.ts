/**
 * Declarations → one checked, frozen Plan. Pure: no socket, no file, no environment.
 *
 * Invariant: what compiles can be served. ALL problems of an app file are reported at once, each
 * naming its key in the file, so that a user mends them in one go.
 */
import type { SQLiteTable } from 'drizzle-orm/sqlite-core'
import type { CollectionPlan } from '../collections/collections.ts'
import { Fault, type FieldProblem } from '../fault.ts'
import type { FeedPlan } from '../feeds/feeds.ts'
import type { TopicPlan } from '../realtime/realtime.ts'
import { compileCollections } from './collections.ts'
import type { AppDeclaration, AppOptions } from './declare.ts'
import { compileFeeds } from './feeds.ts'
import { compileTopics } from './topics.ts'

export interface Plan {
  readonly name: string
  readonly collections: readonly CollectionPlan[]
  /** Each table once, whichever collections serve it. */
  readonly tables: readonly SQLiteTable[]
  readonly topics: readonly TopicPlan[]
  readonly feeds: readonly FeedPlan[]
  readonly page: AppOptions['page']
}

/** `report(key, message)`: `key` is where in the app file, as `collections.prices/live.ttl`. */
export type Report = (key: string, message: string) => void

/** Parts of an app that have a name already and are served by a later version. */
const notYet = ['auth', 'jobs', 'budgets', 'limits', 'routes'] as const

const known = ['name', 'collections', 'topics', 'feeds', 'page', ...notYet]

/** Faults: `invalid`, with every problem of the file. */
export function compilePlan(declaration: unknown): Plan {
  const problems: FieldProblem[] = []
  const report: Report = (field, message) => void problems.push({ field, message })
  const plan = compile(declaration, report)
  if (problems.length > 0 || !plan) throw problemsFault(problems)
  return plan
}

function compile(declaration: unknown, report: Report): Plan | undefined {
  if (!isApp(declaration)) {
    report('default', 'the app file must default-export app({ … })')
    return undefined
  }
  const { options } = declaration
  reportUnknownKeys('', options, known, report)
  reportNotYet('', options, notYet, report)
  if (typeof options.name !== 'string' || !/^[a-z][a-z0-9-]{0,39}$/.test(options.name)) {
    report('name', 'must be 1 to 40 lower-case letters, digits and dashes, and start with a letter')
  }
  const topics = compileTopics(options.topics ?? {}, report)
  const collections = compileCollections(options.collections ?? {}, report)
  const feeds = compileFeeds(options.feeds ?? {}, { collections, topics }, report)
  const tables = [...new Set(collections.map(({ table }) => table))]
  const { page } = options
  return Object.freeze({ name: options.name, collections, tables, topics, feeds, page })
}

function isApp(value: unknown): value is AppDeclaration {
  return typeof value === 'object' && value !== null && 'kind' in value && value.kind === 'app'
}

function problemsFault(problems: readonly FieldProblem[]): Fault {
  const count = problems.length === 1 ? 'one problem' : `${problems.length} problems`
  return new Fault('invalid', `the app file has ${count}`, { fields: problems })
}

/** A misspelt option would otherwise be a policy that silently is not there. */
export function reportUnknownKeys(
  at: string,
  value: object,
  keys: readonly string[],
  report: Report,
): void {
  for (const key of Object.keys(value)) {
    if (!keys.includes(key)) report(`${at}${key}`, `is not an option (${keys.join(', ')})`)
  }
}

export function reportNotYet(
  at: string,
  value: object,
  keys: readonly string[],
  report: Report,
): void {
  for (const key of keys) {
    if ((value as Record<string, unknown>)[key] !== undefined) {
      report(`${at}${key}`, 'is not served yet by this version: remove it')
    }
  }
}
