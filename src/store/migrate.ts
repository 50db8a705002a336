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
import {
  compareSchema,
  quote,
  type Refusal,
  type StoredColumn,
  type StoredSchema,
} from './schema.ts'
import type { ThreadClient } from './thread-client.ts'

export async function migrate(
  writer: ThreadClient,
  tables: readonly SQLiteTable[],
  log: Log,
): Promise<void> {
  await migrateSystem(writer, log)
  const { apply, refuse } = compareSchema(tables, await readSchema(writer))
  if (refuse.length > 0) throw refusalFault(refuse)
  if (apply.length === 0) return
  await writer.ask({ kind: 'script', statements: apply })
  for (const statement of apply) log.info('store.schema_applied', { statement })
}

async function migrateSystem(writer: ThreadClient, log: Log): Promise<void> {
  const current = Number((await rowsOf(writer, 'pragma user_version'))[0]?.[0])
  const newest = systemMigrations.at(-1)?.version ?? 0
  if (current > newest) {
    throw new Fault('unavailable', `the database is of a newer belfry (schema ${current})`, {
      hint: `this binary knows schema ${newest}: run the newer one, or restore a backup`,
    })
  }
  for (const { version, sql } of systemMigrations) {
    if (version <= current) continue
    await writer.ask({ kind: 'script', statements: [sql, `pragma user_version = ${version}`] })
    log.info('store.migrated', { version })
  }
}

async function readSchema(writer: ThreadClient): Promise<StoredSchema> {
  const columns = new Map<string, StoredColumn[]>()
  const tables = await rowsOf(writer, "select name from sqlite_schema where type = 'table'")
  for (const [name] of tables as [string][]) {
    const info = await rowsOf(writer, `pragma table_info(${quote(name)})`)
    columns.set(name, info.map(storedColumn))
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
  return { columns, indexes: new Map(texts) }
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

async function rowsOf(writer: ThreadClient, sql: string): Promise<readonly RawRow[]> {
  const answer = await writer.ask({ kind: 'read', query: { sql, params: [] } })
  return 'rows' in answer ? answer.rows : []
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
