/** `bun run bench`: every bench, one after the other, each prints its table. `bun run bench fanout` runs one. */
import { run as budget } from './budget.bench.ts'
import { run as cacheMemory } from './cache-memory.bench.ts'
import { run as cachedGet } from './cached-get.bench.ts'
import { run as churn } from './churn.bench.ts'
import { run as fanout } from './fanout.bench.ts'
import { run as feedLatency } from './feed-latency.bench.ts'
import { run as hitRate } from './hit-rate.bench.ts'
import { run as httpStore } from './http-store.bench.ts'
import { run as latency } from './latency.bench.ts'
import { run as limitFlood } from './limit-flood.bench.ts'
import { run as memory } from './memory.bench.ts'
import { run as million } from './million.bench.ts'
import { run as overload } from './overload.bench.ts'
import { run as paused } from './paused.bench.ts'
import { run as policy } from './policy.bench.ts'
import { run as redisDown } from './redis-down.bench.ts'
import { run as restart } from './restart.bench.ts'
import { run as store } from './store.bench.ts'
import { run as tieredGet } from './tiered-get.bench.ts'
import { run as tokens } from './tokens.bench.ts'
import { run as writeLive } from './write-live.bench.ts'

const benches: Readonly<Record<string, () => Promise<void>>> = {
  'cached-get': cachedGet,
  'tiered-get': tieredGet,
  'cache-memory': cacheMemory,
  fanout,
  'hit-rate': hitRate,
  memory,
  restart,
  churn,
  paused,
  policy,
  'limit-flood': limitFlood,
  latency,
  overload,
  store,
  'http-store': httpStore,
  'write-live': writeLive,
  million,
  'redis-down': redisDown,
  tokens,
  budget,
  'feed-latency': feedLatency,
}

const wanted = process.argv.slice(2)
for (const [name, run] of Object.entries(benches)) {
  if (wanted.length === 0 || wanted.includes(name)) await run()
}
