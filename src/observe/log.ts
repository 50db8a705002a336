/**
 * Structured log lines for operators on stderr (stdout belongs to the CLI's answers): one JSON object a
 * line, or, on a terminal, the same for people. Secrets are never passed in; unknown errors are, with
 * their stack.
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
  /** Default: whether stderr is a terminal. */
  readonly isForPeople?: boolean
}

export function createLog({
  level,
  now,
  write = writeStderr,
  isForPeople = process.stderr.isTTY,
}: LogOptions): Log {
  const format = isForPeople ? formatForPeople : formatJson
  const at = (line: LogLevel) => (event: string, fields?: LogFields) => {
    if (rank[line] < rank[level]) return
    write(format(new Date(now()), line, event, plain(fields) ?? {}))
  }
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}

function formatJson(at: Date, level: LogLevel, event: string, fields: LogFields): string {
  return `${JSON.stringify({ at: at.toISOString(), level, event, ...fields })}\n`
}

function formatForPeople(at: Date, level: LogLevel, event: string, fields: LogFields): string {
  const parts = Object.entries(fields).map(([name, value]) => {
    const text = typeof value === 'string' ? value.replace(/\s+/g, ' ') : JSON.stringify(value)
    return ` ${name}=${text}`
  })
  return `${at.toISOString().slice(11, 19)} ${level.padEnd(5)} ${event}${parts.join('')}\n`
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
