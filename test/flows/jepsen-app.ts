/** The app of a run, as its users write one: a file. */
export const appFile = `
import { app, collection, Fault } from 'belfry'
import { eq } from 'drizzle-orm'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'

const registers = sqliteTable('registers', { id: integer().primaryKey(), mark: text().notNull() })
const accounts = sqliteTable('accounts', {
  id: integer().primaryKey(),
  balance: integer().notNull(),
  mark: text().notNull(),
})
const entries = sqliteTable('entries', { id: text().primaryKey(), mark: text().notNull() })
const open = { read: 'public', create: 'signed-in', update: 'signed-in' }

export default app({
  name: 'jepsen',
  collections: {
    registers: collection(registers, open),
    accounts: collection(accounts, open),
    entries: collection(entries, open),
  },
  routes: (server, { db }) =>
    server.post('/api/transfer', async ({ body, user, request }) => {
      const { from, to, amount, mark } = body
      const once = { key: request.headers.get('idempotency-key'), user, request: body }
      return await db.transaction(async (tx) => {
        const [giver] = await tx.select().from(accounts).where(eq(accounts.id, from))
        const [taker] = await tx.select().from(accounts).where(eq(accounts.id, to))
        if (!giver || !taker) throw new Fault('not_found', 'no such account')
        if (giver.balance < amount) throw new Fault('conflict', 'not enough')
        const set = (account, balance) =>
          tx.update(accounts).set({ balance, mark }).where(eq(accounts.id, account.id))
        await set(giver, giver.balance - amount)
        await set(taker, taker.balance + amount)
        return { mark }
      }, { once })
    }),
})
`
