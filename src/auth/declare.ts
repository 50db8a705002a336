/**
 * `auth: { claims }`: what the token of every user must say besides `sub`, in Elysia's `t`. `withClaims` declares
 * it, and gives you `app`, `collection` and `topic` whose rules know `user` by it.
 *
 * A token whose claims do not fit is refused, naming the claim: 401, or 3500 on a socket. It is judged once, with
 * the token's signature. Claims that are not declared may be there; rules do not see them in types.
 *
 * @example
 * import { eq, withClaims } from 'belfry'
 * import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
 * import { t } from 'elysia'
 *
 * const { app, collection, topic } = withClaims(
 *   t.Object({ tenant: t.String({ minLength: 1 }), plan: t.Optional(t.Union([t.Literal('free'), t.Literal('pro')])) }),
 * )
 *
 * const tickets = sqliteTable('tickets', {
 *   id: integer().primaryKey(),
 *   tenant: text().notNull(),
 *   text: text({ length: 2000 }).notNull(),
 * })
 *
 * export default app({
 *   name: 'desk',
 *   collections: {
 *     tickets: collection(tickets, {
 *       read: ({ user }) => eq(tickets.tenant, user?.tenant), // a string, or undefined for a visitor: no row
 *       create: ({ user }) => user?.plan === 'pro' && { tenant: user.tenant },
 *     }),
 *   },
 *   topics: { 'tickets:{tenant}': topic({ subscribe: ({ user, params }) => user?.tenant === params.tenant }) },
 *   routes: (server) => server.get('/api/tenant', ({ user }) => ({ tenant: user?.tenant ?? null })),
 * })
 */
import type { TSchema } from 'elysia'

/**
 * Who asks, as rules see it. Built from a verified token: `id` is its `sub`, `role` its `role`
 * claim; every other claim is there under its own name, untyped: `withClaims` gives them types.
 */
export interface User {
  readonly id: string
  readonly role?: string | undefined
  readonly [claim: string]: unknown
}

/** A user whose token says what is declared. */
export type UserWith<Claims> = {
  readonly id: string
  readonly role?: string | undefined
} & Readonly<Claims>

/** The part of a rule every room shares: open to all, to whoever has a valid token, or a function. */
export type Audience = 'public' | 'signed-in'

export interface AuthOptions {
  /**
   * A `t.Object` of claims. `role` may be among them; `sub` is `user.id` and need not. What a token says is taken as
   * it is: no defaults, no conversions. Tokens for one topic (claim `channel`) make no user, and are not asked.
   */
  readonly claims?: TSchema
}
