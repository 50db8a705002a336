/** Keeps the triggers that write the log in step with the tables. */
import { getTableConfig, type SQLiteTable } from 'drizzle-orm/sqlite-core'
import { quote } from './ddl.ts'
import type { MigrationTx } from './migration-db.ts'
import { readLogTriggers, type StoredProgram, type StoredSchema } from './stored.ts'
import { logTriggers } from './triggers.ts'

/** A statement that alters a table fails while a trigger names what goes; they come back at the end. */
export function dropLogTriggers(
  { logTriggers: stored }: StoredSchema,
  tables: readonly string[],
): string[] {
  return [...stored.values()].filter(({ table }) => tables.includes(table)).map(dropTrigger)
}

/** Makes what is missing, replaces what differs. Returns how many were made or dropped. */
export async function syncLogTriggers(
  tx: MigrationTx,
  tables: readonly SQLiteTable[],
): Promise<number> {
  const { drop, make } = compareTriggers(tables, await readLogTriggers(tx))
  for (const sql of [...drop, ...make]) await tx.run(sql)
  return drop.length + make.length
}

export function outOfStep(
  tables: readonly SQLiteTable[],
  stored: ReadonlyMap<string, StoredProgram>,
): number {
  const { drop, make } = compareTriggers(tables, stored)
  return drop.length + make.length
}

/**
 * Those on tables that are not declared stay: during an upgrade of several nodes, an older one may
 * still serve such a table.
 */
function compareTriggers(
  tables: readonly SQLiteTable[],
  stored: ReadonlyMap<string, StoredProgram>,
): { readonly drop: readonly string[]; readonly make: readonly string[] } {
  const declared = new Set(tables.map((table) => getTableConfig(table).name))
  const wanted = new Map(tables.flatMap(logTriggers).map(({ name, sql }) => [name, bodyOf(sql)]))
  const isKept = ({ name, sql }: StoredProgram): boolean => wanted.get(name) === bodyOf(sql)
  const kept = new Set([...stored.values()].filter(isKept).map(({ name }) => name))
  return {
    drop: [...stored.values()]
      .filter(({ name, table }) => declared.has(table) || wanted.has(name))
      .filter(({ name }) => !kept.has(name))
      .map(dropTrigger),
    make: [...wanted]
      .filter(([name]) => !kept.has(name))
      .map(([, body]) => `CREATE TRIGGER ${body}`),
  }
}

function dropTrigger({ name }: StoredProgram): string {
  return `drop trigger ${quote(name)}`
}

/** SQLite writes the first two words itself. */
function bodyOf(sql: string): string {
  return sql.replace(/^\s*create trigger\s+/i, '')
}
