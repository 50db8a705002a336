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
import type { Log } from '../observe/log.ts'

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

/**
 * `auth: { accounts: true }`: e-mail and password, kept by Belfry itself. Leave it out where users come with tokens
 * of an issuer of their own (`JWKS_URL`, `JWT_SECRET`); both together are fine.
 *
 *   POST /api/auth/sign-up, sign-in        {email, password}     → {accessToken, expiresInMs, refreshToken, user}
 *   POST /api/auth/refresh                 {refreshToken}        → the same, with the next refresh token
 *   POST /api/auth/sign-out                {everywhere?}, or {refreshToken} without an access token
 *   POST /api/auth/change-password         {password, newPassword}: ends the user's other sessions
 *   POST /api/auth/verify                  {token}
 *   POST /api/auth/request-verification    {}                    → 202; of who is signed in
 *   POST /api/auth/request-reset           {email}               → 202, whoever that is
 *   POST /api/auth/reset                   {token, password}: signs in, and ends all sessions there were
 *   POST /api/auth/change-email            {password, email}     → 202; a mail goes to the new address, whoever has it
 *   POST /api/auth/confirm-email           {token}: of that mail; from now on that is the address, the old one is told
 *   POST /api/auth/delete-account          {password}: sessions and sockets end, and nothing is kept
 *   GET  /api/auth/me                                            → {id, email, role, isVerified, createdAt}
 *
 * Access tokens are JWTs of 15 minutes, as from any issuer: `user.id` in rules is a UUID (refer to it as text), `role`
 * what an operator gave (`belfry user role`), `email_verified` and `sid` are claims. They are signed with `JWT_SECRET`,
 * else with a key that the database has. A role that is given is there at the next refresh, one that is taken or
 * changed counts at once.
 *
 * A refresh token lasts 30 days from its last use and is good once: it is exchanged for the next. The one before is
 * answered with the same next one for 10 s (tabs that refresh at once), and, where that was never used, once a day later
 * on (an answer that was lost). Any other that comes again was copied: its session ends, everywhere and at once. Keep
 * it where only your app reads it. There are no cookies, so there is no CSRF.
 *
 * Passwords have 8 to 128 characters after Unicode's NFKC, and are stored as argon2id. Addresses are compared in lower
 * case. Whether an address has an account is told to nobody: an unknown one costs the same work as a wrong password.
 * With `verify: true` a sign-up of an address that is taken answers as any other (202; its owner is told by mail);
 * without it the answer is 409, because a session has to be given or not. Who did not get that mail signs up again: each
 * mail brings the password that was typed with it, so nobody chooses one for what another verifies.
 *
 * What your own tables hold of an account that is deleted is yours: remove it in a route of your own before, or when
 * `deleted` is sent. Its `user.id` never comes again.
 *
 * A mail of kind `verify` should say that whoever did not sign up had better leave its link alone: somebody else may have
 * signed up with the address.
 *
 * Failed sign-ins count on the address and on the account, by the limit `login` (default `5/15min`) of the app; beyond
 * it a right password is refused as well. That keeps nobody out for good: sessions go on, a reset by mail signs in, and
 * from an address where the account has a session only failures from there count. `sign-up` (`20/h`, by address) and
 * `mail` (`5/h`, by address and by mailbox: whatever dots and `+tags` it is written with) are limits, too.
 *
 * @example
 * import { app, collection } from 'belfry'
 * import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
 *
 * const notes = sqliteTable('notes', {
 *   id: integer().primaryKey({ autoIncrement: true }),
 *   userId: text().notNull(),
 *   text: text({ length: 500 }).notNull(),
 * })
 *
 * export default app({
 *   name: 'notes',
 *   auth: {
 *     accounts: {
 *       verify: true,
 *       send: async ({ kind, email, token }, { fetch, env }) => {
 *         const link = `https://notes.example/${kind}#${token ?? ''}`
 *         const texts: Partial<Record<typeof kind, string>> = {
 *           exists: 'You have an account already.',
 *           'email-changed': 'Your account has another address now.',
 *           deleted: 'Your account is deleted.',
 *         }
 *         const answer = await fetch('https://mail.example/send', {
 *           method: 'POST',
 *           headers: { authorization: `Bearer ${env.MAIL_KEY}` },
 *           body: JSON.stringify({ to: email, text: texts[kind] ?? link }),
 *         })
 *         if (!answer.ok) throw new Error(`the mail was refused: ${answer.status}`) // it is tried again
 *       },
 *     },
 *   },
 *   limits: { login: '5/15min' },
 *   collections: {
 *     notes: collection(notes, { read: 'signed-in', create: ({ user }) => user && { userId: user.id } }),
 *   },
 * })
 */
export interface AccountsOptions {
  /** Hands a message to the owner of an address, tried three times, each at most 10 s. Absent: there is neither verification nor reset. */
  readonly send?: (message: AccountMessage, context: SendContext) => unknown
  /** Nobody signs in before the address is verified. Needs `send`. Default false: `user.email_verified` tells rules. */
  readonly verify?: boolean
  /** May visitors sign up? Default true; false: accounts are made by `belfry user create`. */
  readonly signUp?: boolean
}

export interface AuthOptions {
  /**
   * A `t.Object` of claims. `role` may be among them; `sub` is `user.id` and need not. What a token says is taken as
   * it is: no defaults, no conversions. Tokens for one topic (claim `channel`) make no user, and are not asked.
   */
  readonly claims?: TSchema
  /** Accounts by e-mail and password. Default: none. */
  readonly accounts?: boolean | AccountsOptions
}

export interface AccountMessage {
  /**
   * `verify`: for `/api/auth/verify`, 24 h. `reset`: for `/api/auth/reset`, 1 h. `change-email`: to the new address, for
   * `/api/auth/confirm-email`, 1 h. The others have no token. `exists`: somebody tried to sign up with this address, or
   * to change to it. `email-changed`: to the old one. `deleted`: the account is gone.
   */
  readonly kind: 'verify' | 'reset' | 'exists' | 'change-email' | 'email-changed' | 'deleted'
  /** Where it goes. */
  readonly email: string
  /** Good once. */
  readonly token: string | undefined
  /** `email`: of the account, now. */
  readonly user: { readonly id: string; readonly email: string }
}

export interface SendContext {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly log: Pick<Log, 'debug' | 'info' | 'warn' | 'error'>
  /** `fetch` that ends when the time for this try does. */
  readonly fetch: (url: string | URL, init?: RequestInit) => Promise<Response>
}
