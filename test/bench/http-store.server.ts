/**
 * One peer of http-store.bench.ts: `bun http-store.server.ts <peer> <folder>`. Serves `/api/notes`
 * over the notes that are in the folder, prints its port, and goes on until it is killed.
 *
 * The plain server is what a developer writes on a Monday: Elysia's own validation, `jwtVerify` per
 * request, Drizzle on `@libsql/client` with the same pragmas, no cache, no log, no live events.
 */
import { createClient } from '@libsql/client'
import { and, desc, eq } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/libsql'
import { Elysia, t } from 'elysia'
import { jwtVerify } from 'jose'
import * as belfry from '../../src/kit.ts'
import { createLog } from '../../src/observe/log.ts'
import type { TempFolder } from '../harness.ts'
import { runServer, testSecret } from '../server.ts'
import { notes, pragmas } from './notes.ts'

const [name = '', path = ''] = process.argv.slice(2)
const folder: TempFolder = {
  path,
  file: (file) => `${path}/${file}`,
  [Symbol.dispose]() {},
}

/** Nobody is refused: the limit is counted all the same. */
const writePolicy = { name: 'writes', quota: 10_000_000, windowMs: 60_000 }

async function serveBelfry(): Promise<number> {
  const log = createLog({ level: 'error', now: Date.now })
  const server = await runServer({
    folder,
    log,
    writePolicy,
    app: {
      collections: {
        notes: belfry.collection(notes, {
          ttl: '1h',
          read: ({ user }) => user && belfry.eq(notes.owner, user.id),
          create: ({ user }) => user && { owner: user.id, createdAt: Date.now() },
          filters: ['category'],
          orders: { newest: belfry.desc(notes.createdAt) },
        }),
      },
    },
  })
  return server.port
}

async function servePlain(): Promise<number> {
  const file = folder.file('plain.db')
  const client = createClient({ url: `file:${file}` })
  for (const pragma of pragmas) await client.execute(pragma)
  const db = drizzle(client)
  const key = new TextEncoder().encode(testSecret)

  const app = new Elysia()
    .derive(async ({ headers }) => {
      const token = headers['authorization']?.slice('Bearer '.length) ?? ''
      const { payload } = await jwtVerify(token, key)
      return { owner: payload.sub ?? '' }
    })
    .get(
      '/api/notes',
      async ({ query, owner }) => ({
        items: await db
          .select()
          .from(notes)
          .where(and(eq(notes.owner, owner), eq(notes.category, query.category)))
          .orderBy(desc(notes.createdAt), desc(notes.id))
          .limit(20),
      }),
      { query: t.Object({ category: t.String() }) },
    )
    .get(
      '/api/notes/:id',
      async ({ params, owner, status }) => {
        const isMine = and(eq(notes.id, params.id), eq(notes.owner, owner))
        const [note] = await db.select().from(notes).where(isMine).limit(1)
        return note ?? status(404, 'no such note')
      },
      { params: t.Object({ id: t.Numeric() }) },
    )
    .post(
      '/api/notes',
      async ({ body, owner, set }) => {
        const [note] = await db
          .insert(notes)
          .values({ ...body, owner, createdAt: Date.now() })
          .returning()
        set.status = 201
        return note
      },
      {
        body: t.Object({
          category: t.String({ maxLength: 40 }),
          title: t.String({ maxLength: 200 }),
          body: t.String({ maxLength: 2000 }),
        }),
      },
    )
    .listen({ hostname: '127.0.0.1', port: 0 })
  return app.server?.port ?? 0
}

const port = await (name === 'belfry' ? serveBelfry() : servePlain())
console.log(JSON.stringify({ port }))
