/**
 * What the database has now, read from SQLite's own tables in a handful of statements, however many
 * tables there are: over a remote database every statement is a round trip.
 */
import { systemTables } from '../../db/system.ts'
import type { StoredConstraints, StoredForeignKey } from './constraints.ts'
import { quote } from './ddl.ts'
import type { RawRow } from './messages.ts'
import type { MigrationTx } from './migration-db.ts'
import { triggerPrefix } from './triggers.ts'

export interface StoredColumn {
  readonly name: string
  /** Its name in the database, where `name` is the one it is about to get. */
  readonly storedAs: string
  readonly type: string
  readonly isNotNull: boolean
  readonly defaultSql: string | null
  /** 1-based position in the primary key, 0 if none. */
  readonly keyAt: number
}

export interface StoredTable extends StoredConstraints {
  /** As for columns. */
  readonly storedAs: string
  readonly columns: readonly StoredColumn[]
}

export interface StoredIndex {
  readonly table: string
  readonly sql: string
}

/** A trigger, or a view (whose `table` is itself). */
export interface StoredProgram {
  readonly kind: 'trigger' | 'view'
  readonly name: string
  readonly table: string
  readonly sql: string
}

/** All maps are by name. */
export interface StoredSchema {
  readonly tables: ReadonlyMap<string, StoredTable>
  /** Those somebody made, not those behind constraints. */
  readonly indexes: ReadonlyMap<string, StoredIndex>
  /** In the order they were made. Belfry's own triggers are not among them. */
  readonly programs: readonly StoredProgram[]
  readonly logTriggers: ReadonlyMap<string, StoredProgram>
}

/** Neither Belfry's, nor SQLite's, nor a tool's: those start with two underscores. */
export function isAppTable(name: string): boolean {
  return !systemTables.has(name) && !/^(sqlite_|libsql_|__)/i.test(name)
}

export async function readSchema(tx: MigrationTx): Promise<StoredSchema> {
  const things = await tx.rows('select type, name, tbl_name, sql from sqlite_schema order by rowid')
  const ofKind = (kind: string) => things.filter(([type, , , sql]) => type === kind && sql !== null)
  const columns = await rowsByTable(tx, columnsQuery)
  const uniques = await rowsByTable(tx, uniquesQuery)
  const foreignKeys = await rowsByTable(tx, foreignKeysQuery)
  const tables = ofKind('table').map(([, key, , sql]): [string, StoredTable] => {
    const name = String(key)
    const parts = {
      columns: (columns.get(name) ?? []).map(storedColumn),
      uniques: grouped(uniques.get(name)).map((rows) => rows.map(([, , column]) => String(column))),
      foreignKeys: grouped(foreignKeys.get(name)).map(storedForeignKey),
    }
    return [name, { storedAs: name, sql: String(sql), ...parts }]
  })
  const indexes = ofKind('index').map(([, name, table, sql]): [string, StoredIndex] => [
    String(name),
    { table: String(table), sql: indexText(String(sql)) },
  ])
  const programs = [...ofKind('view'), ...ofKind('trigger')].map(storedProgram)
  return {
    tables: new Map(tables),
    indexes: new Map(indexes),
    programs: programs.filter((one) => !isLogTrigger(one)),
    logTriggers: byName(programs.filter(isLogTrigger)),
  }
}

export async function readLogTriggers(
  tx: MigrationTx,
): Promise<ReadonlyMap<string, StoredProgram>> {
  const rows = await tx.rows(
    "select type, name, tbl_name, sql from sqlite_schema where type = 'trigger'",
  )
  return byName(rows.map(storedProgram).filter(isLogTrigger))
}

function isLogTrigger({ kind, name }: StoredProgram): boolean {
  return kind === 'trigger' && name.startsWith(triggerPrefix)
}

function byName(programs: readonly StoredProgram[]): ReadonlyMap<string, StoredProgram> {
  return new Map(programs.map((one) => [one.name, one]))
}

const columnsQuery = `
  select t.name, c.name, c.type, c."notnull", c.dflt_value, c.pk
  from sqlite_schema t, pragma_table_info(t.name) c where t.type = 'table'`

const uniquesQuery = `
  select t.name, i.name, c.name
  from sqlite_schema t, pragma_index_list(t.name) i, pragma_index_info(i.name) c
  where t.type = 'table' and i.origin = 'u' order by t.name, i.seq, c.seqno`

const foreignKeysQuery = `
  select t.name, k.id, k."from", k."table", k."to", k.on_update, k.on_delete
  from sqlite_schema t, pragma_foreign_key_list(t.name) k
  where t.type = 'table' order by t.name, k.id, k.seq`

async function rowsByTable(tx: MigrationTx, sql: string): Promise<Map<string, RawRow[]>> {
  return Map.groupBy(await tx.rows(sql), ([table]) => String(table))
}

/** Rows that are parts of one thing, by the second value. */
function grouped(rows: readonly RawRow[] = []): RawRow[][] {
  return [...Map.groupBy(rows, ([, id]) => id).values()]
}

function storedColumn([, name, type, isNotNull, fallback, keyAt]: RawRow): StoredColumn {
  return {
    name: String(name),
    storedAs: String(name),
    type: String(type),
    isNotNull: Number(isNotNull) === 1,
    defaultSql: typeof fallback === 'string' ? fallback : null,
    keyAt: Number(keyAt),
  }
}

function storedForeignKey(rows: readonly RawRow[]): StoredForeignKey {
  const [, , , table, , onUpdate, onDelete] = rows[0] ?? []
  return {
    columns: rows.map(([, , from]) => String(from)),
    table: String(table),
    foreignColumns: rows.map(([, , , , to]) => String(to)),
    onUpdate: String(onUpdate).toLowerCase(),
    onDelete: String(onDelete).toLowerCase(),
  }
}

function storedProgram([kind, name, table, sql]: RawRow): StoredProgram {
  return {
    kind: kind === 'view' ? 'view' : 'trigger',
    name: String(name),
    table: String(table),
    sql: String(sql),
  }
}

/** SQLite keeps the text as it was written, but for the capitals of the first two words. */
function indexText(sql: string): string {
  return sql.replace(/^CREATE (UNIQUE )?INDEX/, (head) => head.toLowerCase())
}

/**
 * What the schema will be after `alter table … rename to`. The texts are a forecast, good for what
 * Belfry wrote itself; whoever applies reads the truth afterwards.
 */
export function withTableRenamed(stored: StoredSchema, from: string, to: string): StoredSchema {
  const tables = [...stored.tables].map(([name, table]): [string, StoredTable] => {
    const foreignKeys = table.foreignKeys.map((key) =>
      key.table === from ? { ...key, table: to } : key,
    )
    return [name === from ? to : name, { ...table, foreignKeys }]
  })
  const indexes = [...stored.indexes].map(([name, index]): [string, StoredIndex] => [
    name,
    index.table === from ? { table: to, sql: renamedIn(index.sql, from, to) } : index,
  ])
  return { ...stored, tables: new Map(tables), indexes: new Map(indexes) }
}

/** As `withTableRenamed`, for `alter table … rename column`. */
export function withColumnRenamed(
  stored: StoredSchema,
  at: string,
  from: string,
  to: string,
): StoredSchema {
  const rename = (column: string): string => (column === from ? to : column)
  const tables = [...stored.tables].map(([name, table]): [string, StoredTable] => {
    const isIt = name === at
    const foreignKeys = table.foreignKeys.map((key) => ({
      ...key,
      columns: isIt ? key.columns.map(rename) : key.columns,
      foreignColumns: key.table === at ? key.foreignColumns.map(rename) : key.foreignColumns,
    }))
    if (!isIt) return [name, { ...table, foreignKeys }]
    const columns = table.columns.map((one) => ({ ...one, name: rename(one.name) }))
    const uniques = table.uniques.map((one) => one.map(rename))
    const sql = table.sql.replaceAll(quote(from), quote(to))
    return [name, { ...table, columns, uniques, foreignKeys, sql }]
  })
  const indexes = [...stored.indexes].map(([name, index]): [string, StoredIndex] => [
    name,
    index.table === at ? { ...index, sql: renamedIn(index.sql, from, to) } : index,
  ])
  return { ...stored, tables: new Map(tables), indexes: new Map(indexes) }
}

export function withoutTable(stored: StoredSchema, name: string): StoredSchema {
  return {
    ...stored,
    tables: new Map([...stored.tables].filter(([table]) => table !== name)),
    indexes: new Map([...stored.indexes].filter(([, { table }]) => table !== name)),
  }
}

/** After ` on `: the index itself keeps its name. */
function renamedIn(sql: string, from: string, to: string): string {
  const at = sql.indexOf(' on ')
  return sql.slice(0, at) + sql.slice(at).replaceAll(quote(from), quote(to))
}
