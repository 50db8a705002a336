/**
 * Columns that not everybody may see. What a reader may see of a row is decided here, for every way out: answers,
 * rows beside them, live events. A hidden column is left out of the row, name and value.
 *
 * Invariants: in doubt it is hidden; whoever is shown the same has the same key (`hiddenKey`), which is part of the
 * cache's; a column that may be hidden is no filter, order, look-up, expand or key (src/plan/hide.ts), so that
 * nobody finds out by asking what he may not read.
 */
import type { User } from '../auth/declare.ts'
import type { CollectionPlan } from './collections.ts'
import type { RowData } from './columns.ts'
import type { HideRule } from './declare.ts'
import { ask, scopeKey } from './rules.ts'
import { isWhere, matches, type Where } from './where.ts'

/** Columns by property, each with the rows in which it is seen all the same. */
export type Hidden = readonly (readonly [property: string, unless: Where])[]

/** Of a collection, checked. */
export interface HidePlan {
  readonly always: Hidden
  /** Those of which the user has a say. */
  readonly rules: readonly (readonly [property: string, rule: Exclude<HideRule, true>['unless']])[]
}

const nothing: Hidden = []
const never: Where = { kind: 'never' }

export const hidesNothing: HidePlan = { always: nothing, rules: [] }

export function compileHide(hide: Readonly<Record<string, HideRule>>): HidePlan {
  const always: (readonly [string, Where])[] = []
  const rules: (readonly [string, Exclude<HideRule, true>['unless']])[] = []
  for (const [property, rule] of Object.entries(hide)) {
    if (rule === true) always.push([property, never])
    else rules.push([property, rule.unless])
  }
  return { always, rules }
}

/** What this user does not see. Faults: `internal` for a rule that throws. */
export function hiddenFrom(plan: CollectionPlan, user: User | null): Hidden {
  const { always, rules } = plan.hide
  if (rules.length === 0) return always
  const hidden = [...always]
  for (const [property, unless] of rules) {
    const answer =
      unless === 'signed-in' ? user !== null : ask(plan, `hide.${property}`, () => unless({ user }))
    if (answer === true) continue
    const where = isWhere(answer) ? answer : never
    if (where.kind !== 'always') hidden.push([property, where])
  }
  return hidden
}

/** Of what differs from user to user; what is always hidden is the collection's own (`schemaOf`). */
export function hiddenKey(plan: CollectionPlan, hidden: Hidden): string {
  if (plan.hide.rules.length === 0) return ''
  let key = '-'
  for (const [property, where] of hidden) key += `${JSON.stringify(property)}${scopeKey(where)}`
  return key
}

/** The row as the reader may have it. */
export function shown(hidden: Hidden, row: RowData): RowData {
  if (hidden.length === 0) return row
  const seen: Record<string, unknown> = { ...row }
  for (const [property, unless] of hidden) {
    if (unless.kind === 'never' || !matches(unless, row)) delete seen[property]
  }
  return seen
}
