/**
 * When the keys of a feed are asked for, and in which calls:
 *
 *   new keys ─(this turn's together)─► turn, high ──┐
 *                                                   ├─► pick, as late as can be ─► ask ─► put back ─► look again
 *   a part of the old, each `interval ÷ parts` ─► turn ┘
 *
 * Invariant: keys are picked when the budget has given leave, not before: so each call has the keys that have waited
 * longest, a call for a new key takes old ones along, and the calls there are come to all in turn. With more keys
 * than the budget reaches, a round takes as long as it takes: keys ÷ (rate × batch).
 */
import { Fault } from '../fault.ts'
import type { Cancel, Clock } from '../lib/clock.ts'
import { detach } from '../lib/service.ts'
import type { Turn } from '../upstream/upstream.ts'
import { adaptedMs, type AdaptivePlan } from './adaptive.ts'
import type { Key, Watch } from './watch.ts'

/** Calls on their way; a slow upstream has them all, and no more is asked until one comes back. */
const asksMax = 64

/** Before it is tried again, when there was no leave and nothing was said about when there will be. */
const restMs = 1_000

export interface RoundsDeps {
  readonly clock: Clock
  readonly watch: Watch
  readonly slowdown?: (() => number) | undefined
  /** Whether this node asks. */
  readonly isLeading: () => boolean
  /** Leave for one call. */
  readonly turn: (priority: Priority, signal: AbortSignal) => Promise<Turn | undefined>
  /** Answers how many have changed; undefined when it failed. Never rejects. */
  readonly ask: (
    keys: readonly Key[],
    turn: Turn | undefined,
    priority: Priority,
  ) => Promise<number | undefined>
  /** There was no leave. */
  readonly refused: (error: unknown) => void
}

export type Priority = 'high' | 'normal'

export interface RoundsOptions {
  readonly everyMs: number
  readonly batch: number
  readonly adaptive: AdaptivePlan | undefined
}

export interface Rounds {
  readonly intervalMs: number
  /** Something may be due. */
  look(): void
  /** The same, once this turn of the event loop is over: what it brings goes together. */
  lookSoon(): void
  /** Another node asks from now on. */
  rest(reason: Fault): void
  /** What is on its way has come back. */
  settled(): Promise<void>
}

export function createRounds(deps: RoundsDeps, options: RoundsOptions): Rounds {
  const { clock, watch, slowdown = () => 1 } = deps
  const { batch, adaptive } = options
  let intervalMs = options.everyMs
  /** Of the last part of a round. */
  let partAt = -Infinity
  let restsUntil = -Infinity
  let isDue = false
  let cancel: Cancel = () => {}
  let leave = new AbortController()
  const waiting = new Set<Priority>()
  const asks = new Set<Promise<void>>()
  let heard = { asked: 0, changed: 0, hasWaited: false }

  const parts = (): number => watch.callsOf(batch)

  const nextAt = (): number => {
    const oldest = watch.oldestAskedAt
    if (oldest === undefined) return Infinity
    const roundMs = intervalMs * slowdown()
    const partMs = roundMs / parts()
    // A round of several parts begins early once, so that none of them is late when they are apart.
    return Math.max(partAt + partMs, oldest + roundMs - partMs)
  }

  const look = (): void => {
    cancel()
    if (!deps.isLeading()) return
    const now = clock.tick()
    const isResting = now < restsUntil
    const hasNew = watch.newCount > 0
    if (!isResting && hasNew) launch('high')
    const at = Math.max(isResting && hasNew ? now : nextAt(), restsUntil)
    if (now >= at) launch('normal')
    // Whole milliseconds: a timer of less comes before its time.
    else if (at !== Infinity) cancel = clock.after(Math.ceil(at - now), look)
  }

  const launch = (priority: Priority): void => {
    if (waiting.has(priority) || asks.size >= asksMax) return
    waiting.add(priority)
    const askedAt = clock.tick()
    const { signal } = leave
    const turned = deps.turn(priority, signal).then(
      (turn) => {
        if (signal.aborted) return turn?.drop()
        waiting.delete(priority)
        if (clock.tick() - askedAt > intervalMs / parts()) heard.hasWaited = true
        go(priority, turn)
      },
      (error: unknown) => {
        if (signal.aborted) return
        waiting.delete(priority)
        const { retryAfterMs = restMs } = error instanceof Fault ? error : {}
        restsUntil = clock.tick() + Math.max(restMs, retryAfterMs)
        deps.refused(error)
        look()
      },
    )
    detach(turned, deps.refused)
  }

  const go = (priority: Priority, turn: Turn | undefined): void => {
    const now = clock.tick()
    const count = Math.ceil(watch.size / parts())
    const youngMs = intervalMs / 2
    const keys = watch.pick({ now, count, most: batch, overdueMs: intervalMs, youngMs })
    if (priority === 'normal' || keys.length >= count) partAt = now
    if (keys.length === 0) turn?.drop()
    else {
      const asking = askFor(keys, turn, priority)
      asks.add(asking)
      detach(
        asking.finally(() => {
          asks.delete(asking)
          look()
        }),
        () => undefined,
      )
    }
    look()
  }

  const askFor = async (
    keys: readonly Key[],
    turn: Turn | undefined,
    priority: Priority,
  ): Promise<void> => {
    const changed = await deps.ask(keys, turn, priority)
    for (const key of keys) watch.put(key)
    if (changed === undefined || !adaptive) return
    heard.asked += keys.length
    heard.changed += changed
    if (heard.asked < watch.size) return
    intervalMs = adaptedMs(intervalMs, adaptive, heard)
    heard = { asked: 0, changed: 0, hasWaited: false }
  }

  return {
    get intervalMs() {
      return intervalMs
    },
    look,
    lookSoon() {
      if (isDue) return
      isDue = true
      clock.soon(() => {
        isDue = false
        look()
      })
    },
    rest(reason) {
      cancel()
      leave.abort(reason)
      leave = new AbortController()
      waiting.clear()
    },
    async settled() {
      await Promise.all(asks)
    },
  }
}
