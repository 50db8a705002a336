import { describe, expect, test } from 'bun:test'
import {
  firstDay,
  playAfter,
  programsOf,
  recording,
  weekMs,
  type Recording,
} from '../../src/apps/radio-replay.ts'

const tracks = await recording()

const at = (sydney: string): Date => new Date(`${sydney}+10:00`)

describe('the recording', () => {
  test('is a week in order of time, no two tracks at one second', () => {
    expect(tracks).toHaveLength(1_114)
    const stamps = tracks.map(({ ms }) => ms)
    expect(stamps).toEqual([...new Set(stamps)].toSorted((a, b) => a - b))
    expect((stamps.at(-1) ?? 0) - tracks[0].ms).toBeLessThan(weekMs)
  })
})

describe('firstDay', () => {
  test('is a day of music with true dates, the week’s programs, and a mix of each program', () => {
    const { plays, events, mixes } = firstDay(tracks)
    expect(plays).toHaveLength(182)
    expect(plays[0]).toEqual({
      at: at('2014-08-04T02:12:25'),
      title: 'Mess Is Mine',
      artist: 'Vance Joy',
      album: 'Dream Your Life Away',
      seconds: 222,
      program: 'Mid Dawns',
      source: 'triple j, recorded 2014-08-04T02:12+10:00, replayed',
    })
    expect(events).toHaveLength(46)
    expect(mixes.map(({ id, tracks: { length } }) => [id, length])).toContainEqual([
      'mid-dawns',
      20,
    ])
    expect(mixes).toHaveLength(15)
  })
})

describe('playAfter', () => {
  test('goes on after the newest stored track', () => {
    expect(playAfter(tracks, at('2014-08-04T02:12:25'))).toMatchObject({
      plays: [{ title: 'Treat Me Like Your Mother', artist: 'The Dead Weather' }],
      events: [],
      mixes: [],
    })
  })

  test('begins again a week later, with the programs of that week', () => {
    const { plays, events } = playAfter(tracks, at('2014-08-10T20:55:40'))
    expect(plays).toMatchObject([
      {
        at: at('2014-08-11T02:12:25'),
        title: 'Mess Is Mine',
        source: 'triple j, recorded 2014-08-04T02:12+10:00, replayed',
      },
    ])
    expect(events[0]).toMatchObject({ day: '2014-08-11', startsAt: at('2014-08-11T02:12:25') })
    const before = new Set(programsOf(tracks, 0).map(({ id }) => id))
    expect(events.filter(({ id }) => before.has(id))).toEqual([])
  })

  test('never repeats a time nor goes back, through three weeks', () => {
    let newest = at('2014-08-04T02:12:25')
    for (let tick = 0; tick < 3 * tracks.length; tick += 1) {
      const [play] = playAfter(tracks, newest).plays
      const playedAt = play?.at ?? newest
      expect(playedAt.getTime()).toBeGreaterThan(newest.getTime())
      newest = playedAt
    }
    expect(newest).toEqual(new Date(tracks[0].ms + 3 * weekMs))
  })

  test('takes a database from before the recording as an empty one', () => {
    expect(playAfter(tracks, at('1999-01-01T00:00:00')).plays).toMatchObject([
      { title: 'Mess Is Mine', at: at('2014-08-04T02:12:25') },
    ])
  })
})

describe('programsOf', () => {
  test('a program is on until the first track that is not its own; what has no name is none', () => {
    const track = (hour: number, program: string | null) => ({
      ms: at(`2014-08-04T0${hour}:00:00`).getTime(),
      ...{ title: 't', artist: 'a', album: null, seconds: 60, program },
    })
    const some: Recording = [
      track(1, 'The Doctor'),
      track(2, 'The Doctor'),
      track(3, null),
      track(4, "Roots 'n All"),
    ]
    expect(programsOf(some, 0)).toEqual([
      {
        id: 'the-doctor-2014-08-04T0100',
        title: 'The Doctor',
        day: '2014-08-04',
        startsAt: at('2014-08-04T01:00:00'),
        endsAt: at('2014-08-04T03:00:00'),
      },
      {
        id: 'roots-n-all-2014-08-04T0400',
        title: "Roots 'n All",
        day: '2014-08-04',
        startsAt: at('2014-08-04T04:00:00'),
        endsAt: at('2014-08-04T04:01:00'),
      },
    ])
  })
})
