/**
 * Recorded real days as if they happened now: the first day at once, as history, then one five-minute
 * interval per tick. An interval is
 * first written out as the text of an AEMO dispatch file and then read by the parser that reads live
 * files: what the replay shows is the very path that a live market takes.
 *
 *   newest row in the database → index → recorded interval → dispatch file → parseDispatch → rows
 *
 * Nothing is remembered between ticks. The index follows from the newest replayed row, so a restart
 * goes on where it stopped. After the last recorded interval the first one comes again, its date
 * moved on by the recording's length: time never goes backwards and every row is new. `source` keeps
 * the true date of each value.
 *
 * Energy comes from October 2021 (five regions, two days), FCAS from January 2025 (two regions, three
 * days): each keeps its own dates, and goes round at its own length.
 */
import { desc, like } from 'drizzle-orm'
import type { FeedContext } from '../feeds/declare.ts'
import { Fault } from '../fault.ts'
import { parseDispatch, services } from './energy-dispatch.ts'
import type { SampleRow, Slice } from './energy-samples.ts'
import { sample } from './energy-samples.ts'
import type { fcas } from './energy-tables.ts'
import { spot } from './energy-tables.ts'
import { intervalMs, nemIso, nemStamp } from './energy-time.ts'

export interface Recordings {
  readonly spot: readonly Slice[]
  readonly fcas: readonly Slice[]
}

export interface DispatchUpdate {
  readonly 'prices/live': readonly (typeof spot.$inferInsert)[]
  readonly 'prices/fcas': readonly (typeof fcas.$inferInsert)[]
}

const sourcePrefix = 'AEMO recorded '

const intervalsPerDay = 288

export async function loadReplay({ db }: Pick<FeedContext, 'db'>): Promise<DispatchUpdate> {
  const [newest] = await db
    .select({ at: spot.at })
    .from(spot)
    .where(like(spot.source, `${sourcePrefix}%`))
    .orderBy(desc(spot.at))
    .limit(1)
  const recordings = { spot: await sample('spot'), fcas: await sample('fcas') }
  return newest ? replayAfter(recordings, newest.at) : firstDay(recordings)
}

/** An empty database starts with a day of history, so that there is a day to look at from the first second. */
export function firstDay(recordings: Recordings): DispatchUpdate {
  const updates = Array.from({ length: intervalsPerDay }, (_, index) => replayAt(recordings, index))
  return {
    'prices/live': updates.flatMap((update) => update['prices/live']),
    'prices/fcas': updates.flatMap((update) => update['prices/fcas']),
  }
}

/** The rows that follow `newest`; the first ones when there is none. */
export function replayAfter(recordings: Recordings, newest: Date | undefined): DispatchUpdate {
  return replayAt(recordings, nextIndex(recordings.spot, newest))
}

function replayAt(recordings: Recordings, index: number): DispatchUpdate {
  const energy = moment(recordings.spot, index)
  const control = moment(recordings.fcas, index)
  const dispatched = parseDispatch(renderDispatch(energy))
  const controlled = parseDispatch(renderDispatch(control))
  return {
    'prices/live': dispatched.spot.map((row) => ({ ...row, source: energy.source })),
    'prices/fcas': controlled.fcas.map((row) => ({ ...row, source: control.source })),
  }
}

/** Counts intervals since the recording's first, through all its rounds. */
export function nextIndex(slices: readonly Slice[], newest: Date | undefined): number {
  const start = slices[0]?.ms
  if (start === undefined) throw new Fault('internal', 'replay: the recording is empty')
  return newest ? Math.max(0, Math.floor((newest.getTime() - start) / intervalMs) + 1) : 0
}

interface Moment {
  /** When it is now told to have happened. */
  readonly ms: number
  readonly rows: readonly SampleRow[]
  readonly source: string
}

function moment(slices: readonly Slice[], index: number): Moment {
  const slice = slices[index % slices.length]
  if (!slice) throw new Fault('internal', 'replay: the recording is empty')
  const rounds = Math.floor(index / slices.length)
  return {
    ms: slice.ms + rounds * slices.length * intervalMs,
    rows: slice.rows,
    source: `${sourcePrefix}${nemIso(slice.ms)}, replayed`,
  }
}

/** The file AEMO would have published for this moment, as far as the recording knows it. */
export function renderDispatch({ ms, rows }: Pick<Moment, 'ms' | 'rows'>): string {
  const known = services.filter((service) => rows[0]?.[`${service}rrp`] !== undefined)
  const rrp = known.map((service) => `${service.toUpperCase()}RRP`)
  const key = 'SETTLEMENTDATE,RUNNO,REGIONID,INTERVENTION'
  const keyOf = (row: SampleRow): string =>
    `"${nemStamp(ms)}",1,${row.region ?? ''},${row.intervention ?? '0'}`

  const lines = [
    'C,NEMP.WORLD,DISPATCHIS,AEMO,PUBLIC,RECORDED',
    ['I,DISPATCH,PRICE,5', key, 'RRP', ...rrp].join(','),
    ...rows.map((row) =>
      ['D,DISPATCH,PRICE,5', keyOf(row), row.rrp, ...known.map((name) => row[`${name}rrp`])].join(
        ',',
      ),
    ),
    `I,DISPATCH,REGIONSUM,9,${key},TOTALDEMAND,NETINTERCHANGE,DISPATCHABLEGENERATION`,
    ...rows.map((row) =>
      ['D,DISPATCH,REGIONSUM,9', keyOf(row), ...sumsOf(row), generationOf(row)].join(','),
    ),
  ]
  return [...lines, `C,"END OF REPORT",${lines.length + 1}`, ''].join('\n')
}

/** The two recordings name the same columns differently. */
function sumsOf(row: SampleRow): [demand: string, interchange: string] {
  return [
    row.total_demand ?? row.totaldemand ?? '',
    row.net_interchange ?? row.netinterchange ?? '',
  ]
}

/** Recorded in two parts (AEMO gives kilowatts: five decimals would be noise of the sum), or not at all. */
function generationOf(row: SampleRow): string {
  if (row.scheduled_generation === undefined) return ''
  const sum = Number(row.scheduled_generation) + Number(row.semi_scheduled_generation)
  return String(Number(sum.toFixed(3)))
}
