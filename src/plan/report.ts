/** How the parts of the plan say what is wrong, without stopping at the first. */
import type { SQLiteColumn } from 'drizzle-orm/sqlite-core'
import { parseDurationMs } from '../lib/duration.ts'
import { priorities, type Priority } from '../overload/declare.ts'

/** `key` is where in the app file, as `collections.prices/live.ttl`. */
export type Report = (key: string, message: string) => void

/** Whether a topic of this name can exist. */
export type IsDeclared = (topic: string) => boolean

/** Options by name: those that are served, and those that have a name already and will be later. */
export interface Options {
  readonly served: readonly string[]
  readonly notYet: readonly string[]
}

/** A misspelt option would otherwise be a policy that silently is not there. */
export function checkOptions(
  at: string,
  value: object,
  { served, notYet }: Options,
  report: Report,
): void {
  const known = [...served, ...notYet]
  for (const key of Object.keys(value)) {
    if (!known.includes(key)) report(`${at}${key}`, `is not an option (${known.join(', ')})`)
  }
  for (const key of notYet) {
    if ((value as Record<string, unknown>)[key] !== undefined) {
      report(`${at}${key}`, 'is not served yet by this version: remove it')
    }
  }
}

export function checkRule(at: string, rule: unknown, report: Report): void {
  if (rule === undefined || rule === 'public' || rule === 'signed-in') return
  if (typeof rule !== 'function') report(at, "must be 'public', 'signed-in' or a function")
}

/** Of an option that may be absent. */
export function durationOf(text: unknown, at: string, absentMs: number, report: Report): number {
  if (text === undefined) return absentMs
  const ms = parseDurationMs(text)
  if (ms === undefined) report(at, `${JSON.stringify(text)} is no duration like 500ms, 60s, 5m, 1h`)
  return ms ?? absentMs
}

/** Of an option that may be absent. */
export function priorityOf(value: unknown, at: string, report: Report): Priority {
  const priority = priorities.find((one) => one === value)
  if (priority === undefined && value !== undefined) {
    report(at, `must be one of ${priorities.join(', ')}`)
  }
  return priority ?? 'normal'
}

/** Some value of a column, for asking what becomes of one. */
export function sampleOf({
  dataType,
  enumValues,
}: Pick<SQLiteColumn, 'dataType' | 'enumValues'>): unknown {
  switch (dataType) {
    case 'number':
      return 1
    case 'boolean':
      return true
    case 'date':
      return new Date(1_000_000)
    case 'json':
      return {}
    default:
      return enumValues?.[0] ?? 'x'
  }
}
