/** SQLite's words into Belfry's: what the caller did wrong, what the operator must mend, what is a bug. */
import { Fault, type FieldProblem } from '../fault.ts'
import type { StoreError } from './messages.ts'

export function faultOf({ code, message }: StoreError): Fault {
  const cause = new Error(`${code}: ${message}`)
  if (code.startsWith('SQLITE_CONSTRAINT')) return constraintFault(code, message, cause)
  // Extended codes say the same with more detail: SQLITE_IOERR_WRITE, SQLITE_BUSY_SNAPSHOT.
  const family = familyOf(code)
  if (family === undefined) {
    return new Fault('internal', 'the database refused a statement', { cause })
  }
  const { text, hint }: Family = families[family]
  return new Fault('unavailable', text, { hint, cause, retryAfterMs: retryMs })
}

/** The database may be back by then. */
const retryMs = 1_000

/** Whether the network, or who is at its other end, is the trouble. */
export function isUnreachable({ cause }: Fault): boolean {
  return cause instanceof Error && cause.message.startsWith('BELFRY_UNREACHABLE')
}

interface Family {
  readonly codes: readonly string[]
  readonly text: string
  readonly hint?: string
}

const families = {
  locked: {
    codes: ['BELFRY_LOCKED'],
    text: 'the data folder is in use by another belfry process',
    hint: 'stop the other process, or give this one its own DATABASE_URL',
  },
  damaged: {
    codes: ['SQLITE_NOTADB', 'SQLITE_CORRUPT'],
    text: 'the database file is damaged or is no SQLite database',
    hint: 'restore it from a backup, or move it away to start empty',
  },
  unreachable: {
    codes: ['BELFRY_UNREACHABLE'],
    text: 'the primary database cannot be reached',
    hint: 'check DATABASE_URL and the network; reads go on where a replica or the cache has them',
  },
  refused: {
    codes: ['BELFRY_REFUSED'],
    text: 'the primary database refuses this server',
    hint: 'check DATABASE_AUTH_TOKEN',
  },
  closed: {
    codes: ['SQLITE_CANTOPEN', 'SQLITE_PERM', 'SQLITE_READONLY', 'SQLITE_AUTH'],
    text: 'the database file cannot be opened for writing',
    hint: 'check the path, its owner and its permissions',
  },
  full: {
    codes: ['SQLITE_FULL'],
    text: 'the disk is full',
    hint: 'make room where the database and its backups are kept',
  },
  troubled: {
    codes: [
      ...['SQLITE_IOERR', 'SQLITE_BUSY', 'SQLITE_LOCKED', 'SQLITE_NOMEM'],
      ...['SQLITE_INTERRUPT', 'SQLITE_PROTOCOL', 'SQLITE_ABORT', 'BELFRY_CLOSED'],
    ],
    text: 'the database cannot do this right now',
  },
} satisfies Record<string, Family>

function familyOf(code: string): keyof typeof families | undefined {
  for (const name of Object.keys(families) as (keyof typeof families)[]) {
    if (families[name].codes.some((one) => code === one || code.startsWith(`${one}_`))) return name
  }
  return undefined
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
      return new Fault('conflict', 'such a row exists already', {
        fields: fields('is taken'),
        cause,
      })
    case 'SQLITE_CONSTRAINT_NOTNULL':
      return new Fault('invalid', 'a required value is missing', {
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
