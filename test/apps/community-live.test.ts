import { beforeAll, describe, expect, test } from 'bun:test'
import { tempFolder, until } from '../harness.ts'
import { loadCommunity, loadingMsMax, runCommunity } from './community-server.ts'
import { as, listen } from './exams-server.ts'

beforeAll(loadCommunity, loadingMsMax)

describe('post:{id} and community:{slug}', () => {
  test('tell of votes, comments and new posts, and of nothing else', async () => {
    using folder = tempFolder()
    await using server = await runCommunity(folder)
    const riker = await as(server, 'se-7')
    const streams = ['post:1', 'community:simulation', 'post:3', 'community:cryptography']
    const [post, community, otherPost, otherCommunity] = await Promise.all(
      streams.map((topic) => listen(server, `/api/stream?topics=${topic}`, {})),
    )
    if (!post || !community || !otherPost || !otherCommunity) throw new Error('four were opened')
    await using _ = post
    await using __ = community
    await using ___ = otherPost
    await using ____ = otherCommunity
    await until(() => server.rooms.realtime.stats().connections === 4, 'all streams are open')

    await riker.send('POST', '/api/posts/1/vote', { value: 1 })
    await riker.send('POST', '/api/posts/1/comments', { text: 'Heard' })
    const draft = { communityId: 'simulation', title: 'New', text: 'Heard, too' }
    await riker.send('POST', '/api/posts', draft)
    await until(() => community.events().length === 3, 'the community hears')
    await until(() => post.events().length === 2, 'the post hears')

    const heard = (from: typeof post) =>
      from
        .events()
        .map(({ channel, data: { collection, op, row } }) => [channel, collection, op, row])
    const vote = ['posts', 'update', expect.objectContaining({ id: 1, score: 53 })] as const
    const comment = [
      'comments',
      'create',
      expect.objectContaining({ text: 'Heard', postId: 1 }),
    ] as const
    expect(heard(post)).toEqual([
      ['post:1', ...vote],
      ['post:1', ...comment],
    ])
    expect(heard(community)).toEqual([
      ['community:simulation', ...vote],
      ['community:simulation', ...comment],
      ['community:simulation', 'posts', 'create', expect.objectContaining(draft)],
    ])
    // Who voted is told nobody.
    expect(post.text()).not.toContain('userId')
    expect([otherPost.events(), otherCommunity.events()]).toEqual([[], []])
  })
})
