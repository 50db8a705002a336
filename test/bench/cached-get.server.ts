/**
 * One peer of cached-get.bench.ts: `bun cached-get.server.ts <peer>`. Prints where it is and what to ask,
 * serves the same JSON until its input ends.
 */
import { Elysia } from 'elysia'
import { sql } from 'drizzle-orm'
import { real, integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { signToken } from '../../src/auth/auth.ts'
import { collection, desc, proxy } from '../../src/kit.ts'
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
const proxied = '/api/proxied'

const folder = tempFolder()
let bytes = new Uint8Array()
const provider = Bun.serve({
  port: 0,
  development: false,
  fetch: () => new Response(bytes, { headers: { 'content-type': 'application/json' } }),
})
const belfry = await runServer({
  folder,
  env: { UPSTREAM: `http://127.0.0.1:${provider.port}/` },
  app: {
    collections: {
      'prices/live': collection(rows, {
        ttl: '1h',
        read: 'public',
        filters: ['region'],
        orders: { newest: desc(rows.id) },
      }),
    },
    // Of the uncached route below, by way of another server's name.
    proxies: {
      [proxied]: proxy({
        upstream: (env) => env['UPSTREAM'] ?? '',
        read: 'public',
        allow: { query: ['region'] },
        ttl: '1h',
        private: true,
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
bytes = new Uint8Array(await (await belfry.get(url)).arrayBuffer())
const headers = { 'content-type': 'application/json' }
const own = { pids: [process.pid], path: url, bytes: bytes.length, headers: {} }

const bun = (fetch: (request: Request) => Response): Said => {
  // Its connections wait for all the others to start.
  const { port = 0 } = Bun.serve({ port: 0, development: false, idleTimeout: 0, fetch })
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
  'belfry, proxy': () => ({ ...own, port: belfry.port, path: `${proxied}?region=NSW1` }),
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
