/**
 * NEM time: UTC+10:00 all year, no daylight saving. Every stamp is the END of its five-minute
 * interval, so 15:05 speaks of 15:00 to 15:05.
 */

/** How often AEMO dispatches. */
export const intervalMs = 5 * 60_000

const offsetMs = 10 * 60 * 60_000

/** `2021/10/06 15:05:00` as AEMO writes it; undefined when it is not such a stamp. */
export function parseNemStamp(text: string): number | undefined {
  const match = /^(\d{4})\/(\d\d)\/(\d\d) (\d\d):(\d\d):(\d\d)$/.exec(text)
  return match ? nemMs(match.slice(1).map(Number)) : undefined
}

/** The stamp in a file name: `PUBLIC_DISPATCHIS_202508201810_…`. */
export function parseNemDigits(text: string): number | undefined {
  const match = /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)$/.exec(text)
  return match ? nemMs(match.slice(1).map(Number)) : undefined
}

/** As AEMO writes it: `2021/10/06 15:05:00`. */
export function nemStamp(ms: number): string {
  return new Date(ms + offsetMs).toISOString().slice(0, 19).replaceAll('-', '/').replace('T', ' ')
}

/** For people: `2021-10-06T15:05+10:00`. */
export function nemIso(ms: number): string {
  return `${new Date(ms + offsetMs).toISOString().slice(0, 16)}+10:00`
}

/** `Date.UTC` carries 31 February over into March; such a stamp is refused instead. */
function nemMs(parts: readonly number[]): number | undefined {
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = parts
  const utc = Date.UTC(year, month - 1, day, hour, minute, second)
  const back = new Date(utc)
  const isSame =
    back.getUTCMonth() === month - 1 &&
    back.getUTCDate() === day &&
    back.getUTCHours() === hour &&
    back.getUTCMinutes() === minute &&
    back.getUTCSeconds() === second
  return isSame ? utc - offsetMs : undefined
}
