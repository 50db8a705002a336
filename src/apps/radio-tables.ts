/**
 * What the radio app stores. Every index is there for one filter and order of a collection, or for a rule of
 * `radio-chat.ts` (`test/apps/radio-indexes.test.ts` asks SQLite for each), and its name says which.
 *
 *   plays, events ◄─ the replayed log        mixes ─► profiles
 *   shouts ─► achievements                   (both by user: whoever has no profile may talk, too)
 *   requests, pledges                        (by user, likewise)
 */
import { sql, type SQLWrapper } from 'drizzle-orm'
import { check, index, integer, primaryKey, sqliteTable, text } from 'drizzle-orm/sqlite-core'

const now = sql`(cast(unixepoch('subsec') * 1000 as integer))`

/** When the row was made, by the database's clock. */
const madeAt = () => integer({ mode: 'timestamp_ms' }).notNull().default(now)

/** Characters of one message. */
export const shoutLengthMax = 500

/** A listener as others see them. */
export const profiles = sqliteTable(
  'profiles',
  {
    /** The token's `sub`. */
    id: text({ length: 200 }).primaryKey(),
    name: text({ length: 80 }).notNull(),
    about: text({ length: 500 }).notNull().default(''),
    at: madeAt(),
  },
  (t) => [
    // A refused value is told by the constraint's name: the column's.
    check('name', sql`trim(${t.name}) <> ''`),
    index('profiles_newest').on(t.at, t.id),
    index('profiles_name').on(t.name, t.id),
  ],
)

/** What was said in a room. Made by `POST /api/chat/:room` only, never edited. */
export const shouts = sqliteTable(
  'shouts',
  {
    id: integer().primaryKey({ autoIncrement: true }),
    room: text({ length: 40 }).notNull(),
    userId: text('user_id', { length: 200 }).notNull(),
    /** The profile's at that moment, or the user's id: a room is read without asking for each author. */
    name: text({ length: 200 }).notNull(),
    text: text({ length: shoutLengthMax }).notNull(),
    at: madeAt(),
  },
  (t) => [
    index('shouts_room').on(t.room, t.id),
    // Also counts what a user has said lately, and ever.
    index('shouts_user').on(t.userId, t.id),
  ],
)

/** One track on air. No two begin at the same second. */
export const plays = sqliteTable(
  'plays',
  {
    at: integer({ mode: 'timestamp_ms' }).primaryKey(),
    title: text({ length: 200 }).notNull(),
    artist: text({ length: 200 }).notNull(),
    album: text({ length: 200 }),
    seconds: integer().notNull(),
    program: text({ length: 80 }),
    /** Where it is from and when it truly was. */
    source: text({ length: 120 }).notNull(),
  },
  (t) => [index('plays_artist').on(t.artist, t.at), index('plays_program').on(t.program, t.at)],
)

/** 1 to 200 of them, in 40 KB. */
const isTrackList = (tracks: SQLWrapper) =>
  sql`json_type(${tracks}) = 'array' and json_array_length(${tracks}) between 1 and 200 and length(${tracks}) <= 40000`

/** A list of tracks: a listener's, or (`userId` null) the station's. */
export const mixes = sqliteTable(
  'mixes',
  {
    id: text({ length: 80 }).primaryKey(),
    userId: text('user_id').references(() => profiles.id, { onDelete: 'cascade' }),
    title: text({ length: 120 }).notNull(),
    tracks: text({ mode: 'json' }).$type<readonly MixTrack[]>().notNull(),
    at: madeAt(),
  },
  (t) => [
    check('title', sql`trim(${t.title}) <> ''`),
    check('tracks', isTrackList(t.tracks)),
    index('mixes_newest').on(t.at, t.id),
    index('mixes_user').on(t.userId, t.at, t.id),
  ],
)

export interface MixTrack {
  readonly title: string
  readonly artist: string
}

/** What is on when: the station's programs, and what editors add. */
export const events = sqliteTable(
  'events',
  {
    id: text({ length: 120 }).primaryKey(),
    title: text({ length: 120 }).notNull(),
    /** `2014-08-04`, in Sydney: what a day is asked for by. */
    day: text({ length: 10 }).notNull(),
    startsAt: integer('starts_at', { mode: 'timestamp_ms' }).notNull(),
    endsAt: integer('ends_at', { mode: 'timestamp_ms' }).notNull(),
  },
  (t) => [
    check('endsAt', sql`${t.endsAt} > ${t.startsAt}`),
    index('events_soonest').on(t.startsAt, t.id),
    index('events_day').on(t.day, t.startsAt, t.id),
  ],
)

export const achievementKinds = ['first-shout', 'ten-shouts', 'hundred-shouts'] as const

/** Given by `POST /api/chat/:room` in the shout's own transaction, once each. */
export const achievements = sqliteTable(
  'achievements',
  {
    userId: text('user_id', { length: 200 }).notNull(),
    kind: text({ enum: achievementKinds }).notNull(),
    at: madeAt(),
  },
  (t) => [
    primaryKey({ columns: [t.userId, t.kind] }),
    index('achievements_newest').on(t.at, t.userId, t.kind),
    index('achievements_user').on(t.userId, t.at, t.kind),
    index('achievements_kind').on(t.kind, t.at, t.userId),
  ],
)

/** A song that a listener would like to hear. */
export const requests = sqliteTable(
  'requests',
  {
    id: integer().primaryKey({ autoIncrement: true }),
    userId: text('user_id', { length: 200 }).notNull(),
    title: text({ length: 200 }).notNull(),
    artist: text({ length: 200 }).notNull(),
    at: madeAt(),
  },
  (t) => [
    check('title', sql`trim(${t.title}) <> ''`),
    check('artist', sql`trim(${t.artist}) <> ''`),
    index('requests_user').on(t.userId, t.id),
  ],
)

/** Of one pledge, in cents. */
const pledgeCents = { least: 100, most: 100_000 } as const

/** What a listener promises to give. It is written down, and no money moves. */
export const pledges = sqliteTable(
  'pledges',
  {
    id: integer().primaryKey({ autoIncrement: true }),
    userId: text('user_id', { length: 200 }).notNull(),
    cents: integer().notNull(),
    note: text({ length: 200 }).notNull().default(''),
    at: madeAt(),
  },
  (t) => [
    check(
      'cents',
      sql`${t.cents} between ${sql.raw(String(pledgeCents.least))} and ${sql.raw(String(pledgeCents.most))}`,
    ),
    index('pledges_user').on(t.userId, t.id),
  ],
)
