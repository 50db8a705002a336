/**
 * A community platform: `belfry serve --app community`. Communities with posts, threads and votes, servers
 * with channels, and who is in them; it begins with the first half-year of a real site, 612 questions.
 *
 * Who sees what: everything is public but votes and memberships, which are their user's own. Who writes
 * what: whoever is signed in and has a profile, in their own name; only what is one's own is changed or
 * removed, and of it only what was written. Data and its licence: db/samples/community/SOURCE.md.
 */
import { app, asc, collection, desc, feed, topic } from '../kit.ts'
import { communityRoutes } from './community-routes.ts'
import { loadSample } from './community-seed.ts'
import {
  channels,
  comments,
  communities,
  memberships,
  posts,
  sampleLoads,
  servers,
  users,
  votes,
} from './community-tables.ts'
import { own, type Asker } from './own-rows.ts'

/** Whatever else a row has is not the writer's to say: totals, origin, time. */
const only = (input: object, ...columns: readonly string[]): boolean =>
  Object.keys(input).every((column) => columns.includes(column))

type Written = { readonly row: { readonly authorId: string | null } }

const isAuthor = ({ user, row }: Asker & Written) => user !== null && row.authorId === user.id

/** May edit these columns of what one wrote. */
const editing =
  (...columns: readonly string[]) =>
  ({ user, row, input }: Asker & Written & { readonly input: object }) =>
    isAuthor({ user, row }) && only(input, ...columns)

export default app({
  name: 'community',

  collections: {
    users: collection(users, {
      ttl: '1h',
      stale: '1h',
      read: 'public',
      create: ({ user, input }) =>
        only(input, 'id', 'username', 'displayName') && user && { id: user.id },
      update: ({ user, row, input }) =>
        row.id === user?.id && only(input, 'username', 'displayName'),
      remove: ({ user, row }) => row.id === user?.id,
      lookup: ['username'],
      orders: {
        reputation: [desc(users.reputation), desc(users.id)],
        new: [desc(users.createdAt), desc(users.id)],
      },
      children: { posts: posts.authorId, comments: comments.authorId },
    }),
    communities: collection(communities, {
      ttl: '1h',
      stale: '1h',
      read: 'public',
      children: { posts: posts.communityId },
    }),
    posts: collection(posts, {
      ttl: '5m',
      stale: '1h',
      read: 'public',
      create: ({ user, input }) =>
        only(input, 'communityId', 'authorId', 'title', 'text') && user && { authorId: user.id },
      update: editing('title', 'text'),
      remove: isAuthor,
      filters: ['communityId', 'authorId'],
      orders: {
        hot: [desc(posts.hot), desc(posts.id)],
        new: [desc(posts.createdAt), desc(posts.id)],
        top: [desc(posts.score), desc(posts.id)],
      },
      children: { comments: comments.postId },
      expand: { author: posts.authorId, community: posts.communityId },
      live: ({ id, communityId }) => [`post:${id}`, `community:${communityId}`],
    }),
    comments: collection(comments, {
      ttl: '5m',
      stale: '1h',
      read: 'public',
      update: editing('text'),
      remove: isAuthor,
      filters: ['postId', 'authorId', 'parentId'],
      orders: {
        top: [desc(comments.score), desc(comments.id)],
        new: [desc(comments.createdAt), desc(comments.id)],
        old: [asc(comments.createdAt), asc(comments.id)],
      },
      children: { replies: comments.parentId },
      expand: { author: comments.authorId, post: comments.postId },
      live: ({ postId, communityId }) => [`post:${postId}`, `community:${communityId}`],
    }),
    servers: collection(servers, {
      ttl: '1h',
      stale: '1h',
      read: 'public',
      children: { channels: channels.serverId },
    }),
    channels: collection(channels, {
      ttl: '1h',
      stale: '1h',
      read: 'public',
      filters: ['serverId'],
      orders: { place: [asc(channels.serverId), asc(channels.position), asc(channels.id)] },
      expand: { server: channels.serverId },
    }),

    // To join is to make one, to leave is to remove it.
    memberships: collection(memberships, {
      read: own(memberships.userId),
      create: ({ user, input }) =>
        only(input, 'userId', 'communityId', 'serverId') && user && { userId: user.id },
      remove: ({ user, row }) => row.userId === user?.id,
      filters: ['communityId', 'serverId'],
      orders: { new: [desc(memberships.createdAt), desc(memberships.id)] },
      expand: { community: memberships.communityId, server: memberships.serverId },
    }),
    // Written by `POST /api/posts/:id/vote` alone.
    votes: collection(votes, {
      read: own(votes.userId),
      filters: ['postId'],
      expand: { post: votes.postId },
    }),
    // No rule: nobody reads it. It is here because feeds write collections.
    'sample-loads': collection(sampleLoads, {}),
  },

  topics: {
    'post:{id}': topic({ subscribe: 'public', history: { size: 20, ttl: '5m' } }),
    'community:{slug}': topic({ subscribe: 'public', history: { size: 50, ttl: '5m' } }),
  },

  feeds: {
    // Two seconds at the first start; afterwards a tick does nothing at all.
    sample: feed({
      every: '100ms',
      into: [
        ...['users', 'communities', 'servers', 'channels', 'posts', 'comments'],
        'sample-loads',
      ],
      load: loadSample,
    }),
  },

  routes: communityRoutes,
})
