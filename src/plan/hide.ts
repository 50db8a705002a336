/** A collection's hidden columns, checked: nobody finds out by asking what he may not read. */
import type { SQLiteTable } from 'drizzle-orm/sqlite-core'
import { compileHide, type CollectionPlan } from '../collections/collections.ts'
import type { CollectionOptions, HideRule } from '../collections/declare.ts'
import { checkOptions, type Report } from './report.ts'

const known = { served: ['unless'], notYet: [] }

export function hideOf(
  { hide = {} }: CollectionOptions<SQLiteTable>,
  { columns, keyProperties }: Pick<CollectionPlan, 'columns' | 'keyProperties'>,
  at: string,
  report: Report,
): CollectionPlan['hide'] {
  if (typeof hide !== 'object' || hide === null || Array.isArray(hide)) {
    report(`${at}.hide`, 'must name columns: { passwordHash: true }')
    return compileHide({})
  }
  const rules = hide as Readonly<Record<string, HideRule>>
  for (const [property, rule] of Object.entries(rules)) {
    const where = `${at}.hide.${property}`
    if (!columns.has(property)) report(where, 'is not a column of the table')
    if (keyProperties.includes(property)) report(where, "is the key: a row's id says it")
    checkRule(rule, where, report)
  }
  return compileHide(rules)
}

function checkRule(rule: unknown, at: string, report: Report): void {
  if (rule === true) return
  if (typeof rule !== 'object' || rule === null || !('unless' in rule)) {
    report(at, "must be true, or { unless: 'signed-in' } or { unless: ({ user }) => … }")
    return
  }
  checkOptions(`${at}.`, rule, known, report)
  const { unless } = rule
  if (unless !== 'signed-in' && typeof unless !== 'function') {
    report(`${at}.unless`, "must be 'signed-in' or a function")
  }
}

/** Whether some do not see it. */
export function isHidden({ hide }: Pick<CollectionPlan, 'hide'>, property: string): boolean {
  return [...hide.always, ...hide.rules].some(([name]) => name === property)
}

/** Once all collections are linked: what asks for rows by a column, or in its order. */
export function checkHidden(plans: readonly CollectionPlan[], report: Report): void {
  for (const plan of plans) {
    const at = `collections.${plan.path}`
    const check = (of: CollectionPlan, property: string, key: string): void => {
      if (!isHidden(of, property)) return
      report(`${at}.${key}`, `${property} is hidden: whoever asks by it would learn it`)
    }
    for (const property of plan.filters) check(plan, property, 'filters')
    for (const property of plan.lookup) check(plan, property, 'lookup')
    for (const [name, order] of plan.orders) {
      for (const { column } of order) check(plan, propertyIn(plan, column), `orders.${name}`)
    }
    for (const { name, property } of plan.expand.values()) check(plan, property, `expand.${name}`)
    for (const { name, collection, column } of plan.children) {
      check(collection, propertyIn(collection, column), `children.${name}`)
    }
  }
}

function propertyIn({ columns }: CollectionPlan, wanted: unknown): string {
  for (const [property, column] of columns) if (column === wanted) return property
  return ''
}
