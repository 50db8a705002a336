/** How the parts of the plan say what is wrong, without stopping at the first. */
import { parseDurationMs } from '../lib/duration.ts'

/** `key` is where in the app file, as `collections.prices/live.ttl`. */
export type Report = (key: string, message: string) => void

/** Whether a topic of this name can exist. */
export type IsDeclared = (topic: string) => boolean

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

/** Of an option that may be absent. */
export function durationOf(text: unknown, at: string, absentMs: number, report: Report): number {
  if (text === undefined) return absentMs
  const ms = parseDurationMs(text)
  if (ms === undefined) report(at, `${JSON.stringify(text)} is no duration like 500ms, 60s, 5m, 1h`)
  return ms ?? absentMs
}
