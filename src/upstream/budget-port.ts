/** What a call asks of a budget before it is sent, as both sides have it. */
import type { ParsedRate } from '../lib/rate.ts'
import type { Service } from '../lib/service.ts'
import type { KeyHeader, KeysOf } from './declare.ts'

/** Who goes first when there is a queue. */
export type Priority = 'high' | 'normal' | 'low'

export const priorities: readonly Priority[] = ['high', 'normal', 'low']

/** A declared budget, checked. Made by the plan. */
export interface BudgetPlan {
  readonly name: string
  readonly rate: ParsedRate
  readonly burst: number
  /** Undefined: calls carry no key. */
  readonly keys: KeysOf | undefined
  readonly header: KeyHeader
  readonly queueMax: number
  readonly quota: BudgetQuota | undefined
  /** Nothing of a call arrives at the provider later than so long after its sending. */
  readonly timeoutMs: number
}

export interface BudgetQuota {
  readonly count: number
  readonly per: 'day' | 'month'
}

export interface BudgetAsk {
  readonly priority: Priority
  /** From now; refused at once if it cannot be met. */
  readonly deadlineMs?: number | undefined
  readonly signal?: AbortSignal | undefined
}

export interface Grant {
  /** Undefined: the budget has none. */
  readonly key: string | undefined
  /**
   * What is left now: without an answer by then, the call is cut off; the budget counts on it. 0: too late, nothing may be
   * sent with it any more.
   */
  readonly timeoutMs: number
  /** Once, always: when its answer has begun, or it failed. */
  done(outcome: GrantOutcome): void
}

export type GrantOutcome =
  | { readonly status: number; readonly headers: Headers }
  | {
      readonly failed: unknown
      /** Nothing of it is on its way: its connection could not be made, or was ended by the other side. Default false. */
      readonly isOver?: boolean
    }

export interface Budgets extends Service {
  /**
   * Waits its turn. Faults: `too_many` with `retryAfterMs` (the queue is full, or the deadline cannot be met);
   * `timeout`. Rejects with the signal's reason.
   */
  take(name: string, ask: BudgetAsk): Promise<Grant>
  stats(): readonly BudgetStats[]
}

export interface BudgetStats {
  readonly name: string
  readonly waiting: number
  /** Full, or too late. */
  readonly refused: number
  /** Waited until their deadline. */
  readonly timedOut: number
  /** All time that calls have waited. */
  readonly waitedMs: number
  readonly keys: readonly KeyStats[]
}

export interface KeyStats {
  /** Its place in the list; the key itself is told to nobody. */
  readonly index: number
  readonly calls: number
  /** Answers 429. */
  readonly limited: number
  /** Answers 5xx. */
  readonly failed: number
  /** Without an answer. */
  readonly lost: number
  /** What this node may have under way or just behind it, and what it has. */
  readonly units: number
  readonly inUse: number
  /** Share of the declared pace, 0 to 1. */
  readonly pace: number
  /** Until it may be used again; 0: now. */
  readonly stoppedMs: number
  /** Calls left in this node's part of the quota; undefined: there is none. */
  readonly quotaLeft: number | undefined
}
