/** Declared topics, checked and compiled to matchers. */
import { parseDurationMs } from '../lib/duration.ts'
import { compilePattern, validatePattern, type TopicPlan } from '../realtime/realtime.ts'
import type { TopicDeclaration, TopicOptions } from '../realtime/declare.ts'
import { checkOptions, checkRule, type Report } from './report.ts'

/** Publications of history per topic: with 1 KB each, 10 MB. */
const historySizeMax = 10_000

const known = {
  served: ['subscribe', 'publish', 'history', 'last', 'presence'],
  notYet: ['limit', 'message', 'conflate', 'persist'],
}

export function compileTopics(
  declared: Readonly<Record<string, TopicDeclaration>>,
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
    plans.push(compileTopic(pattern, declaration.options, at, report))
  }
  return plans
}

function compileTopic(
  pattern: string,
  options: TopicOptions,
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
  }
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
