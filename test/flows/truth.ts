/** What a database holds, read without belfry: the file itself, or sqld over its own protocol. */
import { Database } from 'bun:sqlite'
import { createClient } from '@libsql/client/http'
import type { LogEntry, Row, Truth } from './history.ts'

export const tables = ['registers', 'accounts', 'entries'] as const

const logSql = 'select seq, subject, data from log order by seq'
const tableSql = (table: string): string => `select * from ${table} order by id`

export function readFileTruth(file: string): Truth {
  using database = new Database(file, { readonly: true })
  // One moment for all of it.
  return database.transaction(() => {
    const rows = (sql: string) => database.query<Row, []>(sql).all()
    const whole = rows('pragma integrity_check').map((row) => row['integrity_check'])
    if (whole.join() !== 'ok') throw new Error(`the file is damaged: ${whole.join()}`)
    return truthOf(
      rows(logSql),
      tables.map((table) => rows(tableSql(table))),
    )
  })()
}

export async function readSqldTruth(url: string): Promise<Truth> {
  const client = createClient({ url, intMode: 'number' })
  try {
    const [log, ...rest] = await client.batch([logSql, ...tables.map(tableSql)], 'read')
    return truthOf(
      log?.rows.map(plainRow) ?? [],
      rest.map(({ rows }) => rows.map(plainRow)),
    )
  } finally {
    client.close()
  }
}

export function readFileLog(file: string): readonly LogEntry[] {
  using database = new Database(file, { readonly: true })
  return database.query<Row, []>(logSql).all().map(entryOf)
}

export async function readSqldLog(url: string): Promise<readonly LogEntry[]> {
  const client = createClient({ url, intMode: 'number' })
  try {
    return (await client.execute(logSql)).rows.map((row) => entryOf(plainRow(row)))
  } finally {
    client.close()
  }
}

/** Its rows are arrays with names. */
function plainRow(row: object): Row {
  return Object.fromEntries(Object.entries(row).filter(([name]) => !/^\d+$/.test(name)))
}

function truthOf(log: readonly Row[], found: readonly (readonly Row[])[]): Truth {
  return {
    log: log.map(entryOf),
    tables: Object.fromEntries(tables.map((table, at) => [table, found[at] ?? []])),
  }
}

function entryOf({ seq, subject, data }: Row): LogEntry {
  const told = JSON.parse(String(data)) as Pick<LogEntry, 'tags'> & { op: string; row: Row }
  const { op, row, tags } = told
  if (tags) return { seq: Number(seq), table: '', op: 'invalidate', row: {}, tags }
  return { seq: Number(seq), table: String(subject), op, row }
}
