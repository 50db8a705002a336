/**
 * One peer of cached-get.bench.ts: `bun cached-get.server.ts <peer>`. Prints its URL, serves the same
 * JSON at the same path until it is killed.
 */
import { Elysia } from 'elysia'
import { real, integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { collection, desc } from '../../src/kit.ts'
import { tempFolder } from '../harness.ts'
import { runServer } from '../server.ts'

const rows = sqliteTable('rows', {
  id: integer().primaryKey(),
  region: text().notNull(),
  price: real().notNull(),
  note: text().notNull(),
})

const path = '/api/prices/live'

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

const peers: Record<string, () => string> = {
  belfry: () => belfry.url,
  raw: () => String(Bun.serve({ port: 0, fetch: () => new Response(bytes, { headers }) }).url),
  elysia: () => {
    const app = new Elysia({ handler: { standardHostname: false } })
    app.get(path, () => new Response(bytes, { headers }))
    return String(Bun.serve({ port: 0, fetch: app.fetch }).url)
  },
}

const start = peers[process.argv[2] ?? '']
if (!start) throw new Error(`peers: ${Object.keys(peers).join(', ')}`)
console.log(JSON.stringify({ port: Number(new URL(start()).port), path: url, bytes: bytes.length }))
