/** What the rooms say of themselves, by the names that operators know. */
import type { Auth } from '../auth/auth.ts'
import type { Backups, BackupStats } from '../backup/backup.ts'
import type { Cache } from '../cache/cache.ts'
import type { Feeds, FeedStats } from '../feeds/feeds.ts'
import type { Limiter, LimiterStats } from '../limits/limits.ts'
import type { Overload } from '../overload/overload.ts'
import type { Realtime } from '../realtime/realtime.ts'
import type { Store } from '../store/store.ts'
import type { Gauges } from './metrics.ts'

export interface GaugeRooms {
  readonly store: Pick<Store, 'stats' | 'followedMsAgo'>
  readonly cache: Pick<Cache, 'stats'>
  readonly realtime: Pick<Realtime, 'stats'>
  readonly auth: Pick<Auth, 'stats'>
  readonly backups: Pick<Backups, 'stats'>
  readonly limiter: Pick<Limiter, 'stats'>
  readonly overload: Pick<Overload, 'stage' | 'status'>
  readonly feeds: Pick<Feeds, 'stats'>
}

export function createGauges(rooms: GaugeRooms): Gauges {
  return () => ({
    ...roomGauges(rooms),
    ...backupGauges(rooms.backups.stats()),
    ...limitGauges(rooms.limiter.stats()),
    ...overloadGauges(rooms.overload),
    ...feedGauges(rooms.feeds.stats()),
  })
}

function roomGauges({ store, cache, realtime, auth }: GaugeRooms): Record<string, number> {
  const { reads, replicaReads, writes, commits, waiting, seq, replicas } = store.stats()
  const cached = cache.stats()
  const live = realtime.stats()
  return {
    belfry_store_reads_total: reads,
    belfry_store_replica_reads_total: replicaReads,
    belfry_store_writes_waiting: waiting,
    belfry_store_replicas_out: replicas.filter(({ seq: at }) => at < 0).length,
    // Of the one that is furthest behind.
    belfry_store_replica_lag_entries: Math.max(
      0,
      ...replicas.map(({ seq: at }) => (at < 0 ? 0 : seq - at)),
    ),
    belfry_store_writes_total: writes,
    belfry_store_commits_total: commits,
    belfry_log_seq: seq,
    belfry_cache_hits_total: cached.hits,
    belfry_cache_misses_total: cached.misses,
    belfry_cache_coalesced_total: cached.coalesced,
    belfry_cache_stale_total: cached.stale,
    belfry_cache_entries: cached.entries,
    belfry_cache_bytes: cached.bytes,
    belfry_cache_evictions_total: cached.evictions,
    belfry_cache_refreshes_total: cached.refreshes,
    belfry_cache_reloads_total: cached.reloads,
    belfry_cache_l2_hits_total: cached.sharedHits,
    ...(cached.shared
      ? {
          belfry_cache_l2_up: Number(cached.shared.isUp),
          belfry_cache_l2_failures_total: cached.shared.failures,
        }
      : {}),
    // What is read here may be as much older than what another node has written.
    belfry_log_followed_seconds_ago: store.followedMsAgo() / 1000,
    belfry_connections: live.connections,
    belfry_subscriptions: live.subscriptions,
    belfry_publications_total: live.publications,
    belfry_topics_alone: live.alone,
    belfry_connects_waiting: live.waiting,
    belfry_slow_readers_total: live.slow,
    belfry_token_verifications_total: auth.stats().verifications,
    belfry_tokens_turned_away_total: auth.stats().turnedAway,
    belfry_revocations: auth.stats().revocations,
  }
}

function limitGauges({ taken, refused, keys, alone }: LimiterStats): Record<string, number> {
  const gauges: Record<string, number> = {
    belfry_limit_keys: keys,
    belfry_limit_alone_total: alone,
  }
  for (const [policy, count] of taken)
    gauges[`belfry_limit_taken_total{policy="${policy}"}`] = count
  for (const [policy, count] of refused) {
    gauges[`belfry_limit_refused_total{policy="${policy}"}`] = count
  }
  return gauges
}

/** Absent until there is one: a backup that never was has no age. */
function backupGauges({ lastAtMs, lastBytes, lastTookMs, failures }: BackupStats) {
  return {
    belfry_backup_failures_total: failures,
    ...(lastAtMs === undefined ? {} : { belfry_backup_last_timestamp_seconds: lastAtMs / 1000 }),
    ...(lastBytes === undefined ? {} : { belfry_backup_last_bytes: lastBytes }),
    ...(lastTookMs === undefined ? {} : { belfry_backup_last_duration_seconds: lastTookMs / 1000 }),
  }
}

function feedGauges(feeds: readonly FeedStats[]): Record<string, number> {
  const gauges: Record<string, number> = {}
  for (const { name, ticks, failures, changes, keys, stale, isLeading } of feeds) {
    gauges[`belfry_feed_ticks_total{feed="${name}"}`] = ticks
    gauges[`belfry_feed_failures_total{feed="${name}"}`] = failures
    gauges[`belfry_feed_changes_total{feed="${name}"}`] = changes
    gauges[`belfry_feed_keys{feed="${name}"}`] = keys
    gauges[`belfry_feed_stale{feed="${name}"}`] = stale
    // Of several nodes 1 on the one that asks.
    gauges[`belfry_feed_asks{feed="${name}"}`] = Number(isLeading)
  }
  return gauges
}

function overloadGauges({ stage, status }: GaugeRooms['overload']): Record<string, number> {
  const { signals, refused } = status()
  const {
    requestsWaitMs = 0,
    loopLateMs = 0,
    readsWaitMs = 0,
    writesWaitMs = 0,
    memoryShare = 0,
  } = signals
  const gauges: Record<string, number> = {
    belfry_overload_stage: stage,
    // In the last second, but for the worst.
    belfry_requests_wait_seconds: requestsWaitMs / 1000,
    belfry_loop_late_seconds: loopLateMs / 1000,
    belfry_reads_wait_seconds: readsWaitMs / 1000,
    belfry_writes_wait_seconds: writesWaitMs / 1000,
    belfry_memory_share: memoryShare,
  }
  for (const [kind, count] of Object.entries(refused)) {
    gauges[`belfry_overload_refused_total{priority="${kind}"}`] = count
  }
  return gauges
}
