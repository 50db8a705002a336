/**
 * The root, and the only file that sees everybody: config + plan → store → rooms → doors.
 *
 * Start goes upwards and stop downwards: doors close before the rooms they lead to, and the store is
 * last, so that nothing accepted is lost on the way down.
 */
import { createAuth } from './auth/auth.ts'
import type { Audience } from './auth/declare.ts'
import { createBackups } from './backup/backup.ts'
import { createCache, createRedisTier, redisNamespace } from './cache/cache.ts'
import {
  checkIndexes,
  createCollections,
  createLoader,
  createValues,
  createWarmer,
  noting,
  type LiveEvent,
} from './collections/collections.ts'
import { adminSocket, databaseName, reachableHost, type Config } from './config.ts'
import { Fault } from './fault.ts'
import { createFeeds } from './feeds/feeds.ts'
import type { ServerStats } from './feeds/declare.ts'
import {
  callDoors,
  createHttp,
  listenLocal,
  websocket,
  type Health,
  type Local,
} from './http/http.ts'
import { systemClock, type Clock } from './lib/clock.ts'
import { must } from './lib/assert.ts'
import { detach } from './lib/service.ts'
import { createLimiter, createLimits, type LimitPolicy } from './limits/limits.ts'
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
  createPublications,
  createRedis,
  createStore,
  tableTagOf,
  type Redis,
} from './store/store.ts'
import { version } from './version.ts'

/** Writes per user, or per address for visitors, until app files can say (`limits`). */
export const writePolicyDefault: LimitPolicy = { name: 'writes', quota: 600, windowMs: 60_000 }

/** Above our own limit of 1 MiB, which answers with a problem; Bun's answer has no body. */
const requestBytesMax = 32 * 1024 * 1024

/** A drain waits so long for requests that are under way. */
const finishMs = 5_000

/** Seconds a quiet HTTP connection stays open. SSE streams lift it for themselves. */
const idleTimeoutS = 60

export interface ServerOptions {
  readonly plan: Plan
  readonly config: Config
  readonly clock?: Clock
  readonly log?: Log
  readonly writePolicy?: LimitPolicy
  readonly readers?: number
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

  const redis = config.redis && createRedis({ clock, log }, { target: config.redis })
  const store = createStore(
    { clock, log, observe: metrics.query, announce: () => redis?.publish(newsOf(plan), '') },
    {
      database: config.database,
      tables: plan.tables,
      ...(options.readers === undefined ? {} : { readers: options.readers }),
    },
  )
  const auth = await createAuth({ clock, log, store }, config.auth)
  // Known once the store is started; nobody reads before.
  const shares = { namespace: '' }
  const shared = redis && createRedisTier({ redis, clock }, shares)
  const overload = overloadOf({ clock, log, store }, config, () => realtime.connectionShare())
  const cache = createCache(
    { clock, shared, relief: overload },
    { groups: plan.tables.map(tableTagOf) },
  )
  const limiter = createLimiter(
    { clock, shared: redis },
    { namespace: `belfry:${plan.name}:limits` },
  )
  const realtime = createRealtime(
    {
      topics: plan.topics,
      identify: auth.identify,
      identifyTopic: auth.identifyTopic,
      call: (call) => callDoors(fetch, call),
      clock,
      log,
      limits: (policy) => createLimits({ clock }, policy),
      publications: plan.topics.some(({ persist }) => persist)
        ? createPublications(store, { isShared: config.database.kind === 'remote' })
        : undefined,
      shared: redis && {
        redis,
        // Channels do not know databases by number.
        namespace: `belfry:${encodeURIComponent(plan.name)}:${config.redis?.db ?? 0}`,
        get source() {
          return Bun.hash(store.identity()).toString(36)
        },
        isFollowing: true,
      },
    },
    { version, limits: config.connections },
  )
  // Every node asks the same upstream.
  const publishOnce = (topic: string, data: unknown) =>
    void realtime.publish(topic, data, 'differs')
  // Every node on this database hears of a change by itself.
  const announce = (topic: string, event: LiveEvent) =>
    void realtime.publish(topic, event, event.seq)
  const { collections, hottest } = noting(
    createCollections(
      {
        store,
        cache,
        topics: { publish: announce, audienceOf: audienceIn(plan) },
        log,
        cursorKey: store.secret,
      },
      plan.collections,
    ),
  )
  const warmer = createWarmer({ collections, store, clock, log }, hottest)

  auth.evictFrom({
    of: (user) => realtime.connectionsOf(user),
    users: () => realtime.control.connections(undefined, Infinity).map(({ user }) => user),
  })
  store.onChange(({ notice }) => {
    if (notice) auth.hear(notice)
    if (notice?.kind === modeNotice) overload.hear(notice.data)
  })
  store.onGap(() => loadAgain(auth, { clock, log }))
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
  const feeds = createFeeds(
    {
      ...{ collections, publish: publishOnce, db: store.db, stats, env: config.env, clock, log },
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
      collections,
      realtime,
      metrics,
      health,
      cache,
      follow: () => ({ seq: store.stats().seq, checkedMsAgo: Math.round(store.followedMsAgo()) }),
      own: {
        db: dbOf(store),
        cache: createValues({ cache, invalidate: store.invalidate }),
        load: () => createLoader(store),
        log,
        env: config.env,
      },
      clock,
      log,
      server,
    },
    {
      corsOrigins: config.corsOrigins,
      page: typeof plan.page === 'string' ? plan.page : defaultPage(plan.name),
      routes: plan.routes,
      limits: plan.limits,
      writePolicy: options.writePolicy ?? plan.limits.named.get('writes') ?? writePolicyDefault,
      trustedProxies: config.trustedProxies,
    },
  )

  try {
    await store.start()
    shares.namespace = redisNamespace({
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
    bun = listen(plan, config, fetch)
    local = listenLocal(
      { auth, backups, collections, overload, health, log, now: clock.now },
      { socket: adminSocket(config.database), database: databaseName(config.database) },
    )
  } catch (cause) {
    await auth.stop()
    await store.stop()
    await redis?.stop()
    throw cause
  }
  realtime.start()
  overload.start()
  feeds.start()
  await backups.start()
  metrics.gauges(createGauges({ store, cache, realtime, auth, backups, limiter, overload }))
  detach(adviseIndexes(store, plan, log), (error) =>
    log.warn('collections.indexes_not_checked', { error }),
  )
  log.info('server.started', { app: plan.name, url: String(bun.url), version })

  return {
    url: `http://${reachableHost(config.host)}:${bun.port}`,
    port: bun.port ?? config.port,
    rooms: { store, cache, realtime, collections, feeds, auth, backups, overload },
    async stop() {
      if (isDraining) return
      isDraining = true
      overload.stop()
      await feeds.stop()
      await realtime.drain()
      realtime.stop()
      await Promise.all([finishRequests(server(), clock), backups.stop()])
      if (local) await finishRequests(local, clock)
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

/** What was revoked or given out meanwhile is not to be missed, however long the database cannot be read. */
function loadAgain(auth: Rooms['auth'], { clock, log }: { clock: Clock; log: Log }): void {
  detach(auth.load(), (error) => {
    log.warn('auth.not_loaded', { error })
    clock.after(loadAgainMs, () => loadAgain(auth, { clock, log }))
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

function newsOf({ name }: Plan): string {
  return `belfry:${name}:news`
}

/** What was accepted is answered: a write that is committed and then cut off looks like one that failed. */
async function finishRequests(server: Local, clock: Clock): Promise<void> {
  // Closes the listener; its promise waits for idle keep-alive connections too, so nobody awaits it.
  void server.stop(false)
  const deadline = clock.tick() + finishMs
  while (server.pendingRequests > 0 && clock.tick() < deadline) {
    await new Promise<void>((resolve) => void clock.after(5, resolve))
  }
  await server.stop(true)
}

function listen(
  plan: Plan,
  { host, port }: Config,
  fetch: (request: Request) => unknown,
): Bun.Server<Connection> {
  try {
    return Bun.serve({
      hostname: host,
      port,
      // Said aloud: left out, Bun 1.4.5 lets a second process bind the same port of 0.0.0.0.
      reusePort: false,
      idleTimeout: idleTimeoutS,
      maxRequestBodySize: requestBytesMax,
      // Else Bun adds its hot-reload script to the page, and stack traces to answers.
      development: false,
      // Bun serves a bundled page and its hashed assets itself, before any route of ours.
      ...(typeof plan.page === 'object' ? { routes: { '/': plan.page } } : {}),
      fetch: fetch as (request: Request) => Response,
      websocket,
    })
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown error'
    const reason = code === 'EADDRINUSE' ? 'it is in use' : code
    throw new Fault('unavailable', `cannot listen on ${host} port ${port}: ${reason}`, {
      hint: 'choose another with PORT=…, or stop what listens there',
      cause,
    })
  }
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

/** Who may hear a topic, for rows that not everybody may read. */
function audienceIn(plan: Plan): (topic: string) => Audience | 'rule' | 'nobody' {
  return (topic) => {
    const rule = plan.topics.find(({ matcher }) => matcher.match(topic))?.subscribe
    if (rule === undefined) return 'nobody'
    return typeof rule === 'function' ? 'rule' : rule
  }
}

function defaultPage(name: string): string {
  return `<!doctype html><meta charset="utf-8"><title>${name}</title><p>${name} is served by Belfry. Its data is under <code>/api/</code>.`
}
