/**
 * One node of a consistency run: store, cache and collections fitted together as `src/server.ts` does, with
 * what a run disturbs: a clock that jumps, loads that take long, across a write too, and loads that fail.
 *
 * `Tamper` breaks a rule from outside, for runs that prove the checker.
 */
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { createCache, type Cache, type CacheRead, type SharedTier } from '../../src/cache/cache.ts'
import { createCollections, type Collections } from '../../src/collections/collections.ts'
import { collection, type RouteCache } from '../../src/collections/declare.ts'
import { createValues } from '../../src/collections/values.ts'
import { Fault } from '../../src/fault.ts'
import { systemClock, type Clock } from '../../src/lib/clock.ts'
import { must } from '../../src/lib/assert.ts'
import { app } from '../../src/plan/declare.ts'
import { compilePlan } from '../../src/plan/plan.ts'
import { createStore, type DatabaseOptions, type Store } from '../../src/store/store.ts'
import { openRedis, type TestRedis } from '../cache/redis.ts'
import { createTestLog } from '../harness.ts'
import type { Random } from '../lib/random.ts'
import { absent, groupText, postText } from './consistency-check.ts'

export const groups = sqliteTable('groups', { id: integer().primaryKey(), mark: text().notNull() })
const posts = sqliteTable('posts', {
  id: integer().primaryKey(),
  groupId: integer()
    .notNull()
    .references(() => groups.id),
  slug: text({ length: 40 }).notNull().unique(),
  mark: text().notNull(),
})

/** Time passes so many times faster for caches: a TTL of 60 s is over after 2. */
const hurry = 30
const open = { read: 'public', ttl: '60s', stale: '5m' } as const
/** Longer than a run: only a change ends such an entry. */
const lasting = { read: 'public', ttl: '7d' } as const

const plan = compilePlan(
  app({
    name: 'consistency',
    collections: {
      groups: collection(groups, { ...lasting, children: { posts: posts.groupId } }),
      posts: collection(posts, {
        ...open,
        filters: ['groupId'],
        lookup: ['slug'],
        expand: { group: posts.groupId },
      }),
    },
  }),
)
const planOf = (path: string) =>
  must(
    plan.collections.find((one) => one.path === path),
    () => path,
  )
const [groupsPlan, postsPlan] = [planOf('groups'), planOf('posts')]
const child = must(groupsPlan.children[0], () => 'a child')

export interface Tamper {
  /** What the store's own polls go by. */
  readonly clock?: (clock: Clock) => Clock
  readonly read?: (read: Store['read']) => Store['read']
  readonly cache?: (cache: Cache) => Pick<Cache, 'read'>
  readonly apply?: (apply: Cache['apply']) => Cache['apply']
  readonly shared?: (tier: SharedTier) => SharedTier
}

export interface NodeOptions {
  readonly name: string
  readonly database: DatabaseOptions
  readonly redisPort?: number | undefined
  /** Nodes of one database, and only they, have one. */
  readonly namespace: string
  readonly random: Random
  readonly tamper?: Tamper | undefined
}

export interface Node extends AsyncDisposable {
  readonly name: string
  readonly namespace: string
  readonly store: Store
  readonly cache: Cache
  readonly collections: Collections
  /** Of the app's own routes. */
  readonly values: RouteCache
  /** As collections read, disturbed. */
  readonly read: Store['read']
  /** The entry of the log that an invalidation has become, by a tag of its own. */
  invalidatedAt(tag: string): number | undefined
  /** Of the cache: what is stored seems older, or younger, by so much. */
  jump(ms: number): void
}

/** Of about 120 that are asked for: some must leave, and are found in Redis again. */
const entriesKept = 60

/** How the loads of a node are disturbed. */
const slowShare = 0.25
const slowMsMax = 40
const acrossShare = 0.15
const acrossMsMax = 150
const failShare = 0.01

export async function startNode(options: NodeOptions): Promise<Node> {
  const { name, namespace, database, redisPort, random, tamper = {} } = options
  const log = createTestLog()
  let offsetMs = Math.round((random.next() - 0.5) * 600_000)
  const startedAt = systemClock.tick()
  const tick = (): number => (systemClock.tick() - startedAt) * hurry
  const startMs = systemClock.now()
  const hurried: Clock = {
    ...systemClock,
    now: () => startMs + tick() + offsetMs,
    tick,
    after: (ms, run) => systemClock.after(ms / hurry, run),
  }

  const opened: TestRedis | undefined =
    redisPort === undefined
      ? undefined
      : await openRedis(redisPort, { namespace, commandMs: undefined })
  const channel = `${namespace}:news`
  const clock = tamper.clock?.(systemClock) ?? systemClock
  const store = createStore(
    { clock, log, announce: () => opened?.redis.publish(channel, '') },
    { database, tables: plan.tables },
  )
  const tier = opened && (tamper.shared?.(opened.tier) ?? opened.tier)
  const cache = createCache(
    { clock: hurried, shared: tier },
    { random: random.next, entriesMax: entriesKept, groups: ['groups', 'posts'] },
  )

  let nextChange = Promise.withResolvers<void>()
  const disturbed: Store['read'] = async (query, asked) => {
    const chance = random.next()
    if (chance < failShare) throw new Fault('unavailable', 'the run says so')
    if (chance < failShare + slowShare) await Bun.sleep(random.below(slowMsMax))
    const rows = await (tamper.read?.(store.read) ?? store.read)(query, asked)
    const after = random.next()
    if (after < slowShare) await Bun.sleep(random.below(slowMsMax))
    else if (after < slowShare + acrossShare) {
      await Promise.race([nextChange.promise, Bun.sleep(acrossMsMax)])
    }
    return rows
  }
  const given = tamper.cache?.(cache) ?? cache
  const collections = createCollections(
    {
      store: { ...store, read: disturbed },
      cache: given,
      topics: { publish: () => {} },
      log,
      cursorKey: store.secret,
    },
    plan.collections,
  )
  const apply = tamper.apply?.(cache.apply) ?? cache.apply
  store.onChange((change) => apply(change.seq, change.tags, change))
  store.onGap((seq) => cache.jump(seq))
  const invalidated = new Map<string, number>()
  store.onChange(({ seq, tags }) => {
    for (const tag of tags) if (tag.startsWith('tag:once')) invalidated.set(tag, seq)
    nextChange.resolve()
    nextChange = Promise.withResolvers()
  })
  await store.start()
  opened?.redis.subscribe(channel, store.wake, store.wake)
  return {
    name,
    namespace,
    store,
    cache,
    collections,
    values: createValues({ cache: given, invalidate: store.invalidate, log }),
    read: disturbed,
    invalidatedAt: (tag) => invalidated.get(`tag:${tag}`),
    jump: (ms) => void (offsetMs += ms),
    async [Symbol.asyncDispose]() {
      cache.stop()
      await store.stop()
      await opened?.[Symbol.asyncDispose]()
    },
  }
}

/** What one read showed: of every view it is made of, the text. */
export type Shown = readonly (readonly [view: string, text: string])[]

/** Of a route's own: what was answered, without how. */
export interface Value {
  readonly value: unknown
}

/** A question to a node, and how its answer is understood. */
export interface Ask {
  readonly about: string
  send(node: Node): CacheRead | Promise<CacheRead | Value>
  /** Undefined: there is no such thing. */
  understand(body: unknown): Shown
}

type Row = Readonly<Record<string, unknown>>
const isRow = (value: unknown): value is Row => typeof value === 'object' && value !== null
const listed = (body: unknown): string => (body as { items: Row[] }).items.map(postText).join(';')
const groupOf = (row: Row): Shown => {
  const { group } = row
  return [[`group ${String(row['groupId'])}`, isRow(group) ? groupText(group) : absent]]
}

export const asks = {
  post: (id: number, isWhole = false): Ask => ({
    about: `post ${id}`,
    send: ({ collections }) =>
      collections.read(postsPlan, null, String(id), isWhole ? 'expand=group' : ''),
    understand: (body) =>
      isRow(body)
        ? [[`post ${id}`, postText(body)], ...(isWhole ? groupOf(body) : [])]
        : [[`post ${id}`, absent]],
  }),
  slug: (slug: string): Ask => ({
    about: `slug ${slug}`,
    send: ({ collections }) =>
      collections.lookup(postsPlan, null, { property: 'slug', text: slug, search: '' }),
    understand: (body) => [[`slug ${slug}`, isRow(body) ? postText(body) : absent]],
  }),
  group: (id: number): Ask => ({
    about: `group ${id}`,
    send: ({ collections }) => collections.read(groupsPlan, null, String(id)),
    understand: (body) => [[`group ${id}`, isRow(body) ? groupText(body) : absent]],
  }),
  all: (isWhole = false): Ask => ({
    about: 'posts all',
    send: ({ collections }) =>
      collections.list(postsPlan, null, isWhole ? 'limit=100&expand=group' : 'limit=100'),
    understand: (body) => [
      ['posts all', listed(body)],
      ...(isWhole ? (body as { items: Row[] }).items.flatMap(groupOf) : []),
    ],
  }),
  filtered: (groupId: number): Ask => ({
    about: `in ${groupId}`,
    send: ({ collections }) => collections.list(postsPlan, null, `limit=100&groupId=${groupId}`),
    understand: (body) => [[`in ${groupId}`, listed(body)]],
  }),
  children: (groupId: number): Ask => ({
    about: `in ${groupId}`,
    send: ({ collections }) =>
      collections.children(groupsPlan, null, { id: String(groupId), child, search: 'limit=100' }),
    understand: (body) =>
      body === undefined ? [[`group ${groupId}`, absent]] : [[`in ${groupId}`, listed(body)]],
  }),
  /** A value that only an invalidation ends, in one of two scopes. */
  value: (id: number, isOwn = false): Ask => ({
    about: `value ${id}`,
    send: async ({ values, read }) => ({
      value: await values.get(
        ['marks', id],
        {
          ...{ ttl: '7d', tags: [id % 2 === 0 ? 'even' : 'odd'] },
          scope: isOwn ? { tenant: 'own' } : 'public',
        },
        async () => {
          const sql = 'select mark from groups where id = ?'
          return (await read({ sql, params: [id] }))[0]?.[0] as string | undefined
        },
      ),
    }),
    understand: (mark) => [[`value ${id}`, typeof mark === 'string' ? mark : absent]],
  }),
  /** A value that any change of the table ends. */
  allAsValue: (): Ask => ({
    about: 'posts all',
    send: async ({ values, read }) => ({
      value: await values.get('posts', { ttl: '7d', tags: [posts], scope: 'public' }, async () => {
        const sql = 'select id, groupId, slug, mark from posts order by id'
        const rows = await read({ sql, params: [] })
        return rows.map((row) => row.map(String).join(',')).join(';')
      }),
    }),
    understand: (text) => [['posts all', String(text)]],
  }),
}
