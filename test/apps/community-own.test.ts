import { beforeAll, describe, expect, test } from 'bun:test'
import { tempFolder } from '../harness.ts'
import type { TestServer } from '../server.ts'
import { hotReference, loadCommunity, loadingMsMax, runCommunity } from './community-server.ts'
import { as, json, type Asker, type Page } from './exams-server.ts'

beforeAll(loadCommunity, loadingMsMax)

type Item = Readonly<Record<string, unknown>>

const draft = { communityId: 'simulation', title: 'Mine', text: 'Written <b>here</b>.' }

async function two(server: TestServer): Promise<[ann: Asker, bob: Asker]> {
  const askers: [Asker, Asker] = [await as(server, 'ann'), await as(server, 'bob')]
  for (const [at, asker] of askers.entries()) {
    const profile = { username: ['ann', 'bob'][at], displayName: ['Ann', 'Bob'][at] }
    expect((await asker.send('POST', '/api/users', profile)).status).toBe(201)
  }
  return askers
}

const statusOf = async (sent: Promise<Response>) => (await sent).status

describe('a post', () => {
  test("is its author's, and edited and removed by nobody else", async () => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    const [ann, bob] = await two(server)
    const made = await ann.send('POST', '/api/posts', { ...draft, authorId: 'bob' })
    expect(made.status).toBe(201)
    const post = (await made.json()) as Item & { readonly id: number; readonly createdAt: string }
    expect(post).toEqual({
      id: post.id,
      ...draft,
      authorId: 'ann',
      tags: [],
      ...{ upVotes: 0, downVotes: 0, score: 0, url: null, licence: null },
      hot: expect.any(Number),
      createdAt: expect.any(String),
    })
    expect(Math.abs(Number(post['hot']) - hotReference(0, post.createdAt))).toBeLessThan(1e-9)
    expect(Math.abs(Date.parse(post.createdAt) - Date.now())).toBeLessThan(60_000)
    const path = `/api/posts/${post.id}`
    expect((await json<Page>(server, '/api/posts?order=new')).items[0]).toEqual(post)
    const change = { title: 'Better' }
    expect(await statusOf(bob.send('PATCH', path, change))).toBe(403)
    expect(await statusOf(bob.send('DELETE', path))).toBe(403)
    expect(await statusOf(server.get(path, { method: 'DELETE' }))).toBe(401)
    expect(await (await ann.send('PATCH', path, change)).json()).toEqual({ ...post, ...change })
    expect(await statusOf(ann.send('DELETE', path))).toBe(204)
    expect((await server.get(path)).status).toBe(404)
  })

  test('nobody says what is not theirs to say: votes, heat, time, origin, another author', async () => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    const [ann] = await two(server)
    const created = await ann.send('POST', '/api/posts', draft)
    const { id } = (await created.json()) as { id: number }
    const forged: readonly Item[] = [
      ...[{ score: 9 }, { upVotes: 9 }, { hot: 1e9 }, { createdAt: '2030-01-01T00:00:00Z' }],
      ...[{ url: 'https://e.example' }, { licence: 'mine' }, { tags: ['x'] }],
    ]
    for (const forgery of forged) {
      const statuses = [
        await statusOf(ann.send('POST', '/api/posts', { ...draft, ...forgery })),
        await statusOf(ann.send('PATCH', `/api/posts/${id}`, forgery)),
      ]
      expect([forgery, statuses]).toEqual([forgery, [403, 403]])
    }
    for (const other of [{ authorId: 'bob' }, { communityId: 'qubit' }]) {
      expect(await statusOf(ann.send('PATCH', `/api/posts/${id}`, other))).toBe(403)
    }
  })

  test('needs a profile, a community, a title', async () => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    const [ann] = await two(server)
    const carl = await as(server, 'carl')
    expect(await statusOf(carl.send('POST', '/api/posts', draft))).toBe(409)
    expect(await statusOf((await as(server, null)).send('POST', '/api/posts', draft))).toBe(401)
    for (const wrong of [{ communityId: 'none' }, { title: ' ' }, { title: 'x'.repeat(301) }]) {
      const status = await statusOf(ann.send('POST', '/api/posts', { ...draft, ...wrong }))
      expect([wrong, status]).toEqual([wrong, 'communityId' in wrong ? 409 : 400])
    }
  })

  test('that goes takes its comments and votes along', async () => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    const [ann, bob] = await two(server)
    const made = await ann.send('POST', '/api/posts', draft)
    const { id } = (await made.json()) as { id: number }
    await bob.send('POST', `/api/posts/${id}/vote`, { value: 1 })
    const comment = await bob.send('POST', `/api/posts/${id}/comments`, { text: 'First' })
    const location = comment.headers.get('location') ?? ''
    expect((await server.get(location)).status).toBe(200)
    expect(await statusOf(ann.send('DELETE', `/api/posts/${id}`))).toBe(204)
    expect((await server.get(location)).status).toBe(404)
    expect((await json<Page>(bob, '/api/votes')).items).toEqual([])
  })
})

describe('a comment', () => {
  test("is made on a post or on one of its comments, and its author's", async () => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    const [ann, bob] = await two(server)
    const write = (asker: Asker, body: unknown, post = 1) =>
      asker.send('POST', `/api/posts/${post}/comments`, body)
    const made = await write(ann, { text: 'First' })
    const comment = (await made.json()) as Item & { readonly id: number }
    expect([made.status, made.headers.get('location')]).toEqual([
      201,
      `/api/comments/${comment.id}`,
    ])
    expect(comment).toMatchObject({
      postId: 1,
      communityId: 'simulation',
      authorId: 'ann',
      score: 0,
    })
    expect(await json<Item>(server, `/api/comments/${comment.id}`)).toEqual(comment)
    expect((await json<Page>(server, '/api/posts/1/comments?order=new')).items[0]).toEqual(comment)
    const reply = await write(bob, { text: 'Reply', parentId: comment.id })
    expect(await reply.json()).toMatchObject({ authorId: 'bob', parentId: comment.id })
    const replies = `/api/comments/${comment.id}/replies`
    expect((await json<Page>(server, replies)).items.map(({ text }) => text)).toEqual(['Reply'])

    const wrong = { text: 'x', parentId: comment.id }
    const problem = (await (await write(bob, wrong, 3)).json()) as { errors: unknown }
    expect(problem.errors).toEqual([{ field: 'parentId', message: 'is no comment on this post' }])
    const path = `/api/comments/${comment.id}`
    expect(await statusOf(bob.send('PATCH', path, { text: 'Mine' }))).toBe(403)
    expect(await statusOf(bob.send('DELETE', path))).toBe(403)
    for (const forgery of [{ score: 9 }, { postId: 3 }, { authorId: 'bob' }, { parentId: null }]) {
      expect([forgery, await statusOf(ann.send('PATCH', path, forgery))]).toEqual([forgery, 403])
    }
    expect(await (await ann.send('PATCH', path, { text: 'Edited' })).json()).toMatchObject({
      text: 'Edited',
      authorId: 'ann',
    })
    // What others replied stays.
    expect(await statusOf(ann.send('DELETE', path))).toBe(204)
    const left = (await json<Page>(server, '/api/posts/1/comments?order=new')).items[0]
    expect(left).toMatchObject({ text: 'Reply', parentId: null })
  })

  test('is refused with every wrong field, and leaves nothing', async () => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    const [ann] = await two(server)
    const { seq } = server.rooms.store.stats()
    const refused = async (body: unknown, post: number = 1) => {
      const response = await ann.send('POST', `/api/posts/${post}/comments`, body)
      const { errors = [] } = (await response.json()) as { errors?: { field: string }[] }
      return [response.status, ...errors.map(({ field }) => field)]
    }
    expect(await refused({ text: 5, parentId: 'x', authorId: 'bob', score: 3 })).toEqual([
      ...[400, 'authorId', 'score', 'text', 'parentId'],
    ])
    for (const text of ['', ' \n', 'x'.repeat(40_001), 'a\0b', '\ud800']) {
      expect(await refused({ text })).toEqual([400, 'text'])
    }
    expect(await refused({})).toEqual([400, 'text'])
    expect(await refused([])).toEqual([400, 'body'])
    expect(await refused({ text: 'x' }, 2)).toEqual([404])
    expect(await refused({ text: 'x', parentId: 0 })).toEqual([400, 'parentId'])
    const to = '/api/posts/1/comments'
    const carl = await as(server, 'carl')
    const stranger = await carl.send('POST', to, { text: 'x' })
    expect([stranger.status, await stranger.json()]).toMatchObject([
      409,
      { detail: 'make a profile first: POST /api/users' },
    ])
    expect(await statusOf((await as(server, null)).send('POST', to, { text: 'x' }))).toBe(401)
    const past = { postId: 1, communityId: 'qubit', text: 'x', authorId: 'ann' }
    expect(await statusOf(ann.send('POST', '/api/comments', past))).toBe(403)
    expect(server.rooms.store.stats().seq).toBe(seq)
  })

  test('with a key is written once', async () => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    const [ann] = await two(server)
    const send = (text: string) =>
      ann.send('POST', '/api/posts/1/comments', { text }, { 'idempotency-key': 'c1' })
    const answers = await Promise.all(Array.from({ length: 5 }, () => send('Once')))
    const ids = await Promise.all(answers.map(async (one) => ((await one.json()) as Item)['id']))
    expect(new Set(ids).size).toBe(1)
    expect(await statusOf(send('Another'))).toBe(422)
  })

  test('touches no post and no user', async () => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    const [ann] = await two(server)
    const untouched = [
      '/api/posts/1',
      '/api/posts',
      '/api/users/ann',
      '/api/communities/simulation',
    ]
    for (const path of untouched) await server.get(path)
    const { seq } = server.rooms.store.stats()
    await ann.send('POST', '/api/posts/1/comments', { text: 'x' })
    expect(server.rooms.store.stats().seq - seq).toBe(1)
    for (const path of untouched) {
      expect([path, (await server.get(path)).headers.get('x-cache')]).toEqual([path, 'hit'])
    }
  })
})

describe('a membership', () => {
  test("is joined once, left, and one's own", async () => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    const [ann, bob] = await two(server)
    const join = (asker: Asker, body: unknown) => asker.send('POST', '/api/memberships', body)
    const places = [{ communityId: 'simulation' }, { serverId: 'qubit-cafe' }]
    const ids: unknown[] = []
    for (const place of places) {
      const joined = await join(ann, { ...place, userId: 'bob' })
      expect(joined.status).toBe(201)
      const membership = (await joined.json()) as Item
      expect(membership).toMatchObject({ ...place, userId: 'ann' })
      ids.push(membership['id'])
      expect(await statusOf(join(ann, place))).toBe(409)
      expect(await statusOf(join(bob, place))).toBe(201)
    }
    const list = async (asker: Asker, more = '') =>
      (await json<Page>(asker, `/api/memberships${more}`)).items
    expect((await list(ann)).map(({ id }) => id)).toEqual(ids.toReversed())
    expect(await list(ann, '?serverId=qubit-cafe&expand=server')).toMatchObject([
      { server: { name: 'The Qubit Café' } },
    ])
    expect(await list(bob)).toHaveLength(2)
    const path = `/api/memberships/${String(ids[0])}`
    expect((await bob.get(path)).status).toBe(404)
    expect(await statusOf(bob.send('DELETE', path))).toBe(404)
    expect((await server.get('/api/memberships')).status).toBe(401)
    expect(await statusOf(ann.send('DELETE', path))).toBe(204)
    expect(await list(ann)).toHaveLength(1)
    expect(await statusOf(join(ann, places[0]))).toBe(201)
  })

  test('is of one place that there is', async () => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    const [ann] = await two(server)
    const join = (body: unknown) => statusOf(ann.send('POST', '/api/memberships', body))
    expect(await join({})).toBe(400)
    expect(await join({ communityId: 'simulation', serverId: 'qubit-cafe' })).toBe(400)
    expect(await join({ communityId: 'none' })).toBe(409)
    expect(await join({ communityId: 'simulation', createdAt: '2020-01-01T00:00:00Z' })).toBe(403)
  })

  test('touches neither the community nor the server', async () => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    const [ann] = await two(server)
    const untouched = ['/api/communities/simulation', '/api/servers/qubit-cafe', '/api/users/ann']
    for (const path of untouched) await server.get(path)
    await ann.send('POST', '/api/memberships', { communityId: 'simulation' })
    await ann.send('POST', '/api/memberships', { serverId: 'qubit-cafe' })
    for (const path of untouched) {
      expect([path, (await server.get(path)).headers.get('x-cache')]).toEqual([path, 'hit'])
    }
  })
})

describe('a profile', () => {
  test("is one's own, with a name that is free and fit for a path", async () => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    const [ann, bob] = await two(server)
    const carl = await as(server, 'carl')
    const make = (body: unknown) => statusOf(carl.send('POST', '/api/users', body))
    for (const username of ['', 'Carl', 'c/l', 'c l', 'é', 'x'.repeat(41)]) {
      expect([username, await make({ username, displayName: 'Carl' })]).toEqual([username, 400])
    }
    expect(await make({ username: 'riker', displayName: 'Carl' })).toBe(409)
    expect(await make({ username: 'carl', displayName: ' ' })).toBe(400)
    expect(await make({ username: 'carl', displayName: 'Carl', reputation: 9 })).toBe(403)
    expect(await make({ id: 'se-7', username: 'carl', displayName: 'Carl' })).toBe(201)
    expect(await json<Item>(server, '/api/users/username/carl')).toMatchObject({ id: 'carl' })
    expect(await statusOf(bob.send('PATCH', '/api/users/ann', { displayName: 'B' }))).toBe(403)
    expect(await statusOf(bob.send('DELETE', '/api/users/ann'))).toBe(403)
    expect(await statusOf(ann.send('PATCH', '/api/users/ann', { reputation: 9 }))).toBe(403)
    expect(await statusOf(ann.send('PATCH', '/api/users/ann', { username: 'anna' }))).toBe(200)
    // By the old name nobody is found any more.
    expect((await server.get('/api/users/username/ann')).status).toBe(404)
    expect((await server.get('/api/users/username/anna')).status).toBe(200)
  })

  test('that goes leaves its texts unsigned', async () => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    const [ann] = await two(server)
    const made = await ann.send('POST', '/api/posts', draft)
    const { id } = (await made.json()) as { id: number }
    await ann.send('POST', `/api/posts/${id}/comments`, { text: 'x' })
    await ann.send('POST', '/api/memberships', { communityId: 'simulation' })
    await server.get(`/api/posts/${id}?expand=author`)
    expect(await statusOf(ann.send('DELETE', '/api/users/ann'))).toBe(204)
    expect(await json<Item>(server, `/api/posts/${id}?expand=author`)).toMatchObject({
      authorId: null,
      author: null,
    })
    const { items } = await json<Page>(server, `/api/posts/${id}/comments`)
    expect(items).toMatchObject([{ authorId: null, text: 'x' }])
    expect((await json<Page>(ann, '/api/memberships')).items).toEqual([])
  })
})
