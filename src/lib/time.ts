/** Points in time as people and programs write them. */

/** With a zone, as `2026-11-21T17:00:00Z`: a local time would be another instant on every machine. */
const isoPattern = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,3})?)?(Z|[+-]\d\d:\d\d)$/

/** ms since 1970, of ISO 8601 with a zone or of such a number. */
export function timeOf(text: string): number | undefined {
  if (isoPattern.test(text)) {
    const ms = Date.parse(text)
    return Number.isNaN(ms) ? undefined : ms
  }
  return /^\d{1,15}$/.test(text) ? Number(text) : undefined
}
