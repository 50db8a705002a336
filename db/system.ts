/**
 * Belfry's own tables, beside the app's in one file, and the migrations that make them. Numbered,
 * embedded in the binary, each applied once and in order (`store/migrate.ts`). Never edit one that
 * has shipped: add the next.
 */
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import log0001 from './migrations/0001_log.sql' with { type: 'text' }

export const log = sqliteTable('log', {
  seq: integer().primaryKey({ autoIncrement: true }),
  at: integer().notNull(),
  kind: text().notNull(),
  subject: text().notNull(),
  tags: text().notNull(),
  data: text().notNull(),
})

/** `version` is written to `PRAGMA user_version` in the migration's own transaction. */
export const systemMigrations: readonly { readonly version: number; readonly sql: string }[] = [
  { version: 1, sql: log0001 },
]

/** Names an app's table may not have. */
export const systemTables: ReadonlySet<string> = new Set(['log'])
