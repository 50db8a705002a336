/**
 * Declarations → one checked, frozen Plan. Pure: no socket, no file, no environment.
 *
 * Invariant: what compiles can be served. ALL problems of an app file are reported at once, each
 * naming its key in the file, so that a user mends them in one go.
 */
import type { SQLiteTable } from 'drizzle-orm/sqlite-core'
import type { AccountsPlan, CheckClaims } from '../auth/auth.ts'
import type { BackupPlan } from '../backup/backup.ts'
import type { CollectionPlan } from '../collections/collections.ts'
import { Fault, type FieldProblem } from '../fault.ts'
import type { FeedPlan } from '../feeds/feeds.ts'
import type { TopicPlan } from '../realtime/realtime.ts'
import type { BudgetPlan, ProxyPlan } from '../upstream/upstream.ts'
import { compileAccounts } from './accounts.ts'
import { compileClaims } from './auth.ts'
import { compileBackup } from './backup.ts'
import { compileCollections } from './collections.ts'
import type { AppDeclaration, AppOptions } from './declare.ts'
import { compileFeeds } from './feeds.ts'
import { compileDoorLimits, compileNamed, type LimitsPlan } from './limits.ts'
import { checkOptions, type IsDeclared, type Report } from './report.ts'
import { compileTopics } from './topics.ts'
import { compileBudgets, compileProxies } from './upstream.ts'

export type { LimitsPlan } from './limits.ts'

export interface Plan {
  readonly name: string
  readonly collections: readonly CollectionPlan[]
  /** Each table once, whichever collections serve it, and the tables these refer to. */
  readonly tables: readonly SQLiteTable[]
  readonly topics: readonly TopicPlan[]
  readonly feeds: readonly FeedPlan[]
  readonly budgets: readonly BudgetPlan[]
  readonly proxies: readonly ProxyPlan[]
  readonly page: AppOptions['page']
  readonly routes: AppOptions['routes']
  readonly limits: LimitsPlan
  /** What users' tokens must say. */
  readonly claims: CheckClaims | undefined
  /** Absent: backups are made when asked only. */
  readonly backup: BackupPlan | undefined
  /** Absent: users come with tokens of somebody else. */
  readonly accounts: AccountsPlan | undefined
}

const known = {
  served: [
    ...['name', 'collections', 'topics', 'feeds', 'budgets', 'proxies'],
    ...['page', 'routes', 'backup', 'limits', 'auth'],
  ],
  notYet: ['jobs'],
}

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
  checkOptions('', options, known, report)
  if (typeof options.name !== 'string' || !/^[a-z][a-z0-9-]{0,39}$/.test(options.name)) {
    report('name', 'must be 1 to 40 lower-case letters, digits and dashes, and start with a letter')
  }
  const named = compileNamed(options.limits, report)
  const topics = compileTopics(options.topics ?? {}, named, report)
  const isDeclared = namesIn(options, topics)
  const { collections, tables } = compileCollections(options.collections ?? {}, isDeclared, report)
  const budgets = compileBudgets(options.budgets, report)
  const feeds = compileFeeds(
    options.feeds ?? {},
    { collections, topics, isDeclared, budgets: new Set(budgets.map((one) => one.name)) },
    report,
  )
  const paths = collections.map(({ path }) => path)
  const among = { budgets, limits: named, collections: paths }
  const proxies = compileProxies(options.proxies, among, report)
  const { name, page, routes } = options
  if (routes !== undefined && typeof routes !== 'function') {
    report('routes', 'must be a function of the server')
  }
  const limits = {
    named,
    collections: compileDoorLimits(options.collections ?? {}, named, report),
  }
  const backup = compileBackup(options.backup, report)
  const claims = compileClaims(options.auth, report)
  const accounts = compileAccounts(options.auth, { named, claims }, report)
  const upstream = { budgets, proxies }
  return Object.freeze({
    ...{ name, collections, tables, topics, feeds, ...upstream },
    ...{ page, routes, limits, backup, claims, accounts },
  })
}

/** A pattern that is wrong has been reported: what names its topics is not wrong as well. */
function namesIn({ topics = {} }: AppOptions, compiled: readonly TopicPlan[]): IsDeclared {
  const isWhole = compiled.length === Object.keys(topics).length
  return (topic) => !isWhole || compiled.some(({ matcher }) => matcher.match(topic))
}

function isApp(value: unknown): value is AppDeclaration {
  return typeof value === 'object' && value !== null && 'kind' in value && value.kind === 'app'
}

function problemsFault(problems: readonly FieldProblem[]): Fault {
  const count = problems.length === 1 ? 'one problem' : `${problems.length} problems`
  return new Fault('invalid', `the app file has ${count}`, { fields: problems })
}

/** What is encoded for these columns and orders is for nobody who has others. */
export function schemaOf({ collections }: Plan): string {
  const shapes = collections.map(({ path, columns, orders, expand, hide }) => {
    const sorted = [...orders].map(([name, by]) => [
      name,
      by.map((one) => [one.column.name, one.descending]),
    ])
    return [
      path,
      [...columns.keys()],
      sorted,
      [...expand].map(([name, one]) => [name, one.target.path]),
      [hide.always.map(([property]) => property), hide.rules.map(([property]) => property)],
    ]
  })
  return Bun.hash(JSON.stringify(shapes)).toString(36)
}
