/**
 * What collections cannot say by themselves, each in one transaction:
 *
 *   POST /api/posts/:id/vote       {"value": 1 | -1 | 0}: one vote a user, changed or (0) taken back
 *   POST /api/posts/:id/comments   {"text", "parentId"?}: in the post's community, on a comment of the same post
 *
 * A vote is counted on its post: totals, score and `hot` in one statement, by SQL. With an `Idempotency-Key`
 * a request that is sent again gets the answer of the first, and nothing is done twice.
 */
import { and, eq, sql } from 'drizzle-orm'
import type { Db, Routes, Tx, User } from '../kit.ts'
import { Fault, type FieldProblem } from '../fault.ts'
import { hotOf } from './community-hot.ts'
import { comments, posts, textMax, users, votes } from './community-tables.ts'

export const communityRoutes: Routes = (server, { db }) =>
  server
    .post('/api/posts/:id/vote', async ({ params, body, user, request }) => {
      const key = request.headers.get('idempotency-key')
      return await vote(db, { user: signedIn(user, 'to vote'), postId: params.id, body, key })
    })
    .post('/api/posts/:id/comments', async ({ params, body, user, request, set }) => {
      const key = request.headers.get('idempotency-key')
      const author = signedIn(user, 'to comment')
      const comment = await write(db, { user: author, postId: params.id, body, key })
      set.status = 201
      set.headers['location'] = `/api/comments/${comment.id}`
      return comment
    })

interface Asked {
  readonly user: User
  /** As it stands in the path. */
  readonly postId: string
  readonly body: unknown
  /** `Idempotency-Key`, when it was given. */
  readonly key: string | null
}

export interface Counted {
  readonly postId: number
  /** Of this user; 0 for none. */
  readonly value: number
  readonly upVotes: number
  readonly downVotes: number
  readonly score: number
}

/** Faults: `not_found`, `invalid`, `conflict` (no profile), `reused`, `unavailable`, `timeout`. */
async function vote(db: Db, { user, postId, body, key }: Asked): Promise<Counted> {
  const id = postIdOf(postId)
  const value = parseVote(body)
  const count = async (tx: Tx): Promise<Counted> => {
    const own = and(eq(votes.postId, posts.id), eq(votes.userId, user.id))
    const [found] = await tx
      .select({ before: votes.value, voter: users.id, ...totals })
      .from(posts)
      .leftJoin(users, eq(users.id, user.id))
      .leftJoin(votes, own)
      .where(eq(posts.id, id))
    if (!found) throw noPost()
    const { voter, before, ...counted } = found
    requireProfile(voter)
    if ((before ?? 0) === value) return { postId: id, value, ...counted }
    await setVote(tx, user, id, value)
    const [after] = await tx
      .update(posts)
      .set(countedOver(before ?? 0, value))
      .where(eq(posts.id, id))
      .returning(totals)
    if (!after) throw new Fault('internal', 'the post of a vote went away within its transaction')
    return { postId: id, value, ...after }
  }
  // The same key with another post or another value is a mistake, and refused.
  return await db.transaction(count, { once: { key, user, request: ['vote', id, value] } })
}

const totals = { upVotes: posts.upVotes, downVotes: posts.downVotes, score: posts.score }

async function setVote(tx: Tx, user: User, postId: number, value: number): Promise<void> {
  if (value === 0) {
    await tx.delete(votes).where(and(eq(votes.userId, user.id), eq(votes.postId, postId)))
    return
  }
  await tx
    .insert(votes)
    .values({ userId: user.id, postId, value })
    .onConflictDoUpdate({ target: [votes.userId, votes.postId], set: { value } })
}

/** On the right side of `set`, columns are as they were before the statement. */
function countedOver(before: number, value: number) {
  const ups = Number(value === 1) - Number(before === 1)
  const downs = Number(value === -1) - Number(before === -1)
  const score = sql<number>`(${posts.score} + ${ups - downs})`
  return {
    upVotes: sql`${posts.upVotes} + ${ups}`,
    downVotes: sql`${posts.downVotes} + ${downs}`,
    score,
    hot: hotOf(score, posts.createdAt),
  }
}

/** Faults: as of a vote. */
async function write(db: Db, { user, postId, body, key }: Asked) {
  const id = postIdOf(postId)
  const { text, parentId } = parseComment(body)
  const store = async (tx: Tx) => {
    const parent = and(eq(comments.id, parentId ?? 0), eq(comments.postId, posts.id))
    const [found] = await tx
      .select({ communityId: posts.communityId, author: users.id, parentId: comments.id })
      .from(posts)
      .leftJoin(users, eq(users.id, user.id))
      .leftJoin(comments, parent)
      .where(eq(posts.id, id))
    if (!found) throw noPost()
    requireProfile(found.author)
    if (parentId !== null && found.parentId === null) {
      throw notValid('comment', [{ field: 'parentId', message: 'is no comment on this post' }])
    }
    const { communityId } = found
    const [comment] = await tx
      .insert(comments)
      .values({ postId: id, communityId, authorId: user.id, parentId, text })
      .returning()
    if (!comment) throw new Fault('internal', 'the comment was not stored')
    return { ...comment, createdAt: comment.createdAt.toISOString() }
  }
  const once = { key, user, request: ['comment', id, text, parentId] }
  return await db.transaction(store, { once })
}

function signedIn(user: User | null, what: string): User {
  if (!user) throw new Fault('unauthenticated', `sign in ${what}`)
  return user
}

function noPost(): Fault {
  return new Fault('not_found', 'no such post')
}

function requireProfile(id: string | null): void {
  if (id === null) throw new Fault('conflict', 'make a profile first: POST /api/users')
}

function postIdOf(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw noPost()
  return Number(text)
}

function parseVote(body: unknown): number {
  const { value, ...others } = objectOf('vote', body)
  const problems = unknownFields(others, 'vote (value)')
  const isVote = value === 1 || value === -1 || value === 0
  if (!isVote) problems.push({ field: 'value', message: 'must be 1, -1, or 0 for no vote' })
  if (!isVote || problems.length > 0) throw notValid('vote', problems)
  return value
}

function parseComment(body: unknown): { readonly text: string; readonly parentId: number | null } {
  const { text, parentId = null, ...others } = objectOf('comment', body)
  const problems = unknownFields(others, 'comment (text, parentId)')
  const textProblem = problemOfText(text)
  if (textProblem !== undefined) problems.push({ field: 'text', message: textProblem })
  const isParent =
    parentId === null || (typeof parentId === 'number' && Number.isSafeInteger(parentId))
  if (!isParent)
    problems.push({ field: 'parentId', message: 'must be the id of a comment, or null' })
  if (typeof text !== 'string' || !isParent || problems.length > 0) {
    throw notValid('comment', problems)
  }
  return { text, parentId }
}

/** As a collection would check the column. */
function problemOfText(text: unknown): string | undefined {
  if (text === undefined) return 'is required'
  if (typeof text !== 'string') return 'must be a string'
  if (text.trim() === '') return 'must not be empty'
  if (text.length > textMax) return `must be at most ${textMax} characters`
  if (!text.isWellFormed()) return 'must be well-formed Unicode'
  return text.includes('\0') ? 'must not contain U+0000' : undefined
}

function objectOf(what: string, body: unknown): Readonly<Record<string, unknown>> {
  if (typeof body === 'object' && body !== null && !Array.isArray(body)) return { ...body }
  throw notValid(what, [{ field: 'body', message: 'must be a JSON object' }])
}

function unknownFields(others: Readonly<Record<string, unknown>>, what: string): FieldProblem[] {
  return Object.keys(others).map((field) => ({ field, message: `is not a field of a ${what}` }))
}

function notValid(what: string, fields: readonly FieldProblem[]): Fault {
  return new Fault('invalid', `the ${what} is not valid`, { fields })
}
