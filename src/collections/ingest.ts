/**
 * Rows that others push instead of being asked for: inserted or, by primary key, updated where they differ, all of
 * a request or none of it. Pushing twice is pushing once. From "changed rows only" on it is a feed's way.
 *
 * Back-pressure: rows under way are bounded; beyond, a publisher is told how long those before it will take.
 */
import { Fault, type FieldProblem } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import { Pace } from '../lib/pace.ts'
import type { CollectionPlan } from './collections.ts'
import type { RowData } from './columns.ts'
import { givenRowProblems } from './import.ts'
import type { Writes } from './write.ts'

/** Of one request: about 100 ms of the writer, in which other writes wait. */
export const ingestRowsMax = 1_000

/** Accepted and not committed yet, of all requests: as many as a feed's tick may bring, some 10 MB. */
const waitingRowsMax = 10_000

/** Wrong fields that are named. */
const problemsMax = 20

/** A row's share of a commit, until it is known. */
const msPerRowAtFirst = 0.05

export interface Ingested {
  readonly rows: number
  /** Rows that were new or differed. */
  readonly changed: number
  /** The last log entry of this; undefined when nothing changed. */
  readonly seq: number | undefined
}

/** Faults: `invalid` (each wrong field by `rows[3].price`), `too_many` with the wait, `conflict`, `unavailable`. */
export type Ingest = (plan: CollectionPlan, rows: readonly unknown[]) => Promise<Ingested>

export function createIngest(
  { tick }: Pick<Clock, 'tick'>,
  { upsert }: Pick<Writes, 'upsert'>,
): Ingest {
  let waiting = 0
  const pace = new Pace(msPerRowAtFirst)
  /** When the writer was last known to begin with what waits. */
  let since = 0

  const refuseBeyond = (count: number): void => {
    const over = waiting + count - waitingRowsMax
    if (over <= 0) return
    const text = `${waiting} rows wait to be written`
    throw new Fault('too_many', text, { retryAfterMs: pace.waitMs(over) })
  }

  return async (plan, rows) => {
    if (rows.length > ingestRowsMax) {
      throw new Fault('too_large', `at most ${ingestRowsMax} rows are taken at once`)
    }
    refuseBeyond(rows.length)
    refuseWrong(plan, rows)
    if (waiting === 0) since = tick()
    waiting += rows.length
    try {
      const changes = await upsert([{ plan, rows: rows as readonly RowData[] }])
      return { rows: rows.length, changed: changes.length, seq: changes.at(-1)?.seq }
    } finally {
      waiting -= rows.length
      const now = tick()
      pace.took(rows.length, now - since)
      since = now
    }
  }
}

function refuseWrong(plan: CollectionPlan, rows: readonly unknown[]): void {
  const fields: FieldProblem[] = []
  for (const [at, row] of rows.entries()) {
    for (const { field, message } of givenRowProblems(plan, row)) {
      fields.push({ field: field === '' ? `rows[${at}]` : `rows[${at}].${field}`, message })
    }
    if (fields.length >= problemsMax) break
  }
  if (fields.length > 0) throw new Fault('invalid', 'nothing was written', { fields })
}
