/**
 * Batched look-ups: whatever is asked in one tick becomes one `select … where column in (…)` per
 * column. One loader per request: it remembers nothing, so what is asked after a write sees it.
 *
 *   load.one(users.id, 1) ─┐
 *   load.one(users.id, 2) ─┼─ same tick ─► select … from users where id in (1, 2) ─► each its own row
 *   load.one(users.id, 1) ─┘
 *
 * No rule is asked: that is for the code that loads. `createBatches` is the same on driver values and
 * within a condition, for `expand`, where the target's rule is one.
 */
import { and, sql } from 'drizzle-orm'
import type { SQLiteColumn, SQLiteTable } from 'drizzle-orm/sqlite-core'
import { getTableConfig } from 'drizzle-orm/sqlite-core'
import { Fault, toFault } from '../fault.ts'
import type { RawRow, Store } from '../store/store.ts'
import { columnsOf, decodeRow, toDriver, type Columns } from './columns.ts'
import type { Load } from './declare.ts'
import { scopeKey } from './rules.ts'
import { selectQuery } from './statement.ts'
import { toSql, type Where } from './where.ts'

/** SQLite takes 32,766 variables; fewer keep a statement short enough for others to pass between. */
export const valuesPerStatementMax = 500

/** Rows of one statement. `many` is for what belongs to a few rows: more is a list, with pages. */
const rowsPerStatementMax = 10_000

/**
 * Turns of the microtask queue before a batch leaves: chains of promises that began together but are
 * not equally long (one function awaits another) still share a statement.
 */
const turnsBeforeLeaving = 4

export type Batches = (
  column: SQLiteColumn,
  driverValue: unknown,
  scope: Where,
) => Promise<readonly RawRow[]>

interface Batch {
  readonly column: SQLiteColumn
  readonly scope: Where
  readonly waiting: Map<unknown, PromiseWithResolvers<readonly RawRow[]>>
}

export function createBatches(store: Pick<Store, 'read' | 'db'>): Batches {
  const gathering = new Map<SQLiteColumn, Map<string, Batch>>()

  const leave = async (): Promise<void> => {
    for (let turn = 0; turn < turnsBeforeLeaving; turn++) await Promise.resolve()
    const batches = [...gathering.values()].flatMap((byScope) => [...byScope.values()])
    gathering.clear()
    await Promise.all(batches.flatMap((batch) => chunksOf(batch).map((chunk) => run(store, chunk))))
  }

  return (column, driverValue, scope) => {
    // In SQL nothing equals null.
    if (driverValue === null || driverValue === undefined) return Promise.resolve([])
    if (gathering.size === 0) void leave()
    let byScope = gathering.get(column)
    if (!byScope) gathering.set(column, (byScope = new Map<string, Batch>()))
    const key = scopeKey(scope)
    let batch = byScope.get(key)
    if (!batch) byScope.set(key, (batch = { column, scope, waiting: new Map() }))
    let waiter = batch.waiting.get(driverValue)
    if (!waiter) batch.waiting.set(driverValue, (waiter = Promise.withResolvers()))
    return waiter.promise
  }
}

function chunksOf({ column, scope, waiting }: Batch): Batch[] {
  const entries = [...waiting]
  const chunks: Batch[] = []
  for (let at = 0; at < entries.length; at += valuesPerStatementMax) {
    const some = new Map(entries.slice(at, at + valuesPerStatementMax))
    chunks.push({ column, scope, waiting: some })
  }
  return chunks
}

/** Never rejects: whatever happens is told to those who wait. */
async function run(store: Pick<Store, 'read' | 'db'>, batch: Batch): Promise<void> {
  const { column, waiting } = batch
  try {
    const at = [...tableColumns(column.table).values()].indexOf(column)
    const rows = Map.groupBy(await select(store, batch), (raw) => plain(raw[at]))
    for (const [value, { resolve }] of waiting) resolve(rows.get(plain(value)) ?? [])
  } catch (thrown) {
    const fault = toFault(thrown)
    for (const { reject } of waiting.values()) reject(fault)
  }
}

async function select(
  store: Pick<Store, 'read' | 'db'>,
  { column, scope, waiting }: Batch,
): Promise<readonly RawRow[]> {
  const values = padded([...waiting.keys()]).map((value) => sql`${value}`)
  const where = and(sql`${column} in (${sql.join(values, sql`, `)})`, toSql(scope))
  const { name } = getTableConfig(column.table)
  const limit = rowsPerStatementMax + 1
  const rows = await store.read(selectQuery(`load ${name}`, { table: column.table, where, limit }))
  if (rows.length <= rowsPerStatementMax) return rows
  throw new Fault('too_large', `more than ${rowsPerStatementMax} rows of ${name} at once`)
}

/** To the next power of two, by the last value again: few texts, so that statements stay prepared. */
function padded(values: readonly unknown[]): unknown[] {
  const size = Math.min(2 ** Math.ceil(Math.log2(values.length)), valuesPerStatementMax)
  return [...values, ...Array.from({ length: size - values.length }, () => values.at(-1))]
}

/** The engine may give a number as either of JavaScript's two kinds. */
function plain(value: unknown): unknown {
  return typeof value === 'bigint' ? Number(value) : value
}

const known = new WeakMap<SQLiteTable, Columns>()

function tableColumns(table: SQLiteTable): Columns {
  let columns = known.get(table)
  if (!columns) known.set(table, (columns = columnsOf(table)))
  return columns
}

/** `Tables` are those whose rows are typed; of others a row is a plain record. */
export function createLoader<Tables extends SQLiteTable = never>(
  store: Pick<Store, 'read' | 'db'>,
): Load<Tables> {
  const batches = createBatches(store)
  // Each caller gets rows of its own: what one changes, another does not see.
  const rowsOf = async (column: SQLiteColumn, value: unknown) => {
    const raws = await batches(column, toDriver(column, value), { kind: 'always' })
    return raws.map((raw) => decodeRow(tableColumns(column.table), raw))
  }
  const load: Load = {
    one: async (column, value) => (await rowsOf(column, value))[0],
    many: rowsOf,
  }
  return load as unknown as Load<Tables>
}
