/**
 * The sample that ships with the app (db/samples/community/SOURCE.md) → rows.
 *
 *   question ─► post, in the community of the rarest of its tags that has one
 *   answer ─► comment on the post      comment on an answer ─► comment on that one
 *   votes ─► totals of a post (nobody knows who voted, so there are no rows of votes)
 *
 * Invariants: bodies are plain text; every text names its origin, its licence and, by its author, the
 * author's page; what a row refers to is there, or stands before it.
 */
import { Fault } from '../fault.ts'
import commentsFile from '../../db/samples/community/stackexchange_quantum_comments.jsonl.gz' with { type: 'file' }
import postsFile from '../../db/samples/community/stackexchange_quantum_posts.jsonl.gz' with { type: 'file' }
import usersFile from '../../db/samples/community/stackexchange_quantum_users.jsonl.gz' with { type: 'file' }
import votesFile from '../../db/samples/community/stackexchange_quantum_votes.csv.gz' with { type: 'file' }
import { channelRows, general, serverRows } from './community-places.ts'
import type { channels, comments, communities, posts, servers, users } from './community-tables.ts'
import { plainText } from './community-text.ts'
import { sampleLines } from './sample-lines.ts'

type UserRow = typeof users.$inferInsert
type CommunityRow = typeof communities.$inferInsert
type CommentRow = typeof comments.$inferInsert & { readonly id: number; readonly postId: number }

/** Without `hot`, which SQL computes. */
export type PostRow = typeof posts.$inferInsert & {
  readonly id: number
  readonly score: number
  readonly createdAt: Date
}

export interface Sample {
  readonly users: readonly UserRow[]
  readonly communities: readonly CommunityRow[]
  readonly servers: readonly (typeof servers.$inferInsert)[]
  readonly channels: readonly (typeof channels.$inferInsert)[]
  readonly posts: readonly PostRow[]
  /** Answers first: comments on them come later. */
  readonly comments: readonly CommentRow[]
}

const site = 'https://quantumcomputing.stackexchange.com'
const licence = 'CC BY-SA 3.0'

/** A tag with as many questions is a community. */
const communityPostsMin = 8

/** Answers and comments were counted apart: an answer's number is this much higher here. */
export const answerIdFrom = 100_000

/** In the order of the files. Faults: `internal` if a file is not what it was made to be. */
export async function readSample(): Promise<Sample> {
  const totals = await readTotals()
  const found = await readAll(postsFile, parsePost)
  const questions = found.filter(({ type }) => type === 'question')
  const byTag = communitiesOf(questions)
  const posts = questions.map((question) => postOf(question, byTag, totals))
  const byId = new Map(posts.map((post) => [post.id, post]))
  const answers = found
    .filter(({ type }) => type === 'answer')
    .map((answer) => answerOf(answer, must(byId.get(answer.parentId), 'the question', answer.id)))
  const answerById = new Map(answers.map((answer) => [answer.id, answer]))
  const replies = (await readAll(commentsFile, parseComment)).map((comment): CommentRow => {
    const answer = answerById.get(comment.postId + answerIdFrom)
    const post = byId.get(answer?.postId ?? comment.postId)
    return replyOf(comment, must(post, 'the question', comment.id), answer)
  })
  return {
    users: withNames(await readAll(usersFile, parseUser)),
    communities: [general, ...[...byTag.values()].map(({ row }) => row)],
    servers: serverRows,
    channels: channelRows,
    posts,
    comments: [...answers, ...replies],
  }
}

interface TagCommunity {
  readonly row: CommunityRow
  /** Questions with the tag. */
  readonly count: number
}

function communitiesOf(questions: readonly SourcePost[]): ReadonlyMap<string, TagCommunity> {
  const counts = new Map<string, number>()
  for (const tag of questions.flatMap(({ tags }) => tags)) {
    counts.set(tag, (counts.get(tag) ?? 0) + 1)
  }
  const popular = [...counts].filter(([, count]) => count >= communityPostsMin)
  return new Map(
    popular.map(([tag, count]) => {
      const name = titled(tag)
      const description = `Posts about ${name}: ${count} questions of the first half-year carry this tag.`
      return [tag, { row: { id: slugOf(tag), name, description }, count }]
    }),
  )
}

function postOf(
  source: SourcePost,
  byTag: ReadonlyMap<string, TagCommunity>,
  totals: ReadonlyMap<number, Totals>,
): PostRow {
  const { id, ownerId, title, tags, score, createdAt, body } = source
  const own = tags.flatMap((tag) => byTag.get(tag) ?? [])
  const [rarest] = own.toSorted((a, b) => a.count - b.count)
  const { up, down } = totals.get(id) ?? { up: 0, down: 0 }
  if (up - down !== score) throw broken('post', id, 'has another score than its votes')
  return {
    id,
    communityId: rarest?.row.id ?? general.id,
    authorId: userId(ownerId),
    ...{ title, text: body, tags, score, upVotes: up, downVotes: down, createdAt },
    ...{ url: `${site}/q/${id}`, licence },
  }
}

function answerOf(source: SourcePost, post: PostRow): CommentRow {
  const { id, ownerId, score, createdAt, body } = source
  return {
    id: id + answerIdFrom,
    postId: post.id,
    communityId: post.communityId,
    authorId: userId(ownerId),
    parentId: null,
    ...{ text: body, score, createdAt },
    ...{ url: `${site}/a/${id}`, licence },
  }
}

function replyOf(source: SourceComment, post: PostRow, answer: CommentRow | undefined): CommentRow {
  const { id, postId, ownerId, text, score, createdAt } = source
  return {
    id,
    postId: post.id,
    communityId: post.communityId,
    authorId: userId(ownerId),
    parentId: answer?.id ?? null,
    ...{ text, score, createdAt },
    ...{ url: `${site}/q/${post.id}#comment${id}_${postId}`, licence },
  }
}

/** A name in paths: `Robert Cartaino` → `robert-cartaino`; of two who are called the same, the second has a number. */
function withNames(sources: readonly SourceUser[]): UserRow[] {
  const taken = new Set<string>()
  return sources.map(({ id, name, reputation, createdAt }) => {
    const slug = slugOf(name).slice(0, 30)
    const isFree = slug !== '' && !taken.has(slug)
    const username = isFree ? slug : `${slug === '' ? 'user' : slug}-${id}`
    taken.add(username)
    return {
      id: `se-${id}`,
      username,
      displayName: name,
      reputation,
      url: `${site}/users/${id}`,
      createdAt,
    }
  })
}

function userId(sourceId: number | null): string | null {
  return sourceId === null ? null : `se-${sourceId}`
}

/** Letters of other alphabets lose their marks or go: `Ernesto Galvão` → `ernesto-galvao`. */
function slugOf(name: string): string {
  const plain = name.normalize('NFKD').replaceAll(/\p{M}/gu, '').toLowerCase()
  return plain
    .replaceAll('#', '-sharp')
    .replaceAll(/[^a-z0-9]+/g, '-')
    .replaceAll(/^-+|-+$/g, '')
}

/** `grovers-algorithm` → `Grovers algorithm`. */
function titled(tag: string): string {
  const words = tag.replaceAll('-', ' ')
  return words.charAt(0).toUpperCase() + words.slice(1)
}

interface Totals {
  up: number
  down: number
}

async function readTotals(): Promise<ReadonlyMap<number, Totals>> {
  const totals = new Map<number, Totals>()
  for await (const some of sampleLines(votesFile)) {
    for (const line of some) {
      const [, post = '', vote] = line.split(',')
      if (vote !== 'up' && vote !== 'down') continue
      const total = totals.get(Number(post)) ?? { up: 0, down: 0 }
      total[vote]++
      totals.set(Number(post), total)
    }
  }
  return totals
}

async function readAll<T>(path: string, parse: (field: Fields) => T): Promise<T[]> {
  const all: T[] = []
  for await (const some of sampleLines(path)) {
    for (const line of some) if (line !== '') all.push(parse(fieldsOf(line)))
  }
  return all
}

type SourcePost = ReturnType<typeof parsePost>
type SourceComment = ReturnType<typeof parseComment>
type SourceUser = ReturnType<typeof parseUser>

function parsePost({ number, numberOr, text, texts, date }: Fields) {
  const type = text('type')
  const isQuestion = type === 'question'
  return {
    type,
    id: number('id'),
    parentId: isQuestion ? 0 : number('parent_id'),
    ownerId: numberOr('owner_user_id', null),
    title: isQuestion ? text('title') : '',
    tags: isQuestion ? texts('tags') : [],
    score: number('score'),
    createdAt: date('created_at'),
    body: plainText(text('body_html')),
  }
}

function parseComment({ number, numberOr, text, date }: Fields) {
  return {
    id: number('id'),
    postId: number('post_id'),
    ownerId: numberOr('user_id', null),
    text: text('text'),
    score: number('score'),
    createdAt: date('created_at'),
  }
}

function parseUser({ number, text, date }: Fields) {
  return {
    id: number('id'),
    name: text('display_name'),
    reputation: number('reputation'),
    createdAt: date('created_at'),
  }
}

type Fields = ReturnType<typeof fieldsOf>

function fieldsOf(line: string) {
  const value: unknown = JSON.parse(line)
  const row: Readonly<Record<string, unknown>> =
    typeof value === 'object' && value !== null ? { ...value } : {}
  const wrong = (field: string): Fault => broken(field, row['id'], 'is not what it should be')
  const number = (field: string): number => {
    const found = row[field]
    if (typeof found !== 'number' || !Number.isInteger(found)) throw wrong(field)
    return found
  }
  const text = (field: string): string => {
    const found = row[field]
    if (typeof found !== 'string' || found === '') throw wrong(field)
    return found
  }
  return {
    number,
    text,
    numberOr: (field: string, otherwise: null): number | null =>
      row[field] === null ? otherwise : number(field),
    texts(field: string): readonly string[] {
      const found = row[field]
      if (!Array.isArray(found) || !found.every((one) => typeof one === 'string'))
        throw wrong(field)
      return found
    },
    date(field: string): Date {
      const found = new Date(text(field))
      if (Number.isNaN(found.getTime())) throw wrong(field)
      return found
    },
  }
}

function must<T>(value: T | undefined, what: string, id: number): T {
  if (value === undefined) throw broken(what, id, 'is not in the sample')
  return value
}

function broken(what: string, id: unknown, message: string): Fault {
  return new Fault('internal', `community sample: ${String(id)}: ${what} ${message}`)
}
