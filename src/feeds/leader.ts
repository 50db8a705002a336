/**
 * Which node asks. One has the lease (`feed:<name>`), until it leaves it or was not heard of for 5 s.
 *
 *   publishes?  Redis?       asks
 *   no          –            who has the lease: the log brings the rows to all
 *   yes         up           who has the lease: Redis brings the publications to all
 *   yes         away, none   each, for its own subscribers: nothing would reach them else
 *
 * Budgets hold all the same: their units are shared in the database.
 */
import type { Cancel } from '../lib/clock.ts'
import type { FeedsDeps } from './feeds.ts'

/** As a share of one unit. */
export interface Lease {
  /** 1: it is this node's. */
  readonly units: number
  leave(): Promise<void>
  onChange(listener: () => void): void
}

/** A Redis that is away for less is waited for; so is one that a start has yet to find. */
const awayMs = 2_000

const lookMs = 250

export interface LeaderOptions {
  readonly feed: string
  readonly isPublishing: boolean
  /** Calls on their way. */
  readonly inUse: () => number
  readonly onChange: (isLeading: boolean) => void
}

export interface Leader {
  /** Not longer than it has the lease: a process that was paused has lost it before any timer says so. */
  readonly isLeading: boolean
  start(): void
  stop(): Promise<void>
}

export function createLeader(
  { clock, lease: join, shared }: Pick<FeedsDeps, 'clock' | 'lease' | 'shared'>,
  { feed, isPublishing, inUse, onChange }: LeaderOptions,
): Leader {
  let lease: Lease | undefined
  let isLeading = false
  let isRunning = false
  let upAt = 0
  let cancel: Cancel = () => {}

  const look = (): void => {
    if (!isRunning) return
    const now = clock.tick()
    if (shared?.redis.isUp) upAt = now
    const isRedisAway = isPublishing && now - upAt > awayMs
    const is = lease === undefined || lease.units > 0 || isRedisAway
    if (is === isLeading) return
    isLeading = is
    onChange(is)
  }

  return {
    get isLeading() {
      if (isLeading) look()
      return isLeading
    },
    start() {
      isRunning = true
      upAt = clock.tick()
      // Without Redis nobody would hear what another node publishes.
      if (join && (shared || !isPublishing)) {
        lease = join(`feed:${feed}`, inUse)
        lease.onChange(look)
        if (isPublishing) cancel = clock.every(lookMs, look)
      }
      look()
    },
    async stop() {
      cancel()
      isRunning = false
      isLeading = false
      await lease?.leave()
    },
  }
}
