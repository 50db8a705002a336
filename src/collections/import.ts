/**
 * JSON lines into a collection: each line is checked as the body of a POST would be, and its row inserted
 * or, by primary key, updated where it differs. For operators: no rule is asked, and the key must be
 * given, so that importing twice is importing once.
 *
 * A batch is one transaction, or nothing if one of its lines is wrong and wrong lines are not skipped.
 */
import { Fault, type FieldProblem } from '../fault.ts'
import type { Change, Store } from '../store/store.ts'
import type { CollectionPlan } from './collections.ts'
import { idOf, insertProblems, isAddressable, parseBody, type RowData } from './columns.ts'
import { createUpserts } from './upsert.ts'
import type { Writes } from './write.ts'

/** Rows of one transaction: about 25 ms of the writer, in which other writes wait. */
export const importBatchLines = 500

/** Wrong lines are named up to here, beyond only counted. */
const problemsMax = 20

/** Of one line; a row's JSON may be longer than a request's body, but not as long as a file without lines. */
const lineBytesMax = 16 * 1024 * 1024

export interface LineProblem {
  /** From 1. */
  readonly line: number
  readonly message: string
}

export interface Imported {
  /** Rows that were read, right ones, in batches that were written. */
  readonly rows: number
  /** Rows that were new or differed. */
  readonly changed: number
  /** Wrong lines; `problems` names the first of them. */
  readonly wrong: number
  readonly problems: readonly LineProblem[]
  /** The first line that was not imported, because its batch has a wrong line; undefined: all were. */
  readonly stoppedAt: number | undefined
}

export interface ImportOptions {
  /** Number of the first line of `body`. */
  readonly firstLine: number
  readonly skipInvalid: boolean
}

interface Parsed {
  readonly line: number
  readonly row: RowData
}

type Upsert = Pick<Writes, 'upsert'>

/** A collection's upserts without the rest of the room: where no server runs, nobody reads or listens. */
export function createRowWriter(store: Pick<Store, 'write' | 'db'>): Upsert {
  const upsert = createUpserts(store.db)
  return {
    upsert: async (batches) =>
      await store.write(batches.flatMap(({ plan, rows }) => rows.map((row) => upsert(plan, row)))),
  }
}

/** `body`: whole lines; empty ones are passed over. Faults: `unavailable`. */
export async function importLines(
  { upsert }: Upsert,
  plan: CollectionPlan,
  body: Uint8Array,
  { firstLine, skipInvalid }: ImportOptions,
): Promise<Imported> {
  const sum = { rows: 0, changed: 0, wrong: 0 }
  const problems: LineProblem[] = []
  const note = (line: number, message: string): void => {
    sum.wrong++
    if (problems.length < problemsMax) problems.push({ line, message })
  }

  const batches = batchesOf(body, firstLine)
  for (const lines of batches) {
    const parsed: Parsed[] = []
    for (const { line, bytes } of lines) {
      const row = parseLine(plan, bytes)
      if (typeof row === 'string') note(line, row)
      else parsed.push({ line, row })
    }
    const isRefused = sum.wrong > 0 && !skipInvalid
    const wrongBefore = sum.wrong
    const changed = isRefused ? undefined : await write(upsert, plan, parsed, { skipInvalid, note })
    if (changed === undefined) return { ...sum, problems, stoppedAt: lines[0]?.line ?? firstLine }
    sum.rows += parsed.length - (sum.wrong - wrongBefore)
    sum.changed += changed.length
  }
  return { ...sum, problems, stoppedAt: undefined }
}

/** What changed, or undefined if the database refused the batch and lines are not skipped. */
async function write(
  upsert: Writes['upsert'],
  plan: CollectionPlan,
  parsed: readonly Parsed[],
  how: { readonly skipInvalid: boolean; readonly note: (line: number, message: string) => void },
): Promise<readonly Change[] | undefined> {
  if (parsed.length === 0) return []
  try {
    return await upsert([{ plan, rows: parsed.map(({ row }) => row) }])
  } catch (thrown) {
    const { line } = parsed[0] ?? { line: 0 }
    if (!isRefusal(thrown)) throw thrown
    if (!how.skipInvalid) {
      const last = parsed.at(-1)?.line ?? line
      how.note(line, `${textOf(thrown)} (in one of the lines ${line} to ${last})`)
      return undefined
    }
    if (parsed.length === 1) {
      how.note(line, textOf(thrown))
      return []
    }
  }
  // Halves, and halves of them, until the line is found: each right row is written all the same.
  const middle = Math.ceil(parsed.length / 2)
  const first = (await write(upsert, plan, parsed.slice(0, middle), how)) ?? []
  return [...first, ...((await write(upsert, plan, parsed.slice(middle), how)) ?? [])]
}

/** The database's constraints know more than one line does: unique values, rows it refers to. */
function isRefusal(thrown: unknown): thrown is Fault {
  return thrown instanceof Fault && (thrown.code === 'conflict' || thrown.code === 'invalid')
}

function textOf({ message, fields = [] }: Fault): string {
  return [message, ...fields.map((one) => `${one.field} ${one.message}`)].join(': ')
}

/** The row, or in words what is wrong with the line. */
function parseLine(plan: CollectionPlan, bytes: Uint8Array): RowData | string {
  if (bytes.byteLength > lineBytesMax) return `is longer than ${lineBytesMax} bytes`
  let value: unknown
  try {
    value = JSON.parse(decoder.decode(bytes))
  } catch (thrown) {
    return thrown instanceof SyntaxError ? 'is not valid JSON' : 'is not valid UTF-8'
  }
  const problems = givenRowProblems(plan, value)
  if (problems.length === 0) return value as RowData
  return problems.map(({ field, message }) => `${field} ${message}`.trim()).join(', ')
}

/** What is wrong with a row whose key must be given; that of no field is of ''. */
export function givenRowProblems(plan: CollectionPlan, value: unknown): readonly FieldProblem[] {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return [{ field: '', message: 'is no JSON object' }]
  }
  const { values, problems } = parseBody(plan.columns, value)
  const all = insertProblems(plan.columns, problems, values)
  for (const field of plan.keyProperties) {
    const isNamed = Object.hasOwn(values, field) || all.some((one) => one.field === field)
    if (!isNamed) all.push({ field, message: 'is required: it is part of the key' })
  }
  if (all.length > 0 || isAddressable(idOf(plan.key, plan.keyProperties, values))) return all
  const message = 'must not be empty, . or .., nor longer than 1,024 characters'
  return [{ field: plan.keyProperties[0] ?? '', message }]
}

const decoder = new TextDecoder('utf-8', { fatal: true })
const newline = 0x0a

interface Line {
  readonly line: number
  readonly bytes: Uint8Array
}

function* batchesOf(body: Uint8Array, firstLine: number): Generator<readonly Line[]> {
  let batch: Line[] = []
  let line = firstLine
  for (let at = 0; at < body.length; line++) {
    const end = body.indexOf(newline, at)
    const bytes = body.subarray(at, end === -1 ? body.length : end)
    at = end === -1 ? body.length : end + 1
    if (!bytes.every(isBlank)) batch.push({ line, bytes })
    if (batch.length < importBatchLines) continue
    yield batch
    batch = []
  }
  if (batch.length > 0) yield batch
}

function isBlank(byte: number): boolean {
  return byte === 0x20 || byte === 0x0d || byte === 0x09
}
