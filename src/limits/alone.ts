/** Decides from what this process knows: what it let through itself, and what a shared counter told it of others. */
import type { Clock } from '../lib/clock.ts'
import { slotKey, type Ask, type LimitPolicy, type LimitsDecision, type Verdict } from './policy.ts'
import { grainOf } from './runs.ts'
import type { Slot, Windows } from './windows.ts'

export interface Alone {
  /** `now`: the clock's tick, if it was read already. */
  take(asks: readonly Ask[], now?: number): LimitsDecision
  /** What `take` would say, and nothing is taken. */
  look(asks: readonly Ask[]): LimitsDecision
  /** Of those whose reset is still to come, without a look at their windows. */
  blocked(asks: readonly Ask[]): LimitsDecision | undefined
}

/** Until an answer has come, or its time is over. */
const soonMs = 1000

export function createAlone(deps: { readonly clock: Clock }, windows: Windows): Alone {
  const { clock } = deps
  return {
    take(asks, now = clock.tick()) {
      const seen = asks.map((ask) => {
        const key = slotKey(ask)
        return { policy: ask.policy, key, slot: windows.current(key, now - ask.policy.windowMs) }
      })
      const ok = seen.every(({ policy, slot }) => policy.isShadow === true || hasRoom(policy, slot))
      const verdicts = seen.map(({ policy, key, slot }): Verdict => {
        if (!hasRoom(policy, slot)) {
          const untilMs = slot && freeAt(policy, slot)
          if (untilMs === undefined) return { policy, ok: false, left: 0, resetMs: soonMs }
          const resetMs = untilMs - now
          if (policy.isShadow !== true) windows.block(key, untilMs)
          return { policy, ok: false, left: 0, resetMs }
        }
        if (!ok) return { policy, ok: true, left: policy.quota - takenOf(slot), resetMs: 0 }
        const after = windows.add(key, now, grainOf(policy.quota, policy.windowMs))
        after.unsentFrom ??= now
        const left = policy.quota - takenOf(after)
        return { policy, ok: true, left, resetMs: nextLeaves(policy, after) - now }
      })
      return { ok, verdicts }
    },
    look(asks) {
      const now = clock.tick()
      const verdicts = asks.map((ask): Verdict => {
        const { policy } = ask
        const slot = windows.current(slotKey(ask), now - policy.windowMs)
        const left = Math.max(0, policy.quota - takenOf(slot))
        if (policy.isShadow === true || hasRoom(policy, slot)) {
          return { policy, ok: true, left, resetMs: 0 }
        }
        const untilMs = slot && freeAt(policy, slot)
        return { policy, ok: false, left, resetMs: untilMs === undefined ? soonMs : untilMs - now }
      })
      return { ok: verdicts.every(({ ok }) => ok), verdicts }
    },
    blocked(asks) {
      const now = clock.tick()
      let verdicts: Verdict[] | undefined
      for (const ask of asks) {
        const { policy } = ask
        if (policy.isShadow === true) continue
        const until = windows.blockedUntil(slotKey(ask), now)
        if (until === undefined) continue
        verdicts ??= []
        verdicts.push({ policy, ok: false, left: 0, resetMs: until - now })
      }
      return verdicts && { ok: false, verdicts }
    },
  }
}

function takenOf(slot: Slot | undefined): number {
  return slot ? slot.runs.total + slot.foreign + slot.pending : 0
}

function hasRoom({ quota }: LimitPolicy, slot: Slot | undefined): boolean {
  return takenOf(slot) < quota
}

function nextLeaves({ windowMs }: LimitPolicy, { runs, foreign, foreignAt }: Slot): number {
  const own = runs.takenBy(1)
  return (foreign > 0 ? Math.min(own, foreignAt) : own) + windowMs
}

/**
 * When there is room for one: own ones leave one by one, those of others all at once. Undefined: as soon as it is
 * known what became of those under way.
 */
function freeAt({ quota, windowMs }: LimitPolicy, slot: Slot): number | undefined {
  const { runs, foreign, foreignAt } = slot
  const tooMany = runs.total + foreign - quota + 1
  if (tooMany <= 0) return undefined
  const byOwn = runs.total >= tooMany ? runs.takenBy(tooMany) : Infinity
  const byAll =
    foreign >= tooMany ? foreignAt : Math.max(foreignAt, runs.takenBy(tooMany - foreign))
  return (foreign > 0 ? Math.min(byOwn, byAll) : byOwn) + windowMs
}
