/**
 * What a miss loads: one page of a list, or one row, as encoded JSON, with the rows it refers to where
 * that was asked for. All that one page refers to is asked at once: one query per referenced table.
 */
import { and, sql, type SQL } from 'drizzle-orm'
import type { SQLiteColumn } from 'drizzle-orm/sqlite-core'
import type { Loaded } from '../cache/cache.ts'
import type { RawRow, Store } from '../store/store.ts'
import type { CollectionPlan, ExpandPlan } from './collections.ts'
import { decodeRow, type RowData } from './columns.ts'
import { orderOf, type Cursors, type CursorValue } from './cursor.ts'
import { createTags, positionsOf, rangeOf, type ListOf, type Tags } from './depends.ts'
import { shown, type Hidden } from './hide.ts'
import { createBatches } from './loader.ts'
import { listSql, named, rowIs, type ListQuery } from './query.ts'
import { selectQuery } from './statement.ts'
import { toSql, type Where } from './where.ts'

/** An expand, and what the reader sees of its target. */
export interface ScopedExpand {
  readonly expand: ExpandPlan
  readonly scope: Where
  readonly hidden: Hidden
}

export interface ListRequest extends ListOf {
  readonly hidden: Hidden
  readonly expands: readonly ScopedExpand[]
}

export interface RowRequest {
  readonly plan: CollectionPlan
  /** How the row is found. */
  readonly columns: readonly SQLiteColumn[]
  readonly values: readonly unknown[]
  readonly scope: Where
  readonly hidden: Hidden
  readonly expands: readonly ScopedExpand[]
}

/** Reads as the cache asks for them; `minSeq` is the log entry that every read must see. */
export interface Pages {
  list(request: ListRequest, minSeq: number): Promise<Loaded>
  /** Without a body if there is none that the reader may see. */
  row(request: RowRequest, minSeq: number): Promise<Loaded>
}

const encoder = new TextEncoder()
const encode = (value: unknown): Uint8Array => encoder.encode(JSON.stringify(value))

/** The store as one load sees it: nothing older than what the load must have seen. */
type Reading = Pick<Store, 'read' | 'db'>

export function createPages(store: Reading, cursors: Cursors): Pages {
  const since = (minSeq: number): Reading => ({
    db: store.db,
    read: (query) => store.read(query, { minSeq }),
  })
  return {
    async list(request, minSeq) {
      const { plan, query, scope, expands, within } = request
      const reading = since(minSeq)
      const isWithin = within && sql`${within.column} = ${within.value}`
      const { where, pageWhere, orderBy } = listSql(plan, query, toSql(scope), isWithin)
      // One row more than asked for tells whether there is a page beyond.
      const select = selectQuery(`list ${plan.path}`, {
        table: plan.table,
        where: pageWhere,
        orderBy,
        limit: query.limit + 1,
      })
      const [read, counted] = await Promise.all([
        reading.read(select),
        query.isCounted ? count(reading, plan, where) : undefined,
      ])
      const tags = createTags([plan, ...expands.map(({ expand }) => expand.target)])
      for (const raw of read) tags.addRow(plan, raw)
      const rows = [...read]
      const isMore = rows.length > query.limit
      if (isMore) rows.pop()
      if (query.cursor?.direction === 'before') rows.reverse()
      const body = encode({
        items: await itemsOf(reading, request, rows, tags),
        ...endsOf(cursors, plan, query, rows, isMore),
        ...(counted === undefined ? {} : { count: counted }),
      })
      // Any row may count, or have counted.
      const range = query.isCounted ? undefined : rangeOf(plan, query, rows, isMore)
      return range === undefined ? { body } : { body, tags: tags.all, range }
    },
    async row(request, minSeq) {
      const { plan, columns, values, scope, expands } = request
      const reading = since(minSeq)
      const where = and(rowIs(columns, values), toSql(scope))
      const rows = await reading.read(
        selectQuery(`read ${plan.path}`, { table: plan.table, where, limit: 1 }),
      )
      const tags = createTags([plan, ...expands.map(({ expand }) => expand.target)])
      const isByKey = columns === plan.key
      for (const raw of rows) tags.addRow(plan, raw)
      const [item] = await itemsOf(reading, request, rows, tags)
      if (item) return { body: encode(item), tags: tags.all }
      // By its key it is known by name before it is there; else it is whichever row gets this value.
      return isByKey ? { body: undefined } : { body: undefined, tags: tags.all, range: '' }
    },
  }
}

async function count(
  reading: Reading,
  plan: CollectionPlan,
  where: SQL | undefined,
): Promise<number> {
  const select = reading.db
    .select({ count: sql`count(*)` })
    .from(plan.table)
    .where(where)
  const [row] = await reading.read(named(`count ${plan.path}`, select))
  return Number(row?.[0])
}

/** Cursors of the pages on both sides, or null where none can be. */
function endsOf(
  cursors: Cursors,
  plan: CollectionPlan,
  { order, cursor }: ListQuery,
  rows: readonly RawRow[],
  isMore: boolean,
): { readonly next: string | null; readonly prev: string | null } {
  const first = rows[0]
  const last = rows.at(-1)
  if (!first || !last) {
    // All that was beyond is gone: back is everything on this side, the cursor's own place included.
    const back =
      cursor &&
      cursors.encode(plan, order, { values: cursor.values, isInclusive: !cursor.isInclusive })
    const isForwards = cursor?.direction === 'after'
    return { next: isForwards ? null : (back ?? null), prev: isForwards ? (back ?? null) : null }
  }
  const positions = positionsOf(plan)
  const place = (raw: RawRow): string => {
    const values = orderOf(plan, order).map(
      ({ column }) => raw[positions.get(column) ?? -1] as CursorValue,
    )
    return cursors.encode(plan, order, { values, isInclusive: false })
  }
  const isBackwards = cursor?.direction === 'before'
  const hasNext = isBackwards || isMore
  const hasPrev = isBackwards ? isMore : cursor !== undefined
  return { next: hasNext ? place(last) : null, prev: hasPrev ? place(first) : null }
}

/** Rows as they are sent, each with what it refers to. */
async function itemsOf(
  reading: Reading,
  { plan, hidden, expands }: Pick<RowRequest, 'plan' | 'hidden' | 'expands'>,
  rows: readonly RawRow[],
  tags: Tags,
): Promise<RowData[]> {
  const items = rows.map((raw) => shown(hidden, decodeRow(plan.columns, raw)))
  if (expands.length === 0) return items
  const batches = createBatches(reading)
  const properties = [...plan.columns.keys()]
  const expanded = expands.map(async ({ expand, scope, hidden: hiddenThere }) => {
    const at = properties.indexOf(expand.property)
    const isNone = scope.kind === 'never'
    const found = await Promise.all(
      rows.map((raw) => batches(expand.column, isNone ? null : raw[at], scope)),
    )
    // Of whom the reader sees nothing, nothing changes what is seen.
    if (!isNone) {
      const { target, column } = expand
      for (const [row, [raw]] of found.entries()) {
        tags.addReferred(target, column, rows[row]?.[at], raw)
      }
    }
    return found.map(([raw]) =>
      raw ? shown(hiddenThere, decodeRow(expand.target.columns, raw)) : null,
    )
  })
  const byName = await Promise.all(expanded)
  return items.map((item, index) => ({
    ...item,
    ...Object.fromEntries(expands.map(({ expand }, at) => [expand.name, byName[at]?.[index]])),
  }))
}
