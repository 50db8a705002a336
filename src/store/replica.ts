/**
 * A replica: another place to read, which knows how far in the log it is. The store reads there whenever
 * that is far enough for what is asked, and from the primary otherwise; a replica that fails or falls behind
 * is thus left out by itself, and comes back by itself.
 *
 *   primary   … 41 42 43          a read that must see 42 may go to A, and not to B
 *   replica A … 41 42 43
 *   replica B … 41                out (seq -1) while it cannot be reached or is being rebuilt
 */
import type { Clock } from '../lib/clock.ts'
import { detach } from '../lib/service.ts'
import type { Log } from '../observe/log.ts'
import type { Query, ReadRows } from './messages.ts'
import type { Pool } from './pool.ts'

export interface Replica {
  readonly name: string
  /** Newest log entry it has, `out` (-1) while it is not to be read. */
  readonly seq: number
  read(query: Query): Promise<ReadRows>
  /** As of a pool. */
  waitMs(): number
  /** The primary has something newer: look now. */
  hint(): void
  /** A read failed there and may have succeeded elsewhere. */
  suspect(cause: unknown): void
  start(): Promise<void>
  stop(): Promise<void>
}

/** Less than what any read must see. */
export const out = -1

/** How often a replica is brought up to date, or asked how far it is, without a hint. */
export const followMs = 250

/** One that has not said for so long how far it is may never answer a read either. */
const silentMs = 1_500

/** A replica that gave a wrong or no answer is left out for so long, and until it answers again. */
export const suspectMs = 5_000

/** Runs `step` each `followMs` and after each hint, never twice at a time. */
export function createStepper(
  { clock, log, name }: { readonly clock: Clock; readonly log: Log; readonly name: string },
  step: () => Promise<void>,
) {
  let running: Promise<void> | undefined
  let isWanted = false
  let cancel = (): void => {}

  const run = async (): Promise<void> => {
    do {
      isWanted = false
      await step()
    } while (isWanted)
  }

  const now = (): Promise<void> => {
    isWanted = true
    if (running) return running
    running = run().finally(() => (running = undefined))
    detach(running, (error) => log.error('store.replica_step_failed', { replica: name, error }))
    return running
  }

  return {
    start: () => void (cancel = clock.every(followMs, () => void now())),
    now,
    async stop() {
      cancel()
      isWanted = false
      await running?.catch(() => {})
    },
  }
}

export interface UrlReplicaDeps {
  readonly clock: Clock
  readonly log: Log
  readonly pool: Pool
  /** Answers how far it is; where Belfry ships its own log, ships first. */
  readonly advance: () => Promise<number>
  /** Ends what `advance` is at. */
  readonly stop?: () => Promise<void>
}

/** A start waits so long for a replica; one that is copied first, or silent, comes in later. */
const startMsMax = 1_000

/** A replica that is read over the network. */
export function createUrlReplica(name: string, deps: UrlReplicaDeps): Replica {
  const { clock, log, pool, advance } = deps
  let seq = out
  let outUntil = 0
  let answeredAt = 0
  let isReported = false

  const step = async (): Promise<void> => {
    try {
      const reached = await advance()
      answeredAt = clock.tick()
      if (clock.tick() < outUntil) return
      if (isReported) log.info('store.replica_back', { replica: name, seq: reached })
      isReported = false
      seq = reached
    } catch (error) {
      leave(error)
    }
  }

  const leave = (error: unknown): void => {
    seq = out
    if (!isReported) log.warn('store.replica_out', { replica: name, error })
    isReported = true
  }
  const stepper = createStepper({ clock, log, name }, step)

  return {
    name,
    get seq() {
      return clock.tick() - answeredAt > silentMs ? out : seq
    },
    read: (query) => pool.read(query),
    waitMs: pool.waitMs,
    hint: () => void stepper.now(),
    suspect(cause) {
      outUntil = clock.tick() + suspectMs
      leave(cause)
    },
    async start() {
      await pool.start()
      stepper.start()
      const patience = Promise.withResolvers<void>()
      const cancel = clock.after(startMsMax, patience.resolve)
      await Promise.race([stepper.now(), patience.promise])
      cancel()
    },
    async stop() {
      await deps.stop?.()
      await stepper.stop()
      await pool.stop()
    },
  }
}
