/**
 * Shares: units of something that all nodes have together (calls to an upstream, the one right to poll it),
 * each unit one node's at a time. A node with a local file is alone and has them all; nodes on one primary
 * keep a ledger in it (`shares-ledger.ts`).
 *
 *   join ─► renewal ─► ledger: mine, of what others leave ─► units, for 5 s ─► renewal …
 *
 * Invariant: what nodes believe to have, and what they have had within `settleMs`, is never more than the
 * capacity. A node that hears nothing of the ledger has nothing left, sooner than others may have it: it
 * counts from before it asked, and the ledger from when it answered. No node's clock is compared with another's.
 *
 * Limits: a primary's clock that is set forward while leases run frees them early, by as much as it jumps. While
 * the primary is away, units run out: the safe side. Each renewal is a write and a read, whatever the number of names.
 */
import type { Clock } from '../lib/clock.ts'
import type { Service } from '../lib/service.ts'
import type { Log } from '../observe/log.ts'
import { createSharesLedger } from './shares-ledger.ts'
import type { Store } from './store.ts'

export interface ShareOptions {
  /** Units in all: a whole number, the same on every node. */
  readonly capacity: number
  /** How many units this node could use now; 0: none, others may have them all. */
  readonly demand: () => number
  /** How many it uses; never more than `units` by beginning something. */
  readonly inUse: () => number
  /** For how long what was begun with a unit may still have an effect once the unit is lost. */
  readonly settleMs: number
  /**
   * When there are fewer units than nodes that want one: they go round, each time after so long. Absent: whoever
   * has one keeps it, which makes one unit an exclusive lease.
   */
  readonly rotateMs?: number
}

export interface Share {
  /** 0 once the lease ran out here. */
  readonly units: number
  /** Nothing is to be begun before, by `clock.tick()`, as other nodes have said. */
  readonly restsUntil: number
  /**
   * No node is to begin anything for so long. Others know with their next renewal, and whoever has a unit had one within a
   * lease. It outlives whoever said so.
   */
  rest(ms: number): void
  /** Has no units from now on; others may have them once nothing of them is in use, or has settled. */
  leave(): Promise<void>
  /** Called when `units` is another number, or others have said to rest. */
  onChange(listener: () => void): void
}

export interface Shares extends Service {
  /** Of one name once at a time. */
  join(name: string, options: ShareOptions): Share
}

export interface SharesDeps {
  readonly store: Pick<Store, 'read' | 'writeAside'>
  readonly clock: Clock
  readonly log: Log
}

/** A node that was not heard of for so long has lost its units. */
const leaseMs = 5_000

/** Three tries a lease. */
const renewMs = 1_500

/** While units are to be handed on. */
const hurryMs = 500

/** From the death of a node until its units are others', with two requests of `requestMs` each on the way. */
export function takeOverMsMax(settleMs: number, requestMs: number): number {
  return leaseMs + settleMs + renewMs + 3 * requestMs
}

export interface ShareBounds {
  readonly leaseMs: number
  readonly renewMs: number
  readonly hurryMs: number
}

export const shareBounds: ShareBounds = { leaseMs, renewMs, hurryMs }

export function createShares(
  deps: SharesDeps,
  { isShared }: { readonly isShared: boolean },
  bounds: ShareBounds = shareBounds,
): Shares {
  return isShared ? createSharesLedger(deps, bounds) : createSharesAlone()
}

/** Nobody to share with: all units, always. */
export function createSharesAlone(): Shares {
  return {
    join(_name, { capacity }) {
      let units = capacity
      const listeners: (() => void)[] = []
      return {
        get units() {
          return units
        },
        // There are no others.
        restsUntil: 0,
        rest() {},
        async leave() {
          units = 0
          for (const listener of listeners) listener()
        },
        onChange: (listener) => void listeners.push(listener),
      }
    },
    stop() {},
  }
}
