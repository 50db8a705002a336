/**
 * Writes: rule, columns, one transaction. A rule that looks at the row decides on the row as it is
 * stored: the statement carries every column's old value, so a row that changed meanwhile is read and
 * judged again instead of being overwritten by a decision made on another version of it.
 */
import { and, sql, type SQL } from 'drizzle-orm'
import type { User } from '../auth/declare.ts'
import { Fault, type FieldProblem } from '../fault.ts'
import { must } from '../lib/assert.ts'
import {
  isAutoIncrement,
  keyOf,
  type Change,
  type Query,
  type RawRow,
  type Store,
} from '../store/store.ts'
import type { CollectionPlan } from './collections.ts'
import {
  decodeRow,
  idOf,
  insertProblems,
  isAddressable,
  parseBody,
  parseId,
  type RowData,
} from './columns.ts'
import { keyIs } from './query.ts'
import { createForced, mayRemove, requireRule, updateForced } from './rules.ts'
import { createUpserts } from './upsert.ts'

/** Rounds of read, judge, write before a row that keeps changing is called a conflict. */
const attemptsMax = 5

export interface Written {
  readonly id: string
  readonly row: RowData
  /** The log entry of this write. */
  readonly seq: number
}

export interface Writes {
  /** Faults: `unauthenticated`, `denied`, `invalid` (each field named), `conflict`, `unavailable`. */
  create(plan: CollectionPlan, user: User | null, body: unknown): Promise<Written>
  update(plan: CollectionPlan, user: User | null, id: string, body: unknown): Promise<Written>
  remove(plan: CollectionPlan, user: User | null, id: string): Promise<Written>
  /**
   * The server's own rows (feeds), no rule asked: inserted or, by primary key, updated where a given
   * column differs. All in one transaction. Returns what changed; an unchanged row writes nothing.
   */
  upsert(batches: readonly UpsertBatch[]): Promise<readonly Change[]>
}

export interface UpsertBatch {
  readonly plan: CollectionPlan
  readonly rows: readonly RowData[]
}

interface WriteDeps {
  readonly store: Pick<Store, 'read' | 'write' | 'db'>
  readonly notFound: (plan: CollectionPlan) => Fault
}

export function createWrites({ store, notFound }: WriteDeps): Writes {
  const upsert = createUpserts(store.db)

  const create = async (
    plan: CollectionPlan,
    user: User | null,
    body: unknown,
  ): Promise<Written> => {
    requireRule(plan, 'create', user)
    const { values, problems } = parseBody(plan.columns, body)
    const forced = createForced(plan, user, values)
    const input = { ...values, ...forced }
    refuseProblems([
      ...insertProblems(plan.columns, without(problems, input), input),
      ...keyProblems(plan, values, forced),
    ])
    const insert = store.db
      .insert(plan.table)
      .values(input as never)
      .toSQL()
    return written(plan, await commit(plan, insert), ({ op }) => op === 'create')
  }

  /** The store speaks of the table's columns; who wrote knows the row's properties. */
  const commit = async (plan: CollectionPlan, op: Query): Promise<readonly Change[]> => {
    try {
      return await store.write([op])
    } catch (thrown) {
      if (!(thrown instanceof Fault) || !thrown.fields) throw thrown
      const names = new Map([...plan.columns].map(([property, { name }]) => [name, property]))
      const fields = thrown.fields.map(({ field, message }) => ({
        field: names.get(field) ?? field,
        message,
      }))
      throw new Fault(thrown.code, thrown.message, { fields, cause: thrown })
    }
  }

  /** `judge` sees the stored row and answers with the statement, or throws its refusal. */
  const changeRow = async (
    plan: CollectionPlan,
    id: string,
    judge: (row: RowData, isUnchanged: SQL) => Statement,
  ): Promise<Written> => {
    const key = parseId(plan.key, id)
    if (!key) throw notFound(plan)
    for (let attempt = 0; attempt < attemptsMax; attempt++) {
      const select = store.db.select().from(plan.table).where(keyIs(plan, key))
      const [raw] = await store.read(select.limit(1).toSQL(), { from: 'primary' })
      if (!raw) throw notFound(plan)
      const statement = judge(decodeRow(plan.columns, raw), stillIs(plan, raw))
      const changes = await commit(plan, statement.toSQL())
      if (changes.length > 0) return written(plan, changes, (one) => one.key === keyOf(key))
    }
    throw new Fault('conflict', 'the row keeps changing, try again')
  }

  const update = async (
    plan: CollectionPlan,
    user: User | null,
    id: string,
    body: unknown,
  ): Promise<Written> => {
    requireRule(plan, 'update', user)
    const { values, problems } = parseBody(plan.columns, body)
    return await changeRow(plan, id, (row, isUnchanged) => {
      const input = { ...values, ...updateForced(plan, user, row, values) }
      const keys = plan.keyProperties
        .filter((property) => property in input)
        .map((field) => ({ field, message: 'is part of the primary key and cannot change' }))
      refuseProblems([...without(problems, input), ...keys])
      if (Object.keys(input).length === 0) {
        throw new Fault('invalid', 'nothing to change was given')
      }
      return store.db
        .update(plan.table)
        .set(input as never)
        .where(isUnchanged)
    })
  }

  const remove = async (plan: CollectionPlan, user: User | null, id: string): Promise<Written> => {
    requireRule(plan, 'remove', user)
    return await changeRow(plan, id, (row, isUnchanged) => {
      mayRemove(plan, user, row)
      return store.db.delete(plan.table).where(isUnchanged)
    })
  }

  return {
    create,
    update,
    remove,
    upsert: async (batches) => {
      const ops = batches.flatMap(({ plan, rows }) => rows.map((row) => upsert(plan, row)))
      return ops.length === 0 ? [] : await store.write(ops)
    },
  }
}

interface Statement {
  toSQL(): { readonly sql: string; readonly params: readonly unknown[] }
}

/** The row as it was read, every column of it; `is` because null equals null here. */
function stillIs(plan: CollectionPlan, raw: RawRow): SQL {
  const same = [...plan.columns.values()].map((column, at) => sql`${column} is ${raw[at]}`)
  return must(and(...same), () => 'a table has columns')
}

/** Problems of fields that a rule has filled in are none. */
function without(problems: readonly FieldProblem[], input: RowData): FieldProblem[] {
  return problems.filter(({ field }) => !Object.hasOwn(input, field))
}

/** Keys that only the database or the app may choose, and keys that no URL can name. */
function keyProblems(plan: CollectionPlan, given: RowData, forced: RowData): FieldProblem[] {
  const problems: FieldProblem[] = []
  for (const [at, column] of plan.key.entries()) {
    const field = plan.keyProperties[at] ?? ''
    const isClients = Object.hasOwn(given, field) && !Object.hasOwn(forced, field)
    // 2^53 - 1 from one client, and every number after it is beyond what JSON can say.
    if (isClients && isAutoIncrement(column)) {
      problems.push({ field, message: 'is given by the database' })
    }
  }
  const [first = ''] = plan.keyProperties
  const input = { ...given, ...forced }
  if (Object.hasOwn(input, first) && !isAddressable(idOf(plan.key, plan.keyProperties, input))) {
    problems.push({ field: first, message: 'must not be empty, . or ..' })
  }
  return problems
}

function refuseProblems(fields: readonly FieldProblem[]): void {
  if (fields.length > 0) throw new Fault('invalid', 'the row is not valid', { fields })
}

/** A cascade's rows, of the same table perhaps, are logged with the one that was asked for. */
function written(
  plan: CollectionPlan,
  changes: readonly Change[],
  isAsked: (change: Change) => boolean,
): Written {
  const change = must(
    changes.find((one) => one.table === plan.tableName && isAsked(one)),
    () => 'a write changed its row',
  )
  const row = decodeRow(plan.columns, change.row)
  return { id: idOf(plan.key, plan.keyProperties, row), row, seq: change.seq }
}
