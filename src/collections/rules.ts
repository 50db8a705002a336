/**
 * Asking the app's rules. An absent rule denies; a rule that throws denies too, loudly: user code
 * must neither open a door by accident nor take the process down.
 */
import type { User } from '../auth/declare.ts'
import { Fault } from '../fault.ts'
import { parseOwnValue, toDriver, type RowData } from './columns.ts'
import type { CollectionPlan } from './collections.ts'
import type { CollectionOptions } from './declare.ts'
import { isWhere, type Where } from './where.ts'
import type { SQLiteTable } from 'drizzle-orm/sqlite-core'

type Options = CollectionOptions<SQLiteTable>

const all: Where = { kind: 'always' }
const never: Where = { kind: 'never' }

/** What this user sees of the collection. Faults: `unauthenticated`, `denied`. */
export function readScope(plan: CollectionPlan, user: User | null): Where {
  const scope = visibleTo(plan, user)
  if (!scope) throw refusal(plan, 'read', user)
  return scope
}

/** The same, for rows that are shown beside others: whoever may read none sees none. */
export function readScopeOrNever(plan: CollectionPlan, user: User | null): Where {
  return visibleTo(plan, user) ?? never
}

function visibleTo(plan: CollectionPlan, user: User | null): Where | undefined {
  const { read } = plan.rules
  if (read === 'public') return all
  const answer =
    typeof read === 'function' ? ask(plan, 'read', () => read({ user })) : isSignedIn(read, user)
  if (isWhere(answer)) return answer
  if (answer === true) return all
  // `{ owner: user.id }` is an easy slip in a file that nobody type-checks: it lets nobody in, and is said.
  if (answer) throw ruleFault(plan, 'read', 'answers what is no boolean and no condition (`eq` …)')
  return undefined
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
  const values: Record<string, unknown> = {}
  for (const [property, value] of Object.entries(decision)) {
    if (value === undefined) continue
    const column = plan.columns.get(property)
    if (!column) throw ruleFault(plan, rule, `forces ${property}, which is no column`)
    const parsed = parseOwnValue(column, value)
    if (!parsed.ok) throw ruleFault(plan, rule, `forces ${property}, which ${parsed.message}`)
    values[property] = parsed.value
  }
  return values
}

/** What a rule answers. Faults: `internal` if it throws, or makes a promise. */
export function ask(plan: CollectionPlan, rule: string, answer: () => unknown): unknown {
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

function ruleFault(plan: CollectionPlan, rule: string, what: string, cause?: unknown): Fault {
  const text = `the ${rule} rule of ${plan.path} ${what}`
  return new Fault('internal', 'internal error', { cause: new Fault('internal', text, { cause }) })
}

function refusal(plan: CollectionPlan, rule: Action, user: User | null): Fault {
  return user
    ? new Fault('denied', `you may not ${rule} in ${plan.path}`)
    : new Fault('unauthenticated', `sign in to ${rule} in ${plan.path}`)
}

/** A `Where` as text, for cache keys: readers who see the same rows share the same bytes, and only they. */
export function scopeKey(where: Where): string {
  return where.kind === 'always' ? '' : JSON.stringify(plain(where))
}

function plain(where: Where): unknown {
  switch (where.kind) {
    case 'always':
    case 'never':
      return where.kind
    case 'and':
    case 'or':
      return [where.kind, ...where.parts.map(plain)]
    case 'not':
      return [where.kind, plain(where.part)]
    case 'isNull':
      return [where.kind, where.column.name]
    case 'oneOf':
      return [
        where.kind,
        where.column.name,
        ...where.values.map((one) => keyValue(where.column, one)),
      ]
    default:
      return [where.kind, where.column.name, keyValue(where.column, where.value)]
  }
}

/** JSON makes one `null` of Infinity, −Infinity and NaN, and has no bigint: these must stay apart. */
function keyValue(column: Parameters<typeof toDriver>[0], value: unknown): unknown {
  const driver = toDriver(column, value)
  const isPlain =
    typeof driver === 'string' || (typeof driver === 'number' && Number.isFinite(driver))
  return isPlain ? driver : [typeof driver, String(driver)]
}
