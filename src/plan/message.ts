/** A topic's message schema, in Elysia's `t`, compiled to a check. As Elysia does with a route's body. */
import { getSchemaValidator, type TSchema } from 'elysia'
import type { FieldProblem } from '../fault.ts'
import type { CheckMessage } from '../realtime/realtime.ts'
import type { Report } from './report.ts'

/** How TypeBox marks its schemas, whichever copy of it made them. */
const kind = Symbol.for('TypeBox.Kind')

export function compileMessage(
  schema: TSchema,
  at: string,
  report: Report,
): CheckMessage | undefined {
  if (typeof schema !== 'object' || schema === null || !(kind in schema)) {
    report(at, 'must be a schema: t.Object({ … }) of elysia')
    return undefined
  }
  // Of a copy: Elysia writes into what it compiles.
  const compiled = getSchemaValidator({ ...schema }, { normalize: true })
  return (data) => {
    // Checked before it is cleaned: cleaning makes an object of anything.
    if (!compiled.Check(data)) return { ok: false, fields: fieldsOf(compiled.Errors(data)) }
    const cleaned: unknown = compiled.Clean?.(data) ?? data
    try {
      return { ok: true, data: compiled.hasTransform ? compiled.Decode(cleaned) : cleaned }
    } catch {
      return { ok: false, fields: [{ field: 'data', message: 'cannot be read' }] }
    }
  }
}

/** The first problem of each field. */
function fieldsOf(
  errors: Iterable<{ readonly path: string; readonly message: string }>,
): FieldProblem[] {
  const seen = new Map<string, string>()
  for (const { path, message } of errors) {
    const field = `data${path.replaceAll('/', '.')}`
    if (!seen.has(field)) seen.set(field, message.charAt(0).toLowerCase() + message.slice(1))
  }
  return [...seen].map(([field, message]) => ({ field, message }))
}
