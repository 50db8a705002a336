/**
 * The quota of one key: so many calls of a day or a month in UTC, by the database's clock, whoever of the nodes makes
 * them. Drawn ahead in small parts; nothing is sent that was not drawn.
 */
import type { Cancel, Clock } from '../lib/clock.ts'
import { atMost, detach } from '../lib/service.ts'
import type { Log } from '../observe/log.ts'
import type { Allowances } from '../store/store.ts'
import type { BudgetQuota } from './budget-port.ts'

/** Of the quota at once: what a crash may cost. */
const partShare = 0.01

/** After a failure. */
const retryMs = 1_000

/** When all is spent: others may have given something back. */
const lookAgainMs = 60_000

/** A database that is away is not waited for: what was drawn is lost then. */
const goodbyeMs = 1_000

export interface Quota {
  /** Calls that may be made now. */
  readonly left: number
  /** When there may be some, by `clock.tick()`; Infinity: `onChange` will tell. */
  readonly readyAt: number
  spend(): void
  start(): void
  stop(): Promise<void>
}

export interface QuotaDeps {
  readonly clock: Clock
  readonly log: Log
  readonly allowances: Allowances
  readonly onChange: () => void
}

export interface QuotaOptions {
  /** Unique among all keys of all budgets; in the database. */
  readonly name: string
  readonly quota: BudgetQuota
  /** No more at once than what a minute's calls need. */
  readonly perMinute: number
}

interface Period {
  readonly name: string
  readonly endsAtMs: number
}

export function createQuota(deps: QuotaDeps, options: QuotaOptions): Quota {
  const { clock, log, allowances, onChange } = deps
  const { count, per } = options.quota
  const part = Math.max(1, Math.ceil(Math.min(count * partShare, options.perMinute)))
  /** The database's clock less ours. */
  let aheadMs: number | undefined
  let period: Period = { name: '', endsAtMs: 0 }
  let drawn = 0
  let spent = 0
  /** Whether the period has no more for us. */
  let isOver = false
  let isStopped = false
  let drawing: Promise<void> | undefined
  let cancel: Cancel = () => {}

  const draw = async (): Promise<void> => {
    aheadMs = (await allowances.now()) - clock.now()
    const current = periodAt(clock.now() + aheadMs, per)
    if (current.name !== period.name) {
      period = current
      drawn = spent = 0
    }
    const asked = spent + part
    drawn = await drawTo(asked)
    if (drawn < asked && !isOver) {
      log.warn('budget.quota_ends', { quota: options.name, left: left() })
    }
    isOver = drawn < asked
  }

  /** Returns how many of the period are ours. */
  const drawTo = async (units: number): Promise<number> => {
    const name = `quota:${options.name}:${period.name}`
    const asked = { name, capacity: count, units, endsAtMs: period.endsAtMs }
    return (await allowances.draw(asked)).units
  }

  const untilEndMs = (): number =>
    aheadMs === undefined ? 0 : Math.max(0, period.endsAtMs - clock.now() - aheadMs)

  const left = (): number => (untilEndMs() === 0 ? 0 : Math.max(0, drawn - spent))

  const refillSafely = async (): Promise<void> => {
    try {
      await draw()
    } catch (error) {
      log.warn('budget.quota_not_drawn', { quota: options.name, error })
      again(retryMs)
      return
    } finally {
      drawing = undefined
      onChange()
    }
    again(isOver ? Math.min(lookAgainMs, untilEndMs()) : untilEndMs())
  }

  const again = (afterMs: number): void => {
    cancel()
    if (!isStopped) cancel = clock.after(afterMs, refill)
  }

  const giveBack = async (): Promise<void> => {
    await drawing
    const isMore = drawn > spent
    drawn = spent
    try {
      if (isMore) await drawTo(spent)
    } catch (error) {
      log.warn('budget.quota_not_given_back', { quota: options.name, error })
    }
  }

  const refill = (): void => {
    if (drawing || isStopped) return
    drawing = refillSafely()
    detach(drawing, (error) => log.error('budget.quota_died', { error }))
  }

  return {
    start: refill,
    get left() {
      return left()
    },
    get readyAt() {
      // Of a period that has begun nothing is drawn yet.
      const endMs = untilEndMs()
      return isOver && left() === 0 && endMs > 0 ? clock.tick() + endMs : Infinity
    },
    spend() {
      spent++
      if (drawn - spent < part / 2 && !isOver) refill()
    },
    async stop() {
      isStopped = true
      cancel()
      await atMost(clock, goodbyeMs, giveBack())
    },
  }
}

function periodAt(atMs: number, per: BudgetQuota['per']): Period {
  const at = new Date(atMs)
  const [year, month, day] = [at.getUTCFullYear(), at.getUTCMonth(), at.getUTCDate()]
  return {
    name: at.toISOString().slice(0, per === 'day' ? 10 : 7),
    endsAtMs: per === 'day' ? Date.UTC(year, month, day + 1) : Date.UTC(year, month + 1, 1),
  }
}
