/**
 * Asking the app's rules. An absent rule denies; a rule that throws denies too, loudly: user code
 * must neither open a door by accident nor take the process down.
 */
import type { User } from '../auth/declare.ts'
import { Fault } from '../fault.ts'
import { toDriver, type RowData } from './columns.ts'
import type { CollectionPlan } from './collections.ts'
import type { CollectionOptions } from './declare.ts'
import { isWhere, type Where } from './where.ts'
import type { SQLiteTable } from 'drizzle-orm/sqlite-core'

type Options = CollectionOptions<SQLiteTable>

const all: Where = { kind: 'always' }

/** What this user sees of the collection. Faults: `unauthenticated`, `denied`. */
export function readScope(plan: CollectionPlan, user: User | null): Where {
  const { read } = plan.rules
  if (read === 'public') return all
  const answer =
    typeof read === 'function' ? ask(plan, 'read', () => read({ user })) : isSignedIn(read, user)
  if (isWhere(answer)) return answer
  if (answer === true) return all
  throw refusal(plan, 'read', user)
}

/** Values the rule forces, none if it just allows. Faults: `unauthenticated`, `denied`. */
export function createForced(plan: CollectionPlan, user: User | null, input: RowData): RowData {
  const { create } = plan.rules
  return forced(plan, 'create', user, () =>
    typeof create === 'function' ? create({ user, input }) : isSignedIn(create, user),
  )
}

export function updateForced(
  plan: CollectionPlan,
  user: User | null,
  row: RowData,
  input: RowData,
): RowData {
  const { update } = plan.rules
  return forced(plan, 'update', user, () =>
    typeof update === 'function' ? update({ user, row, input }) : isSignedIn(update, user),
  )
}

export function mayRemove(plan: CollectionPlan, user: User | null, row: RowData): void {
  const { remove } = plan.rules
  forced(plan, 'remove', user, () =>
    typeof remove === 'function' ? remove({ user, row }) : isSignedIn(remove, user),
  )
}

/** Refuses a write nobody like this user could do to any row, before the row is even looked up. */
export function requireRule(
  plan: CollectionPlan,
  rule: keyof Options & Action,
  user: User | null,
): void {
  const declared = plan.rules[rule]
  if (declared === undefined || (declared === 'signed-in' && !user)) throw refusal(plan, rule, user)
}

type Action = 'read' | 'create' | 'update' | 'remove'

function isSignedIn(rule: Options[Action], user: User | null): boolean {
  return rule === 'public' || (rule === 'signed-in' && user !== null)
}

function forced(
  plan: CollectionPlan,
  rule: Action,
  user: User | null,
  answer: () => unknown,
): RowData {
  const decision = ask(plan, rule, answer)
  if (decision === true) return {}
  if (typeof decision !== 'object' || decision === null) throw refusal(plan, rule, user)
  for (const column of Object.keys(decision)) {
    if (plan.columns.has(column)) continue
    throw ruleFault(plan, rule, `forces ${column}, which is no column`)
  }
  return decision as RowData
}

function ask(plan: CollectionPlan, rule: Action, answer: () => unknown): unknown {
  let decision: unknown
  try {
    decision = answer()
  } catch (cause) {
    throw ruleFault(plan, rule, 'threw', cause)
  }
  // A promise is truthy: an async rule would let everybody in.
  if (decision instanceof Promise) {
    decision.catch(() => {})
    throw ruleFault(plan, rule, 'is async; rules answer at once')
  }
  return decision
}

function ruleFault(plan: CollectionPlan, rule: Action, what: string, cause?: unknown): Fault {
  const text = `the ${rule} rule of ${plan.path} ${what}`
  return new Fault('internal', 'internal error', { cause: new Fault('internal', text, { cause }) })
}

function refusal(plan: CollectionPlan, rule: Action, user: User | null): Fault {
  return user
    ? new Fault('denied', `you may not ${rule} in ${plan.path}`)
    : new Fault('unauthenticated', `sign in to ${rule} in ${plan.path}`)
}

/** A `Where` as text, for cache keys: readers who see the same rows share the same bytes. */
export function scopeKey(where: Where): string {
  if (where.kind === 'always') return ''
  return JSON.stringify(where, (name, value: unknown) => {
    if (name !== '' && isColumn(value)) return value.name
    if (
      typeof value === 'object' &&
      value !== null &&
      'column' in value &&
      isColumn(value.column)
    ) {
      const { column } = value
      if ('value' in value)
        return { ...value, column: column.name, value: toDriver(column, value.value) }
      if ('values' in value && Array.isArray(value.values)) {
        return {
          ...value,
          column: column.name,
          values: value.values.map((one) => toDriver(column, one)),
        }
      }
    }
    return value
  })
}

type Column = Parameters<typeof toDriver>[0]

function isColumn(value: unknown): value is Column {
  return typeof value === 'object' && value !== null && 'getSQLType' in value
}
