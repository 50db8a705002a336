import { expect, describe, test } from 'bun:test'
import { sql } from 'drizzle-orm'
import {
  blob,
  check,
  index,
  integer,
  real,
  sqliteTable,
  text,
  type SQLiteTable,
} from 'drizzle-orm/sqlite-core'
import { faultOf } from '../harness.ts'
import { children, family, openWorkshop, refusalOf, users, withUsers } from './migrations.ts'

const id = () => integer().primaryKey()

describe('a rebuild', () => {
  const wide = sqliteTable('users', { id: integer().primaryKey(), nick: text().unique() })

  test('keeps rows, and children that would cascade away', async () => {
    using shop = await withUsers()
    await expect(shop.start(...family(wide))).rejects.toThrow('unique (nick) is not stored')
    await shop.apply(family(wide))
    expect(shop.rows('select * from users')).toEqual([
      [1, 'ann'],
      [2, null],
    ])
    expect(shop.rows('select * from posts')).toEqual(children)
    expect(() => shop.sql("insert into users (nick) values ('ann')")).toThrow('UNIQUE')
    expect(() => shop.sql('insert into posts values (13, 77)')).toThrow('FOREIGN KEY')
    expect(await shop.apply(family(wide))).toEqual([])
  })

  test('makes indexes, an operator’s own triggers and views again, and logs nothing', async () => {
    using shop = openWorkshop()
    const make = (nick: ReturnType<typeof text>) =>
      sqliteTable('users', { id: integer().primaryKey(), nick }, (t) => [index('by').on(t.nick)])
    const other = sqliteTable('other', { id: integer().primaryKey() })
    await shop.start(make(text()), other)
    shop.sql(`
      insert into users values (1, 'ann');
      create index own on users (nick, id);
      create view names as select nick from users;
      create view more as select nick from names;
      create trigger t1 after insert on users begin insert into other values (new.id); end;
      create trigger t2 after insert on other begin update users set nick = 'x' where id = 99; end;
    `)
    const logged = shop.rows('select count(*) from log')
    await shop.apply([make(text().notNull().default('')), other])
    expect(shop.rows('select count(*) from log')).toEqual(logged)
    const names = shop.rows(
      "select name from sqlite_schema where name not like 'belfry%' and name not like 'sqlite%' order by 1",
    )
    expect(names.flat()).toEqual([
      ...['by', 'idempotency', 'idempotency_at', 'log', 'meta', 'more', 'names', 'other', 'own'],
      ...['t1', 't2', 'users'],
    ])
    shop.sql("insert into users values (5, 'bob')")
    expect(shop.rows('select id from other')).toEqual([[5]])
    expect(shop.rows('select * from more')).toEqual([['ann'], ['bob']])
    expect(shop.rows('select subject, data from log order by seq desc limit 2').length).toBe(2)
  })

  test('never gives out again the number of a row that is gone', async () => {
    using shop = openWorkshop()
    const make = (a: ReturnType<typeof text>) =>
      sqliteTable('t', { id: integer().primaryKey({ autoIncrement: true }), a })
    await shop.start(make(text()))
    shop.sql("insert into t (a) values ('1'), ('2'), ('3'); delete from t where id > 1")
    await shop.apply([make(text().unique())])
    shop.sql("insert into t (a) values ('4'); delete from t")
    await shop.apply([make(text())])
    shop.sql("insert into t (a) values ('5')")
    expect(shop.rows('select id, a from t')).toEqual([[5, '5']])
  })

  const becomes: [string, SQLiteTable, SQLiteTable, string, string | unknown[]][] = [
    [
      'null where null is no longer allowed',
      sqliteTable('t', { id: id(), a: text() }),
      sqliteTable('t', { id: id(), a: text().notNull() }),
      "(1, 'x'), (2, null), (3, null)",
      'in the way: column t.a becomes not null and has no default: 2 rows have null in it',
    ],
    [
      'a default for null',
      sqliteTable('t', { id: id(), a: text() }),
      sqliteTable('t', { id: id(), a: text().notNull().default("it's") }),
      "(1, 'x'), (2, null)",
      [
        [1, 'x'],
        [2, "it's"],
      ],
    ],
    [
      'not null where there is no null',
      sqliteTable('t', { id: id(), a: text() }),
      sqliteTable('t', { id: id(), a: text().notNull() }),
      "(1, 'x')",
      [[1, 'x']],
    ],
    [
      'text as numbers',
      sqliteTable('t', { id: id(), a: text() }),
      sqliteTable('t', { id: id(), a: real() }),
      "(1, '1.50'), (2, null), (3, '-2e3')",
      [
        [1, 1.5],
        [2, null],
        [3, -2000],
      ],
    ],
    [
      'text that is no number',
      sqliteTable('t', { id: id(), a: text() }),
      sqliteTable('t', { id: id(), a: real() }),
      "(1, '1.5'), (2, 'abc'), (3, ''), (4, '12abc'), (5, x'00')",
      'in the way: column t.a becomes real: 4 values would not survive that',
    ],
    [
      'fractions as integers',
      sqliteTable('t', { id: id(), a: real() }),
      sqliteTable('t', { id: id(), a: integer() }),
      '(1, 2.0), (2, 2.5)',
      'in the way: column t.a becomes integer: 1 value would not survive that',
    ],
    [
      'whole numbers as integers',
      sqliteTable('t', { id: id(), a: real() }),
      sqliteTable('t', { id: id(), a: integer() }),
      '(1, 2.0), (2, -3.0)',
      [
        [1, 2],
        [2, -3],
      ],
    ],
    [
      'integers that a double cannot hold',
      sqliteTable('t', { id: id(), a: integer() }),
      sqliteTable('t', { id: id(), a: real() }),
      '(1, 9007199254740993), (2, 5)',
      'in the way: column t.a becomes real: 1 value would not survive that',
    ],
    [
      'numbers with more digits than SQLite writes',
      sqliteTable('t', { id: id(), a: real() }),
      sqliteTable('t', { id: id(), a: text() }),
      '(1, 0.1 + 0.2), (2, 1.5)',
      'in the way: column t.a becomes text: 1 value would not survive that',
    ],
    [
      'numbers as text',
      sqliteTable('t', { id: id(), a: integer() }),
      sqliteTable('t', { id: id(), a: text() }),
      '(1, 12), (2, -9223372036854775807)',
      [
        [1, '12'],
        [2, '-9223372036854775807'],
      ],
    ],
    [
      'text as bytes',
      sqliteTable('t', { id: id(), a: text() }),
      sqliteTable('t', { id: id(), a: blob({ mode: 'buffer' }) }),
      "(1, 'x')",
      [[1, Buffer.from('x')]],
    ],
    [
      'a new column that must have a value',
      sqliteTable('t', { id: id(), a: text() }),
      sqliteTable('t', { id: id(), a: text(), b: text().notNull() }),
      "(1, 'x')",
      'in the way: column t.b is new, not null and has no default: 1 row has no value for it',
    ],
    [
      'a new column with a computed default',
      sqliteTable('t', { id: id(), a: text() }),
      sqliteTable('t', {
        id: id(),
        a: text(),
        b: integer()
          .notNull()
          .default(sql`(1 + 2)`),
      }),
      "(1, 'x')",
      [[1, 'x', 3]],
    ],
    [
      'another key',
      sqliteTable('t', { id: id(), a: text() }),
      sqliteTable('t', { id: integer().notNull(), a: text().primaryKey() }),
      "(1, 'x'), (2, 'y')",
      [
        [1, 'x'],
        [2, 'y'],
      ],
    ],
    [
      'a unique column with two alike',
      sqliteTable('t', { id: id(), a: text() }),
      sqliteTable('t', { id: id(), a: text().unique() }),
      "(1, 'x'), (2, 'x')",
      'UNIQUE constraint failed: __new_t.a',
    ],
    [
      'a check that rows do not meet',
      sqliteTable('t', { id: id(), a: integer() }),
      sqliteTable('t', { id: id(), a: integer() }, (t) => [check('small', sql`${t.a} < 5`)]),
      '(1, 7)',
      'CHECK constraint failed: small',
    ],
    [
      'a reference to rows that are not there',
      sqliteTable('t', { id: id(), a: integer() }),
      sqliteTable('t', {
        id: id(),
        a: integer().references((): never => (users as never)['id']),
      }),
      '(1, null), (2, 7)',
      '1 rows of t refer to rows of users that do not exist',
    ],
  ]
  for (const [name, before, after, values, expected] of becomes) {
    test(`${name}: ${typeof expected === 'string' ? 'refused' : 'done'}`, async () => {
      using shop = openWorkshop()
      await shop.start(users, before)
      shop.sql(`insert into t values ${values}`)
      const stored = shop.dump()
      if (typeof expected === 'string') {
        const fault = await faultOf(() => shop.apply([users, after]))
        const fields = (fault.fields ?? []).map(({ field, message }) => `${field}: ${message}`)
        expect([fault.message, ...fields].join('\n')).toContain(expected)
        expect(shop.dump()).toEqual(stored)
      } else {
        await shop.apply([users, after])
        const db = shop.rows('select * from t')
        expect(db).toEqual(expected)
        expect((await shop.plan([users, after])).isInStep).toBe(true)
        expect(await shop.apply([users, after])).toEqual([])
      }
    })
  }

  test('interrupted at any statement, leaves the old schema and every row', async () => {
    using shop = await withUsers()
    shop.sql('create view v as select * from users')
    const after = [...family(wide), sqliteTable('fresh', { id: integer().primaryKey() })]
    const before = shop.dump()
    for (let stopAt = 0; ; stopAt++) {
      let at = 0
      const failing = shop.apply(after, {}, (sql) => {
        if (at++ === stopAt) throw new Error(`the power went before ${sql}`)
      })
      const ended = await failing.then(
        () => 'done',
        (thrown: Error) => thrown.message,
      )
      if (ended === 'done') {
        expect(stopAt).toBeGreaterThan(10)
        break
      }
      expect(ended).toContain('the power went')
      expect(shop.dump()).toEqual(before)
    }
    expect(shop.rows('select * from posts')).toEqual(children)
  })

  test('is undone if a row is missing in the copy', async () => {
    using shop = await withUsers()
    const before = shop.dump()
    let copied = false
    const lossy = shop.apply(family(wide), {}, async (sql, tx) => {
      if (copied) return
      copied = sql.startsWith('insert into "__new_users"')
      // A row that comes in between, which the copy will not have.
      if (copied)
        await tx.run(
          'create temp trigger x after insert on "__new_users" begin delete from "__new_users" where id = 2; end',
        )
    })
    await expect(lossy).rejects.toThrow('table users: 1 rows were not copied')
    expect(shop.dump()).toEqual(before)
  })

  test('is undone if it ends in anything but what is declared', async () => {
    using shop = await withUsers()
    const before = shop.dump()
    const indexed = sqliteTable('users', { id: id(), nick: text().unique() }, (t) => [
      index('by').on(t.nick),
    ])
    const skipping = shop.apply(family(indexed), {}, (sql) =>
      sql.startsWith('create index') ? 'skip' : undefined,
    )
    await expect(skipping).rejects.toThrow(
      'other tables than declared (table users: index by is new)',
    )
    expect(shop.dump()).toEqual(before)
  })

  test('refuses while somebody’s half-done rebuild lies about', async () => {
    using shop = await withUsers()
    shop.sql('create table __new_users (id integer)')
    expect(await refusalOf(() => shop.apply(family(wide)))).toEqual([
      'conflict',
      'asked: table __new_users is in the way of a rebuild of users; somebody left it there: look at it, then --drop-table __new_users',
    ])
    await shop.apply(family(wide), { dropTable: ['__new_users'] })
    expect(shop.rows('select count(*) from users')).toEqual([[2]])
  })

  test('a rebuild that somebody left between drop and rename is found', async () => {
    using shop = openWorkshop()
    await shop.start(users)
    shop.sql("insert into users values (1, 'ann'); alter table users rename to __new_users")
    await expect(shop.start(users)).rejects.toThrow('--rename-table __new_users=users')
    await shop.apply([users], { renameTable: ['__new_users=users'] })
    expect(shop.rows('select * from users')).toEqual([[1, 'ann']])
  })
})
