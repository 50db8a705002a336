/**
 *   POST /api/chat/:room   {"text"}: said in that room, by whoever is signed in
 *
 * One transaction counts what the user said lately, stores the shout and gives what it earns; `live` of the
 * collections then tells `chat:{room}` and `user:{id}`. So a message that is acknowledged is committed, and a
 * room's list and its topic have the same messages in the same order, whichever node and door they came by:
 * HTTP, `rpc('POST /api/chat/lobby', …)`, or a publication on `chat:lobby`, which goes through this (`radio.ts`).
 */
import { desc, eq } from 'drizzle-orm'
import type { Db, Routes, Tx, User } from '../kit.ts'
import { Fault, type FieldProblem } from '../fault.ts'
import {
  achievements,
  profiles,
  shoutLengthMax,
  shouts,
  type achievementKinds,
} from './radio-tables.ts'

/** So many messages of a user in any window of this length, over all rooms and nodes. */
export const chatLimit = { messages: 5, windowMs: 10_000 } as const

/** Shouts → what is earned by that many. */
const earnedBy: ReadonlyMap<number, (typeof achievementKinds)[number]> = new Map([
  [1, 'first-shout'],
  [10, 'ten-shouts'],
  [100, 'hundred-shouts'],
])
const countMax = Math.max(...earnedBy.keys())

export const chatRoutes: Routes = (server, { db }) =>
  server.post('/api/chat/:room', async ({ params, body, user, request, set }) => {
    if (!user) throw new Fault('unauthenticated', 'sign in to talk')
    const key = request.headers.get('idempotency-key')
    const shout = await say(db, { user, room: roomOf(params.room), text: textOf(body), key })
    set.status = 201
    set.headers['location'] = `/api/shouts/${shout.id}`
    return shout
  })

interface Said {
  readonly user: User
  readonly room: string
  readonly text: string
  /** `Idempotency-Key`, when it was given. */
  readonly key: string | null
}

/** Faults: `too_many`, `reused`, `unavailable`, `timeout`. */
async function say(db: Db, { user, room, text, key }: Said) {
  const store = async (tx: Tx) => {
    const [profile] = await tx
      .select({ name: profiles.name })
      .from(profiles)
      .where(eq(profiles.id, user.id))
    const values = { room, userId: user.id, name: profile?.name ?? user.id, text }
    const [shout] = await tx.insert(shouts).values(values).returning()
    if (!shout) throw new Fault('internal', 'the shout was not stored')
    await refuseHaste(tx, user, shout.at)
    await award(tx, user)
    return { ...shout, at: shout.at.toISOString() }
  }
  return await db.transaction(store, { once: { key, user, request: [room, text] } })
}

/** Counts with the new one, which is undone if it is one too many: what is refused does not count. */
async function refuseHaste(tx: Tx, user: User, now: Date): Promise<void> {
  const [oldest] = await tx
    .select({ at: shouts.at })
    .from(shouts)
    .where(eq(shouts.userId, user.id))
    .orderBy(desc(shouts.id))
    .limit(1)
    .offset(chatLimit.messages)
  const leftMs = oldest ? oldest.at.getTime() + chatLimit.windowMs - now.getTime() : 0
  if (leftMs <= 0) return
  const rate = `${chatLimit.messages} messages in ${chatLimit.windowMs / 1000} s`
  throw new Fault('too_many', `at most ${rate}`, { retryAfterMs: leftMs })
}

async function award(tx: Tx, user: User): Promise<void> {
  const said = await tx
    .select({ id: shouts.id })
    .from(shouts)
    .where(eq(shouts.userId, user.id))
    .limit(countMax + 1)
  const kind = earnedBy.get(said.length)
  if (kind === undefined) return
  await tx.insert(achievements).values({ userId: user.id, kind }).onConflictDoNothing()
}

function roomOf(name: string): string {
  if (/^[a-z0-9][a-z0-9-]{0,39}$/.test(name)) return name
  throw new Fault('not_found', 'a room is named by lower-case letters, digits and dashes')
}

function textOf(body: unknown): string {
  const problems: FieldProblem[] = []
  const isObject = typeof body === 'object' && body !== null && !Array.isArray(body)
  const { text, ...others }: Record<string, unknown> = isObject ? { ...body } : {}
  for (const field of Object.keys(others).slice(0, 20)) {
    problems.push({ field: field.slice(0, 100), message: 'is no field of a message (text)' })
  }
  const isText = typeof text === 'string'
  const message = isText ? textProblem(text) : 'must be a string'
  if (message !== undefined) problems.push({ field: 'text', message })
  if (isText && problems.length === 0) return text
  throw new Fault('invalid', 'the message is not valid', { fields: problems })
}

function textProblem(text: string): string | undefined {
  if (text.trim() === '') return 'must not be empty'
  if (text.length > shoutLengthMax) return `must be at most ${shoutLengthMax} characters`
  // libSQL reads a text up to its first U+0000.
  return text.isWellFormed() && !text.includes('\0') ? undefined : 'must be well-formed Unicode'
}
