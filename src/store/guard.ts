/**
 * Which SQL app code may run where. Not against attackers, who write no SQL here: a statement that ends the
 * transaction, or a write that a server takes from a reader, would break promises long after it was run.
 */
import { Fault } from '../fault.ts'

/** Comments and empty statements may stand before the first word. */
const head = String.raw`^(?:\s|;|--[^\n]*(?:\n|$)|/\*[\s\S]*?\*/)*`

const control = new RegExp(
  `${head}(begin|commit|end|rollback|savepoint|release|pragma|attach|detach|vacuum)\\b`,
  'i',
)
const reading = new RegExp(`${head}(select|values|explain|with)\\b`, 'i')
const unread = /'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\]|--[^\n]*|\/\*[\s\S]*?\*\//g
/** `replace(…)` is a function, too. */
const writing = /\b(insert|update|delete|replace)\b(?!\s*\()/i

/** Drivers run the first of several statements, and say nothing of the others. */
function checkSingle(sql: string): void {
  if (!sql.includes(';') || !/;\s*[^\s;]/.test(sql.replaceAll(unread, ' '))) return
  throw new Fault('invalid', `one statement at a time: ${sql.trim().slice(0, 40)}`)
}

/** Faults: `invalid`. */
export function checkInTransaction(sql: string): void {
  checkSingle(sql)
  if (control.test(sql)) {
    throw new Fault('invalid', `not within a transaction: ${sql.trim().slice(0, 40)}`)
  }
}

/** Faults: `invalid`. */
export function checkReads(sql: string): void {
  checkSingle(sql)
  const first = reading.exec(sql)?.[1]?.toLowerCase()
  const isRead = first === 'with' ? !writing.test(sql.replaceAll(unread, ' ')) : first !== undefined
  if (!isRead) {
    const text = `this only reads, db.transaction writes: ${sql.trim().slice(0, 40)}`
    throw new Fault('invalid', text)
  }
}
