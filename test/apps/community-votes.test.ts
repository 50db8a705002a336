import { beforeAll, describe, expect, test } from 'bun:test'
import { readSample } from '../../src/apps/community-sample.ts'
import { tempFolder } from '../harness.ts'
import type { TestServer } from '../server.ts'
import { hotReference, loadCommunity, loadingMsMax, runCommunity } from './community-server.ts'
import { as, json, type Asker, type Page } from './exams-server.ts'

const sample = await readSample()
const first = sample.posts.find(({ id }) => id === 1)
const [ups, downs] = [first?.upVotes ?? 0, first?.downVotes ?? 0]
beforeAll(loadCommunity, loadingMsMax)

const path = '/api/posts/1/vote'

type Voted = Readonly<Record<'id' | 'upVotes', number>>

interface Post {
  readonly upVotes: number
  readonly downVotes: number
  readonly score: number
  readonly hot: number
  readonly createdAt: string
}

async function postOf(server: TestServer, id = 1): Promise<Post> {
  return await json<Post>(server, `/api/posts/${id}`)
}

async function voteOf(asker: Asker): Promise<unknown> {
  const { items } = await json<Page>(asker, '/api/votes?postId=1')
  return items.map(({ value }) => value)
}

describe('POST /api/posts/:id/vote', () => {
  test('counts once, is changed, and taken back', async () => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    const riker = await as(server, 'se-7')
    const counted = async (value: number) => {
      const response = await riker.send('POST', path, { value })
      const { upVotes, downVotes, score } = await postOf(server)
      expect([response.status, await response.json()]).toEqual([
        200,
        { postId: 1, value, upVotes, downVotes, score },
      ])
      expect(score).toBe(upVotes - downVotes)
      return [upVotes - ups, downVotes - downs, ...((await voteOf(riker)) as number[])]
    }
    expect(await counted(1)).toEqual([1, 0, 1])
    expect(await counted(1)).toEqual([1, 0, 1])
    expect(await counted(-1)).toEqual([0, 1, -1])
    expect(await counted(0)).toEqual([0, 0])
    expect(await counted(0)).toEqual([0, 0])
    expect(await counted(-1)).toEqual([0, 1, -1])
    expect(await counted(1)).toEqual([1, 0, 1])
  })

  test('twenty at once of one user are one vote, of twenty users twenty', async () => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    const riker = await as(server, 'se-7')
    const same = await Promise.all(
      Array.from({ length: 20 }, () => riker.send('POST', path, { value: 1 })),
    )
    expect(same.map(({ status }) => status)).toEqual(Array.from({ length: 20 }, () => 200))
    expect((await postOf(server)).upVotes).toBe(ups + 1)

    // Last vote wins, whatever came before it: what is counted is what is stored.
    await Promise.all(
      Array.from({ length: 20 }, (_, at) => riker.send('POST', path, { value: (at % 3) - 1 })),
    )
    const [own = 0] = (await voteOf(riker)) as number[]
    const after = await postOf(server)
    expect([after.upVotes - ups, after.downVotes - downs]).toEqual([
      Number(own === 1),
      Number(own === -1),
    ])

    const others = sample.users.filter(({ id }) => id !== 'se-7').slice(0, 20)
    const askers = await Promise.all(others.map(({ id }) => as(server, id)))
    await Promise.all(askers.map((one) => one.send('POST', path, { value: -1 })))
    expect((await postOf(server)).downVotes - after.downVotes).toBe(20)
  })

  test('moves the post in hot and top, by the formula', async () => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    const low = sample.posts.find(({ score }) => score === -1)?.id ?? 0
    for (const [at, user] of sample.users.slice(0, 12).entries()) {
      const asker = await as(server, user.id)
      expect((await asker.send('POST', `/api/posts/${low}/vote`, { value: 1 })).status).toBe(200)
      const { score, hot, createdAt } = await postOf(server, low)
      expect(score).toBe(at)
      expect(Math.abs(hot - hotReference(score, createdAt))).toBeLessThan(1e-9)
    }
    const order = (by: string) => `/api/posts?order=${by}&limit=100`
    for (const by of ['hot', 'top'] as const) {
      const values = (await json<Page<Record<string, number>>>(server, order(by))).items.map(
        (item) => item[by === 'hot' ? 'hot' : 'score'] ?? 0,
      )
      expect(values).toEqual(values.toSorted((a, b) => b - a))
    }
  })

  test('with a key is done once, and the key is for this vote only', async () => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    const riker = await as(server, 'se-7')
    const keyed = (value: number, to = path) =>
      riker.send('POST', to, { value }, { 'idempotency-key': 'k1' })
    const answer = await (await keyed(1)).json()
    await riker.send('POST', path, { value: -1 })
    expect(await (await keyed(1)).json()).toEqual(answer)
    // The vote that came between stands.
    expect(await voteOf(riker)).toEqual([-1])
    expect((await keyed(0)).status).toBe(422)
    expect((await keyed(1, '/api/posts/3/vote')).status).toBe(422)
  })

  test('is for whoever is signed in and has a profile, on a post that is there', async () => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    const { seq } = server.rooms.store.stats()
    const visitor = await as(server, null)
    const [stranger, riker] = [await as(server, 'stranger'), await as(server, 'se-7')]
    const status = async (asker: Asker, to: string, body: unknown) =>
      (await asker.send('POST', to, body)).status
    expect(await status(visitor, path, { value: 1 })).toBe(401)
    const refused = await stranger.send('POST', path, { value: 1 })
    expect([refused.status, await refused.json()]).toMatchObject([
      409,
      { detail: 'make a profile first: POST /api/users' },
    ])
    const wrong = (await (await riker.send('POST', path, { value: 2, by: 'me' })).json()) as {
      errors: { field: string }[]
    }
    expect(wrong.errors.map(({ field }) => field)).toEqual(['by', 'value'])
    for (const to of ['/api/posts/2/vote', '/api/posts/x/vote', '/api/posts/1e0/vote']) {
      expect([to, await status(riker, to, { value: 1 })]).toEqual([to, 404])
    }
    for (const body of [
      {},
      { value: 2 },
      { value: '1' },
      { value: 1, userId: 'se-9' },
      [1],
      null,
    ]) {
      expect([body, await status(riker, path, body)]).toEqual([body, 400])
    }
    // Neither past the route.
    expect(await status(riker, '/api/votes', { postId: 1, value: 1, userId: 'se-7' })).toBe(403)
    expect((await riker.send('PATCH', '/api/votes/se-7,1', { value: 1 })).status).toBe(403)
    expect(server.rooms.store.stats().seq).toBe(seq)
  })

  test("is one's own to see", async () => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    const [riker, other] = [await as(server, 'se-7'), await as(server, 'se-9')]
    await riker.send('POST', path, { value: 1 })
    expect(await voteOf(riker)).toEqual([1])
    expect(await voteOf(other)).toEqual([])
    // Nor is it taken back with another one's.
    await other.send('POST', path, { value: 1 })
    await other.send('POST', path, { value: 0 })
    expect(await voteOf(riker)).toEqual([1])
    expect((await other.get('/api/votes/se-7,1')).status).toBe(404)
    expect((await server.get('/api/votes')).status).toBe(401)
  })

  test('changes its post and nothing else', async () => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    const state = async (of: string) => (await server.get(of)).headers.get('x-cache')
    const untouched = [
      ...['/api/users/se-7', '/api/users', '/api/users/username/riker', '/api/communities'],
      ...['/api/communities/simulation', '/api/posts/1/comments', '/api/posts/3', '/api/servers'],
      // It is none of the twenty hottest.
      '/api/posts',
    ]
    const touched = ['/api/posts/1', '/api/posts?order=top']
    for (const of of [...untouched, ...touched]) await server.get(of)
    const { upVotes } = (await (await server.get('/api/posts/1')).json()) as Voted
    const riker = await as(server, 'se-7')
    const { seq } = server.rooms.store.stats()
    await riker.send('POST', path, { value: 1 })
    // The vote, and its post.
    expect(server.rooms.store.stats().seq - seq).toBe(2)
    for (const of of untouched) {
      expect([of, await state(of)]).toEqual([of, 'hit'])
    }
    for (const of of touched) {
      const rows = (await (await server.get(of)).json()) as Voted | { readonly items: Voted[] }
      const [post] = 'items' in rows ? rows.items.filter(({ id }) => id === 1) : [rows]
      expect([of, post?.upVotes]).toEqual([of, upVotes + 1])
    }
    // A vote that is there already changes nothing at all.
    await riker.send('POST', path, { value: 1 })
    expect(server.rooms.store.stats().seq - seq).toBe(2)
  })
})
