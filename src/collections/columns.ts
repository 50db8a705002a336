/**
 * A table's columns as the single source of what comes in and goes out: checked JSON in, decoded
 * driver rows out, one text form for values in paths and queries.
 */
import type { SQLiteColumn, SQLiteTable } from 'drizzle-orm/sqlite-core'
import { getTableColumns } from 'drizzle-orm'
import { Fault, type FieldProblem } from '../fault.ts'
import type { RawRow } from '../store/store.ts'

/** By property name, in table order: the order in which `select` and `returning` give them. */
export type Columns = ReadonlyMap<string, SQLiteColumn>

export type RowData = Readonly<Record<string, unknown>>

/** Text of a column without a declared length; a page of 100 such rows stays below 7 MB. */
const textLengthMax = 64 * 1024

export function columnsOf(table: SQLiteTable): Columns {
  return new Map(Object.entries(getTableColumns(table)) as [string, SQLiteColumn][])
}

export function decodeRow(columns: Columns, raw: RawRow): RowData {
  const row: Record<string, unknown> = {}
  let at = 0
  for (const [property, column] of columns) {
    const value = raw[at++]
    row[property] = value === null || value === undefined ? null : column.mapFromDriverValue(value)
  }
  return row
}

type Parsed =
  | { readonly ok: true; readonly value: unknown }
  | { readonly ok: false; readonly message: string }

const good = (value: unknown): Parsed => ({ ok: true, value })
const bad = (message: string): Parsed => ({ ok: false, message })

/**
 * Column kinds that have a JSON form and a text form; the plan refuses tables with others. `numeric` is
 * none of them: SQLite takes '05' and '5' for the same there, and two ids for one row are two cache keys.
 */
export function isServable(column: SQLiteColumn): boolean {
  return (
    ['string', 'number', 'boolean', 'date', 'json'].includes(column.dataType) &&
    column.getSQLType().toLowerCase() !== 'numeric' &&
    column.generated === undefined
  )
}

/** One JSON value against its column. */
export function parseJsonValue(column: SQLiteColumn, value: unknown): Parsed {
  if (value === null) return column.notNull ? bad('must not be null') : good(null)
  switch (column.dataType) {
    case 'string':
      return typeof value === 'string' ? parseText(column, value) : bad('must be a string')
    case 'number':
      return typeof value === 'number' ? parseNumber(column, value) : bad('must be a number')
    case 'boolean':
      return typeof value === 'boolean' ? good(value) : bad('must be true or false')
    case 'date':
      return typeof value === 'string' || typeof value === 'number'
        ? parseDate(value)
        : bad(dateForm)
    default:
      return isShallow(value, jsonDepthMax) ? good(value) : bad(`nests deeper than ${jsonDepthMax}`)
  }
}

/** What is stored must be printable again: `JSON.stringify` recurses. */
const jsonDepthMax = 64

function isShallow(value: unknown, depthMax: number): boolean {
  if (typeof value !== 'object' || value === null) return true
  return depthMax > 0 && Object.values(value).every((part) => isShallow(part, depthMax - 1))
}

/** One value out of a path or a query string against its column. */
export function parseTextValue(column: SQLiteColumn, text: string): Parsed {
  switch (column.dataType) {
    case 'string':
      return parseText(column, text)
    case 'number':
      return /^-?\d+(\.\d+)?(e[+-]?\d+)?$/i.test(text)
        ? parseNumber(column, Number(text))
        : bad('must be a number')
    case 'boolean':
      return text === 'true' || text === 'false'
        ? good(text === 'true')
        : bad('must be true or false')
    case 'date':
      return parseDate(/^-?\d{1,16}$/.test(text) ? Number(text) : text)
    default:
      return bad('cannot be asked for')
  }
}

function parseText(column: SQLiteColumn, text: string): Parsed {
  const { enumValues } = column
  if (enumValues && enumValues.length > 0 && !enumValues.includes(text)) {
    return bad(`must be one of ${enumValues.join(', ')}`)
  }
  const lengthMax = declaredLength(column) ?? textLengthMax
  if (text.length > lengthMax) return bad(`must be at most ${lengthMax} characters`)
  if (!text.isWellFormed()) return bad('must be well-formed Unicode')
  // libSQL reads a text up to its first U+0000.
  if (text.includes('\0')) return bad('must not contain U+0000')
  return good(text)
}

/** The longest text that a column takes, if it says. */
export function textLengthOf(column: SQLiteColumn): number | undefined {
  const { enumValues } = column
  if (enumValues && enumValues.length > 0)
    return Math.max(...enumValues.map(({ length }) => length))
  return declaredLength(column)
}

function declaredLength(column: SQLiteColumn): number | undefined {
  return 'length' in column && typeof column.length === 'number' ? column.length : undefined
}

function parseNumber(column: SQLiteColumn, value: number): Parsed {
  if (!Number.isFinite(value)) return bad('must be a finite number')
  const isInteger = column.getSQLType().toLowerCase() === 'integer'
  if (isInteger && !Number.isSafeInteger(value)) return bad('must be an integer below 2^53')
  return good(value)
}

const dateForm = 'must be a date like 2026-01-31T12:00:00Z or milliseconds since 1970'

/** ISO 8601 with a zone only: a local time would mean another instant on every machine. Years 0 to 9999. */
function parseDate(value: string | number): Parsed {
  if (typeof value === 'string') {
    const match = /^(\d{4})-(\d\d)-(\d\d)T\d\d:\d\d.*(?:Z|[+-]\d\d:?\d\d)$/.exec(value)
    if (!match) return bad(dateForm)
    const [year, month, day] = [Number(match[1]), Number(match[2]), Number(match[3])]
    // JavaScript takes the 31st of February for the 3rd of March.
    if (day > new Date(Date.UTC(year, month, 0)).getUTCDate()) return bad(dateForm)
  }
  const date = new Date(value)
  const isPlain = !Number.isNaN(date.getTime()) && /^\d/.test(date.toISOString())
  return isPlain ? good(date) : bad(dateForm)
}

/** A value made by the app's own code: as in JSON, but dates may be Date objects. */
export function parseOwnValue(column: SQLiteColumn, value: unknown): Parsed {
  return parseJsonValue(column, value instanceof Date ? value.getTime() : value)
}

/** What the database holds for a checked value. */
export function toDriver(column: SQLiteColumn, value: unknown): unknown {
  if (value === null || value === undefined) return null
  const mapped: unknown = column.mapToDriverValue(value as never)
  return typeof mapped === 'boolean' ? Number(mapped) : mapped
}

export interface ParsedInput {
  readonly values: RowData
  readonly problems: readonly FieldProblem[]
}

/** All wrong fields of a body at once; `values` are the right ones. Faults: `invalid` if it has none. */
export function parseBody(columns: Columns, body: unknown): ParsedInput {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw new Fault('invalid', 'the body must be a JSON object')
  }
  const values: Record<string, unknown> = {}
  const problems: FieldProblem[] = []
  for (const [field, value] of Object.entries(body)) {
    const column = columns.get(field)
    if (!column) {
      problems.push({ field, message: 'is not a column' })
      continue
    }
    const parsed = parseJsonValue(column, value)
    if (parsed.ok) values[field] = parsed.value
    else problems.push({ field, message: parsed.message })
  }
  return { values, problems }
}

/** Columns an insert must be given: not null, and nobody else fills them in. */
export function missingColumns(columns: Columns, values: RowData): FieldProblem[] {
  const problems: FieldProblem[] = []
  for (const [field, column] of columns) {
    if (Object.hasOwn(values, field) || !column.notNull || column.hasDefault) continue
    if (column.primary && column.getSQLType().toLowerCase() === 'integer') continue
    problems.push({ field, message: 'is required' })
  }
  return problems
}

/** What is wrong with an insert, and what is missing; a wrong field is not missing, too. */
export function insertProblems(
  columns: Columns,
  problems: readonly FieldProblem[],
  values: RowData,
): FieldProblem[] {
  const wrong = new Set(problems.map(({ field }) => field))
  const missing = missingColumns(columns, values).filter(({ field }) => !wrong.has(field))
  return [...problems, ...missing]
}

/**
 * A primary key as it stands in a URL: parts joined by commas, dates as ISO text, what a URL cannot hold
 * escaped, so `NSW1,2021-10-06T05:00:00.000Z` or `a%2Cb`.
 */
export function idOf(
  key: readonly SQLiteColumn[],
  properties: readonly string[],
  row: RowData,
): string {
  return key
    .map((_, at) => {
      const value = row[properties[at] ?? '']
      const text = value instanceof Date ? value.toISOString() : String(value)
      return encodeURIComponent(text).replaceAll('%3A', ':')
    })
    .join(',')
}

/** A path of these means another one: browsers and servers fold them away. */
const unaddressable = new Set(['', '.', '..'])

/** Characters of an id: a URL of 8 KB must hold it, and so must a cursor. */
export const idLengthMax = 1024

/** Whether a row with this id could be asked for. */
export function isAddressable(id: string): boolean {
  return !unaddressable.has(id) && id.length <= idLengthMax
}

/** The key's driver values out of a path's last part, still escaped; undefined when no row has this id. */
export function parseId(key: readonly SQLiteColumn[], id: string): unknown[] | undefined {
  const parts = id.split(',')
  if (parts.length !== key.length) return undefined
  const values: unknown[] = []
  for (const [at, column] of key.entries()) {
    const value = parseIdPart(column, parts[at] ?? '')
    if (value === undefined) return undefined
    values.push(value)
  }
  return values
}

/** One driver value out of a path, still escaped; undefined when the column cannot hold it. */
export function parseIdPart(column: SQLiteColumn, part: string): unknown {
  const text = decodePart(part)
  const parsed = text === undefined ? undefined : parseTextValue(column, text)
  return parsed?.ok ? toDriver(column, parsed.value) : undefined
}

function decodePart(text: string): string | undefined {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}
