/** What the tests of migrations share: a database to migrate, and a look into it from outside. */
import Database from 'libsql'
import { integer, sqliteTable, text, type SQLiteTable } from 'drizzle-orm/sqlite-core'
import { systemClock } from '../../src/lib/clock.ts'
import type { MigrationAnswers } from '../../src/store/answers.ts'
import { applyMigration, migrate, planMigration } from '../../src/store/migrate.ts'
import {
  openMigrationDb,
  type MigrationDb,
  type MigrationTx,
} from '../../src/store/migration-db.ts'
import { createTestLog, faultOf, tempFolder } from '../harness.ts'

/** Runs before a statement is; may throw. `skip`: it is not run. */
type OnStatement = (sql: string, tx: MigrationTx) => unknown

export interface Workshop extends Disposable {
  readonly file: string
  /** As a server does it; resolves with the statements it logged. */
  start(...tables: SQLiteTable[]): Promise<string[]>
  apply(
    tables: readonly SQLiteTable[],
    answers?: MigrationAnswers,
    onStatement?: OnStatement,
  ): Promise<readonly string[]>
  plan(tables: readonly SQLiteTable[], answers?: MigrationAnswers): ReturnType<typeof planMigration>
  /** By another connection, with foreign keys on. */
  sql(statements: string): void
  rows(query: string): unknown[]
  /** Everything there is: the schema's texts and every row. */
  dump(): unknown
}

export function openWorkshop(): Workshop {
  const folder = tempFolder()
  const file = folder.file('a.db')
  const open = <T>(run: (db: Database.Database) => T): T => {
    const db = new Database(file)
    db.exec('pragma foreign_keys = on')
    try {
      return run(db)
    } finally {
      db.close()
    }
  }
  const rows = (query: string): unknown[] => open((db) => db.prepare(query).raw(true).all())
  const withDb = async <T>(
    access: 'look' | 'write',
    run: (db: MigrationDb) => Promise<T>,
  ): Promise<T> => {
    const { db, stop } = await openMigrationDb(
      { clock: systemClock },
      { kind: 'file', file, replicas: [] },
      access,
    )
    try {
      return await run(db)
    } finally {
      await stop()
    }
  }
  return {
    file,
    rows,
    start: async (...tables) => {
      const log = createTestLog()
      await withDb('write', (db) => migrate(db, tables, log))
      return log.lines
        .filter(({ event }) => event === 'store.schema_applied')
        .map(({ fields }) => String(fields['statement']))
    },
    apply: (tables, answers, onStatement) =>
      withDb('write', (db) =>
        applyMigration(onStatement ? watched(db, onStatement) : db, tables, answers),
      ),
    plan: (tables, answers) => withDb('look', (db) => planMigration(db, tables, answers)),
    sql: (statements) => open((db) => void db.exec(statements)),
    dump() {
      const schema = rows('select type, name, tbl_name, sql from sqlite_schema order by 1, 2')
      const names = schema.flatMap((row) => {
        const [type, name] = row as string[]
        return type === 'table' ? [name] : []
      })
      return [schema, names.map((name) => [name, rows(`select * from "${name}"`)])]
    },
    [Symbol.dispose]: () => folder[Symbol.dispose](),
  }
}

function watched(db: MigrationDb, onStatement: OnStatement): MigrationDb {
  return {
    exclusively: (work, options) =>
      db.exclusively(
        (tx) =>
          work({
            rows: tx.rows,
            async run(sql) {
              if ((await onStatement(sql, tx)) !== 'skip') await tx.run(sql)
            },
          }),
        options,
      ),
  }
}

export const users = sqliteTable('users', { id: integer().primaryKey(), nick: text() })

/** Two users, each with children that go when their user goes. */
export const family = (parent: SQLiteTable) =>
  [
    parent,
    sqliteTable('posts', {
      id: integer().primaryKey(),
      userId: integer('user_id')
        .notNull()
        .references(() => (parent as never)['id'], { onDelete: 'cascade' }),
    }),
  ] as const

const familyRows = `
  insert into users (id, nick) values (1, 'ann'), (2, null);
  insert into posts (id, user_id) values (10, 1), (11, 1), (12, 2);`

/** A rowid that shows: every row as it was, and the children too. */
export const children = [
  [10, 1],
  [11, 1],
  [12, 2],
]

export async function withUsers(): Promise<Workshop> {
  const shop = openWorkshop()
  await shop.start(...family(users))
  shop.sql(familyRows)
  return shop
}

export async function refusalOf(run: () => unknown) {
  const { code, fields } = await faultOf(run)
  return [code, ...(fields ?? []).map(({ field, message }) => `${field}: ${message}`)]
}
