/**
 * `routes`: your own HTTP routes beside the declared ones, in Elysia's words, behind the same gates: request
 * id, metrics, identity, the limit on writes, problems as `application/problem+json`.
 *
 * @example
 * import { app, collection, Fault, topic } from 'belfry'
 * import { eq } from 'drizzle-orm'
 * import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
 * import { t } from 'elysia'
 *
 * const polls = sqliteTable('polls', { id: integer().primaryKey(), title: text().notNull(), votes: integer().notNull() })
 *
 * export default app({
 *   name: 'polls',
 *   collections: { polls: collection(polls, { read: 'public' }) },
 *   topics: { votes: topic({ subscribe: 'public' }) },
 *   routes: (server, { db, topics }) =>
 *     server.post(
 *       '/api/polls/:id/vote',
 *       async ({ params, body, user, request }) => {
 *         if (!user) throw new Fault('unauthenticated', 'sign in to vote')
 *         const once = { key: request.headers.get('idempotency-key'), user, request: [params.id, body] }
 *         const votes = await db.transaction(async (tx) => {
 *           const [poll] = await tx.select().from(polls).where(eq(polls.id, params.id))
 *           if (!poll) throw new Fault('not_found', 'no such poll')
 *           await tx.update(polls).set({ votes: poll.votes + body.weight }).where(eq(polls.id, poll.id))
 *           return poll.votes + body.weight
 *         }, { once })
 *         topics.publish('votes', { poll: params.id, votes })
 *         return { votes }
 *       },
 *       { params: t.Object({ id: t.Numeric() }), body: t.Object({ weight: t.Integer({ minimum: 1, maximum: 3 }) }) },
 *     ),
 * })
 */
import type { Elysia } from 'elysia'
import type { User } from '../auth/declare.ts'
import type { Load, RouteCache } from '../collections/declare.ts'
import type { Env, FeedReads } from '../feeds/declare.ts'
import type { LimitUse } from '../limits/declare.ts'
import type { Log } from '../observe/log.ts'
import type { Priority } from '../overload/declare.ts'
import type { Db } from '../store/declare.ts'

/** What every handler's context has beside Elysia's own. */
export type RouteExtras<Asker extends User = User> = {
  /** Who asks: whose token it is, or null. */
  user: Asker | null
  /** `X-Request-Id` of this request, for log lines. */
  requestId: string
  /** Look-ups of this request: all that are asked in one tick become one statement for each column. */
  load: Load
}

// oxlint-disable-next-line typescript/no-empty-object-type -- as Elysia writes it
type Empty = {}

/** Beside Elysia's own, of a route, a group or a guard. */
export type RouteOptions = {
  /** How often: a policy's name, a rate, or several (`src/limits/declare.ts`). Default: `writes`, but for GET. */
  limit?: LimitUse
  /** Who is still served in an overload (`src/overload/declare.ts`). Default `'normal'`. */
  priority?: Priority
}

/**
 * Elysia, with `user`, `requestId` and `load` in its context. A body is at most 1 MiB. A route that Belfry
 * serves itself cannot be taken.
 */
export type RouteServer<Asker extends User = User> = Elysia<
  '',
  { decorator: Empty; store: Empty; derive: RouteExtras<Asker>; resolve: Empty },
  { typebox: Empty; error: Empty },
  {
    schema: Empty
    standaloneSchema: Empty
    macro: RouteOptions
    macroFn: Empty
    parser: Empty
    response: Empty
  }
>

export interface RouteContext {
  readonly db: Db
  readonly cache: RouteCache
  readonly topics: {
    /** To a declared topic; whatever JSON can say. */
    publish(topic: string, data: unknown): void
    /**
     * The answer to `request` as server-sent events of these topics, with ids to resume from and a heartbeat.
     * Their `subscribe` rules are asked about whoever made the request. Faults: `denied`, `not_found`.
     */
    stream(request: Request, topics: readonly string[]): Response
  }
  /** What upstream said last. */
  readonly feeds: FeedReads
  readonly limits: {
    /** Takes one for `key`, whoever asks: an account that somebody tries to enter, say. Faults: `too_many`. */
    take(limit: LimitUse, key: string): Promise<void>
  }
  /** Lines of JSON beside the server's own. */
  readonly log: Log
  /** The environment as it was at start. */
  readonly env: Env
}

export type Routes<Asker extends User = User> = (
  server: RouteServer<Asker>,
  context: RouteContext,
) => unknown

/** A refusal with its place among the problems: `throw new Fault('not_found', 'no such test')`. */
export { Fault, type FaultCode, type FieldProblem } from '../fault.ts'
