/** Declared feeds, checked against the collections, topics and budgets they name. */
import type { CollectionPlan } from '../collections/collections.ts'
import type { FeedDeclaration, FeedOptions, StreamFeedOptions } from '../feeds/declare.ts'
import {
  everyMsMin,
  parseSchedule,
  streamKindOf,
  type FeedPlan,
  type KeyedPlan,
  type StreamPlan,
} from '../feeds/feeds.ts'
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
    const { options } = declaration
    const plan =
      'stream' in options
        ? compileStreamFeed(name, options, at, named, report)
        : compileFeed(name, options, at, named, report)
    const twin = plan.keyed && plans.find(({ keyed }) => keyed?.pattern === plan.keyed?.pattern)
    if (twin) report(`${at}.keyed`, `is what feed ${twin.name} publishes on`)
    plans.push(plan)
  }
  return plans
}

function compileFeed(
  name: string,
  options: FeedOptions,
  at: string,
  named: Named,
  report: Report,
): FeedPlan {
  checkOptions(`${at}.`, options, known, report)
  if (typeof options.load !== 'function') report(`${at}.load`, 'must be a function')
  checkEvery(options, at, report)
  const { budget, publish } = options
  checkBudget(budget, at, named, report)
  if (options.into === undefined && publish === undefined && options.keyed === undefined) {
    report(at, 'needs into (collections), publish (a topic) or keyed (a topic for each key)')
  }
  return {
    name,
    ...targetsOf(options, at, named, report),
    every: options.every,
    isAligned: options.aligned === true,
    jitterMs: durationOf(options.jitter, `${at}.jitter`, 0, report),
    adaptive: adaptiveOf(options, at, report),
    timeoutMs: durationOf(options.timeout, `${at}.timeout`, timeoutDefaultMs, report),
    load: options.load,
    budget,
    keyed: keyedOf(options, at, named, report),
    stream: undefined,
  }
}

function checkBudget(
  budget: string | undefined,
  at: string,
  { budgets }: Named,
  report: Report,
): void {
  if (budget === undefined || budgets.has(budget)) return
  report(`${at}.budget`, `no budget is declared under ${budget}`)
}

/** Where what it hears goes. */
function targetsOf(
  { into: declared, publish, keyed }: Pick<FeedOptions, 'into' | 'publish' | 'keyed'>,
  at: string,
  named: Named,
  report: Report,
): Pick<FeedPlan, 'into' | 'isSingle' | 'publish' | 'isKept'> {
  if (publish !== undefined && !named.isDeclared(publish)) {
    report(`${at}.publish`, `no declared topic matches ${publish}`)
  }
  const paths = declared === undefined ? [] : [declared].flat()
  const into = paths.flatMap((path) => {
    const plan = named.collections.find((one) => one.path === path)
    if (!plan) report(`${at}.into`, `no collection is declared at ${path}`)
    return plan ? [plan] : []
  })
  const isKept = named.topics.some(({ pattern, matcher, persist }) => {
    const isOwn = pattern === keyed || (publish !== undefined && matcher.match(publish))
    return isOwn && persist !== undefined
  })
  return { into, isSingle: typeof declared === 'string', publish, isKept }
}

const streamFeedOptions = { served: ['stream', 'load', 'budget', 'into', 'publish'], notYet: [] }
const streamOptions = {
  served: ['url', 'headers', 'subscribe', 'parse', 'silence', 'lengthMax'],
  notYet: [],
}

const silenceDefaultMs = 60_000
const silenceMsMin = 1_000
const lengthDefaultMax = 1_000_000

function compileStreamFeed(
  name: string,
  options: StreamFeedOptions,
  at: string,
  named: Named,
  report: Report,
): FeedPlan {
  checkOptions(`${at}.`, options, streamFeedOptions, report)
  const { load, budget } = options
  if (load !== undefined && typeof load !== 'function') report(`${at}.load`, 'must be a function')
  checkBudget(budget, at, named, report)
  if (options.into === undefined && options.publish === undefined) {
    report(at, 'needs into (collections) or publish (a topic)')
  }
  return {
    name,
    ...targetsOf(options, at, named, report),
    stream: streamOf(options.stream, load !== undefined, `${at}.stream`, report),
    // What is read of it waits for its first message so long.
    timeoutMs: timeoutDefaultMs,
    ...{ every: '1m', load: load ?? (() => undefined), isAligned: false, jitterMs: 0 },
    ...{ adaptive: undefined, budget, keyed: undefined },
  }
}

function streamOf(
  stream: StreamFeedOptions['stream'],
  isCatchingUp: boolean,
  at: string,
  report: Report,
): StreamPlan | undefined {
  if (typeof stream !== 'object' || stream === null) {
    report(at, 'must be { url, parse }')
    return undefined
  }
  checkOptions(`${at}.`, stream, streamOptions, report)
  const { url, parse, headers, subscribe, lengthMax = lengthDefaultMax } = stream
  const kind = typeof url === 'function' ? undefined : streamKindOf(url)
  if (typeof url !== 'function' && !kind) {
    report(`${at}.url`, 'must be like https://… (server-sent events) or wss://… (a WebSocket)')
  }
  if (typeof parse !== 'function') report(`${at}.parse`, 'must be a function')
  for (const [option, value] of Object.entries({ headers, subscribe })) {
    if (value !== undefined && typeof value !== 'function') {
      report(`${at}.${option}`, 'must be a function of the environment')
    }
  }
  if (kind === 'sse' && subscribe !== undefined) {
    report(`${at}.subscribe`, 'is for WebSockets: server-sent events are asked for by their URL')
  }
  if (!Number.isInteger(lengthMax) || lengthMax < 1) {
    report(`${at}.lengthMax`, 'must be a positive integer')
  }
  const silenceMs = durationOf(stream.silence, `${at}.silence`, silenceDefaultMs, report)
  if (silenceMs < silenceMsMin) report(`${at}.silence`, `must be at least ${silenceMsMin}ms`)
  return {
    ...{ url, parse, silenceMs, lengthMax, isCatchingUp },
    ...(headers ? { headers } : {}),
    ...(subscribe ? { subscribe } : {}),
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
