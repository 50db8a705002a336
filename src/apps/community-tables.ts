/**
 * What the community app stores. Every index is there for one filter and order of a collection, or follows a
 * foreign key (`test/apps/community-indexes.test.ts` asks SQLite for each), and its name says which.
 *
 *   users ◄─ posts ─► communities        servers ◄─ channels
 *     ▲        ▲ ▲                          ▲
 *     │        │ └─ comments ─► comments    │
 *     ├─ votes ┘                            │
 *     └─ memberships ─► communities, servers┘
 *
 * A write changes the rows it is about and no others, because each row that changes leaves the cache: a vote
 * is counted on its post alone (no reputation of the author), a comment on nothing (`?count=true` counts),
 * and who joins changes neither the community nor the server.
 */
import { sql } from 'drizzle-orm'
import {
  check,
  index,
  integer,
  primaryKey,
  real,
  sqliteTable,
  text,
  uniqueIndex,
  type AnySQLiteColumn,
} from 'drizzle-orm/sqlite-core'
import { hotOf, nowMs } from './community-hot.ts'

/** Characters of a post's or a comment's text; the longest answer of the sample has 20,000. */
export const textMax = 40_000

const createdAt = () =>
  integer('created_at', { mode: 'timestamp_ms' })
    .notNull()
    .default(sql`(${nowMs})`)

/** Where a text of the sample was written, and on what terms it may be passed on. Null for what is written here. */
const origin = { url: text(), licence: text() }

/** Who is named here: of the sample (`se-7`), or by a token's `sub`. Whoever goes leaves texts behind, unsigned. */
export const users = sqliteTable(
  'users',
  {
    id: text({ length: 200 }).primaryKey(),
    username: text({ length: 40 }).notNull().unique(),
    displayName: text('display_name', { length: 80 }).notNull(),
    /** As the sample's site counted it; nothing here changes it. */
    reputation: integer().notNull().default(0),
    /** The author's page where the sample comes from. */
    url: text(),
    createdAt: createdAt(),
  },
  (t) => [
    // A refused value is told by the constraint's name: the column's.
    check('username', sql`${t.username} <> '' and ${t.username} not glob '*[^a-z0-9_-]*'`),
    check('displayName', sql`trim(${t.displayName}) <> ''`),
    index('users_reputation').on(t.reputation, t.id),
    index('users_new').on(t.createdAt, t.id),
  ],
)

export const communities = sqliteTable('communities', {
  /** Its name in paths and topics: lower-case letters, digits and dashes. */
  id: text({ length: 80 }).primaryKey(),
  name: text({ length: 80 }).notNull(),
  description: text({ length: 500 }).notNull(),
})

export const posts = sqliteTable(
  'posts',
  {
    id: integer().primaryKey({ autoIncrement: true }),
    communityId: text('community_id', { length: 80 })
      .notNull()
      .references(() => communities.id),
    authorId: text('author_id').references(() => users.id, { onDelete: 'set null' }),
    title: text({ length: 300 }).notNull(),
    /** Plain text, never markup: a page shows it as text. */
    text: text({ length: textMax }).notNull(),
    tags: text({ mode: 'json' }).$type<readonly string[]>().notNull().default([]),
    upVotes: integer('up_votes').notNull().default(0),
    downVotes: integer('down_votes').notNull().default(0),
    /** `upVotes - downVotes`. */
    score: integer().notNull().default(0),
    /** `hotOf(score, createdAt)`. */
    hot: real()
      .notNull()
      .default(hotOf(sql`0`, nowMs)),
    createdAt: createdAt(),
    ...origin,
  },
  (t) => [
    check('title', sql`trim(${t.title}) <> ''`),
    index('posts_hot').on(t.hot),
    index('posts_new').on(t.createdAt),
    index('posts_top').on(t.score),
    index('posts_community_hot').on(t.communityId, t.hot),
    index('posts_community_new').on(t.communityId, t.createdAt),
    index('posts_community_top').on(t.communityId, t.score),
    index('posts_author_hot').on(t.authorId, t.hot),
    index('posts_author_new').on(t.authorId, t.createdAt),
    index('posts_author_top').on(t.authorId, t.score),
  ],
)

/** Made by `POST /api/posts/:id/comments` only, which knows the post's community and keeps threads in one post. */
export const comments = sqliteTable(
  'comments',
  {
    id: integer().primaryKey({ autoIncrement: true }),
    postId: integer('post_id')
      .notNull()
      .references(() => posts.id, { onDelete: 'cascade' }),
    /** The post's, for listeners of the community. */
    communityId: text('community_id', { length: 80 }).notNull(),
    authorId: text('author_id').references(() => users.id, { onDelete: 'set null' }),
    /** Of the same post; null at the top, and when the parent was removed. */
    parentId: integer('parent_id').references((): AnySQLiteColumn => comments.id, {
      onDelete: 'set null',
    }),
    /** Plain text. */
    text: text({ length: textMax }).notNull(),
    /** As the sample has it: comments are not voted on here. */
    score: integer().notNull().default(0),
    createdAt: createdAt(),
    ...origin,
  },
  (t) => [
    check('text', sql`trim(${t.text}) <> ''`),
    index('comments_top').on(t.score),
    index('comments_new').on(t.createdAt),
    index('comments_post_top').on(t.postId, t.score),
    index('comments_post_new').on(t.postId, t.createdAt),
    index('comments_author_top').on(t.authorId, t.score),
    index('comments_author_new').on(t.authorId, t.createdAt),
    index('comments_parent_top').on(t.parentId, t.score),
    index('comments_parent_new').on(t.parentId, t.createdAt),
  ],
)

export const servers = sqliteTable('servers', {
  id: text({ length: 80 }).primaryKey(),
  name: text({ length: 80 }).notNull(),
  description: text({ length: 500 }).notNull(),
})

export const channels = sqliteTable(
  'channels',
  {
    id: text({ length: 80 }).primaryKey(),
    serverId: text('server_id', { length: 80 })
      .notNull()
      .references(() => servers.id),
    /** From 1. */
    position: integer().notNull(),
    name: text({ length: 80 }).notNull(),
    description: text({ length: 500 }).notNull(),
  },
  (t) => [index('channels_place').on(t.serverId, t.position, t.id)],
)

const owner = () =>
  text('user_id')
    .notNull()
    .references(() => users.id, { onDelete: 'cascade' })

/** In a community or in a server, one of both. */
export const memberships = sqliteTable(
  'memberships',
  {
    id: integer().primaryKey({ autoIncrement: true }),
    userId: owner(),
    communityId: text('community_id', { length: 80 }).references(() => communities.id),
    serverId: text('server_id', { length: 80 }).references(() => servers.id),
    createdAt: createdAt(),
  },
  (t) => [
    check(
      'one of communityId and serverId',
      sql`(${t.communityId} is null) <> (${t.serverId} is null)`,
    ),
    // Null is equal to nothing here: these speak of communities and of servers only.
    uniqueIndex('memberships_community').on(t.userId, t.communityId),
    uniqueIndex('memberships_server').on(t.userId, t.serverId),
    index('memberships_new').on(t.userId, t.createdAt),
  ],
)

/** Made by `POST /api/posts/:id/vote` only. The votes of the sample are not here: nobody knows whose they are. */
export const votes = sqliteTable(
  'votes',
  {
    userId: owner(),
    postId: integer('post_id')
      .notNull()
      .references(() => posts.id, { onDelete: 'cascade' }),
    value: integer().notNull(),
    createdAt: createdAt(),
  },
  (t) => [
    primaryKey({ columns: [t.userId, t.postId] }),
    check('value', sql`${t.value} in (-1, 1)`),
    // For the post that goes.
    index('votes_post').on(t.postId),
  ],
)

/** How far the sample is loaded: a batch and its number are written in one transaction. */
export const sampleLoads = sqliteTable('sample_loads', {
  id: text().primaryKey(),
  /** Stored so far, of how many. */
  batches: integer().notNull(),
  total: integer().notNull(),
})
