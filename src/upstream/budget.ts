/**
 * Budgets: whose turn it is to call somebody else's server, so that its limit is never exceeded and what is urgent goes
 * first.
 *
 *   take ─► queue (bounded, by rank) ─► the key with most left ─► Grant ─► call ─► done(how it ended)
 *
 * Invariants: at the provider, no window ever holds more than `rate` and `burst` (`slots.ts`), of all nodes together
 * (units by lease, `src/store/shares.ts`). Everybody who waits is answered: granted, refused, timed out or cancelled. A
 * rank is the time of asking and what the priority adds to it, so that nobody is overtaken for ever.
 *
 * Limits: a restart knows nothing of calls before: it holds its slots for a window, of at most 10 s; in longer
 * windows a process that crashed has spent what its successor cannot see. A key that is stopped by 429 is so on other nodes
 * from their next renewal on, each 1.5 s; the pace that was halved is of the node that was told.
 */
import { Fault } from '../fault.ts'
import { must } from '../lib/assert.ts'
import type { Cancel, Clock } from '../lib/clock.ts'
import type { Log } from '../observe/log.ts'
import type { Allowances, Share, Shares } from '../store/store.ts'
import type { BudgetAsk, BudgetPlan, BudgetStats, Budgets, Grant, Priority } from './budget-port.ts'
import type { Env } from '../feeds/declare.ts'
import { capacityOf, createLane, type Lane } from './keys.ts'
import { createQuota, type Quota } from './quota.ts'
import { createSlots, settleMsOf } from './slots.ts'

export interface BudgetsDeps {
  readonly clock: Clock
  readonly log: Log
  readonly env: Env
  readonly shares: Shares
  readonly allowances: Allowances
  /** Nobody else calls under these budgets: what a predecessor sent is not known to `shares`. */
  readonly isAlone: boolean
}

/** Who has no deadline, has this one. */
const waitMsMax = 30_000

/** Later by so much than somebody of high priority who asked at the same time. */
const lagMs: Readonly<Record<Priority, number>> = { high: 0, normal: 1_000, low: 5_000 }

/** A near deadline makes as urgent as the next priority, no more. */
const lagMsMin: Readonly<Record<Priority, number>> = { high: 0, normal: 0, low: 1_000 }

/** A start waits no longer for what its predecessor may have sent. */
const heldMsMax = 10_000

/** Units go round among more nodes than there are units. */
const rotateMs = 10_000

const keysMax = 100

interface Waiting {
  readonly rank: number
  /** Its deadline. */
  readonly endsAt: number
  readonly grant: (lane: Lane) => void
  readonly refuse: (reason: unknown) => void
}

interface Budget {
  take(ask: BudgetAsk): Promise<Grant>
  stats(): BudgetStats
  start(): void
  stop(): Promise<void>
}

/** Faults: `invalid` for keys that no header can carry. */
export function createBudgets(deps: BudgetsDeps, plans: readonly BudgetPlan[]): Budgets {
  const budgets = new Map(plans.map((plan) => [plan.name, createBudget(deps, plan)]))
  return {
    async take(name, ask) {
      return await must(budgets.get(name), () => `the budget ${name} is declared`).take(ask)
    },
    stats: () => [...budgets.values()].map((budget) => budget.stats()),
    start() {
      for (const budget of budgets.values()) budget.start()
    },
    async stop() {
      await Promise.all([...budgets.values()].map((budget) => budget.stop()))
    },
  }
}

/** A lane and what it is made of. */
interface Held {
  readonly lane: Lane
  readonly share: Share
  readonly quota: Quota | undefined
}

function createBudget(deps: BudgetsDeps, plan: BudgetPlan): Budget {
  const { clock, log, shares, allowances } = deps
  const { name } = plan
  const { windowMs } = plan.rate
  const keys = readKeys(plan, deps.env)
  /** In order of rank. */
  const queue: Waiting[] = []
  const counts = { refused: 0, timedOut: 0, waitedMs: 0 }
  let held: readonly Held[] = []
  let isStopped = false
  let cancelTimer: Cancel = () => {}

  const open = (key: string | undefined, index: number): Held => {
    const capacity = capacityOf(plan)
    const times = { windowMs, timeoutMs: plan.timeoutMs }
    const isHeld = deps.isAlone && windowMs <= heldMsMax
    const slots = createSlots(times, clock.tick(), isHeld ? capacity : 0)
    const inUse = (): number => slots.used(clock.tick())
    // While somebody waits, more than is used could be: how much more is not known, so it doubles.
    const demand = createDemand(() => inUse() * (queue.length > 0 ? 2 : 1) + queue.length)
    const fullName = `${name}:${fingerprintOf(key)}`
    const share = shares.join(`budget:${fullName}`, {
      ...{ capacity, demand, inUse, settleMs: settleMsOf(times), rotateMs },
    })
    share.onChange(pump)
    const perMinute = (plan.rate.quota / windowMs) * 60_000
    const quota =
      plan.quota &&
      createQuota(
        { clock, log, allowances, onChange: pump },
        { name: fullName, quota: plan.quota, perMinute },
      )
    quota?.start()
    const lane = createLane({ clock, log, share, slots, quota }, { plan, index, key })
    return { lane, share, quota }
  }

  /** Of those that may send now, the one with most left. */
  const best = (now: number): Lane | undefined => {
    let found: Lane | undefined
    for (const { lane } of held) {
      if (lane.readyAt(now) > now) continue
      if (!found || isMore(lane.left(now), found.left(now))) found = lane
    }
    return found
  }

  const soonest = (now: number): number => Math.min(...held.map(({ lane }) => lane.readyAt(now)))

  const pump = (): void => {
    cancelTimer()
    while (queue.length > 0) {
      const now = clock.tick()
      const lane = best(now)
      if (!lane) {
        const at = soonest(now)
        if (at === Infinity) return
        refuseLate(at, now)
        cancelTimer = clock.after(Math.max(1, Math.ceil(at - now)), pump)
        return
      }
      queue.shift()?.grant(lane)
    }
  }

  /** At least so long until that many before it have gone, as far as is known. */
  const waitMsOf = (before: number, now: number): number => {
    const ready = held.filter(({ lane }) => Number.isFinite(lane.readyAt(now)))
    if (ready.length === 0) return 0
    let [atOnce, perMs] = [0, 0]
    for (const { lane } of ready) {
      atOnce += lane.atOnce
      perMs += lane.perMs(now)
    }
    const behind = Math.max(0, before + 1 - atOnce)
    return soonest(now) - now + (perMs > 0 ? behind / perMs : 0)
  }

  const refusal = (why: string, retryAfterMs: number): Fault => {
    counts.refused++
    return new Fault('too_many', `budget ${name}: ${why}`, {
      retryAfterMs: Math.ceil(retryAfterMs),
    })
  }

  /** Nobody waits for what cannot be in time any more: a key that is stopped, a quota that is over. */
  const refuseLate = (at: number, now: number): void => {
    for (const waiting of queue.filter(({ endsAt }) => endsAt < at)) {
      queue.splice(queue.indexOf(waiting), 1)
      waiting.refuse(refusal('it would take too long', at - now))
    }
  }

  const grantOf = (lane: Lane): Grant => {
    const sent = lane.send(clock.tick())
    let isDone = false
    return {
      key: lane.key,
      get timeoutMs() {
        return Math.max(0, sent.sentAt + plan.timeoutMs - clock.tick())
      },
      done(outcome) {
        if (isDone) return
        isDone = true
        lane.end(sent, outcome)
        pump()
      },
    }
  }

  return {
    async take({ priority, deadlineMs = waitMsMax, signal }) {
      signal?.throwIfAborted()
      if (isStopped) throw stopping()
      const now = clock.tick()
      const free = queue.length === 0 ? best(now) : undefined
      if (free) return grantOf(free)
      const withinMs = Math.min(deadlineMs, waitMsMax)
      const rank = now + Math.max(lagMsMin[priority], Math.min(lagMs[priority], withinMs))
      // After those of the same rank.
      let place = queue.length
      while (place > 0 && (queue[place - 1]?.rank ?? 0) > rank) place--
      const waitMs = waitMsOf(place, now)
      if (waitMs > withinMs) throw refusal('it would take too long', waitMs)
      if (queue.length >= plan.queueMax) {
        const fullMs = Math.max(1, waitMsOf(queue.length, now))
        if (place === queue.length) throw refusal('too many calls are waiting', fullMs)
        queue.pop()?.refuse(refusal('more urgent calls are waiting', fullMs))
      }
      return await new Promise<Grant>((resolve, reject) => {
        const leave = (): void => {
          const at = queue.indexOf(waiting)
          if (at >= 0) queue.splice(at, 1)
          end()
        }
        const onAbort = (): void => {
          leave()
          reject(signal?.reason as Error)
        }
        const cancel = clock.after(withinMs, () => {
          leave()
          counts.timedOut++
          reject(new Fault('timeout', `budget ${name}: no turn within ${Math.ceil(withinMs)} ms`))
        })
        const end = (): void => {
          cancel()
          signal?.removeEventListener('abort', onAbort)
          counts.waitedMs += clock.tick() - now
        }
        const waiting: Waiting = {
          rank,
          endsAt: now + withinMs,
          grant(lane) {
            end()
            resolve(grantOf(lane))
          },
          refuse(reason) {
            end()
            reject(reason)
          },
        }
        signal?.addEventListener('abort', onAbort)
        queue.splice(place, 0, waiting)
        pump()
      })
    },
    stats: () => ({
      ...{ name, waiting: queue.length, ...counts },
      keys: held.map(({ lane }) => lane.stats()),
    }),
    start() {
      held = keys.map(open)
      pump()
    },
    async stop() {
      isStopped = true
      cancelTimer()
      for (const waiting of queue.splice(0)) waiting.refuse(stopping())
      await Promise.all(held.map(({ share }) => share.leave()))
      await Promise.all(held.flatMap(({ quota }) => (quota ? [quota.stop()] : [])))
    },
  }
}

/** What is wanted, forgotten slowly: calls come in bursts, and units take seconds to move. */
function createDemand(wanted: () => number): () => number {
  let last = 0
  return () => (last = Math.max(1, wanted(), Math.floor(last * 0.8)))
}

function isMore(left: readonly number[], than: readonly number[]): boolean {
  const at = left.findIndex((one, place) => one !== than[place])
  return at >= 0 && (left[at] ?? 0) > (than[at] ?? 0)
}

function stopping(): Fault {
  return new Fault('unavailable', 'the server stops')
}

/** Names a key where it is not to be seen. */
function fingerprintOf(key: string | undefined): string {
  if (key === undefined) return 'none'
  return new Bun.CryptoHasher('sha256').update(`belfry budget ${key}`).digest('hex').slice(0, 32)
}

function readKeys({ name, keys }: BudgetPlan, env: Env): readonly (string | undefined)[] {
  const given = keys?.(env) ?? []
  const list = (typeof given === 'string' ? given.split(',') : [...given]).map((one) => one.trim())
  const read = [...new Set(list.filter((one) => one !== ''))]
  if (read.length > keysMax || read.some((one) => !/^[\x21-\x7e]+$/.test(one))) {
    const message = `gave something else than up to ${keysMax} keys of visible ASCII characters`
    throw new Fault('invalid', 'the app file has one problem', {
      fields: [{ field: `budgets.${name}.keys`, message }],
    })
  }
  return read.length > 0 ? read : [undefined]
}
