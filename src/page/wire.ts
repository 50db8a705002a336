/** What comes from the server → what the page keeps. Anything that is not of the expected shape is null. */

export const regions = ['NSW1', 'QLD1', 'SA1', 'TAS1', 'VIC1'] as const
export type Region = (typeof regions)[number]

export const regionNames: Readonly<Record<Region, string>> = {
  NSW1: 'New South Wales',
  QLD1: 'Queensland',
  SA1: 'South Australia',
  TAS1: 'Tasmania',
  VIC1: 'Victoria',
}

/** The FCAS recording has these two; a live market has all five. */
export const fcasRegions = ['NSW1', 'SA1'] as const satisfies readonly Region[]

/** One five-minute interval of one region. */
export interface Point {
  /** End of the interval, ms since 1970. */
  readonly at: number
  readonly price: number
  readonly demand: number
  /** Export positive; null when not known. */
  readonly interchange: number | null
  readonly source: string
}

export const services = ['1sec', '6sec', '60sec', '5min', 'reg'] as const
export type ServicePrice = `${'raise' | 'lower'}${(typeof services)[number]}`

export interface FcasPoint {
  readonly at: number
  readonly prices: Readonly<Partial<Record<ServicePrice, number>>>
  readonly source: string
}

export interface Stats {
  readonly connections: number
  readonly subscriptions: number
  readonly cacheHitShare: number
}

export interface Publication {
  readonly op: 'create' | 'update' | 'remove'
  readonly region: Region
  readonly row: unknown
  readonly seq: number
}

export const isRegion = (value: unknown): value is Region =>
  regions.some((region) => region === value)

export function readPoint(row: unknown): Point | null {
  if (!isRecord(row)) return null
  const at = readTime(row.at)
  const { price, demand, interchange, source } = row
  if (at === null || !isNumber(price) || !isNumber(demand)) return null
  return {
    at,
    price,
    demand,
    interchange: isNumber(interchange) ? interchange : null,
    source: typeof source === 'string' ? source : '',
  }
}

export function readFcas(row: unknown): FcasPoint | null {
  if (!isRecord(row)) return null
  const at = readTime(row.at)
  if (at === null) return null
  const prices: Partial<Record<ServicePrice, number>> = {}
  for (const service of services) {
    for (const name of [`raise${service}`, `lower${service}`] as const) {
      const value = row[name]
      if (isNumber(value)) prices[name] = value
    }
  }
  return { at, prices, source: typeof row.source === 'string' ? row.source : '' }
}

export function readPublication(data: unknown): Publication | null {
  if (!isRecord(data) || !isRecord(data.row)) return null
  const { op, seq, row } = data
  const { region } = row
  if (op !== 'create' && op !== 'update' && op !== 'remove') return null
  if (!isRegion(region)) return null
  return { op, region, row, seq: isNumber(seq) ? seq : 0 }
}

export function readStats(data: unknown): Stats | null {
  if (!isRecord(data)) return null
  const { connections, subscriptions, cacheHitShare } = data
  if (!isNumber(connections) || !isNumber(subscriptions) || !isNumber(cacheHitShare)) return null
  return { connections, subscriptions, cacheHitShare }
}

export interface ListPage {
  readonly items: readonly unknown[]
  readonly next: string | null
}

export function readList(body: unknown): ListPage | null {
  if (!isRecord(body) || !Array.isArray(body.items)) return null
  return { items: body.items, next: typeof body.next === 'string' ? body.next : null }
}

/** When a replayed value truly happened: the source says it, the row's own date may be moved on. */
export function recordedAt(source: string): number | null {
  const match = /^AEMO recorded (\S+), replayed$/.exec(source)
  const ms = match ? Date.parse(match[1] ?? '') : Number.NaN
  return Number.isNaN(ms) ? null : ms
}

/** ISO text, or ms. */
function readTime(value: unknown): number | null {
  const ms = typeof value === 'string' ? Date.parse(value) : value
  return isNumber(ms) ? ms : null
}

const isNumber = (value: unknown): value is number =>
  typeof value === 'number' && Number.isFinite(value)

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null
