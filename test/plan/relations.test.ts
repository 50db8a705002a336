import { describe, expect, test } from 'bun:test'
import {
  foreignKey,
  index,
  integer,
  primaryKey,
  sqliteTable,
  text,
  unique,
  uniqueIndex,
} from 'drizzle-orm/sqlite-core'
import { sql } from 'drizzle-orm'
import { collection, desc, type CollectionDeclaration } from '../../src/collections/declare.ts'
import { Fault } from '../../src/fault.ts'
import { app } from '../../src/plan/declare.ts'
import { compilePlan } from '../../src/plan/plan.ts'

const users = sqliteTable('users', { id: integer().primaryKey(), name: text() })
const posts = sqliteTable('posts', {
  id: integer().primaryKey(),
  slug: text().unique(),
  title: text().notNull(),
  meta: text({ mode: 'json' }),
  authorId: integer('author_id').references(() => users.id),
  editorName: text('editor_name').references(() => users.name),
})
const comments = sqliteTable('comments', {
  id: integer().primaryKey(),
  postId: integer().references(() => posts.id),
  note: text(),
  at: integer({ mode: 'timestamp' }),
})
const seats = sqliteTable('seats', { room: text().notNull(), seat: integer().notNull() }, (t) => [
  primaryKey({ columns: [t.room, t.seat] }),
])
const guests = sqliteTable(
  'guests',
  { id: integer().primaryKey(), room: text(), seat: integer() },
  (t) => [foreignKey({ columns: [t.room, t.seat], foreignColumns: [seats.room, seats.seat] })],
)

function problemsOf(collections: Readonly<Record<string, CollectionDeclaration>>): string[] {
  try {
    compilePlan(app({ name: 'test', collections }))
  } catch (thrown) {
    if (!(thrown instanceof Fault)) throw thrown
    return (thrown.fields ?? []).map(({ field, message }) => `${field}: ${message}`)
  }
  return []
}

describe('children', () => {
  test('need a collection, a single key, a column that holds it, and a path of their own', () => {
    const keyedByTime = sqliteTable('times', { at: integer({ mode: 'timestamp_ms' }).primaryKey() })
    expect(
      problemsOf({
        posts: collection(posts, {
          lookup: ['slug'],
          children: {
            comments: comments.postId,
            texts: comments.note,
            slug: comments.postId,
            Bad: comments.postId,
            none: 'postId' as never,
            seats: seats.seat,
            likes: comments.id,
            guests: guests.seat,
          },
        }),
        'posts/7/likes': collection(users, {}),
        comments: collection(comments, {}),
        seats: collection(seats, { children: { guests: guests.room } }),
        times: collection(keyedByTime, { children: { comments: comments.at } }),
      }),
    ).toEqual(
      [
        'posts.children.texts: note cannot hold id: they have different types',
        'posts.children.slug: is a look-up, too: both would be at one path',
        'posts.children.Bad: a name is lower-case letters, digits and dashes: it stands in a path',
        'posts.children.none: must be the column that holds the key, as comments.postId',
        'posts.children.likes: clashes with the collection at posts/7/likes',
        'posts.children.guests: no collection serves table guests: without its read rule nobody may see a row',
        'seats.children.guests: table seats has a key of several columns; children need a single one',
        'times.children.comments: at cannot hold at: they have different types',
      ].map((line) => `collections.${line}`),
    )
  })

  test('of a table that several collections serve are those of the one with their name', () => {
    const children = { comments: comments.postId }
    const pathOf = (...paths: string[]) => {
      const served = Object.fromEntries(paths.map((path) => [path, collection(comments, {})]))
      const plan = compilePlan(
        app({ name: 'test', collections: { posts: collection(posts, { children }), ...served } }),
      )
      return plan.collections[0]?.children[0]?.collection.path
    }
    expect(pathOf('notes')).toBe('notes')
    expect(pathOf('staff/comments', 'notes')).toBe('staff/comments')
    expect(pathOf('staff/comments', 'comments')).toBe('comments')
    const served = {
      'a/comments': collection(comments, {}),
      'b/comments': collection(comments, {}),
    }
    expect(problemsOf({ posts: collection(posts, { children }), ...served })).toEqual([
      'collections.posts.children.comments: a/comments, b/comments serve that table, and none of them is or ends in comments',
    ])
  })
})

describe('expand', () => {
  test('needs a column of this table that references a unique one of a served table', () => {
    expect(
      problemsOf({
        posts: collection(posts, {
          expand: {
            author: posts.authorId,
            title: posts.authorId,
            editor: posts.editorName,
            plain: posts.title,
            other: comments.postId,
            'a,b': posts.authorId,
            none: undefined as never,
          },
        }),
        guests: collection(guests, { expand: { place: guests.room } }),
        comments: collection(comments, { expand: { post: comments.postId } }),
        users: collection(users, {}),
      }),
    ).toEqual(
      [
        'posts.expand.title: is a column of the table, too; give it another name',
        'posts.expand.editor: name, which it references, is not unique',
        'posts.expand.plain: title references nothing: add .references(() => …) to it',
        'posts.expand.other: must be a column of posts that references another table',
        'posts.expand.a,b: a name is letters, digits and underscores, and starts with a letter',
        'posts.expand.none: must be a column of posts that references another table',
        'guests.expand.place: room is one part of a reference; only single columns can be expanded',
      ].map((line) => `collections.${line}`),
    )
    expect(
      problemsOf({ posts: collection(posts, { expand: { author: posts.authorId } }) }),
    ).toEqual([
      'collections.posts.expand.author: no collection serves table users: without its read rule nobody may see a row',
    ])
  })

  test('of a table that several serve is through the one with its name, or the table’s', () => {
    const targetOf = (...paths: string[]) => {
      const served = Object.fromEntries(paths.map((path) => [path, collection(users, {})]))
      const expand = { author: posts.authorId }
      const collections = { posts: collection(posts, { expand }), ...served }
      return compilePlan(app({ name: 'test', collections })).collections[0]?.expand.get('author')
        ?.target.path
    }
    expect(targetOf('people')).toBe('people')
    expect(targetOf('staff/users', 'users')).toBe('users')
    expect(targetOf('users', 'post/author')).toBe('post/author')
  })
})

test('a look-up needs a column that is unique by itself, and a path of its own', () => {
  const things = sqliteTable(
    'things',
    {
      id: integer().primaryKey(),
      ...{ a: text().unique(), b: text(), c: text(), d: text(), e: text(), f: text(), g: text() },
      meta: text({ mode: 'json' }).unique(),
      'h-h': text().unique(),
    },
    (t) => [
      unique().on(t.b),
      uniqueIndex('things_c').on(t.c),
      uniqueIndex('things_d')
        .on(t.d)
        .where(sql`d <> ''`),
      uniqueIndex('things_e').on(sql`lower(e)`),
      unique().on(t.f, t.g),
      index('things_g').on(t.g),
    ],
  )
  const lookup = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'id', 'meta', 'h-h', 'nope'] as never[]
  expect(
    problemsOf({
      things: collection(things, { lookup }),
      'things/a/x': collection(posts, {}),
      'things/bb': collection(posts, {}),
    }),
  ).toEqual(
    [
      'a clashes with the collection at things/a/x',
      ...['d', 'e', 'f', 'g'].map((name) => `${name} is not unique: add .unique() to it`),
      'meta is json',
      'h-h cannot stand in a path',
      'nope is not a column of the table',
    ].map((line) => `collections.things.lookup: ${line}`),
  )
})

test('an order by text that no cursor could hold is refused; the key’s is bounded by URLs', () => {
  const books = sqliteTable('books', {
    isbn: text().primaryKey(),
    title: text().notNull(),
    short: text({ length: 600 }).notNull(),
    other: text({ length: 401 }).notNull(),
    kind: text({ enum: ['paper', 'sound'] }).notNull(),
    meta: text({ mode: 'json' }).notNull(),
  })
  expect(
    problemsOf({
      books: collection(books, {
        orders: {
          isbn: desc(books.isbn),
          kind: [desc(books.kind), desc(books.short)],
          title: desc(books.title),
          both: [desc(books.short), desc(books.other)],
          meta: desc(books.meta),
        },
      }),
    }),
  ).toEqual(
    [
      'title: title is a text of any length, which no cursor can hold: declare text({ length: … })',
      'both: its texts have up to 1001 characters; a cursor holds 1000',
      'meta: meta is json',
    ].map((line) => `collections.books.orders.${line}`),
  )
})
