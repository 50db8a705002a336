/**
 * An answer that a write has made old, made new from the write itself: the log brings the whole row. A vote
 * then costs no query, however many pages show the post.
 *
 *   body ─► parse ─► each change of a row in it ─► that item anew, what it refers to as it was ─► its place
 *                                                                                            (or another, inside)
 * Invariant: the text is the one that a load would give. Whatever this file cannot say for certain, a row that
 * comes or goes, an end of the page that moves, another row referred to, it leaves to a load: `undefined`.
 */
import type { SQLiteColumn } from 'drizzle-orm/sqlite-core'
import type { CacheEntry } from '../cache/cache.ts'
import { anyRowTag, keyOf, rowTag, type Change, type RawRow } from '../store/store.ts'
import type { CollectionPlan } from './collections.ts'
import { decodeRow, parseOwnValue, toDriver, type RowData } from './columns.ts'
import { orderOf } from './cursor.ts'
import { entersPage, positionsOf, type ListOf } from './depends.ts'
import { shown, type Hidden } from './hide.ts'
import type { ScopedExpand } from './page.ts'
import { compareAsSqlite, matches, propertyOf, type Where } from './where.ts'

type Item = Record<string, unknown>

interface Of {
  readonly plan: CollectionPlan
  readonly scope: Where
  readonly hidden: Hidden
  readonly expands: readonly ScopedExpand[]
}

/** Beyond, a load is as cheap. */
const changesMax = 256

const encoder = new TextEncoder()
const decoder = new TextDecoder()

/** `changes`: all of its table since it was good, in their order. */
export function repairPage(
  of: ListOf & Of,
  { body, tags, range }: CacheEntry,
  changes: readonly Change[],
): Uint8Array | undefined {
  const { plan, query, within } = of
  if (range === undefined || !isRepairable(of, changes)) return undefined
  const page = JSON.parse(decoder.decode(body)) as { readonly items: Item[] }
  const { items } = page
  const keys = items.map((item) => keyOfItem(plan, item))
  const named = new Set(tags)
  const positions = positionsOf(plan)
  const isInside = (row: RawRow): boolean => {
    const valueOf = (column: SQLiteColumn): unknown => row[positions.get(column) ?? -1]
    return (
      (!within || valueOf(within.column) === within.value) &&
      query.filters.every(([column, value]) => valueOf(column) === value)
    )
  }
  for (const change of changes) {
    if (!named.has(rowTag(plan.tableName, change.key))) {
      // Its own rows are within the range, too: only of others it says that they have come.
      if (entersPage(of, change, range)) return undefined
      continue
    }
    const at = keys.indexOf(change.key)
    const before = items[at]
    // The row beyond the page, most likely: whether there is one is in the page.
    if (!before || !isInside(change.row)) return undefined
    const item = repairItem(of, before, change)
    if (!item) return undefined
    items[at] = item
    if (!isMoved(of, before, change.row)) continue
    const to = placeOf(of, items, at)
    if (to === undefined) return undefined
    items.splice(to, 0, ...items.splice(at, 1))
    keys.splice(to, 0, ...keys.splice(at, 1))
  }
  return encoder.encode(JSON.stringify(page))
}

/** The row is the one with this key, and stays it. */
export function repairRow(
  of: Of & { readonly columns: readonly SQLiteColumn[]; readonly values: readonly unknown[] },
  body: Uint8Array,
  changes: readonly Change[],
): Uint8Array | undefined {
  const { plan, columns, values } = of
  if (!isRepairable(of, changes)) return undefined
  let item: Item | undefined = JSON.parse(decoder.decode(body)) as Item
  const key = keyOfItem(plan, item)
  const positions = positionsOf(plan)
  for (const change of changes) {
    if (change.key !== key) continue
    const isIt = columns.every(
      (column, at) => change.row[positions.get(column) ?? -1] === values[at],
    )
    item = isIt ? repairItem(of, item, change) : undefined
    if (!item) return undefined
  }
  return encoder.encode(JSON.stringify(item))
}

/** What is referred to must not be of the same table: one could not tell whose change it is. */
function isRepairable({ plan, expands }: Of, changes: readonly Change[]): boolean {
  return (
    changes.length <= changesMax &&
    !plan.tableName.includes(':') &&
    expands.every(({ expand }) => expand.target.tableName !== plan.tableName)
  )
}

/** Tags of an answer that say nothing of its own table's rows. */
export function othersOf({ tableName }: CollectionPlan, tags: readonly string[]): string[] {
  const own = anyRowTag(tableName).slice(0, -1)
  return tags.filter((tag) => !tag.startsWith(own))
}

function repairItem(
  { plan, scope, hidden, expands }: Of,
  before: Item,
  change: Change,
): Item | undefined {
  const { op, row } = change
  if (op === 'remove' || !isExact(plan, row)) return undefined
  const decoded: RowData = decodeRow(plan.columns, row)
  if (scope.kind !== 'always' && !matches(scope, decoded)) return undefined
  const item: Item = { ...shown(hidden, decoded) }
  const positions = positionsOf(plan)
  for (const { expand } of expands) {
    const column = plan.columns.get(expand.property)
    if (!column || rawOf(column, before[expand.property]) !== row[positions.get(column) ?? -1]) {
      return undefined
    }
    item[expand.name] = before[expand.name]
  }
  return item
}

/** The log rounds integers beyond these, and has no blobs. */
function isExact(plan: CollectionPlan, row: RawRow): boolean {
  for (const [column, at] of positionsOf(plan)) {
    const value = row[at]
    if (typeof value === 'number' && Number.isInteger(value) && !Number.isSafeInteger(value)) {
      if (column.getSQLType().toLowerCase() === 'integer') return false
    }
    if (typeof value === 'string' && column.dataType === 'buffer') return false
  }
  return true
}

function isMoved({ plan, query }: ListOf, before: Item, row: RawRow): boolean {
  const positions = positionsOf(plan)
  return orderOf(plan, query.order).some(
    ({ column }) => rawOf(column, before[propertyOf(column)]) !== row[positions.get(column) ?? -1],
  )
}

/** Where the item at `at` belongs among the others; undefined if that might be an end, which cursors name. */
function placeOf({ plan, query }: ListOf, items: readonly Item[], at: number): number | undefined {
  const item = items[at]
  if (!item || at === 0 || at === items.length - 1) return undefined
  const orders = orderOf(plan, query.order)
  const isBefore = (left: Item, right: Item): boolean | undefined => {
    for (const { column, descending } of orders) {
      const property = propertyOf(column)
      const [a, b] = [rawOf(column, left[property]), rawOf(column, right[property])]
      const isText = typeof a === 'string' && typeof b === 'string'
      if (!isText && !(typeof a === 'number' && typeof b === 'number')) return undefined
      const order = compareAsSqlite(a, b)
      if (order !== 0) return order < 0 !== descending
    }
    return undefined
  }
  let to = 0
  for (const [index, other] of items.entries()) {
    if (index === at) continue
    const isAfter = isBefore(other, item)
    if (isAfter === undefined) return undefined
    if (isAfter) to++
  }
  return to === 0 || to === items.length - 1 ? undefined : to
}

/** What the database holds for a value as JSON has it. */
function rawOf(column: SQLiteColumn, value: unknown): unknown {
  if (value === null || value === undefined) return null
  const parsed = parseOwnValue(column, value)
  return parsed.ok ? toDriver(column, parsed.value) : undefined
}

function keyOfItem(plan: CollectionPlan, item: Item): string {
  return keyOf(plan.key.map((column) => rawOf(column, item[propertyOf(column)])))
}
