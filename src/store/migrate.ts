/**
 * Brings the file to what this binary needs, at start, before anybody reads: Belfry's own numbered
 * migrations, then the app's tables. Additive changes are applied and logged; anything that could
 * lose data stops the start with the exact statements (SpacetimeDB's safe/forbidden classes).
 */
import type { SQLiteTable } from 'drizzle-orm/sqlite-core'
import { systemMigrations } from '../../db/system.ts'
import { Fault } from '../fault.ts'
import type { Log } from '../observe/log.ts'
import type { RawRow } from './messages.ts'
import type { StoredForeignKey } from './constraints.ts'
import { quote } from './ddl.ts'
import {
  compareSchema,
  type Refusal,
  type StoredColumn,
  type StoredSchema,
  type StoredTable,
} from './schema.ts'
import { logTriggers } from './triggers.ts'

export interface MigrationTx {
  rows(sql: string): Promise<readonly RawRow[]>
  run(sql: string): Promise<void>
}

export interface MigrationDb {
  /**
   * BEGIN IMMEDIATE … COMMIT on the writer, rolled back if `run` throws. `foreignKeys: 'off'` is set
   * before BEGIN and restored after: inside a transaction the pragma does nothing, and a table rebuild
   * would then delete every child row that cascades.
   */
  exclusively<T>(
    run: (tx: MigrationTx) => Promise<T>,
    options?: { readonly foreignKeys: 'off' },
  ): Promise<T>
}

export async function migrate(
  db: MigrationDb,
  tables: readonly SQLiteTable[],
  log: Log,
): Promise<void> {
  await db.exclusively((tx) => migrateIn(tx, tables, log))
}

async function migrateIn(writer: MigrationTx, tables: readonly SQLiteTable[], log: Log) {
  await migrateSystem(writer, log)
  const { apply: some, refuse } = compareSchema(tables, await readSchema(writer))
  const apply = [...some]
  if (refuse.length > 0) throw refusalFault(refuse)
  const stored = new Set(
    (await rowsOf(writer, "select name from sqlite_schema where type='trigger'")).map(([n]) => n),
  )
  for (const t of tables.flatMap((table) => logTriggers(table)))
    if (!stored.has(t.name)) apply.push(t.sql)
  if (apply.length === 0) return
  try {
    for (const one of apply) await writer.run(one)
  } catch (cause) {
    const detail = cause instanceof Fault && cause.cause instanceof Error ? cause.cause.message : ''
    const text = apply.map((one) => `    ${one};`).join('\n')
    throw new Fault('unavailable', `the app's tables cannot be made (${detail}):\n${text}`, {
      hint: 'nothing was changed',
      cause,
    })
  }
  for (const statement of apply) log.info('store.schema_applied', { statement })
}

async function migrateSystem(writer: MigrationTx, log: Log): Promise<void> {
  const current = Number((await rowsOf(writer, 'pragma user_version'))[0]?.[0])
  const newest = systemMigrations.at(-1)?.version ?? 0
  if (current > newest) {
    throw new Fault('unavailable', `the database is of a newer belfry (schema ${current})`, {
      hint: `this binary knows schema ${newest}: run the newer one, or restore a backup`,
    })
  }
  for (const { version, sql } of systemMigrations) {
    if (version <= current) continue
    for (const one of sql.split(/;\n\n|;\n$/)) if (one.trim()) await writer.run(one)
    await writer.run(`pragma user_version = ${version}`)
    log.info('store.migrated', { version })
  }
}

async function readSchema(writer: MigrationTx): Promise<StoredSchema> {
  const tables = new Map<string, StoredTable>()
  const named = await rowsOf(writer, "select name, sql from sqlite_schema where type = 'table'")
  for (const [name, sql] of named as [string, string][]) {
    tables.set(name, await readTable(writer, name, sql))
  }
  const indexes = await rowsOf(
    writer,
    "select name, sql from sqlite_schema where type = 'index' and sql is not null",
  )
  // SQLite keeps the text as it was written, but for the capitals of the first two words.
  const texts = indexes.map(([name, sql]): [string, string] => [
    String(name),
    String(sql).replace(/^CREATE (UNIQUE )?INDEX/, (head) => head.toLowerCase()),
  ])
  return { tables, indexes: new Map(texts) }
}

async function readTable(writer: MigrationTx, name: string, sql: string): Promise<StoredTable> {
  const info = await rowsOf(writer, `pragma table_info(${quote(name)})`)
  const uniques: string[][] = []
  const indexes = await rowsOf(writer, `pragma index_list(${quote(name)})`)
  for (const [, index, , origin] of indexes) {
    if (origin !== 'u') continue
    const parts = await rowsOf(writer, `pragma index_info(${quote(String(index))})`)
    uniques.push(parts.map(([, , column]) => String(column)))
  }
  const keys = await rowsOf(writer, `pragma foreign_key_list(${quote(name)})`)
  const foreignKeys = [...Map.groupBy(keys, ([id]) => id).values()].map(storedForeignKey)
  return { columns: info.map(storedColumn), uniques, foreignKeys, sql }
}

/** Rows of one key: id, seq, table, from, to, on_update, on_delete, match. */
function storedForeignKey(rows: readonly RawRow[]): StoredForeignKey {
  const [, , table, , , onUpdate, onDelete] = rows[0] ?? []
  return {
    columns: rows.map(([, , , from]) => String(from)),
    table: String(table),
    foreignColumns: rows.map(([, , , , to]) => String(to)),
    onUpdate: String(onUpdate).toLowerCase(),
    onDelete: String(onDelete).toLowerCase(),
  }
}

function storedColumn([, name, type, isNotNull, fallback, keyAt]: RawRow): StoredColumn {
  return {
    name: String(name),
    type: String(type),
    isNotNull: isNotNull === 1,
    defaultSql: typeof fallback === 'string' ? fallback : null,
    keyAt: Number(keyAt),
  }
}

async function rowsOf(writer: MigrationTx, sql: string): Promise<readonly RawRow[]> {
  return await writer.rows(sql)
}

function refusalFault(refusals: readonly Refusal[]): Fault {
  const text = refusals.map(
    ({ table, problem, statements }) =>
      `  table ${table}: ${problem}\n${statements.map((one) => `    ${one};`).join('\n')}`,
  )
  return new Fault(
    'unavailable',
    `the stored tables differ from the app's in a way that could lose data:\n${text.join('\n')}`,
    {
      hint: 'nothing was changed; make a copy of the database file, run the statements above on it with any SQLite shell while belfry is stopped, then start again',
    },
  )
}
