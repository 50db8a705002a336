/** The recorded days that ship with the app (db/samples/energy/SOURCE.md), unpacked once and kept: 300 KB of text. */
import { Fault } from '../fault.ts'
import forecastFile from '../../db/samples/energy/nem_demand_forecast_30min_5regions_2026-08.csv.gz' with { type: 'file' }
import spotFile from '../../db/samples/energy/nem_dispatch_5min_5regions_2021-10.csv.gz' with { type: 'file' }
import fcasFile from '../../db/samples/energy/nem_dispatch_fcas_5min_nsw1_sa1_2025-01.csv.gz' with { type: 'file' }

/** One row by column name. */
export type SampleRow = Readonly<Record<string, string>>

/** Rows that belong together because they have one stamp, in time order. */
export interface Slice {
  readonly ms: number
  readonly rows: readonly SampleRow[]
}

const paths = { forecast: forecastFile, spot: spotFile, fcas: fcasFile } as const
const columns = {
  forecast: 'trading_date',
  spot: 'settlement_date',
  fcas: 'settlement_date',
} as const

const loaded = new Map<keyof typeof paths, Promise<readonly Slice[]>>()

/** Spot and FCAS by interval, the forecast by trading day. */
export function sample(name: keyof typeof paths): Promise<readonly Slice[]> {
  let slices = loaded.get(name)
  if (!slices) {
    slices = read(name)
    loaded.set(name, slices)
  }
  return slices
}

async function read(name: keyof typeof paths): Promise<readonly Slice[]> {
  const text = new TextDecoder().decode(Bun.gunzipSync(await Bun.file(paths[name]).bytes()))
  const [head = '', ...lines] = text.trimEnd().split('\n')
  const names = head.split(',')
  const byStamp = new Map<string, SampleRow[]>()
  for (const line of lines) {
    const fields = line.split(',')
    const row = Object.fromEntries(names.map((column, index) => [column, fields[index] ?? '']))
    const stamp = row[columns[name]] ?? ''
    const rows = byStamp.get(stamp)
    if (rows) rows.push(row)
    else byStamp.set(stamp, [row])
  }
  return Array.from(byStamp, ([stamp, rows]) => {
    const ms = Date.parse(stamp)
    if (Number.isNaN(ms)) throw new Fault('internal', `sample ${name}: not a stamp: ${stamp}`)
    return { ms, rows }
  })
}
