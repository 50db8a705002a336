/**
 * A recorded real week of a station as if it were on air now: the first day at once, as history, then one
 * track per tick.
 *
 *   newest row in the database → place in the recording → next track (and, with the week, its programs) → rows
 *
 * Nothing is remembered between ticks, so a restart goes on where it stopped. After the last track the first
 * one comes again, seven days later: hours and weekdays stay true, time never goes backwards, every row is
 * new. `source` keeps the true date.
 */
import { desc } from 'drizzle-orm'
import type { FeedContext } from '../kit.ts'
import { Fault } from '../fault.ts'
import playsFile from '../../db/samples/radio/triplej_plays_2014-08-04_2014-08-10.jsonl.gz' with { type: 'file' }
import { plays, type events, type mixes } from './radio-tables.ts'
import { sampleLines } from './sample-lines.ts'

/** One track as it was recorded. */
export interface Track {
  /** Ms since 1970. */
  readonly ms: number
  readonly title: string
  readonly artist: string
  readonly album: string | null
  readonly seconds: number
  readonly program: string | null
}

/** In order of time, no two at the same second, shorter than a week. */
export type Recording = readonly [Track, ...Track[]]

type PlayRow = typeof plays.$inferInsert
type EventRow = typeof events.$inferInsert
type MixRow = typeof mixes.$inferInsert

/** What one tick gives: rows by collection path. */
export interface RadioUpdate {
  readonly plays: readonly PlayRow[]
  readonly events: readonly EventRow[]
  readonly mixes: readonly MixRow[]
}

export const weekMs = 7 * 24 * 60 * 60_000
const dayMs = 24 * 60 * 60_000

/** Sydney in August: no daylight saving. */
const offsetMs = 10 * 60 * 60_000

/** Tracks of a mix that the station makes of a program. */
const mixTracksMax = 20

let loaded: Promise<Recording> | undefined

/** Unpacked once and kept: 170 KB of text. */
export function recording(): Promise<Recording> {
  return (loaded ??= read())
}

async function read(): Promise<Recording> {
  const tracks: Track[] = []
  for await (const lines of sampleLines(playsFile)) {
    for (const line of lines) if (line !== '') tracks.push(trackOf(line))
  }
  const [first, ...rest] = tracks
  if (!first) throw new Fault('internal', 'the recording is empty')
  return [first, ...rest]
}

function trackOf(line: string): Track {
  const { at, ...track } = JSON.parse(line) as Omit<Track, 'ms'> & { readonly at: string }
  const ms = Date.parse(at)
  if (Number.isNaN(ms)) throw new Fault('internal', `the recording has no stamp: ${at}`)
  return { ms, ...track }
}

export async function loadRadio({ db }: Pick<FeedContext, 'db'>): Promise<RadioUpdate> {
  const [newest] = await db.select({ at: plays.at }).from(plays).orderBy(desc(plays.at)).limit(1)
  const tracks = await recording()
  return newest ? playAfter(tracks, newest.at) : firstDay(tracks)
}

/** An empty database begins with a day of music, its week's programs, and a mix of each program. */
export function firstDay(tracks: Recording): RadioUpdate {
  const [{ ms: start }] = tracks
  const day = tracks.filter(({ ms }) => ms < start + dayMs)
  return {
    plays: day.map((track) => playOf(track, 0)),
    events: programsOf(tracks, 0),
    mixes: mixesOf(tracks),
  }
}

/** The track after `newest`; with the first one of a week, also the programs of that week. */
export function playAfter(tracks: Recording, newest: Date): RadioUpdate {
  const [first] = tracks
  const sinceStart = newest.getTime() - first.ms
  const week = Math.max(0, Math.floor(sinceStart / weekMs))
  const recordedMs = newest.getTime() - week * weekMs
  const next = tracks.find(({ ms }) => ms > recordedMs)
  if (next) return { plays: [playOf(next, week)], events: [], mixes: [] }
  return { plays: [playOf(first, week + 1)], events: programsOf(tracks, week + 1), mixes: [] }
}

function playOf({ ms, ...track }: Track, week: number): PlayRow {
  const source = `triple j, recorded ${sydney(ms)}, replayed`
  return { at: new Date(ms + week * weekMs), ...track, source }
}

/** A program is on from its first track to the first one that is not its own. */
export function programsOf(tracks: Recording, week: number): EventRow[] {
  const rows: EventRow[] = []
  let start: Track = tracks[0]
  const add = (endMs: number): void => {
    if (start.program === null) return
    const startsAt = new Date(start.ms + week * weekMs)
    const day = sydney(startsAt.getTime()).slice(0, 10)
    const id = `${slugOf(start.program)}-${sydney(startsAt.getTime()).slice(0, 16).replace(':', '')}`
    rows.push({ id, title: start.program, day, startsAt, endsAt: new Date(endMs + week * weekMs) })
  }
  for (const track of tracks) {
    if (track.program === start.program) continue
    add(track.ms)
    start = track
  }
  const last = tracks.at(-1) ?? start
  add(last.ms + last.seconds * 1000)
  return rows
}

/** What each program played most, by tracks; who is played as often, in the order of time. */
function mixesOf(tracks: Recording): MixRow[] {
  const programs = new Map<string, Map<string, { readonly track: Track; count: number }>>()
  for (const track of tracks) {
    if (track.program === null) continue
    const counts = programs.get(track.program) ?? new Map<string, { track: Track; count: number }>()
    programs.set(track.program, counts)
    const key = `${track.artist}\n${track.title}`
    const counted = counts.get(key)
    if (counted) counted.count += 1
    else counts.set(key, { track, count: 1 })
  }
  const [{ ms }] = tracks
  return [...programs].map(([program, counts]) => ({
    id: slugOf(program),
    userId: null,
    title: `Most played: ${program}`,
    tracks: [...counts.values()]
      .toSorted((a, b) => b.count - a.count)
      .slice(0, mixTracksMax)
      .map(({ track: { title, artist } }) => ({ title, artist })),
    // The database's clock would make a row anew with each start of an empty database; this is the recording's.
    at: new Date(ms),
  }))
}

/** `2014-08-04T02:12+10:00`. */
function sydney(ms: number): string {
  return `${new Date(ms + offsetMs).toISOString().slice(0, 16)}+10:00`
}

function slugOf(name: string): string {
  return name
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-')
    .replaceAll(/^-|-$/g, '')
}
