/**
 * The only reader of the environment. Everything wrong is reported at once, by variable name.
 */
import { isIP } from 'node:net'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import type { AuthConfig } from './auth/auth.ts'
import { Fault, type FieldProblem } from './fault.ts'
import { parseDurationMs } from './lib/duration.ts'
import type { LogLevel } from './observe/log.ts'
import type { Mode } from './overload/overload.ts'
import type { DatabaseOptions, RedisTarget } from './store/store.ts'

export interface Config {
  readonly host: string
  readonly port: number
  readonly database: DatabaseOptions
  /** Undefined: this server is alone, or its nodes follow the log by polling. */
  readonly redis: RedisTarget | undefined
  readonly auth: AuthConfig
  /** Origins that may call from a browser; empty: same origin only. */
  readonly corsOrigins: readonly string[]
  /** Whose `X-Forwarded-For` is believed: addresses, ranges, `loopback`, `private`. */
  readonly trustedProxies: readonly string[]
  readonly logLevel: LogLevel
  /** What is given up under load until somebody says otherwise. */
  readonly overloadMode: Mode
  /** Of sockets and streams; absent: the default. */
  readonly connections: {
    readonly connectionsPerUserMax?: number
    readonly connectionsPerAddressMax?: number
  }
  /** Handed to the app's declared functions; app files read no `process.env` of their own. */
  readonly env: Env
}

export type Env = Readonly<Record<string, string | undefined>>

const logLevels: readonly LogLevel[] = ['debug', 'info', 'warn', 'error']
const overloadModes: readonly Mode[] = ['auto', 'normal', 'saving', 'emergency', 'closed']

/** Named in the architecture, not served yet: setting one must not look as if it worked. */
const notYet = ['CDN_BASE_URL', 'SENTRY_DSN', 'WORKERS']

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

  const modeName = get('OVERLOAD_MODE') ?? 'auto'
  const overloadMode = overloadModes.find((known) => known === modeName)
  if (!overloadMode) problem('OVERLOAD_MODE', `must be one of ${overloadModes.join(', ')}`)

  const count = (name: string): number | undefined => {
    const text = get(name)
    if (text === undefined) return undefined
    if (!/^[1-9]\d{0,6}$/.test(text)) problem(name, 'must be 1 to 9999999')
    return Number(text)
  }

  const perUser = count('CONNECTIONS_PER_USER')
  const perAddress = count('CONNECTIONS_PER_ADDRESS')

  const database = readDatabase(appName, get, problem)
  const redis = readRedis(get, problem)

  const list = (name: string): string[] => listOf(get(name))
  const jwks = list('JWKS_URL').map((one) => jwksUrl(one))
  if (jwks.includes(undefined)) problem('JWKS_URL', 'must be https:, http: or file:<path> each')
  const tolerance = get('JWT_CLOCK_TOLERANCE')
  const toleranceMs = tolerance === undefined ? undefined : parseDurationMs(tolerance)
  if (tolerance !== undefined && !(toleranceMs !== undefined && toleranceMs <= toleranceMsMax)) {
    problem('JWT_CLOCK_TOLERANCE', 'must be a duration of at most 5m, like 5s')
  }

  const corsOrigins = list('CORS_ORIGIN')
  const trustedProxies = list('TRUSTED_PROXIES')
  for (const one of trustedProxies) {
    if (!isProxy(one)) {
      problem('TRUSTED_PROXIES', `${one} is no address, range, loopback or private`)
    }
  }
  for (const origin of corsOrigins) {
    if (origin !== '*' && !isOrigin(origin)) {
      problem('CORS_ORIGIN', `${origin} is no origin like https://example.com`)
    }
  }

  if (problems.length > 0 || !logLevel || !overloadMode || !database) {
    throw new Fault('invalid', 'the environment is not valid', { fields: problems })
  }
  return {
    host: get('HOST') ?? '0.0.0.0',
    port,
    database,
    redis,
    auth: {
      secret: get('JWT_SECRET'),
      publicKey: get('JWT_PUBLIC_KEY'),
      jwks: jwks.filter((one) => one !== undefined),
      issuers: list('JWT_ISSUER'),
      audiences: list('JWT_AUDIENCE'),
      typ: get('JWT_TYP'),
      toleranceMs,
      apiKey: get('API_KEY'),
    },
    corsOrigins,
    trustedProxies,
    logLevel,
    overloadMode,
    connections: {
      ...(perUser === undefined ? {} : { connectionsPerUserMax: perUser }),
      ...(perAddress === undefined ? {} : { connectionsPerAddressMax: perAddress }),
    },
    env: Object.freeze({ ...env }),
  }
}

/**
 * The admin socket of whichever server holds the folder of this database: one folder, one server.
 * Undefined for a database without any file here.
 */
export function adminSocket(database: DatabaseOptions): string | undefined {
  const file = database.kind === 'file' ? database.file : database.replicaFile
  return file === undefined ? undefined : join(dirname(file), 'belfry.sock')
}

/** What tells one database from another, fit to be shown: a path, or a host without its secrets. */
export function databaseName(database: DatabaseOptions): string {
  return database.kind === 'file' ? database.file : new URL(database.primary.url).host
}

/** Where this machine reaches a server that listens on `host`; fit for a URL. */
export function reachableHost(host: string): string {
  if (host === '0.0.0.0') return '127.0.0.1'
  if (host === '::') return '[::1]'
  return host.includes(':') ? `[${host}]` : host
}

/** Who needs more has clocks that do not run. */
const toleranceMsMax = 5 * 60_000

function listOf(text = ''): string[] {
  return text
    .split(',')
    .map((one) => one.trim())
    .filter(Boolean)
}

/** A relative path is one of the working directory. */
function jwksUrl(text: string): string | undefined {
  if (/^https?:\/\/[^/]+/.test(text)) return URL.canParse(text) ? text : undefined
  const path = text.startsWith('file:') ? databasePath(text) : undefined
  return path === undefined ? undefined : pathToFileURL(resolve(path)).href
}

type Get = (name: string) => string | undefined
type Problem = (field: string, message: string) => void

/** One of the four shapes (`store/places.ts`). */
function readDatabase(appName: string, get: Get, problem: Problem): DatabaseOptions | undefined {
  const url = get('DATABASE_URL') ?? `file:./data/${appName}.db`
  const authToken = get('DATABASE_AUTH_TOKEN')
  const replicas = listOf(get('DATABASE_READ_REPLICA_URL'))
  for (const one of replicas) {
    if (!isRemote(one)) problem('DATABASE_READ_REPLICA_URL', `${one} is no libsql: or http(s): URL`)
  }
  const targets = replicas.map((one) => ({ url: one, authToken }))
  const replicaPath = get('DATABASE_REPLICA_PATH')
  if (isRemote(url)) {
    const replicaFile = replicaPath === undefined ? undefined : filePath(replicaPath)
    if (replicaPath !== undefined && replicaFile === undefined) {
      problem('DATABASE_REPLICA_PATH', 'must be the path of a file')
    }
    return { kind: 'remote', primary: { url, authToken }, replicas: targets, replicaFile }
  }
  if (replicaPath !== undefined) {
    problem('DATABASE_REPLICA_PATH', 'is for a remote DATABASE_URL: a file needs no copy of itself')
  }
  const path = databasePath(url)
  if (path === undefined || /[/\\]$|:memory:/.test(path)) {
    problem('DATABASE_URL', 'must be file:<path>, or a libsql:, https: or http: URL')
    return undefined
  }
  return { kind: 'file', file: resolve(path), replicas: targets }
}

const redisPort = 6379

/** The URL is never repeated: it may hold a password. */
function readRedis(get: Get, problem: Problem): RedisTarget | undefined {
  const text = get('REDIS_URL')
  if (text === undefined) return undefined
  const url = URL.parse(text)
  const db = /^\/?(\d{0,4})$/.exec(url?.pathname ?? '')?.[1]
  const [username, password] = [decoded(url?.username ?? ''), decoded(url?.password ?? '')]
  const isWhole =
    /^rediss?:\/\//.test(text) &&
    url?.hostname &&
    url.port !== '0' &&
    url.search === '' &&
    url.hash === '' &&
    db !== undefined &&
    username !== undefined &&
    password !== undefined
  if (!isWhole) {
    problem('REDIS_URL', 'must be redis[s]://[[username]:password@]host[:port][/database number]')
    return undefined
  }
  return {
    // As sockets want it: an IPv6 address without its brackets.
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: url.port === '' ? redisPort : Number(url.port),
    username: username || undefined,
    password: password || undefined,
    db: Number(db),
    isTls: url.protocol === 'rediss:',
  }
}

function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}

function isRemote(url: string): boolean {
  return /^(libsql|https?):\/\/[^/]+/.test(url) && URL.canParse(url)
}

/** With or without `file:` before it. */
function filePath(text: string): string | undefined {
  const path = text.startsWith('file:') ? databasePath(text) : text
  return path === undefined || /[/\\]$|:memory:/.test(path) ? undefined : resolve(path)
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

/** `10.0.0.1`, `10.0.0.0/8`, `fd00::/8`, or a name for several. */
function isProxy(text: string): boolean {
  if (text === 'loopback' || text === 'private') return true
  const [address = '', bits, more] = text.split('/')
  const version = isIP(address)
  if (version === 0 || more !== undefined) return false
  return (
    bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (version === 6 ? 128 : 32))
  )
}

function isOrigin(text: string): boolean {
  return URL.canParse(text) && new URL(text).origin === text
}
