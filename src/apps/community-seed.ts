/**
 * Loads the sample into an empty database, one batch per tick, while the server already answers. A batch and
 * its number are one transaction, so a stop or a crash at any moment is gone on from. Once all is stored it
 * is never loaded again: people have voted and written since.
 *
 * New rows get the next number after the highest. So the first batch has the highest post and the highest
 * comment of the sample beside all users and communities, without which nobody can write: whatever is
 * written while the rest is loaded has a number beyond the sample's.
 */
import { eq, sql } from 'drizzle-orm'
import type { FeedContext, ReadDb } from '../kit.ts'
import { hotOf } from './community-hot.ts'
import { readSample, type PostRow, type Sample } from './community-sample.ts'
import { sampleLoads, type posts } from './community-tables.ts'

/** Rows of a batch, at most: one transaction of some 10 ms, so that writers wait no longer for it. */
export const batchRowsMax = 500

const sampleId = 'stackexchange-quantum'

/** What one tick of the feed gives: rows by collection path. */
export type SampleTick = Omit<Sample, 'posts'> & {
  readonly posts: readonly (typeof posts.$inferInsert)[]
  readonly 'sample-loads': readonly (typeof sampleLoads.$inferInsert)[]
}

interface Progress {
  isLoaded: boolean
  /** Held only while there is something to load. */
  batches: readonly Sample[]
}

/** By database: one process may serve several. */
const known = new WeakMap<ReadDb, Progress>()

/** The next batch that is not stored; null when all are. */
export async function loadSample({ db }: Pick<FeedContext, 'db'>): Promise<SampleTick | null> {
  const progress = known.get(db) ?? { isLoaded: false, batches: [] }
  known.set(db, progress)
  if (progress.isLoaded) return null

  const [stored] = await db.select().from(sampleLoads).where(eq(sampleLoads.id, sampleId))
  if (stored && stored.batches >= stored.total) {
    progress.isLoaded = true
    progress.batches = []
    return null
  }
  if (progress.batches.length === 0) progress.batches = sampleBatches(await readSample())
  const total = progress.batches.length
  const next = stored?.batches ?? 0
  const batch = progress.batches[next]
  if (!batch) return null
  return {
    ...batch,
    posts: await withHot(db, batch.posts),
    'sample-loads': [{ id: sampleId, batches: next + 1, total }],
  }
}

/** The very expression that votes use, asked of the database for a whole batch. */
async function withHot(db: ReadDb, rows: readonly PostRow[]): Promise<SampleTick['posts']> {
  if (rows.length === 0) return []
  const given = JSON.stringify(rows.map(({ score, createdAt }) => [score, createdAt.getTime()]))
  const hot = hotOf(sql`(value ->> 0)`, sql`(value ->> 1)`)
  const found = await db.values<[number]>(
    sql`select ${hot} from json_each(${given}) order by cast(key as integer)`,
  )
  return rows.map((row, at) => ({ ...row, hot: found[at]?.[0] }))
}

const nothing: Sample = {
  ...{ users: [], communities: [], servers: [], channels: [], posts: [], comments: [] },
}

export function sampleBatches(sample: Sample): Sample[] {
  const comments = [highest(sample.comments), ...sample.comments]
  const [first] = comments
  const commented = sample.posts.find(({ id }) => id === first?.postId)
  const posts = [highest(sample.posts), ...(commented ? [commented] : []), ...sample.posts]
  const opening = { ...sample, posts: posts.slice(0, 2), comments: comments.slice(0, 1) }
  const later = <T extends { readonly id: number }>(all: readonly T[], done: readonly T[]) =>
    all.filter((row) => !done.includes(row))
  return [
    opening,
    ...chunks(later(sample.posts, opening.posts)).map((some) => ({ ...nothing, posts: some })),
    ...chunks(later(sample.comments, opening.comments)).map((some) => ({
      ...nothing,
      comments: some,
    })),
  ]
}

function highest<T extends { readonly id: number }>(rows: readonly T[]): T {
  return rows.reduce((a, b) => (b.id > a.id ? b : a))
}

function chunks<T>(all: readonly T[]): T[][] {
  const count = Math.ceil(all.length / batchRowsMax)
  return Array.from({ length: count }, (_, at) =>
    all.slice(at * batchRowsMax, (at + 1) * batchRowsMax),
  )
}
