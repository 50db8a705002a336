import { describe, expect, test } from 'bun:test'
import { parseDispatch } from '../../src/apps/energy-dispatch.ts'
import { forecastAfter } from '../../src/apps/energy-forecast.ts'
import { firstDay, nextIndex, renderDispatch, replayAfter } from '../../src/apps/energy-replay.ts'
import { sample } from '../../src/apps/energy-samples.ts'

const recordings = { spot: await sample('spot'), fcas: await sample('fcas') }

const at = (nem: string): Date => new Date(`${nem}:00+10:00`)

/** What the replay gives after each of its own answers, as a restart would see it. */
function* ticks(newest?: Date) {
  for (;;) {
    const update = replayAfter(recordings, newest)
    newest = update['prices/live'][0]?.at
    yield update
  }
}

describe('replayAfter', () => {
  test('begins with the first recorded interval, each value with its true date', () => {
    const update = replayAfter(recordings, undefined)
    expect(update['prices/live'].map(({ region, price }) => [region, price])).toEqual([
      ['NSW1', 0],
      ['QLD1', 0],
      ['SA1', 0],
      ['TAS1', 0],
      ['VIC1', 0],
    ])
    expect(update['prices/live'][0]).toEqual({
      region: 'NSW1',
      at: at('2021-10-06T15:00'),
      price: 0,
      demand: 5941.25,
      generation: 5643.61,
      interchange: -293.33,
      source: 'AEMO recorded 2021-10-06T15:00+10:00, replayed',
    })
    expect(update['prices/fcas'][1]).toEqual({
      region: 'SA1',
      at: at('2025-01-01T00:05'),
      raise1sec: 7.3,
      raise6sec: 0.39,
      raise60sec: 0.23,
      raise5min: 0.24,
      raisereg: 5,
      lower1sec: 0,
      lower6sec: 0.01,
      lower60sec: 0.1,
      lower5min: 0,
      lowerreg: 1,
      source: 'AEMO recorded 2025-01-01T00:05+10:00, replayed',
    })
  })

  test('an empty database gets the first day at once, and goes on after it', () => {
    const day = firstDay(recordings)
    expect([day['prices/live'].length, day['prices/fcas'].length]).toEqual([5 * 288, 2 * 288])
    const last = day['prices/live'].at(-1)
    expect(last?.at).toEqual(at('2021-10-07T14:55'))
    expect(replayAfter(recordings, last?.at)['prices/live'][0]?.at).toEqual(at('2021-10-07T15:00'))
  })

  test('goes on after the newest stored interval', () => {
    const update = replayAfter(recordings, at('2021-10-07T09:30'))
    expect(update['prices/live'][4]).toMatchObject({
      region: 'VIC1',
      at: at('2021-10-07T09:35'),
      source: 'AEMO recorded 2021-10-07T09:35+10:00, replayed',
    })
    expect(update['prices/fcas'][0]?.at).toEqual(at('2025-01-01T18:40'))
  })

  test('starts again with dates moved on, and keeps the true date in source', () => {
    const update = replayAfter(recordings, at('2021-10-08T14:55'))
    expect(update['prices/live'][0]).toMatchObject({
      at: at('2021-10-08T15:00'),
      demand: 5941.25,
      source: 'AEMO recorded 2021-10-06T15:00+10:00, replayed',
    })
    // The FCAS recording is longer and is still in its first round.
    expect(update['prices/fcas'][0]).toMatchObject({
      at: at('2025-01-03T00:05'),
      source: 'AEMO recorded 2025-01-03T00:05+10:00, replayed',
    })
  })

  test('never repeats a row nor goes back, through three rounds of both recordings', () => {
    const rounds = 3 * recordings.fcas.length
    const newest = { spot: 0, fcas: 0 }
    let count = 0
    for (const update of ticks()) {
      const spot = update['prices/live'][0]?.at.getTime() ?? 0
      const fcas = update['prices/fcas'][0]?.at.getTime() ?? 0
      if (count > 0) {
        expect([spot - newest.spot, fcas - newest.fcas]).toEqual([300_000, 300_000])
      }
      newest.spot = spot
      newest.fcas = fcas
      count += 1
      if (count === rounds) break
    }
    expect(count).toBe(rounds)
  })

  test('takes a database from before the recording as an empty one', () => {
    expect(nextIndex(recordings.spot, at('1999-01-01T00:00'))).toBe(0)
  })
})

test('every recorded interval is a file that the live parser reads back whole', () => {
  for (const slice of recordings.spot) {
    const { spot } = parseDispatch(renderDispatch(slice))
    expect(spot.map(({ region, price, demand }) => [region, price, demand])).toEqual(
      slice.rows.map((row) => [row.region ?? '', Number(row.rrp), Number(row.total_demand)]),
    )
    expect(spot.every((row) => row.at.getTime() === slice.ms)).toBe(true)
  }
  expect(recordings.spot).toHaveLength(576)
  expect(recordings.fcas).toHaveLength(863)
})

describe('forecastAfter', () => {
  test('gives one trading day after another and then nothing', async () => {
    const days = await sample('forecast')
    let newest: Date | undefined
    let rows = 0
    for (let day = 0; day < 14; day += 1) {
      const given = forecastAfter(days, newest) ?? []
      expect(given).toHaveLength(240)
      rows += given.length
      newest = new Date(Math.max(...given.map((row) => row.at.getTime())))
    }
    expect(rows).toBe(3_360)
    expect(forecastAfter(days, newest)).toBeNull()
  })

  test('reads the recorded values', async () => {
    const rows = forecastAfter(await sample('forecast'), undefined)
    expect(rows?.[0]).toMatchObject({
      region: 'NSW1',
      at: at('2026-08-08T00:30'),
      issuedAt: at('2026-08-07T17:00'),
      poe10: 9158,
      poe50: 8843,
      poe90: 8528,
      actual: 8885,
      rooftopActual: 0,
    })
  })
})
