/**
 * Collections: declared tables as cached reads, checked writes and live events.
 *
 *   list, read ─► rule narrows ─► canonical key ─► cache ─► (miss) reader thread ─► decode ─► JSON bytes
 *   create …   ─► rule ─► columns checked ─► writer: row + log entry ─┐
 *                                                                    ▼
 *                    changed(change): after the cache was told, before the write is answered ─► live topic
 *
 * Invariants: nothing is read or written without a rule that says so; a write is decided on the very
 * row it changes; an answer depends on exactly what could alter it (depends.ts).
 *
 * Knows no HTTP: a request is (user, query text, checked JSON), an answer is bytes or a `Fault`.
 */
import type { SQLiteColumn, SQLiteTable } from 'drizzle-orm/sqlite-core'
import type { User } from '../auth/declare.ts'
import type { Cache, CacheRead } from '../cache/cache.ts'
import { Fault } from '../fault.ts'
import { must } from '../lib/assert.ts'
import type { Log } from '../observe/log.ts'
import type { Priority } from '../overload/declare.ts'
import { anyRowTag, keyOf, rowTag, tableTag, type Change, type Store } from '../store/store.ts'
import { decodeRow, idOf, parseId, parseIdPart, type Columns, type RowData } from './columns.ts'
import { createCursors } from './cursor.ts'
import type { CollectionOptions, Order } from './declare.ts'
import type { Within } from './depends.ts'
import { hiddenFrom, hiddenKey, type Hidden, type HidePlan } from './hide.ts'
import { createPages, type ScopedExpand } from './page.ts'
import { parseListQuery, parseRowQuery, type RowQuery } from './query.ts'
import { readScope, readScopeOrNever, scopeKey } from './rules.ts'
import { ListSource, RowSource } from './sources.ts'
import { published } from './views.ts'
import type { Where } from './where.ts'
import { createWrites, type Writes } from './write.ts'

export { columnsOf, isServable, textLengthOf } from './columns.ts'
export { orderTextMax } from './cursor.ts'
export { compileHide } from './hide.ts'
export { checkIndexes, type IndexAdvice } from './indexes.ts'
export { exportRows } from './export.ts'
export { createRowWriter, importBatchLines, importLines } from './import.ts'
export { createIngest, type Ingest } from './ingest.ts'
export type { Imported, LineProblem } from './import.ts'
export { createLoader } from './loader.ts'
export { createValues } from './values.ts'
export { createWarmer, noting } from './warm.ts'
export { createViews } from './views.ts'
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
  readonly sharedTtlMs: number | undefined
  /** Query strings that are loaded before anybody asks. */
  readonly warm: readonly string[]
  readonly staleMs: number
  readonly priority: Priority
  readonly rules: Pick<CollectionOptions<SQLiteTable>, 'read' | 'create' | 'update' | 'remove'>
  readonly hide: HidePlan
  readonly filters: readonly string[]
  /** Each ends in the primary key: a cursor needs a unique order. */
  readonly orders: ReadonlyMap<string, readonly Order[]>
  readonly orderDefault: string
  readonly live: CollectionOptions<SQLiteTable>['live']
  /** Properties of unique columns. */
  readonly lookup: readonly string[]
  readonly children: readonly ChildPlan[]
  /** By name. */
  readonly expand: ReadonlyMap<string, ExpandPlan>
}

/** Rows of another collection that belong to one of this. */
export interface ChildPlan {
  readonly name: string
  /** Its rule, filters, orders and time to live are the list's. */
  readonly collection: CollectionPlan
  /** Holds this collection's key. */
  readonly column: SQLiteColumn
}

/** A row that one of this collection refers to. */
export interface ExpandPlan {
  readonly name: string
  /** Of this collection: holds a value of `column`. */
  readonly property: string
  readonly target: CollectionPlan
  /** Of the target, and unique there. */
  readonly column: SQLiteColumn
}

/** What rooms beside this one must offer; the root fits them. */
export interface CollectionsDeps {
  readonly store: Pick<Store, 'read' | 'write' | 'writeOnce' | 'db'>
  readonly cache: Pick<Cache, 'read'>
  readonly topics: {
    /** Each hearer is to be given it as `createViews` says. */
    publish(topic: string, event: LiveEvent): void
  }
  readonly log: Log
  /** Signs cursors: the same on all nodes and after a restart. Asked once the store is open. */
  readonly cursorKey: () => Uint8Array
}

type Answer = CacheRead | Promise<CacheRead>

export interface LiveEvent {
  readonly collection: string
  readonly op: Change['op']
  readonly id: string
  readonly row: RowData
  readonly seq: number
  /**
   * What of the row was otherwise before, where that may decide who saw it: told to nobody. Last, and never empty: by
   * its end the text is known to have it.
   */
  readonly was?: RowData
}

export interface Collections extends Writes {
  /** `search` is the query string. Faults: `invalid`, `unauthenticated`, `denied`, `unavailable`. */
  list(plan: CollectionPlan, user: User | null, search: string): Answer
  /** Faults: also `not_found`, which a row the reader may not see is, too. */
  read(plan: CollectionPlan, user: User | null, id: string, search?: string): Answer
  /** One row by a unique column; `text` as it stands in the path. Faults: as `read`. */
  lookup(plan: CollectionPlan, user: User | null, ask: LookupRequest): Answer
  /** Rows that belong to one. Faults: also `not_found`, if the reader may not see that one. */
  children(plan: CollectionPlan, user: User | null, ask: ChildrenRequest): Answer
  /** Publishes a change where it is live. Called for every change of the log, after the cache was told. */
  changed(change: Change): void
  readonly plans: readonly CollectionPlan[]
}

export interface LookupRequest {
  readonly property: string
  readonly text: string
  readonly search: string
}

export interface ChildrenRequest {
  readonly id: string
  readonly child: ChildPlan
  readonly search: string
}

/** How one row is found. */
interface OneRow {
  /** Of the cache, up to what the reader may see. */
  readonly key: string
  readonly tags: readonly string[]
  readonly columns: readonly SQLiteColumn[]
  readonly values: readonly unknown[]
}

interface ParentRow {
  /** Of the cache, up to the list's own. */
  readonly key: string
  readonly within: Within
}

const plainRow: RowQuery = { expands: [], tags: [] }
const noExpands: readonly ScopedExpand[] = []

/** Distinct query strings remembered with their parsed form, all collections together: 1.5 KB each, so 6 MB. */
const parsedQueriesMax = 4_000

/** Ids, likewise: half a KB each, so 5 MB; as many as the cache keeps entries. */
const parsedIdsMax = 10_000

/** Longer texts are parsed each time. */
const parsedLengthMax = 512

export function createCollections(
  deps: CollectionsDeps,
  plans: readonly CollectionPlan[],
): Collections {
  const { store, cache, topics, log } = deps
  const cursors = createCursors(deps.cursorKey)
  const pages = createPages(store, cursors)
  const byTable = Map.groupBy(
    plans.filter((plan) => plan.live),
    (plan) => plan.tableName,
  )
  const listQueryOf = remembered(
    (plan, search) => parseListQuery(plan, search, cursors),
    parsedQueriesMax,
  )
  const rowQueryOf = remembered(parseRowQuery, parsedQueriesMax)
  const rowOf = remembered(rowOfId, parsedIdsMax)

  /** With `parent`, only the rows that belong to it. */
  const list = (
    plan: CollectionPlan,
    user: User | null,
    search: string,
    parent?: ParentRow,
  ): Answer => {
    const scope = readScope(plan, user)
    const query = listQueryOf(plan, search)
    const expands = scoped(query.expands, user)
    const hidden = hiddenFrom(plan, user)
    const sight = sightKey({ plan, scope, hidden }, expands)
    const key = (parent ? parent.key + query.key : query.listKey) + sight
    const request = { plan, query, scope, hidden, expands, within: parent?.within }
    return cache.read(key, query.tags, plan, new ListSource(pages, request))
  }

  /** Of a path that can name no row, `one` is undefined: whoever may read none is told that first. */
  const readOne = (
    plan: CollectionPlan,
    user: User | null,
    one: OneRow | undefined,
    search: string,
  ): Answer => {
    const scope = readScope(plan, user)
    if (!one) throw notFound(plan)
    const query = search === '' ? plainRow : rowQueryOf(plan, search)
    const expands = scoped(query.expands, user)
    const hidden = hiddenFrom(plan, user)
    const key = one.key + sightKey({ plan, scope, hidden }, expands)
    const tags = expands.length === 0 ? one.tags : [...one.tags, ...query.tags]
    const { columns, values } = one
    const request = { plan, columns, values, scope, hidden, expands }
    const found = cache.read(key, tags, plan, new RowSource(pages, request))
    return found instanceof Promise
      ? found.then((answer) => present(plan, answer))
      : present(plan, found)
  }

  /** That there is no such row is remembered, too. */
  const present = (plan: CollectionPlan, answer: CacheRead): CacheRead => {
    if (answer.entry.isAbsent) throw notFound(plan)
    return answer
  }

  const read = (plan: CollectionPlan, user: User | null, id: string, search = ''): Answer =>
    readOne(plan, user, rowOf(plan, id), search)

  const publish = (plan: CollectionPlan, change: Change): void => {
    const row = decodeRow(plan.columns, change.row)
    const heard = topicsOf(plan, row)
    // First: who hears both topics has it in the end.
    if (change.was) leave(plan, change, decodeRow(plan.columns, change.was), heard)
    if (heard.size === 0) return
    const event = eventOf(plan, change, row)
    const was = wasOf(plan, change)
    for (const topic of heard) tell(topic, event, was)
  }

  /** Where it was, and is no more, it is gone. */
  const leave = (
    plan: CollectionPlan,
    change: Change,
    before: RowData,
    heard: ReadonlySet<string>,
  ): void => {
    const left = topicsOf(plan, before).difference(heard)
    if (left.size === 0) return
    const event = eventOf(plan, { ...change, op: 'remove' }, before)
    for (const topic of left) topics.publish(topic, event)
  }

  /** Who can no longer see a row hears that; of one that is too large for it, as of any other change, nothing. */
  const tell = (topic: string, event: LiveEvent, was: RowData | undefined): void => {
    try {
      topics.publish(topic, was ? { ...event, was } : event)
    } catch (thrown) {
      if (!was || !(thrown instanceof Fault) || thrown.code !== 'too_large') throw thrown
      topics.publish(topic, event)
    }
  }

  return {
    plans,
    list,
    read,
    lookup(plan, user, { property, text, search }) {
      const column = must(plan.columns.get(property), () => `${property} is a column`)
      return readOne(plan, user, rowOfLookup(plan, property, column, text), search)
    },
    children(plan, user, { id, child, search }) {
      const one = rowOf(plan, id)
      const found = readOne(plan, user, one, '')
      const { collection, column, name } = child
      const { key, values } = must(one, () => 'a row was found by this id')
      const parent: ParentRow = { key: `${key}>${name}?`, within: { column, value: values[0] } }
      const listed = (): Answer => list(collection, user, search, parent)
      return found instanceof Promise ? found.then(listed) : listed()
    },
    changed(change) {
      for (const plan of byTable.get(change.table) ?? []) {
        try {
          publish(plan, change)
        } catch (error) {
          log.error('collections.live_failed', { collection: plan.path, seq: change.seq, error })
        }
      }
    },
    ...createWrites({ store, notFound }),
  }
}

function topicsOf({ live }: CollectionPlan, row: RowData): Set<string> {
  const named = live?.(row as never) ?? []
  return new Set(typeof named === 'string' ? [named] : named)
}

/** In this order: by its beginning the text is known again (views.ts). */
function eventOf(plan: CollectionPlan, { op, seq }: Change, row: RowData): LiveEvent {
  const id = idOf(plan.key, plan.keyProperties, row)
  return { collection: plan.path, op, id, row: published(plan, row), seq }
}

/** What changed of the row, if its rule may look at that. */
function wasOf({ columns, rules }: CollectionPlan, { row, was }: Change): RowData | undefined {
  if (!was || typeof rules.read !== 'function') return undefined
  const before = decodeRow(columns, was)
  const changed = [...columns.keys()].filter((_, at) => was[at] !== row[at])
  if (changed.length === 0) return undefined
  return Object.fromEntries(changed.map((property) => [property, before[property]]))
}

/** What a text means to a collection, remembered: a hit then parses nothing. Forgotten all at once beyond `max`. */
function remembered<T>(parse: (plan: CollectionPlan, text: string) => T, max: number) {
  const known = new Map<CollectionPlan, Map<string, T>>()
  let count = 0
  return (plan: CollectionPlan, text: string): T => {
    const found = known.get(plan)?.get(text)
    if (found !== undefined) return found
    const parsed = parse(plan, text)
    if (text.length > parsedLengthMax || parsed === undefined) return parsed
    if (count >= max) {
      known.clear()
      count = 0
    }
    let texts = known.get(plan)
    if (!texts) known.set(plan, (texts = new Map()))
    texts.set(text, parsed)
    count++
    return parsed
  }
}

function rowOfId(plan: CollectionPlan, id: string): OneRow | undefined {
  const values = parseId(plan.key, id)
  if (!values) return undefined
  const key = keyOf(values)
  const tags = [rowTag(plan.tableName, key), anyRowTag(plan.tableName)]
  return { key: `${plan.path}/${key} `, tags, columns: plan.key, values }
}

function rowOfLookup(
  plan: CollectionPlan,
  property: string,
  column: SQLiteColumn,
  text: string,
): OneRow | undefined {
  const value = parseIdPart(column, text)
  if (value === undefined) return undefined
  const key = `${plan.path}#${property}=${keyOf([value])} `
  // Which row it is may change with any row of the table.
  const tags = [tableTag(plan.tableName), anyRowTag(plan.tableName)]
  return { key, tags, columns: [column], values: [value] }
}

function scoped(expands: readonly ExpandPlan[], user: User | null): readonly ScopedExpand[] {
  if (expands.length === 0) return noExpands
  return expands.map((expand) => ({
    expand,
    scope: readScopeOrNever(expand.target, user),
    hidden: hiddenFrom(expand.target, user),
  }))
}

interface Sight {
  readonly plan: CollectionPlan
  readonly scope: Where
  readonly hidden: Hidden
}

/** What the reader sees, of the rows and of those they refer to; the query's key names the latter in this order. */
function sightKey({ plan, scope, hidden }: Sight, expands: readonly ScopedExpand[]): string {
  let key = scopeKey(scope) + hiddenKey(plan, hidden)
  for (const { expand, ...one } of expands) {
    key += `+${expand.name}${scopeKey(one.scope)}${hiddenKey(expand.target, one.hidden)}`
  }
  return key
}

function notFound(plan: CollectionPlan): Fault {
  return new Fault('not_found', `no such row in ${plan.path}`)
}
