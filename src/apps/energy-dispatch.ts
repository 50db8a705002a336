/**
 * The text of one AEMO dispatch file → rows. Live files and the recorded days both come through here.
 *
 *   C,NEMP.WORLD,DISPATCHIS,AEMO,PUBLIC,…                  what the file is
 *   I,DISPATCH,PRICE,5,SETTLEMENTDATE,RUNNO,REGIONID,…     names the columns of table PRICE, version 5
 *   D,DISPATCH,PRICE,5,"2025/08/20 18:10:00",1,NSW1,…      one row of it
 *   C,"END OF REPORT",892                                  how many lines there are, this one included
 *
 * Read are DISPATCH.PRICE and DISPATCH.REGIONSUM, by column name: a new version of a table, a new
 * column or a table nobody knows changes nothing here.
 *
 * INTERVENTION. When AEMO directs a plant, it solves the interval twice and publishes both: 0 is the
 * market pricing run (as if nobody had been directed), 1 the physical run. Prices settle on run 0;
 * what flows is run 1. So prices are taken from the LOWEST and demand from the HIGHEST run there is.
 */
import { Fault } from '../fault.ts'
import { parseNemStamp } from './energy-time.ts'

export interface SpotReading {
  readonly region: string
  readonly at: Date
  readonly price: number
  readonly demand: number
  readonly generation: number | null
  readonly interchange: number | null
}

/** FCAS services by column of `fcas`; AEMO's column is the same in capitals with RRP behind. */
export const services = [
  'raise1sec',
  'raise6sec',
  'raise60sec',
  'raise5min',
  'raisereg',
  'lower1sec',
  'lower6sec',
  'lower60sec',
  'lower5min',
  'lowerreg',
] as const
export type Service = (typeof services)[number]

export type FcasReading = { readonly region: string; readonly at: Date } & {
  readonly [service in Service]: number | null
}

export interface Dispatch {
  readonly spot: readonly SpotReading[]
  /** Only regions for which the file gives at least one service. */
  readonly fcas: readonly FcasReading[]
}

/** A real file has about 900 lines; one that claims to need more is not a dispatch file. */
const linesMax = 50_000

/** Faults: `invalid`, naming table, column and line. */
export function parseDispatch(text: string): Dispatch {
  const records = collect(text)
  const spot: SpotReading[] = []
  const fcas: FcasReading[] = []
  for (const [key, price] of pick(records.prices, (run, held) => run < held)) {
    const { region, at } = price
    fcas.push(...fcasOf(price))
    const sum = records.sums.get(key)
    if (!sum) {
      throw price.fault('REGIONID', `region ${region} has a price but no row in DISPATCH.REGIONSUM`)
    }
    spot.push({
      region,
      at,
      price: price.number('RRP'),
      demand: sum.number('TOTALDEMAND'),
      generation: sum.numberOrNull('DISPATCHABLEGENERATION'),
      interchange: sum.numberOrNull('NETINTERCHANGE'),
    })
  }
  if (spot.length === 0) throw new Fault('invalid', 'dispatch file: no row in DISPATCH.PRICE')
  return { spot, fcas }
}

function fcasOf(price: Reading): FcasReading[] {
  const values = services.map(
    (service) => [service, price.numberOrNull(`${service.toUpperCase()}RRP`)] as const,
  )
  if (values.every(([, value]) => value === null)) return []
  const prices = Object.fromEntries(values) as { [service in Service]: number | null }
  return [{ region: price.region, at: price.at, ...prices }]
}

/** One D row of a table we read, with its columns by name. */
interface Reading {
  readonly region: string
  readonly at: Date
  readonly run: number
  /** Faults when the column or the value is missing. */
  readonly number: (column: string) => number
  /** Null when there is no such column or nothing in it; a value that is no number still faults. */
  readonly numberOrNull: (column: string) => number | null
  readonly fault: (column: string, problem: string) => Fault
}

interface Records {
  readonly prices: readonly Reading[]
  /** By region and interval, the physical run where there are two. */
  readonly sums: ReadonlyMap<string, Reading>
}

function collect(text: string): Records {
  const tables = { PRICE: [] as Reading[], REGIONSUM: [] as Reading[] }
  const columns = new Map<string, ReadonlyMap<string, number>>()
  let declaredLines: number | undefined
  let count = 0
  for (const raw of lines(text)) {
    count += 1
    if (count > linesMax) throw new Fault('too_large', `dispatch file: more than ${linesMax} lines`)
    // Nine lines of ten are constraints and the like: not split, only looked at.
    if (raw.startsWith('C,')) {
      const [, what, lineCount] = split(raw, count)
      if (what === 'END OF REPORT') declaredLines = Number(lineCount)
      continue
    }
    const isNames = raw.startsWith('I,DISPATCH,')
    if (!isNames && !raw.startsWith('D,DISPATCH,')) continue
    const table = raw.slice(11, raw.indexOf(',', 11))
    if (table !== 'PRICE' && table !== 'REGIONSUM') continue

    const fields = split(raw, count)
    const version = `${table},${fields[3] ?? ''}`
    if (isNames) {
      columns.set(version, new Map(fields.map((name, index) => [name, index] as const).slice(4)))
      continue
    }
    const names = columns.get(version)
    if (!names) {
      throw new Fault(
        'invalid',
        `dispatch file line ${count}: DISPATCH.${table} has no I row before it`,
      )
    }
    tables[table].push(reading(table, names, fields, count))
  }
  if (declaredLines === undefined || count < declaredLines) {
    throw new Fault('invalid', `dispatch file: cut short after line ${count}`)
  }
  return { prices: tables.PRICE, sums: pick(tables.REGIONSUM, (run, held) => run > held) }
}

function reading(
  table: string,
  names: ReadonlyMap<string, number>,
  fields: readonly string[],
  line: number,
): Reading {
  const fault = (column: string, problem: string): Fault =>
    new Fault('invalid', `dispatch file line ${line}: DISPATCH.${table}.${column}: ${problem}`)

  const textOf = (column: string): string => {
    const index = names.get(column)
    if (index === undefined) throw fault(column, 'no such column')
    const value = fields[index]
    if (value === undefined || value === '') throw fault(column, 'no value')
    return value
  }
  const number = (column: string): number => {
    const value = textOf(column)
    const parsed = Number(value)
    if (value.trim() === '' || !Number.isFinite(parsed)) {
      throw fault(column, `not a number: ${value.slice(0, 40)}`)
    }
    return parsed
  }
  const numberOrNull = (column: string): number | null => {
    const index = names.get(column)
    return index === undefined || !fields[index] ? null : number(column)
  }

  const stamp = textOf('SETTLEMENTDATE')
  const at = parseNemStamp(stamp)
  if (at === undefined) throw fault('SETTLEMENTDATE', `not a stamp: ${stamp.slice(0, 40)}`)
  return {
    region: textOf('REGIONID'),
    at: new Date(at),
    run: numberOrNull('INTERVENTION') ?? 0,
    number,
    numberOrNull,
    fault,
  }
}

/** One row per region and interval: the one whose run is `better`. */
function pick(
  rows: readonly Reading[],
  better: (run: number, held: number) => boolean,
): Map<string, Reading> {
  const picked = new Map<string, Reading>()
  for (const row of rows) {
    const key = `${row.region} ${row.at.getTime()}`
    const held = picked.get(key)
    if (!held || better(row.run, held.run)) picked.set(key, row)
  }
  return picked
}

function* lines(text: string): Generator<string> {
  let start = 0
  while (start < text.length) {
    const end = text.indexOf('\n', start)
    const stop = end === -1 ? text.length : end
    const line = text.slice(start, text[stop - 1] === '\r' ? stop - 1 : stop)
    if (line !== '') yield line
    start = stop + 1
  }
}

/** Quoted fields may hold commas and doubled quotes; AEMO never breaks a line inside one. */
function split(line: string, number: number): string[] {
  if (!line.includes('"')) return line.split(',')
  const fields: string[] = []
  let at = 0
  for (;;) {
    if (line[at] !== '"') {
      const comma = line.indexOf(',', at)
      fields.push(line.slice(at, comma === -1 ? line.length : comma))
      if (comma === -1) return fields
      at = comma + 1
      continue
    }
    let close = line.indexOf('"', at + 1)
    while (close !== -1 && line[close + 1] === '"') close = line.indexOf('"', close + 2)
    if (close === -1)
      throw new Fault('invalid', `dispatch file line ${number}: a quote is not closed`)
    fields.push(line.slice(at + 1, close).replaceAll('""', '"'))
    if (close + 1 >= line.length) return fields
    if (line[close + 1] !== ',') {
      throw new Fault('invalid', `dispatch file line ${number}: text after a closing quote`)
    }
    at = close + 2
  }
}
