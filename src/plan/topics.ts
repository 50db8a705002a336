/** Declared topics, checked and compiled to matchers. */
import { parseDurationMs } from '../lib/duration.ts'
import { policyOf, type LimitPolicy, type NamedPolicies } from '../limits/limits.ts'
import { compilePattern, validatePattern, type TopicPlan } from '../realtime/realtime.ts'
import type { ConflateOptions, TopicDeclaration, TopicOptions } from '../realtime/declare.ts'
import { compileMessage } from './message.ts'
import { checkOptions, checkRule, durationOf, type Report } from './report.ts'

/** Shorter is what the fan-out gathers by itself; longer is a feed. */
const conflateMs = { least: 10, most: 3_600_000 } as const

/** Publications of history per topic: with 1 KB each, 10 MB. */
const historySizeMax = 10_000

/** Publications of a topic on disk: with 1 KB each, 1 GB, and what is kept when only a time is said. */
const persistSizeMax = 1_000_000
const persistSizeDefault = 100_000

const known = {
  served: [
    ...['subscribe', 'publish', 'history', 'last', 'presence'],
    ...['message', 'limit', 'conflate', 'persist', 'through'],
  ],
  notYet: [],
}

export function compileTopics(
  declared: Readonly<Record<string, TopicDeclaration>>,
  named: NamedPolicies,
  report: Report,
): TopicPlan[] {
  const plans: TopicPlan[] = []
  for (const [pattern, declaration] of Object.entries(declared)) {
    const at = `topics.${pattern}`
    if (declaration?.kind !== 'topic') {
      report(at, 'must be topic({ … })')
      continue
    }
    const problem = validatePattern(pattern)
    if (problem !== undefined) {
      report(at, problem)
      continue
    }
    plans.push(compileTopic(pattern, declaration.options, named, at, report))
  }
  return plans
}

function compileTopic(
  pattern: string,
  options: TopicOptions,
  named: NamedPolicies,
  at: string,
  report: Report,
): TopicPlan {
  checkOptions(`${at}.`, options, known, report)
  checkRule(`${at}.subscribe`, options.subscribe, report)
  checkRule(`${at}.publish`, options.publish, report)
  if (options.last !== undefined && typeof options.last !== 'boolean') {
    report(`${at}.last`, 'must be true or false')
  }
  if (options.presence !== undefined && typeof options.presence !== 'boolean') {
    report(`${at}.presence`, 'must be true or false')
  }
  const { size, ttlMs } = historyOf(options, at, report)
  return {
    pattern,
    matcher: compilePattern(pattern),
    subscribe: options.subscribe,
    publish: options.publish,
    historySize: size,
    historyTtlMs: ttlMs,
    last: options.last ?? false,
    presence: options.presence ?? false,
    message: options.message && compileMessage(options.message, `${at}.message`, report),
    limit: limitOf(options, { pattern, named }, at, report),
    conflate: conflateOf(options, at, report),
    through: throughOf(options, pattern, at, report),
    persist: persistOf(options, { size, ttlMs }, at, report),
  }
}

/** Parameters are the topic's own; that the route is there shows when it is called. */
function throughOf(
  { through, publish }: TopicOptions,
  pattern: string,
  at: string,
  report: Report,
): TopicPlan['through'] {
  if (through === undefined) return undefined
  const [, method, path] = /^(POST|PUT|PATCH|DELETE) (\/[^\s?#]*)$/.exec(String(through)) ?? []
  if (method === undefined || path === undefined) {
    report(`${at}.through`, "must be a call like 'POST /api/chat/{room}'")
    return undefined
  }
  if (publish === undefined) report(`${at}.through`, 'needs publish: who may')
  for (const [named] of path.matchAll(/\{[^{}]*\}/g)) {
    if (!pattern.includes(named)) report(`${at}.through`, `${named} is no parameter of ${pattern}`)
  }
  return { method, path }
}

const limitOptions = { served: ['user', 'connection'], notYet: [] }

function limitOf(
  { limit }: TopicOptions,
  { pattern, named }: { readonly pattern: string; readonly named: NamedPolicies },
  at: string,
  report: Report,
): TopicPlan['limit'] {
  if (limit === undefined) return undefined
  const limitBy = (rate: unknown, key: string): LimitPolicy | undefined => {
    if (rate === undefined) return undefined
    const policy =
      (typeof rate === 'string' ? named.get(rate) : undefined) ?? policyOf(pattern, rate)
    const problem =
      typeof policy === 'string'
        ? policy
        : policy.by && `counts by ${policy.by}: a topic counts users and connections`
    if (problem !== undefined) report(`${at}.${key}`, problem)
    return typeof policy === 'string' ? undefined : policy
  }
  if (typeof limit !== 'object' || limit === null) return { user: limitBy(limit, 'limit') }
  checkOptions(`${at}.limit.`, limit, limitOptions, report)
  if (limit.user === undefined && limit.connection === undefined) {
    report(`${at}.limit`, 'limits nothing: give it user, connection or both')
  }
  return {
    user: limitBy(limit.user, 'limit.user'),
    connection: limitBy(limit.connection, 'limit.connection'),
  }
}

const conflateOptions = { served: ['every', 'key'], notYet: [] }

function conflateOf({ conflate }: TopicOptions, at: string, report: Report): TopicPlan['conflate'] {
  if (conflate === undefined) return undefined
  const isShort = typeof conflate !== 'object' || conflate === null
  const { every, key }: Partial<ConflateOptions<unknown>> = isShort ? { every: conflate } : conflate
  if (!isShort) checkOptions(`${at}.conflate.`, conflate, conflateOptions, report)
  if (key !== undefined && typeof key !== 'function') {
    report(`${at}.conflate.key`, 'must be a function of the data')
  }
  const everyMs = parseDurationMs(every) ?? 0
  if (everyMs < conflateMs.least || everyMs > conflateMs.most) {
    const where = isShort ? 'conflate' : 'conflate.every'
    report(`${at}.${where}`, 'must be a duration from 10ms to 1h, like 1s')
  }
  return { everyMs, key }
}

function historyOf(
  { history }: TopicOptions,
  at: string,
  report: Report,
): { size: number; ttlMs: number } {
  if (history === undefined) return { size: 0, ttlMs: 0 }
  if (!Number.isInteger(history.size) || history.size < 1 || history.size > historySizeMax) {
    report(`${at}.history.size`, `must be an integer from 1 to ${historySizeMax}`)
  }
  const ttlMs = parseDurationMs(history.ttl)
  if (ttlMs === undefined) report(`${at}.history.ttl`, 'must be a duration like 24h')
  return { size: history.size, ttlMs: ttlMs ?? 0 }
}

const persistOptions = { served: ['size', 'ttl'], notYet: [] }

/** On disk at least what is in memory. */
function persistOf(
  { persist = false, history }: TopicOptions,
  inMemory: { readonly size: number; readonly ttlMs: number },
  at: string,
  report: Report,
): TopicPlan['persist'] {
  if (persist === false) return undefined
  if (history === undefined) {
    report(`${at}.persist`, 'needs history: what subscribers recover from')
  }
  if (persist === true) return inMemory
  if (typeof persist !== 'object' || persist === null) {
    report(`${at}.persist`, 'must be true, false or { size, ttl }')
    return undefined
  }
  checkOptions(`${at}.persist.`, persist, persistOptions, report)
  const { size = Math.max(inMemory.size, persistSizeDefault), ttl } = persist
  if (!Number.isInteger(size) || size < inMemory.size || size > persistSizeMax) {
    const least = Math.max(1, inMemory.size)
    report(
      `${at}.persist.size`,
      `must be an integer from ${least} (its history) to ${persistSizeMax}`,
    )
  }
  const ttlMs = durationOf(ttl, `${at}.persist.ttl`, inMemory.ttlMs, report)
  if (ttlMs < inMemory.ttlMs) report(`${at}.persist.ttl`, 'is shorter than that of its history')
  return { size, ttlMs }
}
