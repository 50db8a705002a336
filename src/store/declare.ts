/**
 * The database as app code sees it: Drizzle over Belfry's threads, so that no query holds the event loop.
 *
 * @example
 * import { app, collection, Fault } from 'belfry'
 * import { eq } from 'drizzle-orm'
 * import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
 *
 * const accounts = sqliteTable('accounts', { id: text().primaryKey(), cents: integer().notNull() })
 *
 * export default app({
 *   name: 'bank',
 *   collections: { accounts: collection(accounts, { read: 'public' }) },
 *   routes: (server, { db }) =>
 *     server.post('/api/transfer', async ({ user }) => {
 *       if (!user) throw new Fault('unauthenticated', 'sign in to transfer')
 *       return await db.transaction(async (tx) => {
 *         const [from] = await tx.select().from(accounts).where(eq(accounts.id, user.id))
 *         if (!from || from.cents < 100) throw new Fault('conflict', 'not enough money')
 *         await tx.update(accounts).set({ cents: from.cents - 100 }).where(eq(accounts.id, user.id))
 *         return { left: from.cents - 100 }
 *       })
 *     }),
 * })
 */
import type { SqliteRemoteDatabase } from 'drizzle-orm/sqlite-proxy'
import type { User } from '../auth/declare.ts'

type Remote = SqliteRemoteDatabase

/** Selects, answered by a reader thread or a replica; they see every write that was answered before. */
export type ReadDb = Pick<
  Remote,
  'select' | 'selectDistinct' | 'with' | '$with' | '$count' | 'all' | 'get' | 'values'
>

/** Within a transaction: selects see what it wrote. */
export type Tx = ReadDb & Pick<Remote, 'insert' | 'update' | 'delete' | 'run'>

export interface TransactionOptions {
  /**
   * Do this once: a second transaction of the same user (or, for visitors, of anybody) with the same key
   * within 24 h runs nothing and gives the first one's result, which must be JSON. Meant for the
   * `Idempotency-Key` header: 1 to 255 characters; `null` and `undefined` mean no key. `request` is what was
   * asked, any JSON: another request under the same key is refused (422).
   */
  readonly once?:
    | {
        readonly key: string | null | undefined
        readonly user: User | null
        readonly request?: unknown
      }
    | undefined
}

export interface Db extends ReadDb {
  /**
   * Reads and writes that happen together or not at all: committed when `run` resolves, undone when it
   * throws. Whatever it changes leaves the cache and is announced live before the result is given.
   *
   * Other writes wait meanwhile, so it ends after 2 s (`timeout`, undone), though not in the middle of a
   * statement: no long queries and no `fetch` in it, and no write past it (`db.transaction` or a collection's, which would wait for it).
   */
  transaction<T>(run: (tx: Tx) => Promise<T>, options?: TransactionOptions): Promise<T>
}
