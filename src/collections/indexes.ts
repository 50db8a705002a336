/**
 * Is there an index for what lists may ask? Asked of SQLite itself, once at start, for every declared
 * order with every set of filters: `EXPLAIN QUERY PLAN` of the very statement a list would send.
 *
 * A plan that sorts (a temporary b-tree), or that scans although something is filtered by, reads all
 * rows of a table to give twenty. That is no mistake while the table is small: it is a warning, with
 * the line of Drizzle that mends it. Of a read rule, what it pins for whoever is signed in counts as a
 * filter (`eq(cards.userId, user.id)`): such lists never come without it. The rest depends on who asks.
 */
import { getTableConfig, type SQLiteColumn } from 'drizzle-orm/sqlite-core'
import type { Store } from '../store/store.ts'
import type { CollectionPlan } from './collections.ts'
import type { Order } from './declare.ts'
import { listSql, type ListQuery } from './query.ts'
import { readScope } from './rules.ts'
import { propertyOf, type Where } from './where.ts'

/** Sets of filters per order and parent; beyond it only none, each alone, and all together. */
const combinationsMax = 64

export interface IndexAdvice {
  readonly table: string
  /** For the table's definition: `index('posts_board_at').on(t.board, t.at)`. */
  readonly add: string
  /** What it serves: `posts: order newest, filtered by board`. */
  readonly serves: readonly string[]
}

/** One kind of list. */
interface Combination {
  readonly plan: CollectionPlan
  readonly orderName: string
  readonly order: readonly Order[]
  readonly filters: readonly SQLiteColumn[]
}

interface IndexPart {
  readonly column: SQLiteColumn
  readonly descending: boolean
}

interface Advised {
  readonly parts: readonly IndexPart[]
  readonly served: Combination[]
}

/** Empty if every list is served. Faults: `unavailable`, as of any read. */
export async function checkIndexes(
  deps: { readonly store: Pick<Store, 'read' | 'db'> },
  plans: readonly CollectionPlan[],
): Promise<readonly IndexAdvice[]> {
  const unserved: Combination[] = []
  for (const combination of plans.flatMap((plan) => combinationsOf(plan, plans))) {
    // One after the other: nobody waits for this, and others wait for the readers.
    if (!(await isServed(deps.store, combination))) unserved.push(combination)
  }
  const byTable = Map.groupBy(unserved, ({ plan }) => plan.tableName)
  return [...byTable.values()].flatMap((combinations) => adviceFor(combinations))
}

function combinationsOf(plan: CollectionPlan, plans: readonly CollectionPlan[]): Combination[] {
  const pinned = pinnedBy(plan)
  const filters = plan.filters
    .flatMap((name) => plan.columns.get(name) ?? [])
    .filter((column) => !pinned.includes(column))
  const parents = plans
    .flatMap(({ children }) => children)
    .filter(({ collection }) => collection === plan)
    .map(({ column }) => column)
    .filter((column) => !pinned.includes(column))
  const sets = [undefined, ...new Set(parents)].flatMap((parent) =>
    parent
      ? subsets(filters.filter((column) => column !== parent)).map((set) => [parent, ...set])
      : subsets(filters),
  )
  return [...plan.orders].flatMap(([orderName, order]) =>
    sets.map((set) => ({ plan, orderName, order, filters: [...pinned, ...set] })),
  )
}

/** Columns that the read rule gives one value, asked about a user who might be anybody. */
function pinnedBy(plan: CollectionPlan): readonly SQLiteColumn[] {
  const columnsOf = (where: Where): SQLiteColumn[] => {
    if (where.kind === 'eq') return [where.column]
    return where.kind === 'and' ? where.parts.flatMap(columnsOf) : []
  }
  try {
    // A number, too: an id may be compared with an integer column.
    return [...new Set(columnsOf(readScope(plan, { id: '1' })))]
  } catch {
    // It refuses this user, or wants more of one than an id.
    return []
  }
}

function subsets<T>(of: readonly T[]): T[][] {
  if (2 ** of.length > combinationsMax) return [[], ...of.map((one) => [one]), [...of]]
  return of.reduce<T[][]>((sets, one) => [...sets, ...sets.map((set) => [...set, one])], [[]])
}

async function isServed(
  store: Pick<Store, 'read' | 'db'>,
  { plan, orderName, filters }: Combination,
): Promise<boolean> {
  const query: Pick<ListQuery, 'order' | 'filters' | 'cursor'> = {
    order: orderName,
    // Explaining runs nothing: any value will do.
    filters: filters.map((column) => [column, 0]),
    cursor: undefined,
  }
  const { pageWhere, orderBy } = listSql(plan, query)
  const list = store.db
    .select()
    .from(plan.table)
    .where(pageWhere)
    .orderBy(...orderBy)
    .limit(1)
    .toSQL()
  const steps = await store.read({
    sql: `explain query plan ${list.sql}`,
    params: list.params,
  })
  return steps.every((step) => {
    const detail = String(step[3])
    const isScan = filters.length > 0 && detail.startsWith('SCAN')
    return !isScan && !detail.includes('TEMP B-TREE')
  })
}

/**
 * The fewest indexes of one table that serve all: those for one filter or none have no choice, and
 * each of them also serves any set with its filter in the same order. What is left gets its own.
 */
function adviceFor(combinations: readonly Combination[]): IndexAdvice[] {
  const advised: Advised[] = []
  for (const one of combinations.toSorted((a, b) => a.filters.length - b.filters.length)) {
    const parts = indexFor(one)
    const other = advised.find((known) => isSame(known.parts, parts) || serves(known.parts, one))
    if (other) other.served.push(one)
    else advised.push({ parts, served: [one] })
  }
  const taken = new Set<string>()
  return advised.map((one) => adviceOf(one, taken))
}

/** The filters in their order, then what they leave of the order. */
function indexFor({ order, filters }: Combination): IndexPart[] {
  const rest = order.filter(({ column }) => !filters.includes(column))
  const last = rest.at(-1)
  return [
    ...filters.map((column) => ({ column, descending: false })),
    // An index is read from either end: only what differs from the last column needs a direction.
    ...rest.map(({ column, descending }) => ({
      column,
      descending: descending !== last?.descending,
    })),
  ]
}

function isRowNumber({ key }: CollectionPlan, column: SQLiteColumn): boolean {
  return key.length === 1 && key[0] === column && column.getSQLType().toLowerCase() === 'integer'
}

/** Whether rows come out of it in order, and of one filter at least: filters first, then the order. */
function serves(parts: readonly IndexPart[], one: Combination): boolean {
  const isFilter = ({ column }: IndexPart) => one.filters.includes(column)
  const begin = parts.findIndex((part) => !isFilter(part))
  if (one.filters.length > 0 && begin === 0) return false
  const wanted = indexFor(one).slice(one.filters.length)
  const ordered = begin < 0 ? [] : parts.slice(begin, begin + wanted.length)
  return isSame(ordered, wanted)
}

function isSame(one: readonly IndexPart[], other: readonly IndexPart[]): boolean {
  return (
    one.length === other.length &&
    one.every(
      ({ column, descending }, at) =>
        other[at]?.column === column && other[at].descending === descending,
    )
  )
}

function adviceOf({ parts, served }: Advised, taken: Set<string>): IndexAdvice {
  const [{ plan }] = served as [Combination]
  const last = parts.at(-1)
  // An index ends in the row's number by itself, ascending.
  const named = last && isRowNumber(plan, last.column) ? parts.slice(0, -1) : parts
  for (const { config } of getTableConfig(plan.table).indexes) taken.add(config.name)
  const stem = [plan.tableName, ...named.map(({ column }) => column.name)].join('_')
  let name = stem
  for (let number = 2; taken.has(name); number++) name = `${stem}_${number}`
  taken.add(name)
  const columns = named.map(({ column, descending }) =>
    descending ? `sql\`\${t.${propertyOf(column)}} desc\`` : `t.${propertyOf(column)}`,
  )
  return {
    table: plan.tableName,
    add: `index('${name}').on(${columns.join(', ')})`,
    serves: served.map(({ plan: { path }, orderName, filters }) => {
      const by = filters.map(propertyOf).join(', ')
      return `${path}: order ${orderName}${by === '' ? '' : `, filtered by ${by}`}`
    }),
  }
}
