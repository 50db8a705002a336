/**
 * The only reader of the environment. Everything wrong is reported at once, by variable name.
 */
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { AuthConfig } from './auth/auth.ts'
import { Fault, type FieldProblem } from './fault.ts'
import type { LogLevel } from './observe/log.ts'

export interface Config {
  readonly host: string
  readonly port: number
  /** Path of the database file. */
  readonly databaseFile: string
  readonly auth: AuthConfig
  /** Origins that may call from a browser; empty: same origin only. */
  readonly corsOrigins: readonly string[]
  readonly logLevel: LogLevel
  /** Handed to the app's declared functions; app files read no `process.env` of their own. */
  readonly env: Env
}

export type Env = Readonly<Record<string, string | undefined>>

const logLevels: readonly LogLevel[] = ['debug', 'info', 'warn', 'error']

/** Named in the architecture, not served yet: setting one must not look as if it worked. */
const notYet = [
  'DATABASE_AUTH_TOKEN',
  'DATABASE_READ_REPLICA_URL',
  'DATABASE_REPLICA_PATH',
  'REDIS_URL',
  'JWKS_URL',
  'CDN_BASE_URL',
  'TRUSTED_PROXIES',
  'SENTRY_DSN',
  'WORKERS',
]

/** Faults: `invalid`, with every wrong variable. `appName` names the default database file. */
export function readConfig(appName: string, env: Env = process.env): Config {
  const problems: FieldProblem[] = []
  // An empty variable is an unset one: that is how compose files and units clear them.
  const get = (name: string): string | undefined => env[name] || undefined
  const problem = (field: string, message: string): void => void problems.push({ field, message })

  for (const name of notYet) {
    if (get(name) !== undefined) problem(name, 'is not supported yet: unset it')
  }

  const portText = get('PORT') ?? '3000'
  const port = Number(portText)
  if (!/^\d{1,5}$/.test(portText) || port > 65_535) problem('PORT', 'must be 0 to 65535')

  const level = get('LOG_LEVEL') ?? 'info'
  const logLevel = logLevels.find((known) => known === level)
  if (!logLevel) problem('LOG_LEVEL', `must be one of ${logLevels.join(', ')}`)

  const url = get('DATABASE_URL') ?? `file:./data/${appName}.db`
  const path = databasePath(url)
  if (path === undefined || /[/\\]$|:memory:/.test(path)) {
    problem('DATABASE_URL', 'must be file:<path>; remote databases are not supported yet')
  }

  const corsOrigins = (get('CORS_ORIGIN') ?? '')
    .split(',')
    .map((one) => one.trim())
    .filter(Boolean)
  for (const origin of corsOrigins) {
    if (origin !== '*' && !isOrigin(origin)) {
      problem('CORS_ORIGIN', `${origin} is no origin like https://example.com`)
    }
  }

  if (problems.length > 0 || !logLevel) {
    throw new Fault('invalid', 'the environment is not valid', { fields: problems })
  }
  return {
    host: get('HOST') ?? '0.0.0.0',
    port,
    databaseFile: resolve(path ?? ''),
    auth: {
      secret: get('JWT_SECRET'),
      publicKey: get('JWT_PUBLIC_KEY'),
      issuer: get('JWT_ISSUER'),
      audience: get('JWT_AUDIENCE'),
      apiKey: get('API_KEY'),
    },
    corsOrigins,
    logLevel,
    env: Object.freeze({ ...env }),
  }
}

/** Where this machine reaches a server that listens on `host`; fit for a URL. */
export function reachableHost(host: string): string {
  if (host === '0.0.0.0') return '127.0.0.1'
  if (host === '::') return '[::1]'
  return host.includes(':') ? `[${host}]` : host
}

/** A path after `file:`, or a `file://` URL of this machine. */
function databasePath(url: string): string | undefined {
  if (!url.startsWith('file:') || url.includes('?')) return undefined
  if (!url.startsWith('file://')) return url.slice('file:'.length) || undefined
  try {
    return fileURLToPath(url)
  } catch {
    return undefined
  }
}

function isOrigin(text: string): boolean {
  return URL.canParse(text) && new URL(text).origin === text
}
