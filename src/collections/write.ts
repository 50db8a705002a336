/**
 * Writes: rule, columns, one transaction. A rule that looks at the row decides on the row as it is
 * stored: the statement carries every column's old value, so a row that changed meanwhile is read and
 * judged again instead of being overwritten by a decision made on another version of it.
 */
import { and, sql, type SQL } from 'drizzle-orm'
import type { User } from '../auth/declare.ts'
import { Fault, type FieldProblem } from '../fault.ts'
import { must } from '../lib/assert.ts'
import { etagOf } from '../lib/etag.ts'
import { isAutoIncrement, keyOf, type Change, type RawRow, type Store } from '../store/store.ts'
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
import { hiddenFrom, shown, type Hidden } from './hide.ts'
import { keyIs } from './query.ts'
import { createForced, mayRemove, readScopeOrNever, requireRule, updateForced } from './rules.ts'
import { createInserts, selectQuery } from './statement.ts'
import { createUpserts } from './upsert.ts'
import { matches } from './where.ts'

/** Rounds of read, judge, write before a row that keeps changing is called a conflict. */
const attemptsMax = 5

export interface Written {
  readonly id: string
  /** As who wrote may see it. */
  readonly row: RowData
  /** Of that: the ETag of reading it. */
  readonly version: string
  /** The request was answered before; nothing was written now. */
  readonly isRepeated: boolean
  /** The log entry of this write. */
  readonly seq: number
}

export interface Writes {
  /** Faults: `unauthenticated`, `denied`, `invalid` (each field named), `conflict`, `unavailable`. */
  create(
    plan: CollectionPlan,
    user: User | null,
    body: unknown,
    options?: CreateOptions,
  ): Promise<Written>
  /** Faults: also `not_found`, `precondition`. */
  update(
    plan: CollectionPlan,
    user: User | null,
    id: string,
    body: unknown,
    options?: ChangeOptions,
  ): Promise<Written>
  remove(
    plan: CollectionPlan,
    user: User | null,
    id: string,
    options?: ChangeOptions,
  ): Promise<Written>
  /**
   * The server's own rows (feeds), no rule asked: inserted or, by primary key, updated where a given
   * column differs. All in one transaction. Returns what changed; an unchanged row writes nothing.
   */
  upsert(batches: readonly UpsertBatch[]): Promise<readonly Change[]>
}

export interface CreateOptions {
  /** The same key from the same user within 24 h creates nothing and is answered as the first time. */
  readonly onceKey?: string | undefined
}

export interface ChangeOptions {
  /** Whether the row, in this version, is the one the caller means to change. */
  readonly isExpected?: ((version: string) => boolean) | undefined
}

export interface UpsertBatch {
  readonly plan: CollectionPlan
  readonly rows: readonly RowData[]
}

interface WriteDeps {
  readonly store: Pick<Store, 'read' | 'write' | 'writeOnce' | 'db'>
  readonly notFound: (plan: CollectionPlan) => Fault
}

export function createWrites({ store, notFound }: WriteDeps): Writes {
  const upsert = createUpserts(store.db)
  const insertQuery = createInserts(store.db)

  const create = async (
    plan: CollectionPlan,
    user: User | null,
    body: unknown,
    { onceKey }: CreateOptions = {},
  ): Promise<Written> => {
    requireRule(plan, 'create', user)
    const hidden = hiddenFrom(plan, user)
    const { values, problems } = parseBody(plan.columns, body)
    const forced = createForced(plan, user, values)
    const input = { ...values, ...forced }
    refuseProblems([
      ...insertProblems(plan.columns, without(problems, input), input),
      ...keyProblems(plan, values, forced),
    ])
    const insert = insertQuery(plan.table, plan.columns, input)
    if (onceKey === undefined) {
      const changes = await telling(plan, () => store.write([insert]))
      return written(plan, hidden, changes, ({ op }) => op === 'create')
    }
    const once = { scope: `${plan.path} ${user?.id ?? ''}`, key: onceKey, request: body }
    const { row, seq, isRepeated } = await telling(plan, () => store.writeOnce(insert, once))
    const raw = [...plan.columns.values()].map(({ name }) => row[name])
    return { ...writtenRow(plan, hidden, raw, seq), isRepeated }
  }

  /** The store speaks of the table's columns; who wrote knows the row's properties. */
  const telling = async <T>(plan: CollectionPlan, write: () => Promise<T>): Promise<T> => {
    try {
      return await write()
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

  /** Whoever may not even see the row is not told that it is there. */
  const unseenIsNotFound = <T>(
    plan: CollectionPlan,
    user: User | null,
    row: RowData,
    judge: () => T,
  ): T => {
    try {
      return judge()
    } catch (thrown) {
      const isRefusal = thrown instanceof Fault && thrown.code === 'denied'
      if (isRefusal && !matches(readScopeOrNever(plan, user), row)) throw notFound(plan)
      throw thrown
    }
  }

  /** `judge` sees the stored row and answers with the statement, or throws its refusal. */
  const changeRow = async (
    plan: CollectionPlan,
    user: User | null,
    id: string,
    judge: (row: RowData, isUnchanged: SQL) => Statement,
    { isExpected }: ChangeOptions = {},
  ): Promise<Written> => {
    const key = parseId(plan.key, id)
    if (!key) throw notFound(plan)
    const hidden = hiddenFrom(plan, user)
    for (let attempt = 0; attempt < attemptsMax; attempt++) {
      const where = keyIs(plan, key)
      const select = selectQuery(`change ${plan.path}`, { table: plan.table, where, limit: 1 })
      const [raw] = await store.read(select, { from: 'primary' })
      if (!raw) throw notFound(plan)
      const row = decodeRow(plan.columns, raw)
      const statement = unseenIsNotFound(plan, user, row, () => judge(row, stillIs(plan, raw)))
      if (isExpected && !isExpected(versionOf(shown(hidden, row)))) {
        throw new Fault('precondition', 'the row is in another version now: read it again')
      }
      const changes = await telling(plan, () => store.write([statement.toSQL()]))
      if (changes.length > 0) return written(plan, hidden, changes, (one) => one.key === keyOf(key))
    }
    throw new Fault('conflict', 'the row keeps changing, try again')
  }

  const update = async (
    plan: CollectionPlan,
    user: User | null,
    id: string,
    body: unknown,
    options?: ChangeOptions,
  ): Promise<Written> => {
    requireRule(plan, 'update', user)
    const { values, problems } = parseBody(plan.columns, body)
    return await changeRow(
      plan,
      user,
      id,
      (row, isUnchanged) => {
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
      },
      options,
    )
  }

  const remove = async (
    plan: CollectionPlan,
    user: User | null,
    id: string,
    options?: ChangeOptions,
  ): Promise<Written> => {
    requireRule(plan, 'remove', user)
    return await changeRow(
      plan,
      user,
      id,
      (row, isUnchanged) => {
        mayRemove(plan, user, row)
        return store.db.delete(plan.table).where(isUnchanged)
      },
      options,
    )
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
    problems.push({
      field: first,
      message: 'must not be empty, . or .., nor longer than 1,024 characters',
    })
  }
  return problems
}

function refuseProblems(fields: readonly FieldProblem[]): void {
  if (fields.length > 0) throw new Fault('invalid', 'the row is not valid', { fields })
}

/** A cascade's rows, of the same table perhaps, are logged with the one that was asked for. */
function written(
  plan: CollectionPlan,
  hidden: Hidden,
  changes: readonly Change[],
  isAsked: (change: Change) => boolean,
): Written {
  const change = must(
    changes.find((one) => one.table === plan.tableName && isAsked(one)),
    () => 'a write changed its row',
  )
  return writtenRow(plan, hidden, change.row, change.seq)
}

function writtenRow(plan: CollectionPlan, hidden: Hidden, raw: RawRow, seq: number): Written {
  const row = shown(hidden, decodeRow(plan.columns, raw))
  const id = idOf(plan.key, plan.keyProperties, row)
  return { id, row, seq, version: versionOf(row), isRepeated: false }
}

/** The ETag under which the row is read. */
function versionOf(row: RowData): string {
  return etagOf(JSON.stringify(row))
}
