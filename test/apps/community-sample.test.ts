import { beforeAll, describe, expect, test } from 'bun:test'
import { general } from '../../src/apps/community-places.ts'
import { answerIdFrom, readSample } from '../../src/apps/community-sample.ts'
import { batchRowsMax, sampleBatches } from '../../src/apps/community-seed.ts'
import { tempFolder } from '../harness.ts'
import { runServer } from '../server.ts'
import {
  communityApp,
  hotReference,
  loadCommunity,
  loadingMsMax,
  progressOf,
  runCommunity,
  tickUntil,
  whole,
} from './community-server.ts'
import { as } from './exams-server.ts'

const highest = (rows: readonly { readonly id: number }[]) => Math.max(...rows.map(({ id }) => id))

const sample = await readSample()
const { users, communities, posts, comments } = sample
beforeAll(loadCommunity, loadingMsMax)

describe('the sample', () => {
  test('is whole', () => {
    const counts = [users, communities, posts, comments].map(({ length }) => length)
    expect(counts).toEqual([402, 53, 612, 1_060 + 3_413])
    const votes = posts.reduce(
      (sum, { upVotes = 0, downVotes = 0 }) => sum + upVotes + downVotes,
      0,
    )
    expect(votes).toBeGreaterThan(3_000)
    for (const { score, upVotes = 0, downVotes = 0 } of posts)
      expect(upVotes - downVotes).toBe(score)
    expect(posts.filter(({ score }) => score < 0).length).toBeGreaterThan(0)
  })

  test('names for each text where it is from, its licence, and who wrote it', () => {
    const known = new Set(users.map(({ id }) => id))
    for (const { id, url, licence, authorId } of [...posts, ...comments]) {
      expect([id, licence, url?.startsWith('https://quantumcomputing.stackexchange.com/')]).toEqual(
        [...[id, 'CC BY-SA 3.0', true]],
      )
      if (authorId !== null) expect(known.has(authorId ?? '')).toBe(true)
    }
    expect([...posts, ...comments].filter(({ authorId }) => authorId === null)).toHaveLength(3)
    for (const { url } of users) expect(url).toMatch(/^https:.*\/users\/\d+$/)
    expect(posts[0]).toMatchObject({
      id: 1,
      url: 'https://quantumcomputing.stackexchange.com/q/1',
      authorId: 'se-7',
      communityId: 'simulation',
      tags: ['simulation', 'quantum-turing-machine'],
      score: 52,
    })
  })

  test('holds no markup', () => {
    for (const { id, text } of [...posts, ...comments]) {
      expect([
        id,
        /<\/|<(?:p|a|em|img|script|strong|code)[ >]|&(?:amp|lt|gt|nbsp);/i.exec(text)?.[0],
      ]).toEqual([id, undefined])
    }
  })

  test('has threads: a comment on an answer is its reply, in the same post', () => {
    const byId = new Map(comments.map((comment) => [comment.id, comment]))
    const replies = comments.filter(({ parentId }) => parentId !== null)
    expect(replies.length).toBeGreaterThan(1_000)
    for (const { postId, communityId, parentId } of replies) {
      expect(byId.get(parentId ?? 0)).toMatchObject({ postId, communityId })
      expect(parentId).toBeGreaterThan(answerIdFrom)
    }
  })

  test('names are fit for paths, and each once', () => {
    const names = users.map(({ username }) => username)
    expect(new Set(names).size).toBe(402)
    for (const name of names) expect(name).toMatch(/^[a-z0-9][a-z0-9-]{0,39}$/)
    expect(names).toContain('ernesto-galvao')
    const slugs = communities.map(({ id }) => id)
    expect(new Set(slugs).size).toBe(53)
    for (const slug of slugs) expect(slug).toMatch(/^[a-z0-9-]+$/)
    expect(slugs).toContain('q-sharp')
    const used = new Set(posts.map(({ communityId }) => communityId))
    expect([...used].filter((slug) => !slugs.includes(slug))).toEqual([])
    expect(used.has(general.id)).toBe(true)
  })

  test('comes in batches, each row once, after what it refers to; the first keeps all numbers of the sample', () => {
    const batches = sampleBatches(sample)
    expect(batches).toHaveLength(whole.batches)
    const seen = new Set<unknown>()
    for (const { posts: some, comments: others } of batches) {
      expect(some.length + others.length).toBeLessThanOrEqual(batchRowsMax)
      for (const { id } of some) seen.add(`post ${id}`)
      for (const { id, postId, parentId } of others) {
        expect(seen.has(`post ${postId}`) && (!parentId || seen.has(parentId))).toBe(true)
        expect(seen.has(id)).toBe(false)
        seen.add(id)
      }
    }
    expect(seen.size).toBe(612 + 4_473)
    const [first] = batches
    expect(first?.users).toHaveLength(402)
    expect(first?.communities).toHaveLength(53)
    expect([highest(first?.posts ?? []), highest(first?.comments ?? [])]).toEqual([
      highest(posts),
      highest(comments),
    ])
  })
})

describe('loading the sample', () => {
  test('goes on where it was stopped, and keeps nobody waiting', async () => {
    const { health, stopped, loaded } = await loadCommunity()
    expect(health).toBe(200)
    expect(stopped.batches).toBeGreaterThanOrEqual(3)
    expect(stopped.comments).toBeLessThan(whole.comments)
    expect(loaded).toEqual(whole)
  })

  test('stores what SQL finds hot', async () => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    const rows = await server.rooms.store.read({ sql: 'select id, hot from posts', params: [] })
    const hot = new Map(rows.map(([id, value]) => [Number(id), Number(value)]))
    for (const { id, score, createdAt } of posts) {
      expect(Math.abs((hot.get(id) ?? 0) - hotReference(score, createdAt))).toBeLessThan(1e-9)
    }
  })

  test('writes nothing once all is there, not even over what was changed since', async () => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    const riker = await as(server, 'se-7')
    expect((await riker.send('PATCH', '/api/posts/1', { title: 'Changed' })).status).toBe(200)
    const { seq } = server.rooms.store.stats()
    for (let tick = 0; tick < 3; tick += 1) await server.rooms.feeds.tick('sample')
    expect(server.rooms.store.stats().seq - seq).toBe(0)
  })

  test('what is written meanwhile keeps its number', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app: communityApp, folder })
    await tickUntil(server, ({ batches }) => batches >= 1)
    const riker = await as(server, 'se-7')
    const post = { communityId: general.id, title: 'Early', text: 'While it is loaded.' }
    const made = await riker.send('POST', '/api/posts', post)
    const { id } = (await made.json()) as { id: number }
    const answer = await riker.send('POST', `/api/posts/${id}/comments`, { text: 'Early, too.' })
    const comment = (await answer.json()) as { id: number }
    await tickUntil(server, ({ batches }) => batches === whole.batches)
    expect(await progressOf(server)).toMatchObject({ posts: 613, comments: 4_474 })
    expect([id, comment.id]).toEqual([highest(posts) + 1, highest(comments) + 1])
    expect(await (await server.get(`/api/posts/${id}`)).json()).toMatchObject(post)
    expect(await (await server.get(`/api/comments/${comment.id}`)).json()).toMatchObject({
      postId: id,
    })
  })
})
