/**
 * All that the page knows, and the one function that changes it. Pure, so that what is shown after any
 * order of answers and publications can be tested without a browser.
 *
 * A list answer and the live events of one region arrive in any order and overlap. Points are merged by
 * interval, and a live event wins over a list answer, which may be older. After a gap that the server could
 * not fill (`resync`) everything before it counts as old, and the next list answer replaces it.
 */
import type { FcasPoint, Point, Publication, Region, Stats } from './wire.ts'
import { isRegion, readFcas, readPoint, regions } from './wire.ts'

/** A market day of five-minute intervals. */
export const pointsMax = 288

export type Connection = 'connecting' | 'live' | 'reconnecting' | 'offline'

/** `isLive`: came as an event since the last resync. */
interface Kept extends Point {
  readonly isLive: boolean
}

export type Series = readonly Kept[]

export interface State {
  readonly connection: Connection
  readonly selected: Region
  readonly series: Readonly<Record<Region, Series>>
  readonly fcas: Readonly<Partial<Record<Region, FcasPoint>>>
  readonly stats: Stats | null
  /** Why the newest list could not be had, while it is being tried again. */
  readonly problem: string | null
}

export type Change =
  | { readonly kind: 'connection'; readonly to: Connection }
  | { readonly kind: 'select'; readonly region: unknown }
  | { readonly kind: 'resync'; readonly region: Region }
  | { readonly kind: 'loaded'; readonly region: Region; readonly rows: readonly unknown[] }
  | { readonly kind: 'spot'; readonly publication: Publication }
  | {
      readonly kind: 'fcas'
      readonly region: Region
      readonly row: unknown
      readonly isLive: boolean
    }
  | { readonly kind: 'stats'; readonly stats: Stats }
  | { readonly kind: 'problem'; readonly text: string | null }

export function initialState(selected: unknown): State {
  return {
    connection: 'connecting',
    selected: isRegion(selected) ? selected : 'NSW1',
    series: { NSW1: [], QLD1: [], SA1: [], TAS1: [], VIC1: [] },
    fcas: {},
    stats: null,
    problem: null,
  }
}

/** The same object when nothing changed: the view draws only what is new. */
export function reduce(state: State, change: Change): State {
  switch (change.kind) {
    case 'connection':
      return { ...state, connection: connectionAfter(state.connection, change.to) }
    case 'select':
      return isRegion(change.region) ? { ...state, selected: change.region } : state
    case 'resync':
      return withSeries(
        state,
        change.region,
        state.series[change.region].map((point) => ({ ...point, isLive: false })),
      )
    case 'loaded':
      return withSeries(state, change.region, mergeList(state.series[change.region], change.rows))
    case 'spot':
      return withPublication(state, change.publication)
    case 'fcas':
      return withFcas(state, change.region, change.row, change.isLive)
    case 'stats':
      return { ...state, stats: change.stats }
    case 'problem':
      return change.text === state.problem ? state : { ...state, problem: change.text }
  }
}

/** Once live, a new attempt is a reconnect: "connecting" would hide that something was lost. */
function connectionAfter(from: Connection, to: Connection): Connection {
  return to === 'connecting' && from !== 'connecting' ? 'reconnecting' : to
}

function mergeList(held: Series, rows: readonly unknown[]): Series {
  const byTime = new Map<number, Kept>()
  for (const row of rows) {
    const point = readPoint(row)
    if (point) byTime.set(point.at, { ...point, isLive: false })
  }
  for (const point of held) if (point.isLive) byTime.set(point.at, point)
  return newest([...byTime.values()].sort((left, right) => left.at - right.at))
}

function withPublication(state: State, { op, region, row }: Publication): State {
  const point = readPoint(row)
  if (!point) return state
  const rest = state.series[region].filter(({ at }) => at !== point.at)
  if (op === 'remove') return withSeries(state, region, rest)
  const after = rest.findIndex(({ at }) => at > point.at)
  const index = after === -1 ? rest.length : after
  return withSeries(state, region, newest(rest.toSpliced(index, 0, { ...point, isLive: true })))
}

function withSeries(state: State, region: Region, series: Series): State {
  return { ...state, series: { ...state.series, [region]: series } }
}

/** An event is always the newest word; a list answer that was overtaken by one is not. */
function withFcas(state: State, region: Region, row: unknown, isLive: boolean): State {
  const point = readFcas(row)
  const held = state.fcas[region]
  if (!point || (!isLive && held && held.at >= point.at)) return state
  return { ...state, fcas: { ...state.fcas, [region]: point } }
}

const newest = (series: Series): Series => series.slice(-pointsMax)

/** The interval to show the time of: the newest of any region. */
export function newestPoint(state: State): Point | undefined {
  let found: Point | undefined
  for (const region of regions) {
    const last = state.series[region].at(-1)
    if (last && (!found || last.at > found.at)) found = last
  }
  return found
}

export interface Summary {
  readonly low: number
  readonly high: number
  readonly average: number
}

export function summarise(series: readonly Point[]): Summary | null {
  if (series.length === 0) return null
  const prices = series.map(({ price }) => price)
  return {
    low: Math.min(...prices),
    high: Math.max(...prices),
    average: prices.reduce((sum, price) => sum + price, 0) / prices.length,
  }
}
