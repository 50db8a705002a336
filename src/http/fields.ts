/** Reads the fields of a JSON body: each of its type, all problems at once. */
import { Fault, type FieldProblem } from '../fault.ts'

export type Body = Readonly<Record<string, unknown>>

export interface Fields {
  /** A name that must be there. */
  name(field: string): string
  names(field: string, max: number, isOptional?: 'optional'): readonly string[]
  /** Absent or a text of at most `max` characters; anything when there is no maximum. */
  text(field: string, max?: number): string | undefined
  flag(field: string): boolean
  /** Absent or an integer from `least` to `most`. */
  whole(field: string, least: number, most: number): number | undefined
  /** Whatever is there, or undefined. */
  any(field: string): unknown
  /** Whatever is there, but something. */
  value(field: string): unknown
  /** An object that may be absent. */
  object(field: string): Body | undefined
  /** For what no reader says. */
  problem(field: string, message: string): void
  /** `values`, if nothing was wrong with any field. Faults: `invalid`. */
  done<T>(values: T): T
}

/** Faults: `invalid` if the body has a field that is not one of `known`. */
export function readFields(body: unknown, known: readonly string[]): Fields {
  if (!isObject(body)) throw new Fault('invalid', 'the body must be a JSON object')
  const problems: FieldProblem[] = []
  const problem = (field: string, message: string): void => void problems.push({ field, message })
  for (const field of Object.keys(body)) {
    if (!known.includes(field)) problem(field, `is not one of ${known.join(', ')}`)
  }

  return {
    name(field) {
      const value = body[field]
      if (typeof value === 'string' && value !== '') return value
      problem(field, 'must be a name')
      return ''
    },
    names(field, max, isOptional) {
      const value = body[field]
      if (value === undefined && isOptional) return []
      if (isNames(value) && value.length > 0 && value.length <= max) return value
      problem(field, `must be 1 to ${max} names`)
      return []
    },
    text(field, max = Infinity) {
      const value = body[field]
      if (value === undefined) return undefined
      if (typeof value === 'string' && value.length <= max) return value
      problem(field, max === Infinity ? 'must be a text' : `must be a text of at most ${max}`)
      return undefined
    },
    flag(field) {
      const value = body[field] ?? false
      if (typeof value !== 'boolean') problem(field, 'must be true or false')
      return value === true
    },
    whole(field, least, most) {
      const value = body[field]
      if (value === undefined) return undefined
      const isWhole = typeof value === 'number' && Number.isInteger(value)
      if (isWhole && value >= least && value <= most) return value
      problem(field, `must be an integer from ${least} to ${most}`)
      return undefined
    },
    any: (field) => body[field],
    value(field) {
      if (body[field] === undefined) problem(field, 'is missing')
      return body[field]
    },
    object(field) {
      const value = body[field]
      if (value === undefined || isObject(value)) return value
      problem(field, 'must be an object')
      return undefined
    },
    problem,
    done(values) {
      if (problems.length === 0) return values
      throw new Fault('invalid', 'the request is malformed', { fields: problems })
    },
  }
}

function isObject(value: unknown): value is Body {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isNames(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((name) => typeof name === 'string' && name !== '')
}
