/** A topic's message schema, in Elysia's `t`, compiled to a check. As Elysia does with a route's body. */
import { getSchemaValidator, type TSchema } from 'elysia'
import type { FieldProblem } from '../fault.ts'
import type { CheckMessage } from '../realtime/realtime.ts'
import type { Report } from './report.ts'

/** How TypeBox marks its schemas, whichever copy of it made them. */
const kind = Symbol.for('TypeBox.Kind')

/** Undefined, and reported, for what is no schema. `isOpen`: names that it does not know are let be. */
export function validatorOf(schema: TSchema, at: string, report: Report, isOpen = false) {
  if (typeof schema !== 'object' || schema === null || !(kind in schema)) {
    report(at, 'must be a schema: t.Object({ … }) of elysia')
    return undefined
  }
  // Of a copy: Elysia writes into what it compiles.
  return getSchemaValidator({ ...schema }, { normalize: true, additionalProperties: isOpen })
}

export function compileMessage(
  schema: TSchema,
  at: string,
  report: Report,
): CheckMessage | undefined {
  const compiled = validatorOf(schema, at, report)
  if (!compiled) return undefined
  return (data) => {
    // Checked before it is cleaned: cleaning makes an object of anything.
    if (!compiled.Check(data))
      return { ok: false, fields: problemsOf(compiled.Errors(data), 'data') }
    const cleaned: unknown = compiled.Clean?.(data) ?? data
    try {
      return { ok: true, data: compiled.hasTransform ? compiled.Decode(cleaned) : cleaned }
    } catch {
      return { ok: false, fields: [{ field: 'data', message: 'cannot be read' }] }
    }
  }
}

/** The first problem of each field; `root` is what the whole is called. */
export function problemsOf(
  errors: Iterable<{ readonly path: string; readonly message: string }>,
  root: string,
): FieldProblem[] {
  const seen = new Map<string, string>()
  for (const { path, message } of errors) {
    const field = `${root}${path.replaceAll('/', '.')}`.replace(/^\./, '')
    if (!seen.has(field)) seen.set(field, message.charAt(0).toLowerCase() + message.slice(1))
  }
  return [...seen].map(([field, message]) => ({ field, message }))
}
