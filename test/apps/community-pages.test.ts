import { beforeAll, describe, expect, test } from 'bun:test'
import { readSample } from '../../src/apps/community-sample.ts'
import { tempFolder } from '../harness.ts'
import type { TestServer } from '../server.ts'
import { hotReference, loadCommunity, loadingMsMax, runCommunity } from './community-server.ts'
import { json, type Page } from './exams-server.ts'

const sample = await readSample()
beforeAll(loadCommunity, loadingMsMax)

type Item = Readonly<Record<string, unknown>>

describe('paths', () => {
  test('a user by id and by name is the same user', async () => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    const riker = await json<Item>(server, '/api/users/se-7')
    expect(riker).toEqual({
      id: 'se-7',
      username: 'riker',
      displayName: 'Riker',
      reputation: 758,
      url: 'https://quantumcomputing.stackexchange.com/users/7',
      createdAt: '2018-03-12T16:57:30.397Z',
    })
    expect(await json<Item>(server, '/api/users/username/riker')).toEqual(riker)
    for (const path of ['/api/users/se-0', '/api/users/username/nobody', '/api/posts/2']) {
      expect([path, (await server.get(path)).status]).toEqual([path, 404])
    }
  })

  test('children: comments of a post, posts of a community and of a user, replies, channels', async () => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    const list = async (path: string) =>
      await json<Page & { readonly count: number }>(server, `${path}?count=true&limit=100`)
    const countOf = (rows: readonly object[], is: (row: Item) => boolean) =>
      rows.filter((row) => is(row as Item)).length

    const thread = await list('/api/posts/1/comments')
    expect(thread.count).toBe(countOf(sample.comments, ({ postId }) => postId === 1))
    expect(thread.items[0]).toMatchObject({ postId: 1, communityId: 'simulation', parentId: null })
    const replied = sample.comments.find(({ parentId }) => parentId)?.parentId
    const replies = await list(`/api/comments/${replied}/replies`)
    expect(replies.count).toBe(countOf(sample.comments, ({ parentId }) => parentId === replied))
    expect(new Set(replies.items.map(({ parentId }) => parentId))).toEqual(new Set([replied]))
    const topical = await list('/api/communities/quantum-gate/posts')
    expect(topical.count).toBe(
      countOf(sample.posts, (row) => row['communityId'] === 'quantum-gate'),
    )
    const own = await list('/api/users/se-7/posts')
    expect(own.count).toBe(countOf(sample.posts, ({ authorId }) => authorId === 'se-7'))
    const channels = await list('/api/servers/qubit-cafe/channels')
    expect(channels.items.map(({ name }) => name)).toEqual([
      'welcome',
      'general',
      'beginners',
      'papers',
    ])
    for (const path of ['/api/posts/2/comments', '/api/servers/none/channels']) {
      expect([path, (await server.get(path)).status]).toEqual([path, 404])
    }
  })

  test('expands', async () => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    expect(await json<Item>(server, '/api/posts/1?expand=author,community')).toMatchObject({
      author: { displayName: 'Riker' },
      community: { id: 'simulation', name: 'Simulation' },
    })
    const list = await json<Page>(server, '/api/posts?expand=author&limit=100&order=new')
    for (const { authorId, author } of list.items) {
      expect((author as Item | null)?.['id'] ?? null).toBe((authorId as string | null) ?? null)
    }
    const unsigned = sample.posts.find(({ authorId }) => authorId === null)
    const path = `/api/posts/${unsigned?.id}?expand=author`
    expect(await json<Item>(server, path)).toMatchObject({ authorId: null, author: null })
    const comment = await json<Page>(server, '/api/posts/1/comments?expand=author,post&limit=1')
    expect(comment.items[0]).toMatchObject({ post: { id: 1 }, author: { url: expect.anything() } })
    const channel = '/api/channels/qubit-cafe-general?expand=server'
    expect(await json<Item>(server, channel)).toMatchObject({ server: { id: 'qubit-cafe' } })
  })

  test('times to live: an hour for users, communities and servers, five minutes for posts', async () => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    const ttl = async (path: string) => {
      await server.get(path)
      const status = (await server.get(path)).headers.get('cache-status') ?? ''
      return Number(/ttl=(\d+)/.exec(status)?.[1])
    }
    for (const path of ['users/se-7', 'communities/simulation', 'servers/qubit-cafe']) {
      // A time to live may be drawn out a little, so that not all end at once.
      expect([path, Math.round((await ttl(`/api/${path}`)) / 900)]).toEqual([path, 4])
    }
    for (const path of ['posts/1', 'posts', 'posts/1/comments']) {
      expect([path, Math.round((await ttl(`/api/${path}`)) / 75)]).toEqual([path, 4])
    }
  })
})

type PostRow = (typeof sample.posts)[number]

const descending = (value: (post: PostRow) => number) => (a: PostRow, b: PostRow) =>
  value(b) - value(a) || b.id - a.id

const orders: Readonly<Record<string, (a: PostRow, b: PostRow) => number>> = {
  hot: descending(({ score, createdAt }) => hotReference(score, createdAt)),
  new: descending(({ createdAt }) => createdAt.getTime()),
  top: descending(({ score }) => score),
}

describe('orders', () => {
  /** The ids of all pages from `start`, in the order of the list. */
  async function walk(
    server: TestServer,
    path: string,
    direction: 'next' | 'prev',
    start: string | null = null,
  ): Promise<{ readonly ids: number[]; readonly end: Page }> {
    const ids: number[] = []
    const parameter = direction === 'next' ? 'after' : 'before'
    for (let cursor = start; ;) {
      const more = cursor === null ? '' : `&${parameter}=${encodeURIComponent(cursor)}`
      const page = await json<Page<{ readonly id: number }>>(server, path + more)
      const own = page.items.map(({ id }) => id)
      ids.push(...(direction === 'next' ? own : own.toReversed()))
      cursor = page[direction]
      if (cursor === null) return { ids, end: page }
    }
  }

  async function expectBothWays(server: TestServer, path: string, expected: readonly number[]) {
    const { ids, end } = await walk(server, path, 'next')
    expect(ids).toEqual([...expected])
    if (end.prev === null) return
    const back = await walk(server, path, 'prev', end.prev)
    expect(back.ids).toEqual(expected.slice(0, -end.items.length).toReversed())
  }

  test.each(Object.keys(orders))('all 612 posts by %s, forwards and back again', async (order) => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    const expected = sample.posts.toSorted(orders[order]).map(({ id }) => id)
    expect(expected).toHaveLength(612)
    await expectBothWays(server, `/api/posts?order=${order}&limit=25`, expected)
  })

  test.each(Object.keys(orders))(
    'of one community by %s, as a filter and as a child',
    async (order) => {
      using folder = tempFolder()
      await using server = await runCommunity(folder)
      const expected = sample.posts
        .filter(({ communityId }) => communityId === 'quantum-gate')
        .toSorted(orders[order])
        .map(({ id }) => id)
      await expectBothWays(
        server,
        `/api/posts?communityId=quantum-gate&order=${order}&limit=7`,
        expected,
      )
      await expectBothWays(
        server,
        `/api/communities/quantum-gate/posts?order=${order}&limit=7`,
        expected,
      )
    },
  )

  test('hot is the first, and the default', async () => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    expect(await json<Page>(server, '/api/posts')).toEqual(
      await json<Page>(server, '/api/posts?order=hot'),
    )
    expect((await server.get('/api/posts?order=best')).status).toBe(400)
  })
})
