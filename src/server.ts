/**
 * The root, and the only file that sees everybody: config + plan → store → rooms → doors.
 *
 * Start goes upwards and stop downwards: doors close before the rooms they lead to, and the store is
 * last, so that nothing accepted is lost on the way down.
 */
import { createAuth } from './auth/auth.ts'
import { createBackups } from './backup/backup.ts'
import { createCache, createRedisTier, redisNamespace } from './cache/cache.ts'
import {
  checkIndexes,
  createCollections,
  createLoader,
  createValues,
  createViews,
  createWarmer,
  noting,
  type LiveEvent,
} from './collections/collections.ts'
import { adminSocket, databaseName, reachableHost, type Config } from './config.ts'
import { createFeeds, type FeedsDeps } from './feeds/feeds.ts'
import type { ServerStats } from './feeds/declare.ts'
import {
  callDoors,
  createHttp,
  finishRequests,
  listen,
  listenLocal,
  type Health,
  type Local,
} from './http/http.ts'
import { systemClock, type Clock } from './lib/clock.ts'
import { must } from './lib/assert.ts'
import { detach } from './lib/service.ts'
import {
  createCredentials,
  createLimiter,
  createLimits,
  type LimitPolicy,
} from './limits/limits.ts'
import { createGauges } from './observe/gauges.ts'
import { createLog, type Log } from './observe/log.ts'
import { createMetrics } from './observe/metrics.ts'
import {
  createMemory,
  createOverload,
  createStolen,
  threadCpuMs,
  type Overload,
} from './overload/overload.ts'
import { schemaOf, type Plan } from './plan/plan.ts'
import { createRealtime, type Connection } from './realtime/realtime.ts'
import type { Db, TransactionOptions, Tx } from './store/declare.ts'
import {
  createAllowances,
  createPublications,
  createRedis,
  createShares,
  createStore,
  tableTagOf,
  type Redis,
  type Shares,
} from './store/store.ts'
import {
  budgetGauges,
  createBudgets,
  createFollower,
  createProxies,
  createUpstream,
  upstreamGauges,
} from './upstream/upstream.ts'
import { version } from './version.ts'

/** Writes per user, or per address for visitors, until app files can say (`limits`). */
export const writePolicyDefault: LimitPolicy = { name: 'writes', quota: 600, windowMs: 60_000 }

export interface ServerOptions {
  readonly plan: Plan
  readonly config: Config
  readonly clock?: Clock
  readonly log?: Log
  readonly writePolicy?: LimitPolicy
  readonly readers?: number
  /** Redis is waited for so long; for tests. */
  readonly redisMs?: number | undefined
}

export interface Server {
  readonly url: string
  readonly port: number
  /** The rooms, for tests and benches. */
  readonly rooms: Rooms
  stop(): Promise<void>
}

export interface Rooms {
  readonly store: ReturnType<typeof createStore>
  readonly cache: ReturnType<typeof createCache>
  readonly realtime: ReturnType<typeof createRealtime>
  readonly collections: ReturnType<typeof createCollections>
  readonly feeds: ReturnType<typeof createFeeds>
  readonly upstream: ReturnType<typeof createUpstream>
  readonly auth: Awaited<ReturnType<typeof createAuth>>
  readonly backups: ReturnType<typeof createBackups>
  readonly overload: Overload
}

/** Faults: whatever keeps it from serving, said so that an operator can mend it. Leaves nothing running then. */
export async function startServer(options: ServerOptions): Promise<Server> {
  const { plan, config, clock = systemClock } = options
  const log = options.log ?? createLog({ level: config.logLevel, now: clock.now })
  const metrics = createMetrics()
  const startedAt = clock.tick()

  const redis =
    config.redis &&
    createRedis({ clock, log }, { target: config.redis, commandMs: options.redisMs })
  const store = createStore(
    { clock, log, observe: metrics.query, announce: () => redis?.publish(newsOf(plan), '') },
    {
      database: config.database,
      tables: plan.tables,
      ...(options.readers === undefined ? {} : { readers: options.readers }),
    },
  )
  // Known once the store is started; nobody reads before.
  const tier = { namespace: '' }
  const shared = redis && createRedisTier({ redis, clock }, tier)
  const overload = overloadOf({ clock, log, store }, config, () => realtime.connectionShare())
  const cache = createCache(
    { clock, shared, relief: overload },
    { groups: plan.tables.map(tableTagOf) },
  )
  const limiter = createLimiter(
    { clock, shared: redis },
    { namespace: `belfry:${plan.name}:limits` },
  )
  const auth = await createAuth(
    { clock, log, store, limiter, env: config.env },
    { ...config.auth, claims: plan.claims },
    plan.accounts,
  )
  const credentials = createCredentials({ clock, limiter }, plan.limits.named.get('credentials'))
  const realtime = createRealtime(
    {
      topics: plan.topics,
      identify: auth.identify,
      identifyTopic: auth.identifyTopic,
      credentials,
      call: (call) => callDoors(fetch, call),
      clock,
      log,
      limits: (policy) => createLimits({ clock }, policy),
      isFollowing: true,
      sights: createViews(plan.collections, log),
      publications: plan.topics.some(({ persist }) => persist)
        ? createPublications(store, { isShared: config.database.kind === 'remote' })
        : undefined,
      shared: redis && {
        redis,
        namespace: channelsOf(plan, config),
        get source() {
          return Bun.hash(store.identity()).toString(36)
        },
      },
      onAudience: (pattern, topic, isHeard) => feeds.heard(pattern, topic, isHeard),
    },
    { version, app: plan.name, limits: config.connections },
  )
  // Who asks upstream may be another node since, or each for itself.
  const publishOnce = (topic: string, data: unknown) =>
    void realtime.publish(topic, data, 'differs')
  // Every node on this database hears of a change by itself.
  const announce = (topic: string, event: LiveEvent) =>
    void realtime.publish(topic, event, { seq: event.seq, by: event.collection })
  const { collections, noted } = noting(
    createCollections(
      {
        store,
        cache,
        topics: { publish: announce },
        log,
        cursorKey: store.secret,
      },
      plan.collections,
    ),
  )
  const warmer = createWarmer({ collections, store, clock, log }, noted)

  auth.evictFrom(realtime.signedIn)
  store.onChange(({ notice }) => {
    if (notice) auth.hear(notice)
    if (notice?.kind === modeNotice) overload.hear(notice.data)
  })
  store.onGap(() => loadAgain({ auth, overload, store }, { clock, log }))
  // The log's followers, in the order that keeps promises: first nobody can hit the old entry any
  // more, then the event goes out, so that a client who refetches on it sees the new row.
  store.onChange((change) => cache.apply(change.seq, change.tags, change))
  store.onGap((seq) => {
    cache.jump(seq)
    warmer.again()
  })
  store.onChange((change) => collections.changed(change))
  store.onChange(({ seq }) => realtime.followed(seq))
  store.onGap(realtime.followed)

  const stats = (): ServerStats => {
    const { hits, misses } = cache.stats()
    const { connections, subscriptions } = realtime.stats()
    const reads = hits + misses
    return {
      connections,
      subscriptions,
      cacheHitShare: reads === 0 ? 0 : Math.round((hits / reads) * 1000) / 1000,
      seq: store.stats().seq,
    }
  }
  const { env } = config
  const isShared = config.database.kind === 'remote'
  const shares = createShares({ store, clock, log }, { isShared })
  const allowances = createAllowances({ store, clock })
  const budgets = createBudgets(
    { clock, log, env, shares, allowances, isAlone: !isShared },
    plan.budgets,
  )
  const upstream = createUpstream({ clock, log, budgets }, plan.budgets)
  const feeds = createFeeds(
    {
      ...{ collections, publish: publishOnce, db: store.db, stats, env, clock, log },
      ...askingOf(upstream, isShared ? shares : undefined),
      follow: (options) => createFollower({ clock, log }, options),
      shared: redis && { redis, namespace: channelsOf(plan, config) },
      slowdown: () => overload.factor,
    },
    plan.feeds,
  )

  const backups = createBackups(
    { snapshot: store.snapshot, clock, log },
    {
      app: plan.name,
      databaseFile: config.database.kind === 'file' ? config.database.file : undefined,
      plan: plan.backup,
    },
  )

  let bun: Bun.Server<Connection> | undefined
  let local: Local | undefined
  let isDraining = false
  const server = () => must(bun, () => 'a request comes after Bun.serve')
  const health = (): Health => ({
    status: isDraining ? 'draining' : store.stats().isWritable ? 'ok' : 'failing',
    app: plan.name,
    version,
    uptimeMs: Math.round(clock.tick() - startedAt),
    seq: store.stats().seq,
    connections: realtime.stats().connections,
  })
  const fetch = createHttp(
    {
      auth,
      limiter,
      overload,
      credentials,
      collections,
      realtime,
      feeds,
      proxies: createProxies({ upstream, cache, env, now: clock.now, log }, plan.proxies),
      metrics,
      health,
      cache,
      follow: () => ({ seq: store.stats().seq, checkedMsAgo: Math.round(store.followedMsAgo()) }),
      own: {
        db: dbOf(store),
        cache: createValues({ cache, invalidate: store.invalidate, log }),
        load: () => createLoader(store),
        feeds,
        log,
        env,
      },
      clock,
      log,
      server,
    },
    {
      corsOrigins: config.corsOrigins,
      page: plan.page ?? defaultPage(plan.name),
      routes: plan.routes,
      proxies: plan.proxies,
      limits: plan.limits,
      writePolicy: options.writePolicy ?? plan.limits.named.get('writes') ?? writePolicyDefault,
      trustedProxies: config.trustedProxies,
    },
  )

  try {
    await store.start()
    tier.namespace = redisNamespace({
      app: plan.name,
      schema: schemaOf(plan),
      database: store.identity(),
    })
    listenToNews(redis, store, plan)
    realtime.followed(store.stats().seq)
    await auth.load()
    await recallMode(overload, store)
    await knowRecent(cache, store, redis !== undefined)
    await warmer.start()
    bun = listen(config, fetch)
    local = listenLocal(
      { auth, backups, collections, overload, health, log, now: clock.now, realtime },
      { socket: adminSocket(config.database), database: databaseName(config.database) },
    )
  } catch (cause) {
    await auth.stop()
    await store.stop()
    await redis?.stop()
    throw cause
  }
  realtime.start()
  await budgets.start?.()
  overload.start()
  feeds.start()
  await backups.start()
  metrics.gauges(createGauges({ store, cache, realtime, auth, backups, limiter, feeds, overload }))
  metrics.gauges(() => upstreamGauges(upstream.stats()))
  metrics.gauges(() => budgetGauges(budgets.stats()))
  detach(adviseIndexes(store, plan, log), (error) =>
    log.warn('collections.indexes_not_checked', { error }),
  )
  log.info('server.started', { app: plan.name, url: String(bun.url), version })

  return {
    url: `http://${reachableHost(config.host)}:${bun.port}`,
    port: bun.port ?? config.port,
    rooms: { store, cache, realtime, collections, feeds, upstream, auth, backups, overload },
    async stop() {
      if (isDraining) return
      isDraining = true
      overload.stop()
      await feeds.stop()
      await realtime.drain()
      realtime.stop()
      await Promise.all([finishRequests(server(), clock), backups.stop()])
      if (local) await finishRequests(local, clock)
      await upstream.stop()
      await budgets.stop()
      await shares.stop()
      await realtime.settled()
      await auth.stop()
      cache.stop()
      await warmer.stop()
      await store.stop()
      await redis?.stop()
      log.info('server.stopped', { app: plan.name })
    },
  }
}

/** What a node that lost the right to ask may still say: its calls are cut off. */
const leaseSettleMs = 200

/** Feeds ask by way of the upstream room, and where several nodes share a database one node does. */
function askingOf(
  upstream: Rooms['upstream'],
  shares: Shares | undefined,
): Pick<FeedsDeps, 'fetch' | 'turn' | 'lease'> {
  return {
    fetch: (url, init, { budget, priority, turn }) =>
      // The operator wrote where it goes.
      upstream.fetch(url, { allowPrivate: true, ...init, budget, priority }, turn),
    turn: upstream.turn,
    lease:
      shares &&
      ((name, inUse) =>
        shares.join(name, {
          ...{ capacity: 1, demand: () => 1, inUse, settleMs: leaseSettleMs },
        })),
  }
}

/** Lists that SQLite can only answer by reading a whole table, each with the index that mends it. */
async function adviseIndexes(store: Rooms['store'], plan: Plan, log: Log): Promise<void> {
  for (const { table, add, serves } of await checkIndexes({ store }, plan.collections)) {
    log.warn('collections.index_missing', { table, add, serves })
  }
  log.debug('collections.indexes_checked')
}

/** Of a mode, in the log and among what is remembered. */
const modeNotice = 'mode'

function overloadOf(
  deps: { clock: Clock; log: Log; store: Rooms['store'] },
  { overloadMode }: Config,
  connectionShare: () => number,
): Overload {
  const { store } = deps
  return createOverload(
    {
      ...deps,
      readsWaitMs: store.readsWaitMs,
      writesWaitMs: store.writesWaitMs,
      cpuMs: threadCpuMs,
      stolenMs: createStolen(),
      memoryShare: createMemory(),
      connectionShare,
      async announce(said) {
        await store.remember(modeNotice, JSON.stringify(said))
        await store.note({ kind: modeNotice, data: said }, [])
      },
    },
    overloadMode,
  )
}

async function recallMode(overload: Overload, store: Rooms['store']): Promise<void> {
  const said = await store.recall(modeNotice)
  if (said !== undefined) overload.hear(JSON.parse(said))
}

/** Between two tries. */
const loadAgainMs = 1_000

/** What was revoked, given out or set meanwhile is not to be missed, however long the database cannot be read. */
function loadAgain(
  rooms: Pick<Rooms, 'auth' | 'overload' | 'store'>,
  deps: { readonly clock: Clock; readonly log: Log },
): void {
  const load = async (): Promise<void> => {
    await rooms.auth.load()
    await recallMode(rooms.overload, rooms.store)
  }
  detach(load(), (error) => {
    deps.log.warn('auth.not_loaded', { error })
    deps.clock.after(loadAgainMs, () => loadAgain(rooms, deps))
  })
}

/** Changes that a start looks back at. */
const recentMax = 10_000

/** What a shared tier holds from before is good where nothing has changed since: so what has must be known. */
async function knowRecent(
  cache: Rooms['cache'],
  store: Rooms['store'],
  isShared: boolean,
): Promise<void> {
  const { seq } = store.stats()
  const recent = isShared ? await store.recent(recentMax) : []
  cache.jump((recent[0]?.seq ?? seq + 1) - 1)
  for (const change of recent) cache.apply(change.seq, change.tags, change)
  cache.apply(seq, [])
}

/** Other nodes on the same database say when they have committed. What is missed comes with the next poll. */
function listenToNews(redis: Redis | undefined, store: Rooms['store'], plan: Plan): void {
  if (!redis) return
  redis.start()
  redis.subscribe(newsOf(plan), store.wake, store.wake)
}

/** Channels do not know databases by number. */
function channelsOf({ name }: Plan, { redis }: Config): string {
  return `belfry:${encodeURIComponent(name)}:${redis?.db ?? 0}`
}

function newsOf({ name }: Plan): string {
  return `belfry:${name}:news`
}

/** The database as the app's routes see it. */
function dbOf(store: Rooms['store']): Db {
  const { db } = store
  return Object.assign(Object.create(db) as typeof db, {
    transaction<T>(run: (tx: Tx) => Promise<T>, { once }: TransactionOptions = {}): Promise<T> {
      if (once?.key === null || once?.key === undefined) return store.transaction(run)
      const { key, user, request } = once
      return store.transaction(run, { scope: `routes: ${user?.id ?? ''}`, key, request })
    },
  })
}

function defaultPage(name: string): string {
  return `<!doctype html><meta charset="utf-8"><title>${name}</title><p>${name} is served by Belfry. Its data is under <code>/api/</code>.`
}
