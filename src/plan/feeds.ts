/** Declared feeds, checked against the collections and topics they name. */
import type { CollectionPlan } from '../collections/collections.ts'
import type { FeedDeclaration } from '../feeds/declare.ts'
import { everyMsMin, type FeedPlan } from '../feeds/feeds.ts'
import { checkOptions, durationOf, type IsDeclared, type Report } from './report.ts'

const known = {
  served: ['every', 'timeout', 'load', 'into', 'publish'],
  notYet: ['budget', 'keyed', 'batch'],
}

const timeoutDefaultMs = 30_000

interface Named {
  readonly collections: readonly CollectionPlan[]
  readonly isDeclared: IsDeclared
}

export function compileFeeds(
  declared: Readonly<Record<string, FeedDeclaration>>,
  named: Named,
  report: Report,
): FeedPlan[] {
  const plans: FeedPlan[] = []
  for (const [name, declaration] of Object.entries(declared)) {
    const at = `feeds.${name}`
    if (declaration?.kind !== 'feed') report(at, 'must be feed({ … })')
    else plans.push(compileFeed(name, declaration, at, named, report))
  }
  return plans
}

function compileFeed(
  name: string,
  { options }: FeedDeclaration,
  at: string,
  named: Named,
  report: Report,
): FeedPlan {
  checkOptions(`${at}.`, options, known, report)
  if (typeof options.load !== 'function') report(`${at}.load`, 'must be a function')
  const { every, publish } = options
  if (typeof every !== 'function') {
    const everyMs = durationOf(every ?? null, `${at}.every`, everyMsMin, report)
    if (everyMs < everyMsMin) report(`${at}.every`, `must be at least ${everyMsMin}ms`)
  }
  if (publish !== undefined && !named.isDeclared(publish)) {
    report(`${at}.publish`, `no declared topic matches ${publish}`)
  }
  if (options.into === undefined && publish === undefined) {
    report(at, 'needs into (collections) or publish (a topic)')
  }
  const paths = options.into === undefined ? [] : [options.into].flat()
  const into = paths.flatMap((path) => {
    const plan = named.collections.find((one) => one.path === path)
    if (!plan) report(`${at}.into`, `no collection is declared at ${path}`)
    return plan ? [plan] : []
  })
  return {
    name,
    every,
    timeoutMs: durationOf(options.timeout, `${at}.timeout`, timeoutDefaultMs, report),
    load: options.load,
    into,
    isSingle: typeof options.into === 'string',
    publish,
  }
}
