/** SQLite's words into Belfry's: what the caller did wrong, what the operator must mend, what is a bug. */
import { Fault, type FieldProblem } from '../fault.ts'
import type { StoreError } from './messages.ts'

export function faultOf({ code, message }: StoreError): Fault {
  const cause = new Error(`${code}: ${message}`)
  if (code.startsWith('SQLITE_CONSTRAINT')) return constraintFault(code, message, cause)
  switch (code) {
    case 'BELFRY_LOCKED':
      return new Fault('unavailable', 'the data folder is in use by another belfry process', {
        hint: 'stop the other process, or give this one its own DATABASE_URL',
        cause,
      })
    case 'SQLITE_NOTADB':
    case 'SQLITE_CORRUPT':
      return new Fault('unavailable', 'the database file is damaged or is no SQLite database', {
        hint: 'restore it from a backup, or move it away to start empty',
        cause,
      })
    case 'SQLITE_CANTOPEN':
    case 'SQLITE_PERM':
    case 'SQLITE_READONLY':
    case 'SQLITE_AUTH':
      return new Fault('unavailable', 'the database file cannot be opened for writing', {
        hint: 'check the path, its owner and its permissions',
        cause,
      })
    case 'SQLITE_FULL':
    case 'SQLITE_IOERR':
    case 'SQLITE_BUSY':
    case 'SQLITE_NOMEM':
    case 'BELFRY_CLOSED':
      return new Fault('unavailable', 'the database cannot do this right now', { cause })
    default:
      return new Fault('internal', 'the database refused a statement', { cause })
  }
}

/** `UNIQUE constraint failed: forward.region, forward.period`: the columns are all that tells the user. */
function constraintFault(code: string, message: string, cause: Error): Fault {
  const named = /constraint failed: (.+)$/.exec(message)?.[1] ?? ''
  const columns = named.split(', ').map((name) => name.slice(name.indexOf('.') + 1))
  const fields = (text: string): FieldProblem[] =>
    named === '' ? [] : columns.map((field) => ({ field, message: text }))
  switch (code) {
    case 'SQLITE_CONSTRAINT_UNIQUE':
    case 'SQLITE_CONSTRAINT_PRIMARYKEY':
    case 'SQLITE_CONSTRAINT_ROWID':
      return new Fault('conflict', `a row with this ${columns.join(', ')} exists already`, {
        fields: fields('is taken'),
        cause,
      })
    case 'SQLITE_CONSTRAINT_NOTNULL':
      return new Fault('invalid', `${columns.join(', ')} is required`, {
        fields: fields('is required'),
        cause,
      })
    case 'SQLITE_CONSTRAINT_FOREIGNKEY':
      return new Fault('conflict', 'a row it refers to does not exist, or others refer to it', {
        cause,
      })
    default:
      return new Fault('invalid', `a constraint of the table is not met: ${named}`, { cause })
  }
}
