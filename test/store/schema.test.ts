import { describe, expect, test } from 'bun:test'
import { sql } from 'drizzle-orm'
import {
  check,
  foreignKey,
  index,
  integer,
  primaryKey,
  real,
  sqliteTable,
  text,
  unique,
  uniqueIndex,
  type SQLiteTable,
} from 'drizzle-orm/sqlite-core'
import { createTestLog, openStore, tempFolder, type TempFolder } from '../harness.ts'

const users = sqliteTable('users', {
  id: integer().primaryKey({ autoIncrement: true }),
  email: text().notNull().unique(),
  'Odd "name"': text('odd "name"').default("it's"),
})

const posts = sqliteTable(
  'posts',
  {
    authorId: integer('author_id')
      .notNull()
      .references(() => users.id, { onDelete: 'cascade' }),
    slug: text({ length: 40 }).notNull(),
    kind: text({ enum: ['a', 'b'] })
      .notNull()
      .default('a'),
    isPublic: integer('is_public', { mode: 'boolean' }).notNull().default(false),
    at: integer({ mode: 'timestamp_ms' }).notNull().default(new Date(1000)),
    made: integer()
      .notNull()
      .default(sql`(unixepoch() * 1000)`),
    score: real().default(-1.5),
    meta: text({ mode: 'json' }).$type<string[]>().default([]),
  },
  (t) => [
    primaryKey({ columns: [t.authorId, t.slug] }),
    unique('posts_slug_kind').on(t.slug, t.kind),
    index('posts_at').on(t.at, t.slug),
    uniqueIndex('posts_lower').on(sql`lower(${t.slug})`),
    index('posts_public')
      .on(t.at)
      .where(sql`${t.isPublic} = 1`),
    check('posts_score', sql`${t.score} > -10`),
    foreignKey({ columns: [t.authorId], foreignColumns: [users.id] }).onUpdate('cascade'),
  ],
)

/** What a start applies. */
async function start(folder: TempFolder, tables: readonly SQLiteTable[]): Promise<string[]> {
  const log = createTestLog()
  await using _ = await openStore(folder.file('a.db'), tables, { log })
  return log.lines
    .filter(({ event }) => event === 'store.schema_applied')
    .map(({ fields }) => String(fields['statement']))
}

describe('the schema at start', () => {
  test('is made once, and recognised at every start after', async () => {
    using folder = tempFolder()
    expect((await start(folder, [users, posts])).length).toBe(5)
    expect(await start(folder, [users, posts])).toEqual([])
  })

  test('additive changes are applied', async () => {
    using folder = tempFolder()
    await start(folder, [sqliteTable('t', { id: integer().primaryKey() })])
    const wider = sqliteTable(
      't',
      {
        id: integer().primaryKey(),
        note: text(),
        count: integer().notNull().default(0),
      },
      (t) => [index('t_note').on(t.note)],
    )
    expect(await start(folder, [wider])).toEqual([
      'alter table "t" add column "note" text',
      'alter table "t" add column "count" integer not null default 0',
      'create index "t_note" on "t" ("note")',
    ])
    expect(await start(folder, [wider])).toEqual([])
  })

  const before = sqliteTable('t', { id: integer().primaryKey(), a: text(), b: text() })
  const cases: [string, SQLiteTable, string][] = [
    [
      'a column that is gone',
      sqliteTable('t', { id: integer().primaryKey(), a: text() }),
      'column b is stored but no longer declared\n    drop trigger "belfry_t_create";',
    ],
    [
      'another type',
      sqliteTable('t', { id: integer().primaryKey(), a: real(), b: text() }),
      'column a: is text, declared real\n    create table "__new_t"',
    ],
    [
      'not null where there was null',
      sqliteTable('t', { id: integer().primaryKey(), a: text().notNull(), b: text() }),
      'column a: is nullable, declared not null',
    ],
    [
      'a new column that must have a value',
      sqliteTable('t', { id: integer().primaryKey(), a: text(), b: text(), c: text().notNull() }),
      'column c is new and the rows that exist have no value for it',
    ],
    [
      'another primary key',
      sqliteTable('t', { id: integer(), a: text().primaryKey(), b: text() }),
      'its part in the primary key differs',
    ],
    [
      'another default',
      sqliteTable('t', { id: integer().primaryKey(), a: text().default('x'), b: text() }),
      "column a: its default is none, declared 'x'",
    ],
  ]
  for (const [name, after, message] of cases) {
    test(`refuses ${name}, with the statements, and changes nothing`, async () => {
      using folder = tempFolder()
      await start(folder, [before])
      await expect(start(folder, [after])).rejects.toThrow(message)
      expect(await start(folder, [before])).toEqual([])
    })
  }

  const constrained: [string, SQLiteTable, string][] = [
    [
      'a new unique constraint',
      sqliteTable('t', { id: integer().primaryKey(), a: text().unique(), b: text() }),
      'unique (a) is not stored',
    ],
    [
      'a new check',
      sqliteTable('t', { id: integer().primaryKey(), a: text(), b: text() }, (t) => [
        check('a_is_short', sql`length(${t.a}) < 5`),
      ]),
      'check a_is_short (length("a") < 5) is not stored',
    ],
    [
      'a new foreign key',
      sqliteTable('t', { id: integer().primaryKey(), a: text(), b: text() }, (t) => [
        foreignKey({ columns: [t.b], foreignColumns: [t.a] }),
      ]),
      'foreign key (b) references t (a) on delete no action on update no action is not stored',
    ],
    [
      'autoincrement',
      sqliteTable('t', { id: integer().primaryKey({ autoIncrement: true }), a: text(), b: text() }),
      'autoincrement is not stored',
    ],
    [
      'a new column with a computed default',
      sqliteTable('t', {
        id: integer().primaryKey(),
        a: text(),
        b: text(),
        c: integer().default(sql`(unixepoch())`),
      }),
      'column c is new and the rows that exist have no value for it',
    ],
  ]
  constrained.push([
    'a new column that refers by default',
    sqliteTable('t', {
      id: integer().primaryKey(),
      a: text(),
      b: text(),
      c: integer()
        .default(1)
        .references((): never => (before as never)['id']),
    }),
    'column c is new and the rows that exist have no value for it',
  ])
  for (const [name, after, message] of constrained) {
    test(`refuses ${name}: believed and not kept would be worse`, async () => {
      using folder = tempFolder()
      await start(folder, [before])
      await expect(start(folder, [after])).rejects.toThrow(message)
    })
  }

  test('defaults with brackets of their own are recognised', async () => {
    using folder = tempFolder()
    const table = sqliteTable('t', {
      id: integer().primaryKey(),
      a: integer().default(sql`(1) + (2)`),
      b: integer().default(sql`((1) + (2))`),
      c: integer().default(sql` ( unixepoch() ) `),
      d: text().default(sql`(')')`),
    })
    await start(folder, [table])
    expect(await start(folder, [table])).toEqual([])
  })

  test('an added column brings its foreign key', async () => {
    using folder = tempFolder()
    await start(folder, [before])
    const after: SQLiteTable = sqliteTable('t', {
      id: integer().primaryKey(),
      a: text(),
      b: text(),
      parent: integer().references((): never => (after as never)['id']),
    })
    expect(await start(folder, [after])).toEqual([
      'alter table "t" add column "parent" integer references "t" ("id")',
    ])
    expect(await start(folder, [after])).toEqual([])
  })

  test('the printed statements do what they say', async () => {
    using folder = tempFolder()
    await start(folder, [before])
    const after = sqliteTable('t', { id: integer().primaryKey(), a: text().notNull().default('?') })
    const message = await start(folder, [after]).catch((thrown: Error) => thrown.message)
    const statements =
      /in a way that could lose data:\n.*\n([^]*?)asked:/.exec(String(message))?.[1] ?? ''
    const { default: Database } = await import('libsql')
    const db = new Database(folder.file('a.db'))
    db.exec(statements)
    db.close()
    expect(await start(folder, [after])).toEqual([])
  })

  test('a database of a newer belfry is left alone', async () => {
    using folder = tempFolder()
    await start(folder, [])
    const { default: Database } = await import('libsql')
    const db = new Database(folder.file('a.db'))
    db.exec('pragma user_version = 99')
    db.close()
    await expect(start(folder, [])).rejects.toThrow('the database is of a newer belfry (schema 99)')
  })
})
