/** Belfry for overload.bench.ts: `bun overload.server.ts <folder>`. Prints its port; its mode is set over HTTP. */
import { eq, sql } from 'drizzle-orm'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { collection, desc } from '../../src/kit.ts'
import { createLog } from '../../src/observe/log.ts'
import { runServer } from '../server.ts'
import { fillStore, notes, notesCount } from './notes.ts'

const [path = ''] = process.argv.slice(2)

const orders = sqliteTable('orders', {
  id: integer().primaryKey({ autoIncrement: true }),
  note: integer().notNull(),
  text: text({ length: 200 }).notNull(),
})

const server = await runServer({
  folder: { path, file: (file) => `${path}/${file}`, [Symbol.dispose]() {} },
  log: createLog({ level: process.env['LOG'] === undefined ? 'error' : 'info', now: Date.now }),
  writePolicy: { name: 'writes', quota: 10_000_000, windowMs: 60_000 },
  app: {
    collections: {
      // A hundred thousand ids: nine reads in ten are of the database.
      notes: collection(notes, { read: 'public', priority: 'high' }),
      orders: collection(orders, { read: 'public', create: 'public', priority: 'high' }),
      // As good as uncached: what is to be spared must cost something.
      lists: collection(notes, {
        ttl: '50ms',
        read: 'public',
        filters: ['owner', 'category'],
        orders: { newest: desc(notes.createdAt) },
      }),
    },
    routes: (own, { db }) =>
      own.get(
        '/api/report/:owner/:category',
        async ({ params }) => {
          const [row] = await db
            .select({ count: sql<number>`count(*)`, length: sql<number>`sum(length(body))` })
            .from(notes)
            .where(sql`${eq(notes.owner, params.owner)} and ${eq(notes.category, params.category)}`)
          return row
        },
        { priority: 'low' },
      ),
  },
})
await fillStore(server.rooms.store, notesCount)
console.log(JSON.stringify({ port: server.port }))
