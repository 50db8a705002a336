/** Two whole servers on one database and one Redis. */
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { collection, eq } from '../../src/collections/declare.ts'
import { topic } from '../../src/realtime/declare.ts'
import { tempFolder } from '../harness.ts'
import { runServer, testApiKey } from '../server.ts'
import { requireService, startRedis, startSqld } from '../services.ts'

const messages = sqliteTable('messages', {
  id: integer().primaryKey({ autoIncrement: true }),
  text: text().notNull(),
})

const tickets = sqliteTable('tickets', {
  id: integer().primaryKey({ autoIncrement: true }),
  tenant: text({ length: 20 }).notNull(),
  note: text({ length: 20 }).notNull(),
})

const app = {
  collections: {
    tickets: collection(tickets, {
      read: ({ user }) => eq(tickets.tenant, user?.['tenant'] as string),
      create: 'public',
      hide: { note: { unless: ({ user }) => user?.role === 'staff' } },
      live: () => 'own',
    }),
    messages: collection(messages, {
      read: 'public',
      create: 'public',
      live: () => ['rows', 'kept-rows'],
    }),
  },
  topics: {
    rows: topic({ subscribe: 'public', history: { size: 100, ttl: '1h' } }),
    'kept-rows': topic({ subscribe: 'public', history: { size: 100, ttl: '1h' }, persist: true }),
    own: topic({ subscribe: 'public', history: { size: 100, ttl: '1h' } }),
    said: topic({ subscribe: 'public', publish: 'public', presence: true }),
    kept: topic({ subscribe: 'public', history: { size: 100, ttl: '1h' }, persist: true }),
  },
} as const

export const json = { 'content-type': 'application/json', 'x-api-key': testApiKey }

export async function pair() {
  const [sqld, redis] = [await startSqld(), await startRedis()]
  const folder = tempFolder()
  const start = () =>
    runServer({ app, folder, env: { DATABASE_URL: sqld.url, REDIS_URL: redis.url } })
  // One after the other: the first one makes the tables.
  const servers = [await start(), await start()] as const
  return {
    ...{ servers, redis },
    async [Symbol.asyncDispose]() {
      for (const server of servers) await server.stop()
      await redis[Symbol.asyncDispose]()
      await sqld[Symbol.asyncDispose]()
      folder[Symbol.dispose]()
    },
  }
}

/** Whether this machine has what they need. */
export const isRun =
  requireService('sqld') !== undefined && requireService('redis-server') !== undefined
