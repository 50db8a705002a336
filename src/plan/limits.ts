/** Declared limits, checked and compiled to policies. */
import type { CollectionDeclaration, CollectionOptions } from '../collections/declare.ts'
import type { SQLiteTable } from 'drizzle-orm/sqlite-core'
import type { CollectionLimits } from '../limits/declare.ts'
import {
  policiesOf,
  policyNamePattern,
  policyOf,
  type LimitPolicy,
  type NamedPolicies,
} from '../limits/limits.ts'
import { checkOptions, type Report } from './report.ts'

/** Of a collection's doors. */
export type DoorLimits = Readonly<Partial<Record<keyof CollectionLimits, readonly LimitPolicy[]>>>

export interface LimitsPlan {
  readonly named: NamedPolicies
  /** By path. */
  readonly collections: ReadonlyMap<string, DoorLimits>
}

const doors = ['read', 'create', 'update', 'remove'] as const

export function compileNamed(declared: unknown, report: Report): NamedPolicies {
  const named = new Map<string, LimitPolicy>()
  if (declared === undefined) return named
  if (typeof declared !== 'object' || declared === null) {
    report('limits', "must be an object like { api: '100/min' }")
    return named
  }
  for (const [name, one] of Object.entries(declared)) {
    if (!policyNamePattern.test(name)) {
      report(`limits.${name}`, 'a name is 1 to 30 lower-case letters, digits and dashes')
      continue
    }
    const policy = policyOf(name, one)
    if (typeof policy === 'string') report(`limits.${name}`, policy)
    else named.set(name, policy)
  }
  return named
}

export function compileDoorLimits(
  declared: Readonly<Record<string, CollectionDeclaration>>,
  named: NamedPolicies,
  report: Report,
): LimitsPlan['collections'] {
  const collections = new Map<string, DoorLimits>()
  for (const [path, declaration] of Object.entries(declared)) {
    // Something else there has been reported.
    const options = declaration?.options as CollectionOptions<SQLiteTable> | undefined
    if (options?.limits === undefined) continue
    const at = `collections.${path}.limits`
    if (typeof options.limits !== 'object' || options.limits === null) {
      report(at, "must be an object like { create: 'strict' }")
      continue
    }
    checkOptions(`${at}.`, options.limits, { served: doors, notYet: [] }, report)
    const limits: Partial<Record<keyof CollectionLimits, readonly LimitPolicy[]>> = {}
    for (const door of doors) {
      const use = options.limits[door]
      if (use === undefined) continue
      const policies = policiesOf(named, use, `${path}.${door}`)
      if (typeof policies === 'string') report(`${at}.${door}`, policies)
      else limits[door] = policies
    }
    collections.set(path, limits)
  }
  return collections
}
