/**
 * A radio station and its listeners: `belfry serve --app radio`. What is on now, what is on when, rooms to
 * talk in, mixes, and what one earns by talking. It replays a recorded real week of triple j.
 *
 * Who sees what: everything is public but `user:{id}`, where a user hears what is the user's own. Who writes
 * what: whoever is signed in, in their own name; what is on air is the station's (and `editor`s' events);
 * a `moderator` removes shouts and requests. Data: db/samples/radio/SOURCE.md.
 *
 * How often: `strict` a song may be requested, `payment` something pledged, `ai` a question asked, `login` the studio's
 * code tried; talking has a limit of its own (`radio-chat.ts`), and all else is `api`.
 */
import { t } from 'elysia'
import { app, asc, collection, desc, eq, feed, topic } from '../kit.ts'
import type { CollectionLimits, Routes, User } from '../kit.ts'
import page from '../page/radio.html'
import { chatRoutes } from './radio-chat.ts'
import { deskRoutes } from './radio-desk.ts'
import { loadRadio } from './radio-replay.ts'
import {
  achievements,
  events,
  mixes,
  plays,
  pledges,
  profiles,
  requests,
  shoutLengthMax,
  shouts,
} from './radio-tables.ts'

type Asker = { readonly user: User | null }

const only = (input: object, ...columns: readonly string[]): boolean =>
  Object.keys(input).every((column) => columns.includes(column))

const isEditor = ({ user }: Asker): boolean => user?.role === 'editor'

const isModerator = ({ user }: Asker): boolean => user?.role === 'moderator'

/** Of every collection, unless it says better. */
const limits: CollectionLimits = { read: 'api', create: 'api', update: 'api', remove: 'api' }

const routes: Routes = (server, context) => {
  chatRoutes(server, context)
  deskRoutes(server, context)
}

export default app({
  name: 'radio',

  limits: {
    api: '100/min',
    strict: '20/min',
    login: { rate: '5/15min', by: 'address' },
    ai: '30/min',
    payment: '10/min',
  },

  collections: {
    plays: collection(plays, {
      limits,
      ttl: '60s',
      stale: '10m',
      read: 'public',
      filters: ['artist', 'program'],
      orders: { newest: desc(plays.at), oldest: asc(plays.at) },
      live: () => 'live-stream',
    }),
    // Written by `POST /api/chat/:room` alone, which says how often.
    shouts: collection(shouts, {
      limits,
      ttl: '60s',
      read: 'public',
      remove: isModerator,
      filters: ['room', 'userId'],
      orders: { newest: desc(shouts.id), oldest: asc(shouts.id) },
      live: ({ room }) => `chat:${room}`,
    }),
    mixes: collection(mixes, {
      limits,
      ttl: '5m',
      stale: '1h',
      read: 'public',
      create: ({ user, input }) =>
        only(input, 'id', 'title', 'tracks') &&
        user && { id: crypto.randomUUID(), userId: user.id },
      update: ({ user, row, input }) =>
        user !== null && row.userId === user.id && only(input, 'title', 'tracks'),
      remove: ({ user, row }) => user !== null && row.userId === user.id,
      filters: ['userId'],
      orders: { newest: [desc(mixes.at), desc(mixes.id)] },
      expand: { profile: mixes.userId },
    }),
    events: collection(events, {
      limits,
      ttl: '5m',
      stale: '1h',
      read: 'public',
      create: isEditor,
      update: isEditor,
      remove: isEditor,
      filters: ['day'],
      orders: {
        soonest: [asc(events.startsAt), asc(events.id)],
        latest: [desc(events.startsAt), desc(events.id)],
      },
    }),
    profiles: collection(profiles, {
      limits,
      ttl: '1h',
      stale: '1h',
      read: 'public',
      create: ({ user, input }) => only(input, 'id', 'name', 'about') && user && { id: user.id },
      update: ({ user, row, input }) => row.id === user?.id && only(input, 'name', 'about'),
      remove: ({ user, row }) => row.id === user?.id,
      orders: {
        newest: [desc(profiles.at), desc(profiles.id)],
        name: [asc(profiles.name), asc(profiles.id)],
      },
      children: { mixes: mixes.userId },
    }),
    // Written by `POST /api/chat/:room` alone.
    achievements: collection(achievements, {
      limits,
      ttl: '24h',
      stale: '24h',
      read: 'public',
      filters: ['userId', 'kind'],
      orders: {
        newest: [desc(achievements.at), desc(achievements.userId), desc(achievements.kind)],
      },
      live: ({ userId }) => `user:${userId}`,
    }),
    requests: collection(requests, {
      limits: { ...limits, create: 'strict' },
      ttl: '60s',
      read: 'public',
      create: ({ user, input }) => only(input, 'title', 'artist') && user && { userId: user.id },
      remove: (asker) => isModerator(asker) || asker.row.userId === asker.user?.id,
      filters: ['userId'],
      orders: { newest: desc(requests.id) },
      live: () => 'requests',
    }),
    // A page sends `Idempotency-Key`, so that a button that is pressed twice pledges once.
    pledges: collection(pledges, {
      limits: { ...limits, create: 'payment' },
      read: ({ user }) => user !== null && eq(pledges.userId, user.id),
      create: ({ user, input }) => only(input, 'cents', 'note') && user && { userId: user.id },
      filters: ['userId'],
      orders: { newest: desc(pledges.id) },
    }),
  },

  topics: {
    'user:{id}': topic({
      subscribe: ({ user, params }) => user?.id === params.id,
      history: { size: 20, ttl: '1d' },
    }),
    'live-stream': topic({
      subscribe: 'public',
      history: { size: 100, ttl: '1d' },
      last: true,
      presence: true,
    }),
    // Who publishes says it as `POST /api/chat/:room` does; the room hears the row, once it is stored.
    'chat:{room}': topic({
      subscribe: 'public',
      publish: 'signed-in',
      message: t.Object({ text: t.String({ minLength: 1, maxLength: shoutLengthMax }) }),
      limit: '5/10s',
      through: 'POST /api/chat/{room}',
      history: { size: 200, ttl: '1d' },
      presence: true,
    }),
    // Likewise.
    requests: topic({
      subscribe: 'public',
      publish: 'signed-in',
      message: t.Object({ title: t.String(), artist: t.String() }),
      limit: 'strict',
      through: 'POST /api/requests',
      history: { size: 50, ttl: '1d' },
    }),
  },

  feeds: {
    'on-air': feed({ every: '5s', into: ['plays', 'events', 'mixes'], load: loadRadio }),
  },

  routes,
  page,
})
