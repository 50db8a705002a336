/**
 * A radio station and its listeners: `belfry serve --app radio`. What is on now, what is on when, rooms to
 * talk in, mixes, and what one earns by talking. It replays a recorded real week of triple j.
 *
 * Who sees what: everything is public but `user:{id}`, where a user hears what is the user's own. Who writes
 * what: whoever is signed in, in their own name; what is on air is the station's (and `editor`s' events);
 * a `moderator` removes shouts. Data: db/samples/radio/SOURCE.md.
 */
import { t } from 'elysia'
import { app, asc, collection, desc, feed, topic } from '../kit.ts'
import type { User } from '../kit.ts'
import page from '../page/radio.html'
import { radioRoutes } from './radio-chat.ts'
import { loadRadio } from './radio-replay.ts'
import {
  achievements,
  events,
  mixes,
  plays,
  profiles,
  shoutLengthMax,
  shouts,
} from './radio-tables.ts'

type Asker = { readonly user: User | null }

const only = (input: object, ...columns: readonly string[]): boolean =>
  Object.keys(input).every((column) => columns.includes(column))

const isEditor = ({ user }: Asker): boolean => user?.role === 'editor'

export default app({
  name: 'radio',

  collections: {
    plays: collection(plays, {
      ttl: '60s',
      stale: '10m',
      read: 'public',
      filters: ['artist', 'program'],
      orders: { newest: desc(plays.at), oldest: asc(plays.at) },
      live: () => 'live-stream',
    }),
    // Written by `POST /api/chat/:room` alone, which says how often.
    shouts: collection(shouts, {
      ttl: '60s',
      read: 'public',
      remove: ({ user }) => user?.role === 'moderator',
      filters: ['room', 'userId'],
      orders: { newest: desc(shouts.id), oldest: asc(shouts.id) },
      live: ({ room }) => `chat:${room}`,
    }),
    mixes: collection(mixes, {
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
      ttl: '24h',
      stale: '24h',
      read: 'public',
      filters: ['userId', 'kind'],
      orders: {
        newest: [desc(achievements.at), desc(achievements.userId), desc(achievements.kind)],
      },
      live: ({ userId }) => `user:${userId}`,
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
  },

  feeds: {
    'on-air': feed({ every: '5s', into: ['plays', 'events', 'mixes'], load: loadRadio }),
  },

  routes: radioRoutes,
  page,
})
