/** What is written here is, letter for letter, what Drizzle's builder writes. */
import { describe, expect, test } from 'bun:test'
import { and, asc, desc, eq, gt, isNull, like, lt, or, sql, type SQL } from 'drizzle-orm'
import { alias, integer, real, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { drizzle } from 'drizzle-orm/sqlite-proxy'
import { columnsOf } from '../../src/collections/columns.ts'
import { createInserts, selectQuery } from '../../src/collections/statement.ts'
import { toSql, type Where } from '../../src/collections/where.ts'

const notes = sqliteTable('no"tes', {
  id: integer().primaryKey(),
  plain: text(),
  authorId: text('author "id"').notNull(),
  price: real(),
  isOpen: integer('is_open', { mode: 'boolean' }).notNull().default(true),
  at: integer({ mode: 'timestamp_ms' }).notNull(),
  tags: text({ mode: 'json' }).$type<string[]>(),
})
const db = drizzle(async () => ({ rows: [] }))

const at = new Date(1_767_225_600_000)
const rule: Where = {
  kind: 'or',
  parts: [
    { kind: 'eq', column: notes.authorId, value: 'ann' },
    { kind: 'not', part: { kind: 'oneOf', column: notes.price, values: [1, 2.5] } },
    { kind: 'and', parts: [{ kind: 'isNull', column: notes.price }] },
    { kind: 'gte', column: notes.at, value: at },
  ],
}

const conditions: Readonly<Record<string, SQL | undefined>> = {
  none: undefined,
  'a rule': toSql(rule),
  'a rule that never holds': toSql({ kind: 'never' }),
  'a key and a rule': and(sql`${notes.id} = ${5}`, toSql(rule)),
  'a cursor': or(gt(notes.at, at), and(eq(notes.at, at), lt(notes.id, 7))),
  'values of every kind': and(
    eq(notes.isOpen, false),
    eq(notes.tags, ['a', 'b']),
    sql`${notes.price} is ${null}`,
    sql`${notes.id} in (${sql.join([sql`${1n}`, sql`${2}`], sql`, `)})`,
  ),
  'nothing between': and(undefined, undefined),
  'a column that is named by its key': eq(notes.plain, 'x'),
  'a missing part': and(undefined, isNull(notes.price)),
}

/** Of these it knows nothing. */
const unknown: Readonly<Record<string, SQL | undefined>> = {
  'an array': sql`${notes.id} in ${[1, 2, 3]}`,
  'inlined values': like(notes.authorId, 'a%').inlineParams(),
  'a subquery': sql`${notes.id} in ${db.select({ id: notes.id }).from(notes)}`,
  'another table’s name': sql`exists (select 1 from ${alias(notes, 'other')})`,
  'an identifier': sql`${sql.identifier('price')} > ${1}`,
}

describe('selectQuery', () => {
  const orderBy = [desc(notes.at), asc(notes.id)]
  test.each(Object.entries({ ...conditions, ...unknown }))('with %s', (_, where) => {
    const whole = db
      .select()
      .from(notes)
      .where(where)
      .orderBy(...orderBy)
      .limit(21)
    const { sql: text, params } = whole.toSQL()
    const select = { table: notes, where, orderBy, limit: 21 }
    expect(selectQuery('list notes', select)).toEqual({ sql: text, params, name: 'list notes' })
  })

  test('of a second table of the same name', () => {
    const other = sqliteTable('no"tes', { slug: text().notNull() })
    const where = eq(other.slug, 'a')
    expect(selectQuery('one', { table: other, where, limit: 1 }).sql).toBe(
      'select "slug" from "no""tes" where "no""tes"."slug" = ? limit ?',
    )
  })

  test('without an order', () => {
    const where = eq(notes.id, 3)
    const { sql: text, params } = db.select().from(notes).where(where).limit(1).toSQL()
    expect(selectQuery('one', { table: notes, where, limit: 1 })).toEqual({
      sql: text,
      params,
      name: 'one',
    })
  })
})

describe('createInserts', () => {
  let made = 0
  const table = sqliteTable('made', {
    id: integer().primaryKey(),
    slug: text().$defaultFn(() => `slug ${++made}`),
    changedAt: integer({ mode: 'timestamp_ms' }).$onUpdateFn(() => new Date(++made)),
    state: text().notNull().default('new'),
    stamp: integer().default(sql`(unixepoch())`),
    tags: text({ mode: 'json' }),
    isOpen: integer({ mode: 'boolean' }),
  })
  const insert = createInserts(db)
  const inputs = [
    {},
    { id: 1, tags: { a: [1] }, isOpen: true },
    { id: 2, tags: null, isOpen: false },
    { slug: 'mine', state: 'old', stamp: 5, changedAt: at },
  ]
  test.each(inputs)('%j', (input) => {
    // Twice: the second has the text of the first, and values of its own.
    for (let times = 0; times < 2; times += 1) {
      made = times * 10
      const { sql: text, params } = db
        .insert(table)
        .values(input as never)
        .toSQL()
      made = times * 10
      expect(insert(table, columnsOf(table), input)).toEqual({ sql: text, params })
    }
  })

  test('an expression that a column makes up is Drizzle’s to write', () => {
    const stamped = sqliteTable('stamped', {
      id: integer().primaryKey(),
      at: integer().$defaultFn(() => sql`(unixepoch())`),
    })
    expect(insert(stamped, columnsOf(stamped), { id: 1 })).toEqual({
      sql: 'insert into "stamped" ("id", "at") values (?, (unixepoch()))',
      params: [1],
    })
  })
})
