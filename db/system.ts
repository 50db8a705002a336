/**
 * Belfry's own tables, beside the app's in one file, and the migrations that make them. Numbered,
 * embedded in the binary, each applied once and in order (`store/migrate.ts`). Never edit one that
 * has shipped: add the next.
 */
import { index, integer, primaryKey, sqliteTable, text, uniqueIndex } from 'drizzle-orm/sqlite-core'
import log0001 from './migrations/0001_log.sql' with { type: 'text' }
import store0002 from './migrations/0002_store.sql' with { type: 'text' }
import topics0003 from './migrations/0003_topics.sql' with { type: 'text' }
import auth0004 from './migrations/0004_auth.sql' with { type: 'text' }
import accounts0005 from './migrations/0005_accounts.sql' with { type: 'text' }
import shares0006 from './migrations/0006_shares.sql' with { type: 'text' }
import mail0007 from './migrations/0007_mail.sql' with { type: 'text' }

export const log = sqliteTable('log', {
  seq: integer().primaryKey({ autoIncrement: true }),
  at: integer().notNull(),
  kind: text().notNull(),
  subject: text().notNull(),
  tags: text().notNull(),
  data: text().notNull(),
})

export const meta = sqliteTable('meta', {
  name: text().primaryKey(),
  value: text().notNull(),
})

export const idempotency = sqliteTable(
  'idempotency',
  {
    scope: text().notNull(),
    key: text().notNull(),
    fingerprint: text().notNull(),
    at: integer().notNull(),
    data: text(),
  },
  (t) => [primaryKey({ columns: [t.scope, t.key] }), index('idempotency_at').on(t.at)],
)

export const topics = sqliteTable('belfry_topics', {
  name: text().primaryKey(),
  offset: integer().notNull(),
  at: integer().notNull(),
})

export const publications = sqliteTable(
  'belfry_publications',
  {
    topic: text().notNull(),
    offset: integer().notNull(),
    at: integer().notNull(),
    data: text().notNull(),
  },
  (t) => [
    primaryKey({ columns: [t.topic, t.offset] }),
    index('belfry_publications_at').on(t.topic, t.at),
  ],
)

export const revocations = sqliteTable(
  'belfry_revocations',
  {
    kind: text().notNull(),
    id: text().notNull(),
    at: integer().notNull(),
    until: integer(),
  },
  (t) => [primaryKey({ columns: [t.kind, t.id] })],
)

export const keys = sqliteTable('belfry_keys', {
  id: text().primaryKey(),
  hash: text().notNull(),
  name: text().notNull(),
  scopes: text().notNull(),
  created: integer().notNull(),
  expires: integer(),
  used: integer(),
  revoked: integer(),
})

export const users = sqliteTable(
  'belfry_users',
  {
    id: text().primaryKey(),
    email: text().notNull(),
    password: text().notNull(),
    role: text(),
    created: integer().notNull(),
    verified: integer(),
    disabled: integer(),
  },
  (t) => [uniqueIndex('belfry_users_email').on(t.email)],
)

export const sessions = sqliteTable(
  'belfry_sessions',
  {
    id: text().primaryKey(),
    family: text().notNull(),
    user: text().notNull(),
    token: text().notNull(),
    previous: text(),
    rotated: integer().notNull(),
    repeated: integer(),
    place: text().notNull(),
    created: integer().notNull(),
    expires: integer().notNull(),
  },
  (t) => [
    uniqueIndex('belfry_sessions_family').on(t.family),
    index('belfry_sessions_user').on(t.user, t.rotated),
    index('belfry_sessions_expires').on(t.expires),
  ],
)

export const mailTokens = sqliteTable(
  'belfry_mail_tokens',
  {
    hash: text().primaryKey(),
    kind: text().notNull(),
    user: text().notNull(),
    password: text(),
    expires: integer().notNull(),
    email: text(),
  },
  (t) => [
    index('belfry_mail_tokens_user').on(t.user),
    index('belfry_mail_tokens_expires').on(t.expires),
  ],
)

export const shares = sqliteTable(
  'belfry_shares',
  {
    name: text().notNull(),
    holder: text().notNull(),
    units: integer().notNull(),
    wants: integer().notNull(),
    turn: integer().notNull(),
    until: integer().notNull(),
  },
  (t) => [primaryKey({ columns: [t.name, t.holder] })],
)

/**
 * `version` is written to `PRAGMA user_version` in the migration's own transaction. Statements end in
 * `;` and stand apart by an empty line: a remote database takes one at a time.
 */
export const systemMigrations: readonly { readonly version: number; readonly sql: string }[] = [
  { version: 1, sql: log0001 },
  { version: 2, sql: store0002 },
  { version: 3, sql: topics0003 },
  { version: 4, sql: auth0004 },
  { version: 5, sql: accounts0005 },
  { version: 6, sql: shares0006 },
  { version: 7, sql: mail0007 },
]

/** Names an app's table may not have. */
export const systemTables: ReadonlySet<string> = new Set([
  ...['log', 'meta', 'idempotency'],
  ...['belfry_topics', 'belfry_publications'],
  ...['belfry_revocations', 'belfry_keys', 'belfry_shares'],
  ...['belfry_users', 'belfry_sessions', 'belfry_mail_tokens'],
])
