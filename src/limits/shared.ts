/**
 * The same windows for all nodes, in Redis (`script.ts`), and each node's own knowledge of them beside: what it took
 * itself, and how many the others had when it last asked.
 *
 *   Redis answers ──► that is the decision, and what is known here follows it
 *   Redis is away ──► what is known here decides, at once: no gap and no reset
 *   Redis is back ──► it is told what was taken meanwhile; and, if it forgot a log, all that is known of it
 *
 * Invariants: never more than the quota in any window while Redis answers; never more than the quota in any window
 * through one node, whatever becomes of Redis. So while it is away, and one window longer, at most the quota for each
 * node that asks; and when in doubt (an answer that was lost) a take counts twice rather than not at all.
 */
import type { Clock } from '../lib/clock.ts'
import type { Alone } from './alone.ts'
import { slotKey, type Ask, type LimitsDecision, type Verdict } from './policy.ts'
import { grainOf } from './runs.ts'
import { takeScript, toldPerKey } from './script.ts'
import type { Slot, Windows } from './windows.ts'

/** What this wants of Redis; `store/redis.ts` fits. Each answers soon or rejects soon. */
export interface SharedPort {
  readonly isUp: boolean
  script(
    script: { readonly text: string; readonly sha: string },
    keys: readonly string[],
    values: readonly string[],
  ): Promise<unknown>
}

export interface SharedOptions {
  /** Before every key: apps that share a Redis do not share their limits. */
  readonly namespace: string
  /** µs, instead of Redis' own clock. For tests. */
  readonly nowUs?: (() => number) | undefined
}

export interface Told {
  readonly decision: LimitsDecision
  /** Redis did not answer. */
  readonly isAlone: boolean
}

/** Of what a node has taken: what is put together counts as its last. */
const carriedRunsMax = 8

/** A log that is forgotten again and again between two questions: then Redis is as good as away. */
const attemptsMax = 4

interface Known {
  readonly ask: Ask
  readonly key: string
  readonly slot: Slot
  /** As it was asked with. */
  born: number | undefined
  /** What is sent is taken off the slot; it is put back if nobody answers. */
  unsentFrom: number
  isForeignSent: boolean
}

export interface SharedDeps {
  readonly clock: Clock
  readonly windows: Windows
  readonly alone: Alone
  readonly shared: SharedPort
}

export function createShared(
  { clock, windows, alone, shared }: SharedDeps,
  { namespace, nowUs }: SharedOptions,
): (asks: readonly Ask[]) => Promise<Told> {
  const valuesOf = (known: Known): string[] => {
    const { policy } = known.ask
    const now = clock.tick()
    const slot = windows.current(known.key, now - policy.windowMs)
    const hasAny = slot !== undefined && (slot.runs.total > 0 || slot.foreign > 0)
    if (slot && !hasAny) slot.born = undefined
    known.born = slot?.born
    const runs =
      slot?.unsentFrom === undefined ? [] : slot.runs.since(slot.unsentFrom, carriedRunsMax)
    if (slot?.isForeignUnsent === true && slot.foreign > 0) {
      runs.push({ at: slot.foreignAt, count: slot.foreign })
      runs.sort((a, b) => a.at - b.at)
    }
    if (slot) {
      known.unsentFrom = Math.min(known.unsentFrom, slot.unsentFrom ?? Infinity)
      known.isForeignSent ||= slot.isForeignUnsent
      slot.unsentFrom = undefined
      slot.isForeignUnsent = false
    }
    const grainUs = Math.ceil(grainOf(policy.quota, policy.windowMs) * 1000)
    return [
      ...[String(policy.quota), String(Math.ceil(policy.windowMs * 1000)), String(grainUs)],
      ...[policy.isShadow === true ? '1' : '0', String(slot?.born ?? '')],
      ...[String(runs.length), ...runs.flatMap(({ at, count }) => [us(now - at), String(count)])],
    ]
  }

  const learn = ({ ask, key }: Known, isTaken: boolean, told: readonly number[]): Verdict => {
    const { policy } = ask
    const [free = 0, total = 0, resetUs = 0, born = 0, newestAgeUs = 0] = told
    const ok = free === 1
    const now = clock.tick()
    const slot =
      ok && isTaken
        ? windows.add(key, now, grainOf(policy.quota, policy.windowMs))
        : windows.learn(key)
    slot.born = born === 0 ? undefined : born
    slot.foreign = Math.max(0, total - slot.runs.total)
    slot.foreignAt = now - newestAgeUs / 1000
    const resetMs = resetUs / 1000
    if (!ok && policy.isShadow !== true) windows.block(key, now + resetMs)
    const left = Math.max(0, policy.quota - total)
    return { policy, ok, left, resetMs }
  }

  /** It has forgotten what it was told: the first who hears of it tells it all, on behalf of all. */
  const tellAgain = ({ key, born }: Known, bornNow: number): void => {
    const slot = windows.get(key)
    if (!slot || born === undefined || slot.born !== born || born === bornNow) return
    slot.born = bornNow === 0 ? undefined : bornNow
    slot.unsentFrom = -Infinity
    // What others took they tell themselves, unless nobody has told anything yet.
    slot.isForeignUnsent = bornNow === 0
  }

  /** Whatever Redis says: through this node went the quota already. */
  const isFullHere = ({ ask: { policy }, key }: Known, now: number): boolean => {
    const slot = windows.current(key, now - policy.windowMs)
    return policy.isShadow !== true && slot !== undefined && slot.runs.total >= policy.quota
  }

  const putBack = (all: readonly Known[]): void => {
    for (const { slot, unsentFrom, isForeignSent } of all) {
      if (unsentFrom < Infinity) slot.unsentFrom = Math.min(unsentFrom, slot.unsentFrom ?? Infinity)
      slot.isForeignUnsent ||= isForeignSent
    }
  }

  const know = (ask: Ask): Known => {
    const key = slotKey(ask)
    const slot = windows.learn(key)
    slot.pending++
    return { ask, key, slot, born: undefined, unsentFrom: Infinity, isForeignSent: false }
  }

  const answer = async (all: readonly Known[]): Promise<LimitsDecision | undefined> => {
    const keys = all.map(({ key }) => `${namespace}:${key}`)
    for (let attempt = 0; attempt < attemptsMax; attempt++) {
      const values = [nowUs ? String(nowUs()) : '', ...all.flatMap(valuesOf)]
      let told: readonly number[]
      try {
        told = numbersOf(await shared.script(takeScript, keys, values))
      } catch {
        return undefined
      }
      if (told.length !== 2 + keys.length * toldPerKey) return undefined
      const toldOf = (index: number) =>
        told.slice(2 + index * toldPerKey, 2 + (index + 1) * toldPerKey)
      if (told[1] !== -1) {
        const isTaken = told[1] === 1
        const verdicts = all.map((known, index) => learn(known, isTaken, toldOf(index)))
        return { ok: isTaken, verdicts }
      }
      for (const [index, known] of all.entries()) tellAgain(known, toldOf(index)[3] ?? 0)
    }
    return undefined
  }

  return async (asks) => {
    const now = clock.tick()
    const all = asks.map(know)
    const isFull = all.some((known) => isFullHere(known, now))
    const decision = isFull ? undefined : await answer(all)
    for (const { slot } of all) slot.pending--
    if (isFull) return { decision: alone.take(asks, now), isAlone: false }
    if (decision) return { decision, isAlone: false }
    putBack(all)
    return { decision: alone.take(asks), isAlone: true }
  }
}

function us(ms: number): string {
  return String(Math.max(0, Math.floor(ms * 1000)))
}

function numbersOf(told: unknown): readonly number[] {
  return Array.isArray(told) ? told.map(Number) : []
}
