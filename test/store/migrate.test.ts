import { describe, expect, test } from 'bun:test'
import { sql } from 'drizzle-orm'
import { check, index, integer, sqliteTable, text, uniqueIndex } from 'drizzle-orm/sqlite-core'
import { systemMigrations, systemTables } from '../../db/system.ts'
import { faultOf } from '../harness.ts'
import {
  children,
  family,
  openWorkshop,
  refusalOf,
  users,
  withUsers,
  type Workshop,
} from './migrations.ts'

const handles = sqliteTable('users', { id: integer().primaryKey(), handle: text() })
const accounts = sqliteTable('accounts', { id: integer().primaryKey(), nick: text() })

describe('a renaming', () => {
  const answerless = [
    'conflict',
    'asked: column users.nick is stored and not declared, users.handle is declared and not stored: ' +
      'if it was renamed: --rename users.nick=handle; if not: --drop users.nick',
  ]

  test('of a column is asked for, and stops a start', async () => {
    using shop = await withUsers()
    expect(await refusalOf(() => shop.apply(family(handles)))).toEqual(answerless)
    await expect(shop.start(...family(handles))).rejects.toThrow('--rename users.nick=handle')
    expect((await shop.plan(family(handles))).questions.length).toBe(1)
  })

  test('of a column keeps its values; its indexes, keys and checks follow', async () => {
    using shop = openWorkshop()
    const make = (column: string) =>
      sqliteTable(
        'users',
        { id: integer().primaryKey(), name: text(column).unique(), boss: integer() },
        (t) => [
          index('users_name').on(t.name),
          uniqueIndex('users_lower').on(sql`lower(${t.name})`),
          check('short', sql`length(${t.name}) < 20`),
        ],
      )
    await shop.start(make('nick'))
    shop.sql("insert into users (id, nick) values (1, 'ann'), (2, null)")
    expect(await shop.apply([make('handle')], { rename: ['users.nick=handle'] })).toEqual([
      'alter table "users" rename column "nick" to "handle"',
    ])
    expect(shop.rows('select id, handle from users order by id')).toEqual([
      [1, 'ann'],
      [2, null],
    ])
    expect(await shop.start(make('handle'))).toEqual([])
  })

  test('may come with another type and a new default in one go', async () => {
    using shop = await withUsers()
    const after = sqliteTable('users', {
      id: integer().primaryKey(),
      handle: text({ length: 9 }).notNull().default('?'),
    })
    await shop.apply(family(after), { rename: ['users.nick=handle'] })
    expect(shop.rows('select * from users')).toEqual([
      [1, 'ann'],
      [2, '?'],
    ])
    expect(shop.rows('select * from posts')).toEqual(children)
  })

  test('of a table keeps its rows and its children; it is asked for where the columns are alike', async () => {
    using shop = await withUsers()
    const question =
      'table users is stored and not declared, table accounts is declared and not stored: ' +
      'if it was renamed: --rename-table users=accounts; if not: --new-table accounts'
    expect(await refusalOf(() => shop.apply(family(accounts)))).toContain(`asked: ${question}`)
    await expect(shop.start(...family(accounts))).rejects.toThrow(question)
    expect(await shop.apply(family(accounts), { renameTable: ['users=accounts'] })).toEqual([
      'alter table "users" rename to "accounts"',
    ])
    expect(shop.rows('select * from accounts')).toEqual([
      [1, 'ann'],
      [2, null],
    ])
    expect(shop.rows('select * from posts')).toEqual(children)
    shop.sql('delete from accounts where id = 1')
    expect(shop.rows('select * from posts')).toEqual([[12, 2]])
  })

  test('of a table and of its column, answered together', async () => {
    using shop = await withUsers()
    const after = sqliteTable('accounts', { id: integer().primaryKey(), handle: text() })
    const answers = { renameTable: ['users=accounts'], rename: ['accounts.nick=handle'] }
    await shop.apply(family(after), answers)
    expect(shop.rows('select handle from accounts')).toEqual([['ann'], [null]])
  })

  test('that was taken for a new table can be mended', async () => {
    using shop = await withUsers()
    await shop.start(accounts, ...family(users))
    const mended = { dropTable: ['accounts', 'posts'], renameTable: ['users=accounts'] }
    await shop.apply([accounts], mended)
    expect(shop.rows('select nick from accounts')).toEqual([['ann'], [null]])
  })
})

describe('what would be lost', () => {
  const narrow = sqliteTable('users', { id: integer().primaryKey() })

  test('a column goes only with --drop, and the plan counts what goes', async () => {
    using shop = await withUsers()
    expect(await refusalOf(() => shop.apply(family(narrow)))).toEqual([
      'conflict',
      'asked: column users.nick is stored and not declared: --drop users.nick removes it with its values',
    ])
    const { changes, questions } = await shop.plan(family(narrow), { drop: ['users.nick'] })
    expect([changes[0]?.kind, changes[0]?.losses, questions]).toEqual([
      'losing',
      ['1 values of users.nick'],
      [],
    ])
    await shop.apply(family(narrow), { drop: ['users.nick'] })
    expect(shop.rows('select * from users')).toEqual([[1], [2]])
    expect(shop.rows('select * from posts')).toEqual(children)
  })

  test('a column of a unique constraint, a key, an index and a check goes with them', async () => {
    using shop = openWorkshop()
    const before = sqliteTable(
      't',
      {
        id: integer().primaryKey(),
        a: text().unique(),
        b: integer().references((): never => (before as never)['id']),
        c: text(),
        kept: text(),
      },
      (t) => [
        index('t_c').on(t.c, t.kept),
        index('t_kept').on(t.kept),
        check('c', sql`${t.c} <> ''`),
      ],
    )
    const after = sqliteTable('t', { id: integer().primaryKey(), kept: text() }, (t) => [
      index('t_kept').on(t.kept),
    ])
    await shop.start(before)
    shop.sql("insert into t values (1, 'a', 1, 'c', 'kept'); create index own on t (kept)")
    await shop.apply([after], { drop: ['t.a', 't.b', 't.c'] })
    expect(shop.rows('select * from t')).toEqual([[1, 'kept']])
    const indexes = "select name from sqlite_schema where type = 'index' and tbl_name = 't'"
    expect(shop.rows(indexes).flat()).toEqual(['t_kept', 'own'])
  })

  test('an undeclared index is in nobody’s way when its column goes', async () => {
    using shop = await withUsers()
    shop.sql('create index own on users (nick); create index other on posts (user_id)')
    const [, posts] = family(narrow)
    await shop.apply([narrow, posts], { drop: ['users.nick'] })
    const { notes } = await shop.plan([narrow, posts])
    expect(notes).toEqual([
      'index other on posts is stored and not declared: it stays; --drop-index other removes it',
    ])
    await shop.apply([narrow, posts], { dropIndex: ['other'] })
    expect((await shop.plan([narrow, posts])).notes).toEqual([])
  })

  test('a table that is no longer declared stays, and goes only with --drop-table', async () => {
    using shop = await withUsers()
    shop.sql('create table __new_x (a); create table __drizzle_migrations (a)')
    expect(await shop.start(users)).toEqual([])
    const { notes, isInStep } = await shop.plan([users])
    expect([notes, isInStep]).toEqual([
      ['table posts is stored and not declared: it stays; --drop-table posts removes it'],
      true,
    ])
    await shop.apply([users], { dropTable: ['posts'] })
    expect(shop.rows("select name from sqlite_schema where tbl_name = 'posts'")).toEqual([])
  })

  test('a table that others refer to cannot go', async () => {
    using shop = await withUsers()
    const before = shop.dump()
    const [, withKey] = family(users)
    const fault = await faultOf(() => shop.apply([withKey], { dropTable: ['users'] }))
    expect(fault.message).toContain('3 rows of posts refer to rows of users that do not exist')
    expect(shop.dump()).toEqual(before)
    const loose = sqliteTable('posts', {
      id: integer().primaryKey(),
      userId: integer('user_id').notNull(),
    })
    await shop.apply([loose], { dropTable: ['users'] })
    expect(shop.rows('select * from posts')).toEqual(children)
  })

  test('an answer to what nobody asked is refused, with all other problems', async () => {
    using shop = await withUsers()
    const before = shop.dump()
    const answers = {
      rename: ['users.nik=handle'],
      drop: ['posts.id'],
      dropTable: ['log', 'users'],
    }
    const [code, ...problems] = await refusalOf(() => shop.apply(family(handles), answers))
    expect([code, problems.length]).toEqual(['invalid', 5])
    expect(problems[0]).toBe(
      'answer: --rename users.nik=handle matches nothing: it takes a column that is stored and not declared, = one that is declared and not stored',
    )
    expect(shop.dump()).toEqual(before)
  })
})

describe('the log’s triggers', () => {
  const triggers = (shop: Workshop) =>
    shop.rows("select name, sql from sqlite_schema where type = 'trigger' order by name")

  test('are made, replaced where they differ, and dropped with what they were for', async () => {
    using shop = openWorkshop()
    await shop.start(users)
    const made = triggers(shop)
    expect(made.length).toBe(4)
    shop.sql(`
      drop trigger belfry_users_create;
      drop trigger belfry_users_remove;
      create trigger belfry_users_remove after delete on users begin select 1; end;
      create trigger belfry_users_other after delete on users begin select 1; end;
    `)
    expect(await shop.plan([users])).toMatchObject({ triggers: 4, isInStep: false, changes: [] })
    await shop.start(users)
    expect(triggers(shop)).toEqual(made)
    await shop.apply([accounts], { renameTable: ['users=accounts'] })
    expect(triggers(shop).map((row) => (row as string[])[0])).toEqual(
      ['create', 'rekey', 'remove', 'update'].map((kind) => `belfry_accounts_${kind}`),
    )
    shop.sql("insert into accounts values (1, 'ann')")
    expect(shop.rows('select subject, data from log')).toEqual([
      ['accounts', '{"op":"create","row":{"id":1,"nick":"ann"}}'],
    ])
  })

  test('follow an added column', async () => {
    using shop = openWorkshop()
    await shop.start(users)
    await shop.start(
      sqliteTable('users', { id: integer().primaryKey(), nick: text(), age: integer() }),
    )
    shop.sql('insert into users values (1, null, 9)')
    expect(shop.rows('select data from log')).toEqual([
      ['{"op":"create","row":{"id":1,"nick":null,"age":9}}'],
    ])
  })

  test('of a table that is not declared here stay: another node may serve it', async () => {
    using shop = await withUsers()
    const before = triggers(shop)
    await shop.start(users)
    expect(triggers(shop)).toEqual(before)
  })
})

const newest = systemMigrations.at(-1)?.version ?? 0

const dropNew = `drop table meta; drop table idempotency; drop table belfry_topics;
  drop table belfry_publications; drop table belfry_revocations; drop table belfry_keys;
  drop table belfry_users; drop table belfry_sessions; drop table belfry_mail_tokens;
  drop table belfry_shares;
  pragma user_version = 1`

describe('belfry’s own tables', () => {
  test('come to the newest version, and their names are taken', async () => {
    using shop = openWorkshop()
    await shop.start()
    expect(shop.rows('pragma user_version')).toEqual([[newest]])
    expect([...systemTables].toSorted()).toEqual([
      ...['belfry_keys', 'belfry_mail_tokens', 'belfry_publications', 'belfry_revocations'],
      ...['belfry_sessions', 'belfry_shares', 'belfry_topics', 'belfry_users'],
      ...['idempotency', 'log', 'meta'],
    ])
    const names = "select name from pragma_table_list where schema = 'main' and strict order by 1"
    expect(shop.rows(names).flat()).toEqual([
      ...['belfry_keys', 'belfry_mail_tokens', 'belfry_publications', 'belfry_revocations'],
      ...['belfry_sessions', 'belfry_shares', 'belfry_topics', 'belfry_users'],
      ...['idempotency', 'log', 'meta'],
    ])
  })

  test('of version 1 are brought up, with what is in them', async () => {
    using shop = openWorkshop()
    await shop.start(users)
    shop.sql("insert into users values (1, 'ann')")
    shop.sql(dropNew)
    expect((await shop.plan([users])).system).toEqual({ version: 1, newest })
    await shop.start(users)
    expect(shop.rows('pragma user_version')).toEqual([[newest]])
    expect(shop.rows('select count(*) from log')).toEqual([[1]])
  })

  test('are not migrated by a start that is refused', async () => {
    using shop = openWorkshop()
    await shop.start(users)
    shop.sql(dropNew)
    const before = shop.dump()
    await expect(shop.start(handles)).rejects.toThrow('could lose data')
    expect(shop.dump()).toEqual(before)
  })
})
