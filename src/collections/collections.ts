/**
 * Collections: declared tables as cached reads, checked writes and live events.
 *
 *   list, read ─► rule narrows ─► canonical key ─► cache ─► (miss) reader thread ─► decode ─► JSON bytes
 *   create …   ─► rule ─► columns checked ─► writer: row + log entry ─┐
 *                                                                    ▼
 *                    changed(change): after the cache was told, before the write is answered ─► live topic
 *
 * Invariants: nothing is read or written without a rule that says so; a write is decided on the very
 * row it changes; a list and a row depend on exactly the tags its writes carry.
 *
 * Knows no HTTP: a request is (user, query text, checked JSON), an answer is bytes or a `Fault`.
 */
import { and } from 'drizzle-orm'
import type { SQLiteColumn, SQLiteTable } from 'drizzle-orm/sqlite-core'
import type { User } from '../auth/declare.ts'
import type { Cache, CacheRead } from '../cache/cache.ts'
import { Fault } from '../fault.ts'
import type { Log } from '../observe/log.ts'
import { anyRowTag, keyOf, rowTag, tableTag, type Change, type Store } from '../store/store.ts'
import { decodeRow, idOf, parseId, type Columns, type RowData } from './columns.ts'
import type { CollectionOptions, Order } from './declare.ts'
import { encodeCursor, keyIs, listSql, parseListQuery, type ListQuery } from './query.ts'
import { readScope, scopeKey } from './rules.ts'
import { matches, toSql, type Where } from './where.ts'
import { createWrites, type Writes } from './write.ts'

export { columnsOf, isServable } from './columns.ts'
export type { ChangeOptions } from './write.ts'
export { propertyOf } from './where.ts'

/** A declared collection, checked. Made by the plan. */
export interface CollectionPlan {
  /** Under `/api/`. */
  readonly path: string
  readonly table: SQLiteTable
  readonly tableName: string
  readonly columns: Columns
  readonly key: readonly SQLiteColumn[]
  /** Property names of `key`. */
  readonly keyProperties: readonly string[]
  readonly ttlMs: number
  readonly staleMs: number
  readonly rules: Pick<CollectionOptions<SQLiteTable>, 'read' | 'create' | 'update' | 'remove'>
  readonly filters: readonly string[]
  /** Each ends in the primary key: a cursor needs a unique order. */
  readonly orders: ReadonlyMap<string, readonly Order[]>
  readonly orderDefault: string
  readonly live: CollectionOptions<SQLiteTable>['live']
}

/** What rooms beside this one must offer; the root fits them. */
export interface CollectionsDeps {
  readonly store: Pick<Store, 'read' | 'write' | 'writeOnce' | 'db'>
  readonly cache: Pick<Cache, 'read'>
  readonly topics: {
    publish(topic: string, data: unknown): void
    /** Who may hear a topic: everybody, whoever is signed in, or whoever its own rule admits. */
    audienceOf(topic: string): 'public' | 'signed-in' | 'rule' | 'nobody'
  }
  readonly log: Log
}

export interface LiveEvent {
  readonly collection: string
  readonly op: Change['op']
  readonly id: string
  readonly row: RowData
  readonly seq: number
}

export interface Collections extends Writes {
  /** `search` is the query string. Faults: `invalid`, `unauthenticated`, `denied`, `unavailable`. */
  list(plan: CollectionPlan, user: User | null, search: string): CacheRead | Promise<CacheRead>
  /** Faults: also `not_found`, which a row the reader may not see is, too. */
  read(plan: CollectionPlan, user: User | null, id: string): CacheRead | Promise<CacheRead>
  /** Publishes a change where it is live. Called for every change of the log, after the cache was told. */
  changed(change: Change): void
  readonly plans: readonly CollectionPlan[]
}

const encoder = new TextEncoder()

/** Distinct query strings remembered with their parsed form, per collection: a hit then parses nothing. */
const parsedQueriesMax = 1_000
const parsedQueryLengthMax = 512

export function createCollections(
  deps: CollectionsDeps,
  plans: readonly CollectionPlan[],
): Collections {
  const { store, cache, topics, log } = deps
  const byTable = Map.groupBy(
    plans.filter((plan) => plan.live),
    (plan) => plan.tableName,
  )
  const parsed = new Map(plans.map((plan) => [plan, new Map<string, ListQuery>()]))

  const queryOf = (plan: CollectionPlan, search: string): ListQuery => {
    const known = parsed.get(plan)
    let query = known?.get(search)
    if (!query) {
      query = parseListQuery(plan, search)
      if (known && search.length <= parsedQueryLengthMax) {
        if (known.size >= parsedQueriesMax) known.clear()
        known.set(search, query)
      }
    }
    return query
  }

  const loadList = async (
    plan: CollectionPlan,
    query: ListQuery,
    scope: Where,
    minSeq: number,
  ): Promise<Uint8Array> => {
    const { where, orderBy } = listSql(plan, query, toSql(scope))
    // One row more than asked for tells whether there is a page beyond.
    const select = store.db
      .select()
      .from(plan.table)
      .where(where)
      .orderBy(...orderBy)
    const sql = select.limit(query.limit + 1).toSQL()
    const rows = [...(await store.read({ ...sql, name: `list ${plan.path}` }, { minSeq }))]
    const isMore = rows.length > query.limit
    if (isMore) rows.pop()
    const isBackwards = query.cursor?.direction === 'before'
    if (isBackwards) rows.reverse()

    const positions = new Map([...plan.columns.values()].map((column, at) => [column.name, at]))
    const cursorAt = (raw: readonly unknown[] | undefined): string | null =>
      raw
        ? encodeCursor(plan, query.order, (column) => raw[positions.get(column.name) ?? -1])
        : null
    const hasNext = isBackwards || isMore
    const hasPrev = isBackwards ? isMore : query.cursor !== undefined
    const page = {
      items: rows.map((raw) => decodeRow(plan.columns, raw)),
      next: hasNext ? cursorAt(rows.at(-1)) : null,
      prev: hasPrev ? cursorAt(rows[0]) : null,
    }
    return encoder.encode(JSON.stringify(page))
  }

  const loadRow = async (
    plan: CollectionPlan,
    key: readonly unknown[],
    scope: Where,
    minSeq: number,
  ): Promise<Uint8Array> => {
    const isRow = and(keyIs(plan, key), toSql(scope))
    const select = store.db.select().from(plan.table).where(isRow)
    const sql = select.limit(1).toSQL()
    const [raw] = await store.read({ ...sql, name: `read ${plan.path}` }, { minSeq })
    if (!raw) throw notFound(plan)
    return encoder.encode(JSON.stringify(decodeRow(plan.columns, raw)))
  }

  const publish = (plan: CollectionPlan, change: Change, row: RowData): void => {
    const topic = plan.live?.(row as never)
    if (topic === null || topic === undefined) return
    if (!isForAudience(plan, topics.audienceOf(topic), row)) return
    const event: LiveEvent = {
      collection: plan.path,
      op: change.op,
      id: idOf(plan.key, plan.keyProperties, row),
      row,
      seq: change.seq,
    }
    topics.publish(topic, event)
  }

  return {
    plans,
    list(plan, user, search) {
      const scope = readScope(plan, user)
      const query = queryOf(plan, search)
      const key = `${plan.path}?${query.key}${scopeKey(scope)}`
      return cache.read(key, [tableTag(plan.tableName)], plan, (minSeq) =>
        loadList(plan, query, scope, minSeq),
      )
    },
    read(plan, user, id) {
      const scope = readScope(plan, user)
      const key = parseId(plan.key, id)
      if (!key) throw notFound(plan)
      const rowKey = keyOf(key)
      const cacheKey = `${plan.path}/${rowKey} ${scopeKey(scope)}`
      const tags = [rowTag(plan.tableName, rowKey), anyRowTag(plan.tableName)]
      return cache.read(cacheKey, tags, plan, (minSeq) => loadRow(plan, key, scope, minSeq))
    },
    changed(change) {
      for (const plan of byTable.get(change.table) ?? []) {
        try {
          publish(plan, change, decodeRow(plan.columns, change.row))
        } catch (error) {
          log.error('collections.live_failed', { collection: plan.path, seq: change.seq, error })
        }
      }
    },
    ...createWrites({ store, notFound }),
  }
}

function notFound(plan: CollectionPlan): Fault {
  return new Fault('not_found', `no such row in ${plan.path}`)
}

/** A topic open to many must not carry a row which the collection hides from the least of them. */
function isForAudience(
  plan: CollectionPlan,
  audience: ReturnType<CollectionsDeps['topics']['audienceOf']>,
  row: RowData,
): boolean {
  if (audience === 'rule' || plan.rules.read === 'public') return true
  if (audience === 'nobody') return false
  if (audience === 'signed-in' && plan.rules.read === 'signed-in') return true
  try {
    return matches(readScope(plan, null), row)
  } catch {
    return false
  }
}
