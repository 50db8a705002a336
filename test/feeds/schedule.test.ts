import { describe, expect, test } from 'bun:test'
import { isDueWithin, nextDueMs, parseSchedule, type Schedule } from '../../src/feeds/schedule.ts'
import { createRandom } from '../lib/random.ts'

const minuteMs = 60_000
const scheduleOf = (every: unknown, isAligned = false): Schedule => {
  const schedule = parseSchedule(every, isAligned)
  if (!schedule) throw new Error('no schedule')
  return schedule
}
const iso = (ms: number): string => new Date(ms).toISOString()

describe('schedule', () => {
  test('aligned: whole multiples of the interval since 1970', () => {
    const every5m = scheduleOf('5m', true)
    const at = Date.UTC(2026, 0, 1, 12, 3, 7)
    expect(iso(nextDueMs(every5m, at, undefined))).toBe('2026-01-01T12:05:00.000Z')
    // Exactly on the mark: that moment is over.
    const mark = Date.UTC(2026, 0, 1, 12, 5)
    expect(iso(nextDueMs(every5m, mark, mark))).toBe('2026-01-01T12:10:00.000Z')
  })

  test('cron is UTC, wherever the machine is', () => {
    const before = process.env['TZ']
    try {
      for (const zone of ['Australia/Sydney', 'America/New_York', 'UTC']) {
        process.env['TZ'] = zone
        const seven = scheduleOf({ cron: '0 7 * * *' })
        expect(iso(nextDueMs(seven, Date.UTC(2026, 3, 4, 23), undefined))).toBe(
          '2026-04-05T07:00:00.000Z',
        )
      }
    } finally {
      if (before === undefined) delete process.env['TZ']
      else process.env['TZ'] = before
    }
  })

  test('cron against a clock that looks at every minute', () => {
    const { below: pick } = createRandom(7)
    for (let round = 0; round < 200; round += 1) {
      const [minute, hour, step] = [pick(60), pick(24), 1 + pick(29)]
      const cases: [string, (date: Date) => boolean][] = [
        [
          `${minute} ${hour} * * *`,
          (date) => date.getUTCMinutes() === minute && date.getUTCHours() === hour,
        ],
        [`*/${step} * * * *`, (date) => date.getUTCMinutes() % step === 0],
        [
          `0 ${hour} * * ${round % 7}`,
          (date) =>
            date.getUTCMinutes() === 0 &&
            date.getUTCHours() === hour &&
            date.getUTCDay() === round % 7,
        ],
      ]
      const from = Date.UTC(2026, pick(12), 1 + pick(28), pick(24), pick(60), pick(60))
      for (const [cron, isDue] of cases) {
        let at = Math.floor(from / minuteMs) * minuteMs + minuteMs
        while (!isDue(new Date(at))) at += minuteMs
        expect(`${cron} ${iso(nextDueMs(scheduleOf({ cron }), from, undefined))}`).toBe(
          `${cron} ${iso(at)}`,
        )
      }
    }
  })

  test('a clock that is set back a little ticks for no moment again, one that is set back far does', () => {
    const hourly = scheduleOf({ cron: '@hourly' })
    const seven = Date.UTC(2026, 0, 1, 7)
    expect(iso(nextDueMs(hourly, seven - 30_000, seven))).toBe('2026-01-01T08:00:00.000Z')
    expect(iso(nextDueMs(hourly, seven - 7_200_000, seven))).toBe('2026-01-01T06:00:00.000Z')
    const aligned = scheduleOf('1s', true)
    expect(nextDueMs(aligned, seven - 400, seven)).toBe(seven + 1_000)
    // A second's feed does not stand still for an hour.
    expect(nextDueMs(aligned, seven - 3_600_000, seven)).toBe(seven - 3_600_000 + 1_000)
  })

  test('what was due in a time', () => {
    const daily = scheduleOf({ cron: '0 7 * * *' })
    const seven = Date.UTC(2026, 0, 1, 7)
    expect(isDueWithin(daily, seven - 10_000, seven + 5_000)).toBe(true)
    expect(isDueWithin(daily, seven, seven + 5_000)).toBe(false)
  })

  test('what is no time is none', () => {
    for (const every of ['soon', '', 5, null, { cron: '61 * * * *' }, { cron: '* * *' }]) {
      expect(parseSchedule(every, false)).toBeUndefined()
    }
    // A day that never comes.
    expect(parseSchedule({ cron: '0 0 30 2 *' }, false)).toBeUndefined()
  })
})
