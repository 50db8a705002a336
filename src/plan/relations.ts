/**
 * What collections have to do with each other: children, expands, look-ups. Checked when all of them
 * are compiled, because each names others.
 */
import { is } from 'drizzle-orm'
import {
  getTableConfig,
  SQLiteColumn,
  type SQLiteTable,
  type UniqueConstraint,
} from 'drizzle-orm/sqlite-core'
import {
  propertyOf,
  type ChildPlan,
  type CollectionPlan,
  type ExpandPlan,
} from '../collections/collections.ts'
import type { CollectionOptions } from '../collections/declare.ts'
import { primaryKey } from '../store/store.ts'
import { sampleOf, type Report } from './report.ts'

type Options = CollectionOptions<SQLiteTable>

/** A collection on its way: `plan` shows these two, and they are filled in last. */
export interface Unlinked {
  readonly plan: CollectionPlan
  readonly options: Options
  /** Its key in the app file. */
  readonly at: string
  readonly children: ChildPlan[]
  readonly expand: Map<string, ExpandPlan>
}

export function linkCollections(all: readonly Unlinked[], report: Report): void {
  const plans = all.map(({ plan }) => plan)
  for (const one of all) {
    checkLookup(one, plans, report)
    linkChildren(one, plans, report)
    linkExpands(one, plans, report)
  }
}

function checkLookup(
  { plan, at }: Unlinked,
  plans: readonly CollectionPlan[],
  report: Report,
): void {
  for (const name of plan.lookup) {
    const key = `${at}.lookup`
    const column = plan.columns.get(name)
    const clash = plans.find(({ path }) => `${path}/`.startsWith(`${plan.path}/${name}/`))
    if (!column) report(key, `${name} is not a column of the table`)
    else if (!/^\w+$/.test(name)) report(key, `${name} cannot stand in a path`)
    else if (column.dataType === 'json') report(key, `${name} is json`)
    else if (!isUnique(column)) report(key, `${name} is not unique: add .unique() to it`)
    else if (clash) report(key, `${name} clashes with the collection at ${clash.path}`)
  }
}

function linkChildren(
  { plan, options, at, children }: Unlinked,
  plans: readonly CollectionPlan[],
  report: Report,
): void {
  for (const [name, column] of Object.entries(options.children ?? {})) {
    const key = `${at}.children.${name}`
    const problem = (message: string) => report(key, message)
    const path = new RegExp(`^${plan.path}/[^/]+/${name}(/|$)`)
    const clash = plans.find((one) => path.test(one.path))
    const [own] = plan.key
    if (!/^[a-z0-9][a-z0-9-]*$/.test(name)) {
      problem('a name is lower-case letters, digits and dashes: it stands in a path')
    } else if (!is(column, SQLiteColumn)) {
      problem('must be the column that holds the key, as comments.postId')
    } else if (plan.key.length !== 1 || !own) {
      problem(`table ${plan.tableName} has a key of several columns; children need a single one`)
    } else if (!holdsSame(own, column)) {
      problem(`${column.name} cannot hold ${own.name}: they have different types`)
    } else if (plan.lookup.includes(name)) {
      problem('is a look-up, too: both would be at one path')
    } else if (clash) {
      problem(`clashes with the collection at ${clash.path}`)
    } else {
      const found = collectionOver(column.table, plans, [name])
      if (typeof found === 'string') problem(found)
      else children.push({ name, collection: found, column })
    }
  }
}

function linkExpands(
  { plan, options, at, expand }: Unlinked,
  plans: readonly CollectionPlan[],
  report: Report,
): void {
  for (const [name, column] of Object.entries(options.expand ?? {})) {
    const problem = (message: string) => report(`${at}.expand.${name}`, message)
    if (!/^[A-Za-z]\w*$/.test(name)) {
      problem('a name is letters, digits and underscores, and starts with a letter')
    } else if (plan.columns.has(name)) {
      problem('is a column of the table, too; give it another name')
    } else if (!is(column, SQLiteColumn) || column.table !== plan.table) {
      problem(`must be a column of ${plan.tableName} that references another table`)
    } else {
      const target = referencedBy(column)
      if (typeof target === 'string') {
        problem(target)
        continue
      }
      const { name: table } = getTableConfig(target.table)
      const found = collectionOver(target.table, plans, [name, table])
      if (typeof found === 'string') problem(found)
      else expand.set(name, { name, property: propertyOf(column), target: found, column: target })
    }
  }
}

/** Or what is wrong. */
function referencedBy(column: SQLiteColumn): SQLiteColumn | string {
  const references = getTableConfig(column.table)
    .foreignKeys.map((key) => key.reference())
    .filter(({ columns }) => columns.includes(column))
  const [target] = references.find(({ columns }) => columns.length === 1)?.foreignColumns ?? []
  if (!target) {
    return references.length > 0
      ? `${column.name} is one part of a reference; only single columns can be expanded`
      : `${column.name} references nothing: add .references(() => …) to it`
  }
  return isUnique(target) ? target : `${target.name}, which it references, is not unique`
}

/** The collection that serves a table; of several, the one with such a name, or what is wrong. */
function collectionOver(
  table: SQLiteTable,
  plans: readonly CollectionPlan[],
  names: readonly string[],
): CollectionPlan | string {
  const serving = plans.filter((plan) => plan.table === table)
  const [only] = serving
  if (!only) {
    return `no collection serves table ${getTableConfig(table).name}: without its read rule nobody may see a row`
  }
  if (serving.length === 1) return only
  for (const name of names) {
    const exact = serving.find(({ path }) => path === name)
    const ending = serving.filter(({ path }) => path.endsWith(`/${name}`))
    const found = exact ?? (ending.length === 1 ? ending[0] : undefined)
    if (found) return found
  }
  const paths = serving.map(({ path }) => path).join(', ')
  return `${paths} serve that table, and none of them is or ends in ${names.join(' or ')}`
}

/** By itself: not together with others, not only in some rows, not as an expression. */
function isUnique(column: SQLiteColumn): boolean {
  if (column.isUnique) return true
  const key = primaryKey(column.table)
  if (key.length === 1 && key[0] === column) return true
  const { indexes, uniqueConstraints } = getTableConfig(column.table)
  const isAlone = (columns: readonly unknown[]) => columns.length === 1 && columns[0] === column
  return (
    uniqueConstraints.some(({ columns }: UniqueConstraint) => isAlone(columns)) ||
    indexes.some(({ config }) => config.unique && !config.where && isAlone(config.columns))
  )
}

/** Whether a value of one stands for the same value in the other, in the database too. */
function holdsSame(one: SQLiteColumn, other: SQLiteColumn): boolean {
  const typeOf = (column: SQLiteColumn) => column.getSQLType().toLowerCase().replace(/\(.*/, '')
  if (one.dataType !== other.dataType || typeOf(one) !== typeOf(other)) return false
  const sample = sampleOf({ dataType: one.dataType, enumValues: undefined }) as never
  return one.mapToDriverValue(sample) === other.mapToDriverValue(sample)
}
