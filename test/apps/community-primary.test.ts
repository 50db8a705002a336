import { expect, test } from 'bun:test'
import { tempFolder } from '../harness.ts'
import { runServer } from '../server.ts'
import { requireService, startSqld } from '../services.ts'
import { communityApp, hotReference, tickUntil } from './community-server.ts'
import { as, json } from './exams-server.ts'

// What a vote computes is computed there: `log10` and `sign` are no part of every SQLite.
test.skipIf(!requireService('sqld'))(
  'a primary on a server loads the sample, counts votes and takes comments',
  async () => {
    await using sqld = await startSqld()
    using folder = tempFolder()
    const env = { DATABASE_URL: sqld.url }
    await using server = await runServer({ app: communityApp, folder, env })
    // The first batch has everybody, and the newest post.
    await tickUntil(server, ({ batches }) => batches >= 1)
    const riker = await as(server, 'se-7')
    const vote = await riker.send('POST', '/api/posts/4129/vote', { value: 1 })
    expect(vote.status).toBe(200)
    const comment = await riker.send('POST', '/api/posts/4129/comments', { text: 'From afar' })
    expect(comment.status).toBe(201)
    type Post = { readonly score: number; readonly hot: number; readonly createdAt: string }
    const { score, hot, createdAt } = await json<Post>(server, '/api/posts/4129')
    expect(await vote.json()).toMatchObject({ value: 1, score })
    expect(Math.abs(hot - hotReference(score, createdAt))).toBeLessThan(1e-9)
  },
  60_000,
)
