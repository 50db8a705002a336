/** Declared collections, checked against their tables and compiled to plans. */
import { is } from 'drizzle-orm'
import { getTableConfig, SQLiteTable, type SQLiteColumn } from 'drizzle-orm/sqlite-core'
import { systemTables } from '../../db/system.ts'
import {
  columnsOf,
  isServable,
  orderTextMax,
  propertyOf,
  textLengthOf,
  type CollectionPlan,
} from '../collections/collections.ts'
import type { CollectionDeclaration, CollectionOptions, Order } from '../collections/declare.ts'
import { primaryKey } from '../store/store.ts'
import { checkHidden, hideOf } from './hide.ts'
import { withReferenced } from './references.ts'
import { linkCollections, type Unlinked } from './relations.ts'
import { checkOptions, checkRule, durationOf, priorityOf, sampleOf } from './report.ts'
import type { IsDeclared, Report } from './report.ts'

type Options = CollectionOptions<SQLiteTable>
type Columns = CollectionPlan['columns']

/** First path segments under `/api/` that Belfry serves itself, now or by its architecture. */
const reservedNames = new Set([
  ...['admin', 'auth', 'batch', 'broadcast', 'disconnect', 'health', 'history', 'history_remove'],
  ...['info', 'metrics', 'presence', 'presence_stats', 'publish', 'refresh', 'rpc', 'server'],
  ...['stream', 'subscribe', 'topics', 'unsubscribe'],
])

/** Query parameters of every list: a filter of that name could not be asked for. */
const reservedParameters = new Set(['limit', 'after', 'before', 'order', 'expand', 'count'])

const rules = ['read', 'create', 'update', 'remove'] as const

const known = {
  served: [
    'ttl',
    'stale',
    'warm',
    ...rules,
    'filters',
    'orders',
    'live',
    'lookup',
    'children',
    'expand',
    'limits',
    'priority',
    'hide',
  ],
  notYet: [],
}

const ttlDefaultMs = 60_000

export function compileCollections(
  declared: Readonly<Record<string, CollectionDeclaration>>,
  isDeclared: IsDeclared,
  report: Report,
): { readonly collections: CollectionPlan[]; readonly tables: readonly SQLiteTable[] } {
  const collections: Unlinked[] = []
  const byName = new Map<string, SQLiteTable>()
  const tables = withReferenced(
    Object.values(declared).flatMap((one) => (is(one?.table, SQLiteTable) ? [one.table] : [])),
  )
  for (const [path, declaration] of Object.entries(declared)) {
    const at = `collections.${path}`
    checkPath(path, Object.keys(declared), at, report)
    if (declaration?.kind !== 'collection' || !is(declaration.table, SQLiteTable)) {
      report(at, 'must be collection(table, { … }) over a Drizzle sqliteTable')
      continue
    }
    const name = getTableConfig(declaration.table).name.toLowerCase()
    const other = byName.get(name)
    if (other && other !== declaration.table) report(at, `another table is named ${name} too`)
    byName.set(name, declaration.table)
    const { options } = declaration
    const links = { children: [], expand: new Map() }
    const plan = compileCollection(path, declaration, links, at, report)
    checkLive(plan, isDeclared, at, report)
    collections.push({ plan, options, at, ...links })
  }
  linkCollections(collections, report)
  const plans = collections.map(({ plan }) => plan)
  checkHidden(plans, report)
  return { collections: plans, tables }
}

function checkPath(path: string, paths: readonly string[], at: string, report: Report): void {
  if (!/^[a-z0-9][a-z0-9-]*(\/[a-z0-9][a-z0-9-]*){0,3}$/.test(path)) {
    report(at, 'a path is lower-case letters, digits and dashes, in at most 4 parts joined by /')
    const bare = path.toLowerCase().replace(/^\/+|\/+$/g, '')
    if (bare !== path && paths.includes(bare)) report(at, `has the same path as ${bare}`)
    return
  }
  const [first = ''] = path.split('/')
  if (reservedNames.has(first)) report(at, `the name ${first} is reserved`)
}

function compileCollection(
  path: string,
  { table, options }: CollectionDeclaration,
  links: Pick<Unlinked, 'children' | 'expand'>,
  at: string,
  report: Report,
): CollectionPlan {
  checkOptions(`${at}.`, options, known, report)
  const columns = columnsOf(table)
  const key = primaryKey(table)
  const { name } = getTableConfig(table)
  checkTable(name, columns, key, at, report)
  for (const rule of rules) checkRule(`${at}.${rule}`, options[rule], report)
  if (options.live !== undefined && typeof options.live !== 'function') {
    report(`${at}.live`, 'must be a function from a row to a topic, or several')
  }
  if (options.live !== undefined && options.read === undefined) {
    report(`${at}.live`, 'needs read: of a row hears who may read it')
  }
  const orders = compileOrders(options, columns, key, at, report)
  const keyProperties = key.map(propertyOf)
  return Object.freeze({
    path,
    table,
    tableName: name,
    columns,
    key,
    keyProperties,
    hide: hideOf(options, { columns, keyProperties }, at, report),
    ...ttlsOf(options, at, report),
    warm: warmOf(options, orders, at, report),
    staleMs: durationOf(options.stale, `${at}.stale`, 0, report),
    priority: priorityOf(options.priority, `${at}.priority`, report),
    rules: options,
    filters: checkFilters(options, columns, at, report),
    orders,
    orderDefault: orders.keys().next().value ?? '',
    live: options.live,
    lookup: options.lookup ?? [],
    ...links,
  })
}

function ttlsOf({ ttl }: Options, at: string, report: Report) {
  if (typeof ttl !== 'object' || ttl === null) {
    const ttlMs = durationOf(ttl, `${at}.ttl`, ttlDefaultMs, report)
    return { ttlMs, sharedTtlMs: undefined }
  }
  const ttlMs = durationOf(ttl.own ?? null, `${at}.ttl.own`, ttlDefaultMs, report)
  const sharedTtlMs = durationOf(ttl.shared ?? null, `${at}.ttl.shared`, ttlMs, report)
  if (sharedTtlMs < ttlMs) report(`${at}.ttl.shared`, 'must be at least as long as own')
  return { ttlMs, sharedTtlMs }
}

/** As query strings. What they ask for is checked when it is loaded, too. */
function warmOf(
  { warm = [], read, filters = [] }: Options,
  orders: ReadonlyMap<string, readonly Order[]>,
  at: string,
  report: Report,
): readonly string[] {
  if (!Array.isArray(warm)) {
    report(`${at}.warm`, 'must be a list of queries')
    return []
  }
  if (warm.length > 0 && read !== 'public') {
    report(`${at}.warm`, "is for collections that everybody may read (read: 'public')")
  }
  const known = ['limit', 'order', 'expand', 'count', ...filters]
  return (warm as readonly Readonly<Record<string, string | number | boolean>>[]).map(
    (query, n) => {
      for (const name of Object.keys(query)) {
        const where = `${at}.warm[${n}].${name}`
        if (!known.includes(name))
          report(where, `is no parameter of the list (${known.join(', ')})`)
      }
      const { order } = query
      if (order !== undefined && !orders.has(String(order))) {
        report(`${at}.warm[${n}].order`, `must be one of ${[...orders.keys()].join(', ')}`)
      }
      const pairs = Object.entries(query).map(([name, value]): [string, string] => [
        name,
        String(value),
      ])
      return new URLSearchParams(pairs).toString()
    },
  )
}

/**
 * `live` is asked about a made-up row: the topic it names must be declared. What it does with such a
 * row otherwise (nothing, or throw) is its own affair.
 */
function checkLive(
  { live, columns }: CollectionPlan,
  isDeclared: IsDeclared,
  at: string,
  report: Report,
): void {
  if (typeof live !== 'function') return
  const row = Object.fromEntries([...columns].map(([name, column]) => [name, sampleOf(column)]))
  let named: unknown
  try {
    named = live(row)
  } catch {
    return
  }
  if (named === null || named === undefined) return
  const topics: readonly unknown[] = Array.isArray(named) ? named : [named]
  for (const topic of topics) {
    if (typeof topic === 'string' && isDeclared(topic)) continue
    report(`${at}.live`, `no declared topic matches ${JSON.stringify(topic)}`)
  }
}

function checkTable(
  name: string,
  columns: Columns,
  key: readonly SQLiteColumn[],
  at: string,
  report: Report,
): void {
  if (systemTables.has(name.toLowerCase()) || /^(sqlite_|libsql_|__)/i.test(name)) {
    report(at, `the table name ${name} is reserved`)
  }
  if (key.length === 0) report(at, `table ${name} needs a primary key`)
  for (const column of key) {
    // SQLite lets NULL into such a key, and two NULLs are two rows.
    if (!column.notNull && !column.primary)
      report(at, `key column ${column.name} must be notNull()`)
  }
  for (const [property, column] of columns) {
    if (!isServable(column)) {
      const kind = column.generated ? 'generated' : column.getSQLType()
      report(`${at}.${property}`, `${kind} columns are not served yet`)
    }
  }
}

function checkFilters(
  { filters = [] }: Options,
  columns: Columns,
  at: string,
  report: Report,
): readonly string[] {
  for (const name of filters) {
    const key = `${at}.filters`
    if (!columns.has(name)) report(key, `${name} is not a column of the table`)
    else if (reservedParameters.has(name)) report(key, `${name} is a parameter of every list`)
    else if (columns.get(name)?.dataType === 'json') report(key, `${name} is json`)
  }
  return filters
}

/** Every order ends in the primary key, so that no two rows are at the same place. */
function compileOrders(
  { orders = {} }: Options,
  columns: Columns,
  key: readonly SQLiteColumn[],
  at: string,
  report: Report,
): ReadonlyMap<string, readonly Order[]> {
  const own = new Set(columns.values())
  const compiled = new Map<string, readonly Order[]>()
  for (const [name, declared] of Object.entries(orders)) {
    const parts = Array.isArray(declared) ? (declared as readonly Order[]) : [declared as Order]
    const where = `${at}.orders.${name}`
    for (const { column } of parts) {
      if (!own.has(column)) report(where, 'orders by a column of another table')
      else if (!column.notNull && !column.primary) {
        report(where, `${column.name} may be null; a cursor needs not-null columns`)
      } else if (column.dataType === 'json') report(where, `${column.name} is json`)
    }
    const texts = parts.filter(({ column }) => own.has(column) && !key.includes(column))
    checkOrderTexts(
      texts.map(({ column }) => column),
      where,
      report,
    )
    const used = new Set(parts.map(({ column }) => column))
    const descending = parts.at(-1)?.descending ?? false
    const tieBreak = key.filter((column) => !used.has(column))
    compiled.set(name, [...parts, ...tieBreak.map((column) => ({ column, descending }))])
  }
  if (compiled.size === 0) {
    compiled.set(
      'key',
      key.map((column) => ({ column, descending: false })),
    )
  }
  return compiled
}

/** A cursor holds the order's values, and a URL holds the cursor. A key's text is in URLs anyway. */
function checkOrderTexts(columns: readonly SQLiteColumn[], at: string, report: Report): void {
  const texts = columns.filter(({ dataType }) => dataType === 'string')
  const endless = texts.find((column) => textLengthOf(column) === undefined)
  if (endless) {
    report(
      at,
      `${endless.name} is a text of any length, which no cursor can hold: declare text({ length: … })`,
    )
    return
  }
  const length = texts.reduce((sum, column) => sum + (textLengthOf(column) ?? 0), 0)
  if (length <= orderTextMax) return
  report(at, `its texts have up to ${length} characters; a cursor holds ${orderTextMax}`)
}
