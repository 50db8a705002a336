/**
 * One peer of cached-get.bench.ts: `bun cached-get.server.ts <peer>`. Prints where it is and what to ask,
 * serves the same JSON until its input ends.
 */
import { Elysia } from 'elysia'
import { sql } from 'drizzle-orm'
import { real, integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { signToken } from '../../src/auth/auth.ts'
import { collection, desc } from '../../src/kit.ts'
import { tempFolder } from '../harness.ts'
import { runServer, testSecret } from '../server.ts'
import type { Said } from './cached-get.bench.ts'
import { startNginx } from './nginx.ts'

const rows = sqliteTable('rows', {
  id: integer().primaryKey(),
  region: text().notNull(),
  price: real().notNull(),
  note: text().notNull(),
})

const path = '/api/prices/live'
const uncached = '/api/uncached'

const folder = tempFolder()
const belfry = await runServer({
  folder,
  app: {
    collections: {
      'prices/live': collection(rows, {
        ttl: '1h',
        read: 'public',
        filters: ['region'],
        orders: { newest: desc(rows.id) },
      }),
    },
    routes: (server, { db }) =>
      server.get(uncached, async () => ({
        items: await db
          .select()
          .from(rows)
          .orderBy(sql`id desc`),
        next: null,
        prev: null,
      })),
  },
})
const [plan] = belfry.rooms.collections.plans
if (!plan) throw new Error('the app has a collection')
const note = 'a note of some length, so that twenty of these rows make about two kilobytes'
await belfry.rooms.collections.upsert([
  {
    plan,
    rows: Array.from({ length: 20 }, (_, id) => ({ id, region: 'NSW1', price: id / 3, note })),
  },
])
const url = `${path}?region=NSW1`
const bytes = new Uint8Array(await (await belfry.get(url)).arrayBuffer())
const headers = { 'content-type': 'application/json' }
const own = { pids: [process.pid], path: url, bytes: bytes.length, headers: {} }

const bun = (fetch: (request: Request) => Response): Said => {
  const { port = 0 } = Bun.serve({ port: 0, development: false, fetch })
  return { ...own, port }
}

const peers: Record<string, () => Said | Promise<Said>> = {
  raw: () => bun(() => new Response(bytes, { headers })),
  elysia: () => {
    const app = new Elysia({ handler: { standardHostname: false } })
    app.get(path, () => new Response(bytes, { headers }))
    return bun((request) => app.fetch(request) as Response)
  },
  belfry: () => ({ ...own, port: belfry.port }),
  'belfry, token': async () => {
    const times = { nowMs: Date.now(), ttlMs: 3_600_000 }
    const token = await signToken(testSecret, { sub: 'ann', name: 'Ann', role: 'reader' }, times)
    return { ...own, port: belfry.port, headers: { authorization: `Bearer ${token}` } }
  },
  'nginx proxy_cache': async () => {
    const nginx = await startNginx(folder, `127.0.0.1:${belfry.port}`)
    const answer = await fetch(`http://127.0.0.1:${nginx.port}${uncached}`)
    const size = (await answer.arrayBuffer()).byteLength
    stop = nginx.stop
    return { ...own, port: nginx.port, pids: nginx.pids(), path: uncached, bytes: size }
  },
}

let stop = async (): Promise<void> => {}
const start = peers[process.argv[2] ?? '']
if (!start) throw new Error(`peers: ${Object.keys(peers).join(', ')}`)
console.log(JSON.stringify(await start()))
for await (const _ of Bun.stdin.stream());
await stop()
folder[Symbol.dispose]()
process.exit(0)
