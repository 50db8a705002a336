/**
 * Structured log lines for operators: one JSON object a line on stderr (stdout belongs to the CLI's
 * answers). Secrets are never passed in; unknown errors are, with their stack.
 */
export type LogLevel = 'debug' | 'info' | 'warn' | 'error'

export type LogFields = Readonly<Record<string, unknown>>

export interface Log {
  debug(event: string, fields?: LogFields): void
  info(event: string, fields?: LogFields): void
  warn(event: string, fields?: LogFields): void
  error(event: string, fields?: LogFields): void
}

const rank: Record<LogLevel, number> = { debug: 0, info: 1, warn: 2, error: 3 }

export interface LogOptions {
  readonly level: LogLevel
  readonly now: () => number
  readonly write?: (line: string) => void
}

export function createLog({ level, now, write = writeStderr }: LogOptions): Log {
  const at = (line: LogLevel) => (event: string, fields?: LogFields) => {
    if (rank[line] < rank[level]) return
    write(
      `${JSON.stringify({ at: new Date(now()).toISOString(), level: line, event, ...plain(fields) })}\n`,
    )
  }
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}

/** Errors have no enumerable fields: without this a log line would say `{}` of the one that matters. */
function plain(fields: LogFields | undefined): LogFields | undefined {
  if (!fields || !Object.values(fields).some((value) => value instanceof Error)) return fields
  return Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [
      name,
      value instanceof Error ? describe(value) : value,
    ]),
  )
}

function describe(error: Error): unknown {
  const cause = error.cause instanceof Error ? describe(error.cause) : error.cause
  return { message: error.message, stack: error.stack, ...(cause === undefined ? {} : { cause }) }
}

function writeStderr(line: string): void {
  process.stderr.write(line)
}
