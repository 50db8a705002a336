/**
 * `priority`: who goes on being answered when more is asked than the server can do. It is declared beside the rule of
 * a collection, and in the options of a route, a group or a guard. Default `'normal'`.
 *
 * - `'low'`: what nobody misses for a while: reports, exports, recommendations. The first to get 503 with `Retry-After`,
 *   all of it if need be, and at once while what came before it takes 20 ms or more; switched off in an emergency
 *   (`belfry mode emergency`).
 * - `'normal'`: as much of it as is left. What the cache has is always given.
 * - `'high'`: what the app is for: buying, signing in, live prices. The last that is refused.
 *
 * Health, metrics and `/api/admin` are always answered. Sockets that are open go on.
 *
 * @example
 * import { app, collection } from 'belfry'
 * import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
 *
 * const orders = sqliteTable('orders', { id: integer().primaryKey(), item: text({ length: 80 }).notNull() })
 *
 * export default app({
 *   name: 'shop',
 *   collections: {
 *     orders: collection(orders, { read: 'public', create: 'signed-in', priority: 'high' }),
 *   },
 *   routes: (server) => server.get('/api/report', () => 'long', { priority: 'low' }),
 * })
 */
export type Priority = (typeof priorities)[number]

export const priorities = ['high', 'normal', 'low'] as const
