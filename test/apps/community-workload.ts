/**
 * Requests as a community would send them, for hit rates and load: reads by Zipf's law over all pages of the
 * sample, and some writes. The same seed is the same sequence, without an end.
 *
 *   rank 1 … 8    the fronts: posts in each order, communities, servers, users, comments
 *   rank 9 …      all other pages, shuffled by the seed: posts, their comments, users by id and by name,
 *                 what they wrote, communities, their posts in each order, servers, channels
 *
 * Writes go where reads go: the post that is voted or commented on is drawn by the same law, so what is asked
 * for most is invalidated most. Pages are those of the sample: new posts are seen in lists.
 */
import { readSample } from '../../src/apps/community-sample.ts'
import { createRandom, type Random } from '../lib/random.ts'

export interface WorkRequest {
  readonly method: 'GET' | 'POST'
  readonly path: string
  readonly body?: unknown
  /** The `sub` of the token to send. Reads are visitors'. */
  readonly user?: string
}

export interface WorkloadOptions {
  /** Of Zipf's law. */
  readonly exponent?: number
  /** Of all requests. */
  readonly writeShare?: number
  /** Of all writes; the rest are new posts. */
  readonly voteShare?: number
  readonly commentShare?: number
}

const { posts, users, communities, servers } = await readSample()
const orders = ['hot', 'new', 'top']

const fronts = [
  '/api/posts?order=hot&expand=author,community',
  '/api/posts?order=new&expand=author,community',
  '/api/posts?order=top&expand=author,community',
  '/api/communities?limit=100',
  '/api/servers',
  '/api/users',
  '/api/comments?order=new',
  '/api/users?order=new',
]

/** Every page, the fronts first. */
export const communityPages: readonly string[] = [
  ...fronts,
  ...posts.flatMap(({ id }) => [
    `/api/posts/${id}?expand=author,community`,
    `/api/posts/${id}/comments?expand=author`,
  ]),
  ...users.flatMap(({ id, username }) => [
    `/api/users/${id}`,
    `/api/users/username/${username}`,
    `/api/users/${id}/posts?order=new`,
  ]),
  ...communities.flatMap(({ id }) => [
    `/api/communities/${id}`,
    ...orders.map((order) => `/api/posts?communityId=${id}&order=${order}`),
  ]),
  ...servers.flatMap(({ id }) => [`/api/servers/${id}`, `/api/servers/${id}/channels`]),
]

export function* communityWorkload(
  seed: number,
  options: WorkloadOptions = {},
): Generator<WorkRequest, never> {
  const { exponent = 0.99, writeShare = 0.02, voteShare = 0.7, commentShare = 0.25 } = options
  const random = createRandom(seed)
  const pages = [...fronts, ...shuffled(random, communityPages.slice(fronts.length))]
  const read = zipf(random, pages, exponent)
  const popular = zipf(random, postsAsIn(pages), exponent)
  for (;;) {
    if (random.next() >= writeShare) {
      yield { method: 'GET', path: read() }
      continue
    }
    const kind = random.next()
    const user = random.pick(users).id
    const id = popular()
    if (kind < voteShare) {
      const value = random.pick([1, 1, 1, 1, 1, 1, 1, 1, -1, 0])
      yield { method: 'POST', path: `/api/posts/${id}/vote`, body: { value }, user }
    } else if (kind < voteShare + commentShare) {
      const body = { text: `What of ${random.below(1_000_000)}?` }
      yield { method: 'POST', path: `/api/posts/${id}/comments`, body, user }
    } else {
      const { communityId } = random.pick(posts)
      const body = { communityId, title: `Question ${random.below(1_000_000)}`, text: 'Why?' }
      yield { method: 'POST', path: '/api/posts', body, user }
    }
  }
}

/** Posts in the order in which their pages are asked for. */
function postsAsIn(pages: readonly string[]): string[] {
  return pages.flatMap((page) => /^\/api\/posts\/(\d+)\?/.exec(page)?.[1] ?? [])
}

/** Fisher and Yates. */
function shuffled<T>(random: Random, from: readonly T[]): T[] {
  const all = [...from]
  for (let at = all.length - 1; at > 0; at--) {
    const other = random.below(at + 1)
    ;[all[at], all[other]] = [all[other] as T, all[at] as T]
  }
  return all
}

/** The one of rank r is drawn with a chance in proportion to 1 / r^exponent. */
export function zipf<T>(random: Random, ranked: readonly T[], exponent: number): () => T {
  const below = new Float64Array(ranked.length)
  let sum = 0
  for (let rank = 1; rank <= ranked.length; rank++) {
    sum += rank ** -exponent
    below[rank - 1] = sum
  }
  return () => {
    const wanted = random.next() * sum
    let [low, high] = [0, ranked.length - 1]
    while (low < high) {
      const middle = (low + high) >> 1
      if ((below[middle] ?? 0) > wanted) high = middle
      else low = middle + 1
    }
    return ranked[low] as T
  }
}
