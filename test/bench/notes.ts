/** The table that the store's benches share: 20 owners × 100 categories × 50 notes are 100,000 rows. */
import { Database } from 'bun:sqlite'
import { index, integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import type { Query, Store } from '../../src/store/store.ts'

export const owners = 20
export const categories = 100
export const notesCount = 100_000

export const notes = sqliteTable(
  'notes',
  {
    id: integer().primaryKey({ autoIncrement: true }),
    owner: text({ length: 40 }).notNull(),
    category: text({ length: 40 }).notNull(),
    title: text({ length: 200 }).notNull(),
    body: text({ length: 2000 }).notNull(),
    createdAt: integer().notNull(),
  },
  (t) => [index('notes_list').on(t.owner, t.category, t.createdAt, t.id)],
)

/** The same, for peers that take SQL; no triggers, no log. */
export const notesSql = [
  `create table notes (id integer primary key autoincrement, owner text not null, category text not null,
     title text not null, body text not null, "createdAt" integer not null)`,
  'create index notes_list on notes (owner, category, "createdAt", id)',
]

/** Belfry's pragmas, for every peer: WAL, no fsync but at a checkpoint, 8 MiB of page cache. */
export const pragmas = [
  'pragma journal_mode = wal',
  'pragma synchronous = normal',
  'pragma cache_size = -8192',
  'pragma temp_store = memory',
  'pragma foreign_keys = on',
  'pragma wal_autocheckpoint = 1000',
  'pragma busy_timeout = 1000',
]

export interface Note {
  readonly owner: string
  readonly category: string
  readonly title: string
  readonly body: string
  readonly createdAt: number
}

export const ownerName = (n: number): string => `user${n % owners}`
export const categoryName = (n: number): string => `category${n % categories}`

/** The nth note, from 0; its id is n + 1 where ids are numbers. About 200 bytes of text. */
export function noteAt(n: number): Note {
  return {
    owner: ownerName(n),
    category: categoryName(Math.floor(n / owners)),
    title: `note ${n}, with a title of some length`,
    body: 'a sentence or two, as people write them into such a field, '.repeat(2),
    createdAt: 1_767_225_600_000 + n,
  }
}

const noteColumns = 'owner, category, title, body, "createdAt"'

export const insertSql = `insert into notes (${noteColumns}) values (?, ?, ?, ?, ?)`
export const pointSql = `select id, ${noteColumns} from notes where id = ?`
export const listSql = `select id, ${noteColumns} from notes where owner = ? and category = ? order by "createdAt" desc, id desc limit 20`

export function noteParams({ owner, category, title, body, createdAt }: Note): Query['params'] {
  return [owner, category, title, body, createdAt]
}

/** A file with all notes in it, for peers that open one. */
export function fillFile(file: string): void {
  const db = new Database(file)
  for (const sql of [...pragmas, ...notesSql]) db.run(sql)
  const insert = db.prepare(insertSql)
  db.transaction(() => {
    for (let n = 0; n < notesCount; n += 1) insert.run(...(noteParams(noteAt(n)) as string[]))
  })()
  // A statement left open keeps the file open until it is collected; closed then, behind the back of
  // another SQLite library in this process, it deletes the WAL that the other one writes.
  insert.finalize()
  db.close(true)
}

const fillSql = `insert into notes (${noteColumns})
  select value->>'owner', value->>'category', value->>'title', value->>'body', value->>'createdAt'
  from json_each(?)`

/** Rows per statement: a group commit of a few milliseconds. */
const fillBatch = 1_000

/** Notes 0 to `count`, through the store. */
export async function fillStore(store: Pick<Store, 'write'>, count: number): Promise<void> {
  for (let n = 0; n < count; n += fillBatch) {
    const batch = Array.from({ length: Math.min(fillBatch, count - n) }, (_, at) => noteAt(n + at))
    await store.write([{ sql: fillSql, params: [JSON.stringify(batch)] }])
  }
}
