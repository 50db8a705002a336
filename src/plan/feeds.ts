/** Declared feeds, checked against the collections, topics and budgets they name. */
import type { CollectionPlan } from '../collections/collections.ts'
import type { FeedDeclaration, FeedOptions } from '../feeds/declare.ts'
import { everyMsMin, parseSchedule, type FeedPlan, type KeyedPlan } from '../feeds/feeds.ts'
import { compilePattern, type TopicPlan } from '../realtime/realtime.ts'
import { checkOptions, durationOf, type IsDeclared, type Report } from './report.ts'

const known = {
  served: [
    ...['every', 'aligned', 'jitter', 'adaptive', 'timeout', 'load', 'into', 'publish'],
    ...['budget', 'keyed', 'batch', 'idle'],
  ],
  notYet: [],
}

const timeoutDefaultMs = 30_000
const idleDefaultMs = 60_000

/** Of a call's URL or body: a hundred names of 44 characters are 4.5 KB. */
const batchDefault = 100
const batchMax = 1_000

interface Named {
  readonly collections: readonly CollectionPlan[]
  readonly topics: readonly TopicPlan[]
  readonly budgets: ReadonlySet<string>
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
    if (declaration?.kind !== 'feed') {
      report(at, 'must be feed({ … })')
      continue
    }
    const plan = compileFeed(name, declaration, at, named, report)
    const twin = plan.keyed && plans.find(({ keyed }) => keyed?.pattern === plan.keyed?.pattern)
    if (twin) report(`${at}.keyed`, `is what feed ${twin.name} publishes on`)
    plans.push(plan)
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
  checkEvery(options, at, report)
  const { budget, publish } = options
  if (publish !== undefined && !named.isDeclared(publish)) {
    report(`${at}.publish`, `no declared topic matches ${publish}`)
  }
  if (budget !== undefined && !named.budgets.has(budget)) {
    report(`${at}.budget`, `no budget is declared under ${budget}`)
  }
  if (options.into === undefined && publish === undefined && options.keyed === undefined) {
    report(at, 'needs into (collections), publish (a topic) or keyed (a topic for each key)')
  }
  const paths = options.into === undefined ? [] : [options.into].flat()
  const into = paths.flatMap((path) => {
    const plan = named.collections.find((one) => one.path === path)
    if (!plan) report(`${at}.into`, `no collection is declared at ${path}`)
    return plan ? [plan] : []
  })
  return {
    name,
    every: options.every,
    isAligned: options.aligned === true,
    jitterMs: durationOf(options.jitter, `${at}.jitter`, 0, report),
    adaptive: adaptiveOf(options, at, report),
    timeoutMs: durationOf(options.timeout, `${at}.timeout`, timeoutDefaultMs, report),
    load: options.load,
    into,
    isSingle: typeof options.into === 'string',
    publish,
    budget,
    keyed: keyedOf(options, at, named, report),
  }
}

function checkEvery({ every, aligned, jitter }: FeedOptions, at: string, report: Report): void {
  if (aligned !== undefined && typeof aligned !== 'boolean') {
    report(`${at}.aligned`, 'must be true or false')
  }
  if (typeof every === 'function') return
  if (typeof every === 'object' && every !== null) {
    if (!parseSchedule(every, false)) {
      const fields = 'minute, hour, day of the month, month and weekday'
      report(`${at}.every`, `${JSON.stringify(every)} is no { cron } of ${fields} that ever comes`)
    }
    if (aligned === true) report(`${at}.aligned`, 'is what cron is anyway: remove it')
    return
  }
  const everyMs = durationOf(every ?? null, `${at}.every`, everyMsMin, report)
  if (everyMs < everyMsMin) report(`${at}.every`, `must be at least ${everyMsMin}ms`)
  const jitterMs = durationOf(jitter, `${at}.jitter`, 0, () => undefined)
  if (jitterMs > everyMs) report(`${at}.jitter`, 'is longer than every')
}

const adaptiveOptions = { served: ['min', 'max'], notYet: [] }

function adaptiveOf(
  { adaptive, every, aligned }: FeedOptions,
  at: string,
  report: Report,
): FeedPlan['adaptive'] {
  if (adaptive === undefined) return undefined
  if (typeof adaptive !== 'object' || adaptive === null) {
    report(`${at}.adaptive`, 'must be { min, max }')
    return undefined
  }
  checkOptions(`${at}.adaptive.`, adaptive, adaptiveOptions, report)
  const minMs = durationOf(adaptive.min ?? null, `${at}.adaptive.min`, everyMsMin, report)
  const maxMs = durationOf(adaptive.max ?? null, `${at}.adaptive.max`, Infinity, report)
  if (minMs < everyMsMin) report(`${at}.adaptive.min`, `must be at least ${everyMsMin}ms`)
  if (minMs > maxMs) report(`${at}.adaptive`, 'has a min above its max')
  if (aligned === true || typeof every === 'object') {
    report(`${at}.adaptive`, 'is for an interval, not for fixed times')
  }
  return { minMs, maxMs }
}

function keyedOf(
  options: FeedOptions,
  at: string,
  { topics }: Named,
  report: Report,
): KeyedPlan | undefined {
  const { keyed, batch = batchDefault, idle, aligned, jitter, publish, every, into } = options
  if (keyed === undefined) {
    for (const name of ['batch', 'idle'] as const) {
      if (options[name] !== undefined) report(`${at}.${name}`, 'is for a keyed feed')
    }
    return undefined
  }
  if (publish !== undefined) report(`${at}.publish`, 'a keyed feed publishes on its own topics')
  if (typeof every === 'object') report(`${at}.every`, 'a keyed feed asks at intervals: no cron')
  for (const [name, value] of Object.entries({ aligned, jitter })) {
    if (value !== undefined)
      report(`${at}.${name}`, 'is not for a keyed feed: its calls are spread')
  }
  if (Array.isArray(into)) report(`${at}.into`, 'a keyed feed has rows for one collection')
  if (!Number.isInteger(batch) || batch < 1 || batch > batchMax) {
    report(`${at}.batch`, `must be an integer from 1 to ${batchMax}`)
  }
  const idleMs = durationOf(idle, `${at}.idle`, idleDefaultMs, report)
  const names = String(keyed).match(/\{\w+\}/g) ?? []
  const [parameter = ''] = names
  if (!topics.some(({ pattern }) => pattern === keyed)) {
    report(`${at}.keyed`, `no topic is declared as ${String(keyed)}`)
    return undefined
  }
  if (names.length !== 1) {
    report(`${at}.keyed`, 'must have one {parameter}: the key')
    return undefined
  }
  const { match } = compilePattern(keyed)
  return {
    pattern: keyed,
    // A function, because `$&` in a key would mean something else.
    topicOf: (key) => keyed.replace(parameter, () => key),
    keyOf: (topic) => match(topic)?.[parameter.slice(1, -1)],
    batch,
    idleMs,
  }
}
