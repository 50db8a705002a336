/**
 * The recorded demand forecast: fourteen trading days of August 2026. One day (240 rows) per tick until
 * all are stored, so that no transaction is long; after that a tick is one indexed query.
 */
import { desc } from 'drizzle-orm'
import type { FeedContext } from '../feeds/declare.ts'
import { Fault } from '../fault.ts'
import type { SampleRow, Slice } from './energy-samples.ts'
import { sample } from './energy-samples.ts'
import { forecast } from './energy-tables.ts'
import { nemIso } from './energy-time.ts'

type ForecastRow = typeof forecast.$inferInsert

export async function loadForecast({ db }: Pick<FeedContext, 'db'>): Promise<ForecastRow[] | null> {
  const [newest] = await db
    .select({ at: forecast.at })
    .from(forecast)
    .orderBy(desc(forecast.at))
    .limit(1)
  return forecastAfter(await sample('forecast'), newest?.at)
}

/** The first trading day that is not wholly stored; null when all are. */
export function forecastAfter(
  days: readonly Slice[],
  newest: Date | undefined,
): ForecastRow[] | null {
  for (const day of days) {
    const rows = day.rows.map(toRow)
    const last = Math.max(...rows.map((row) => row.at.getTime()))
    if (!newest || last > newest.getTime()) return rows
  }
  return null
}

function toRow(row: SampleRow): ForecastRow {
  return {
    region: row.region ?? '',
    at: date(row, 'interval'),
    issuedAt: date(row, 'forecast_issued_at'),
    poe10: number(row, 'demand_poe10'),
    poe50: number(row, 'demand_poe50'),
    poe90: number(row, 'demand_poe90'),
    actual: number(row, 'demand_actual'),
    rooftopPoe10: number(row, 'rooftop_pv_poe10'),
    rooftopPoe50: number(row, 'rooftop_pv_poe50'),
    rooftopPoe90: number(row, 'rooftop_pv_poe90'),
    rooftopActual: number(row, 'rooftop_pv_actual'),
    source: `AEMO recorded ${nemIso(date(row, 'interval').getTime())}`,
  }
}

function date(row: SampleRow, column: string): Date {
  const ms = Date.parse(row[column] ?? '')
  if (Number.isNaN(ms)) throw new Fault('internal', `sample forecast: ${column} is not a stamp`)
  return new Date(ms)
}

function number(row: SampleRow, column: string): number {
  const value = Number(row[column] || Number.NaN)
  if (Number.isNaN(value)) throw new Fault('internal', `sample forecast: ${column} is not a number`)
  return value
}
