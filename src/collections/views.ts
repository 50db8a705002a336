/**
 * Live events as each hearer may have them: of a row, what reading it would give. Asked when a publication goes out,
 * and again when somebody reads it from a history, so that what is kept obeys the rules of that moment.
 *
 *   text ─► whose row? ─► lens of a user: rules asked once ─► the text, or without what is hidden, or nothing;
 *                         or that it is gone: of a row that he saw before the change, and no longer does
 *
 * Invariants: in doubt nothing is shown: a rule that throws, a row that cannot be read, a row of a collection that is
 * not declared (any more). A rule is asked about a user once for all who have the same in the fields that it has been
 * seen to look at (`inputOf`); should it look at another one, `version` says so, and inputs are taken anew.
 */
import type { SQLiteColumn } from 'drizzle-orm/sqlite-core'
import type { User } from '../auth/declare.ts'
import type { Log } from '../observe/log.ts'
import type { CollectionPlan } from './collections.ts'
import type { Columns, RowData } from './columns.ts'
import { hiddenFrom, shown, type Hidden } from './hide.ts'
import { readScopeOrNever } from './rules.ts'
import { matches, type Where } from './where.ts'

/** What a user sees of an event's text; undefined: nothing. */
export type Lens = (text: string) => string | undefined

/** Events of one collection. */
export interface View {
  readonly version: number
  inputOf(user: User | null): string
  /** Undefined: the user sees none. */
  lensOf(user: User | null): Lens | undefined
}

export interface Views {
  /** Undefined: everybody may have it as it is. */
  of(text: string): View | undefined
  /** As the server's own tools may have it: without what is hidden from everybody. Undefined: nothing of it. */
  whole(text: string): string | undefined
  /** Not everybody is told the same of what is live. */
  readonly isNeeded: boolean
}

/** Of every event's text: `LiveEvent` is written in this order. */
const head = '{"collection":"'
const wholeHead = /^\{"collection":"([^"\\]*)","op":"(?:create|update|remove)","id":"/

/** More of a user than this counts as all of it: whoever looks at ever new fields must come to an end. */
const fieldsMax = 64

/** A text with `was` ends in two objects, any other in a number and one. */
const hasWas = (text: string): boolean => text.endsWith('}}')

/** Texts remembered as rows, of each collection: many hear the same, now and when they come back. */
const parsedMax = 64

export function createViews(plans: readonly CollectionPlan[], log: Pick<Log, 'error'>): Views {
  const byPath = new Map(plans.map((plan) => [plan.path, new RowView(plan, log)]))
  /** Null: of a collection that is not declared. */
  const viewOf = (text: string): RowView | null | undefined => {
    if (!text.startsWith(head)) return undefined
    const path = wholeHead.exec(text)?.[1]
    return path === undefined ? undefined : (byPath.get(path) ?? null)
  }
  return {
    isNeeded: plans.some((plan) => plan.live !== undefined && !byPath.get(plan.path)?.isForAll),
    of(text) {
      const view = viewOf(text)
      if (view === null) return undeclared
      return view?.isForAll === true && !view.mayHoldHidden(text) && !hasWas(text)
        ? undefined
        : view
    },
    whole(text) {
      const view = viewOf(text)
      if (view === null) return undefined
      return view && (view.mayHoldHidden(text) || hasWas(text)) ? view.whole(text) : text
    },
  }
}

/** What a publication of this row has: without what is hidden from everybody, if no rule may ask for it. */
export function published({ rules, hide }: CollectionPlan, row: RowData): RowData {
  const isAsked =
    typeof rules.read === 'function' || hide.rules.some(([, rule]) => typeof rule === 'function')
  return isAsked ? row : shown(hide.always, row)
}

const all: Where = { kind: 'always' }

/** Who might have read it, nobody knows any more. */
const undeclared: View = { version: 0, inputOf: () => '', lensOf: () => undefined }

interface Parsed {
  readonly event: Readonly<Record<string, unknown>>
  /** As it stands in the text. */
  readonly wire: Readonly<Record<string, unknown>>
  readonly row: RowData
  /** A column is not there, or null that cannot be: JSON has no endless numbers. Then no condition is sure. */
  readonly isDoubtful: boolean
  /** As it was, if that is told and sure. */
  readonly before: RowData | undefined
  /** For whom it was there before. */
  gone: string | undefined
  /** By what is left out. */
  readonly texts: Map<string, string>
}

class RowView implements View {
  /** Everybody reads all rows, and of each the same. */
  readonly isForAll: boolean
  version = 0
  readonly #plan: CollectionPlan
  readonly #log: Pick<Log, 'error'>
  /** Of a user, as far as rules were seen to look at them. */
  readonly #fields = new Set<string>()
  #looksAtAll = false
  readonly #parsed = new Map<string, Parsed | undefined>()
  #isReported = false
  /** The user, as rules see it, with a note of what they look at. */
  readonly #watch: ProxyHandler<User> = {
    get: (user, field) => {
      this.#note(field)
      return Reflect.get(user, field) as unknown
    },
    has: (user, field) => {
      this.#note(field)
      return Reflect.has(user, field)
    },
    ownKeys: (user) => {
      this.#noteAll()
      return Reflect.ownKeys(user)
    },
    getOwnPropertyDescriptor: (user, field) => {
      this.#note(field)
      return Reflect.getOwnPropertyDescriptor(user, field)
    },
  }

  constructor(plan: CollectionPlan, log: Pick<Log, 'error'>) {
    this.#plan = plan
    this.#log = log
    this.isForAll = plan.rules.read === 'public' && plan.hide.rules.length === 0
  }

  /** Published before it was hidden, and kept since. */
  mayHoldHidden(text: string): boolean {
    return this.#plan.hide.always.some(([property]) => text.includes(`"${property}":`))
  }

  inputOf(user: User | null): string {
    if (!user) return ''
    if (this.#looksAtAll) return JSON.stringify(user)
    const values: unknown[] = []
    for (const field of this.#fields) values.push(field in user ? [user[field]] : 0)
    return JSON.stringify(values)
  }

  whole(text: string): string | undefined {
    return this.#see(text, all, this.#plan.hide.always)
  }

  lensOf(user: User | null): Lens | undefined {
    try {
      const asker = user && new Proxy(user, this.#watch)
      const scope = readScopeOrNever(this.#plan, asker)
      if (scope.kind === 'never') return undefined
      const hidden = hiddenFrom(this.#plan, asker)
      return (text) => this.#see(text, scope, hidden)
    } catch (error) {
      this.#report(error)
      return undefined
    }
  }

  #see(text: string, scope: Where, hidden: Hidden): string | undefined {
    if (scope.kind === 'always' && hidden.length === 0 && !hasWas(text)) return text
    try {
      const parsed = this.#parse(text)
      // No condition is asked of what holds for all.
      if (!parsed || (parsed.isDoubtful && scope.kind !== 'always')) return undefined
      const { row, isDoubtful, wire, event, texts } = parsed
      if (scope.kind !== 'always' && !matches(scope, row)) return this.#gone(parsed, scope)
      const missing: string[] = []
      for (const [property, unless] of hidden) {
        const isSeen = unless.kind !== 'never' && !isDoubtful && matches(unless, row)
        if (!isSeen && property in wire) missing.push(property)
      }
      if (missing.length === 0 && event['was'] === undefined) return text
      const key = missing.join(' ')
      let without = texts.get(key)
      if (without === undefined) {
        const shown = { ...wire }
        for (const property of missing) delete shown[property]
        texts.set(key, (without = JSON.stringify({ ...event, row: shown, was: undefined })))
      }
      return without
    } catch (error) {
      this.#report(error)
      return undefined
    }
  }

  /** For whom it is: the key, and nothing of what the row is now. */
  #gone(parsed: Parsed, scope: Where): string | undefined {
    const { before, event, wire } = parsed
    if (!before || !matches(scope, before)) return undefined
    if (parsed.gone === undefined) {
      const keys = this.#plan.keyProperties.map((property) => [property, wire[property]])
      const row: unknown = Object.fromEntries(keys)
      parsed.gone = JSON.stringify({ ...event, op: 'remove', row, was: undefined })
    }
    return parsed.gone
  }

  #parse(text: string): Parsed | undefined {
    if (this.#parsed.has(text)) return this.#parsed.get(text)
    if (this.#parsed.size >= parsedMax) this.#parsed.clear()
    const parsed = parse(this.#plan, text)
    this.#parsed.set(text, parsed)
    return parsed
  }

  #note(field: string | symbol): void {
    if (this.#looksAtAll || typeof field !== 'string' || this.#fields.has(field)) return
    this.#fields.add(field)
    if (this.#fields.size > fieldsMax) this.#noteAll()
    else this.version++
  }

  #noteAll(): void {
    if (this.#looksAtAll) return
    this.#looksAtAll = true
    this.version++
  }

  /** Once: it is asked for each publication. */
  #report(error: unknown): void {
    if (this.#isReported) return
    this.#isReported = true
    this.#log.error('collections.live_rule_failed', { collection: this.#plan.path, error })
  }
}

function parse({ columns }: CollectionPlan, text: string): Parsed | undefined {
  const event: unknown = JSON.parse(text)
  if (!isRecord(event) || !isRecord(event['row'])) return undefined
  const wire = event['row']
  const { row, isDoubtful } = rowOf(columns, wire)
  const was = isRecord(event['was']) ? rowOf(columns, { ...wire, ...event['was'] }) : undefined
  const before = was && !was.isDoubtful ? was.row : undefined
  return { event, wire, row, isDoubtful, before, gone: undefined, texts: new Map() }
}

function rowOf(columns: Columns, wire: Parsed['wire']): Pick<Parsed, 'row' | 'isDoubtful'> {
  const row: Record<string, unknown> = {}
  let isDoubtful = false
  for (const [property, column] of columns) {
    const value = wire[property] ?? null
    row[property] = value === null ? null : valueOf(column, value)
    if (value === null && (column.notNull || wire[property] === undefined)) isDoubtful = true
  }
  return { row, isDoubtful }
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function valueOf({ dataType }: SQLiteColumn, value: unknown): unknown {
  return dataType === 'date' ? new Date(value as string) : value
}
