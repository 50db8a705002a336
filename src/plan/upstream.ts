/** Declared budgets and proxies, checked. */
import { isIP } from 'node:net'
import { parseRate } from '../lib/rate.ts'
import { policiesOf, type LimitPolicy, type NamedPolicies } from '../limits/limits.ts'
import type {
  BudgetDeclaration,
  BudgetOptions,
  ProxyDeclaration,
  ProxyOptions,
} from '../upstream/declare.ts'
import {
  isPublicAddress,
  upstreamProblem,
  type BudgetPlan,
  type BudgetQuota,
  type ProxyPlan,
} from '../upstream/upstream.ts'
import { checkOptions, checkRule, durationOf, type Report } from './report.ts'

/** Priorities by name, as declared. */
const priorities = ['high', 'normal', 'low'] as const

const budgetOptions = {
  served: ['rate', 'burst', 'keys', 'header', 'queue', 'quota', 'timeout'],
  notYet: [],
}

const burstMax = 10_000
const queueDefault = 500
const queueMax = 100_000
const headerDefault = 'authorization'
const budgetTimeoutMs = { absent: 5_000, most: 60_000 } as const

export function compileBudgets(declared: unknown, report: Report): BudgetPlan[] {
  if (declared === undefined) return []
  if (!isObject(declared)) {
    report('budgets', "must be an object like { jupiter: budget({ rate: '45/s', burst: 5 }) }")
    return []
  }
  return Object.entries(declared).flatMap(([name, declaration]) => {
    const at = `budgets.${name}`
    const { kind, options } = (declaration ?? {}) as Partial<BudgetDeclaration>
    if (!/^[a-z0-9-]{1,30}$/.test(name)) {
      report(at, 'a name is 1 to 30 lower-case letters, digits and dashes')
    }
    if (kind !== 'budget' || !isObject(options)) {
      report(at, 'must be budget({ … })')
      return []
    }
    return compileBudget(name, options, at, report)
  })
}

function compileBudget(
  name: string,
  options: BudgetOptions,
  at: string,
  report: Report,
): BudgetPlan[] {
  checkOptions(`${at}.`, options, budgetOptions, report)
  const { keys, header = headerDefault } = options
  const rate = parseRate(options.rate)
  if (!rate) report(`${at}.rate`, 'must be a rate like 45/s, 100/min')
  if (keys !== undefined && typeof keys !== 'function') {
    report(`${at}.keys`, 'must be a function of the environment: (env) => env.API_KEYS')
  }
  if (typeof header !== 'function' && !isHeaderName(header)) {
    report(`${at}.header`, "must be a header's name, or a function of the key and the request")
  }
  const burst = wholeOf(options.burst, `${at}.burst`, 0, burstMax, 0, report)
  const queueLength = wholeOf(options.queue, `${at}.queue`, 0, queueMax, queueDefault, report)
  const quota = quotaOf(options.quota, `${at}.quota`, report)
  const timeoutMs = durationOf(options.timeout, `${at}.timeout`, budgetTimeoutMs.absent, report)
  if (timeoutMs > budgetTimeoutMs.most) report(`${at}.timeout`, 'must be at most 60s')
  if (!rate) return []
  return [{ name, rate, burst, keys, header, queueMax: queueLength, quota, timeoutMs }]
}

function quotaOf(quota: unknown, at: string, report: Report): BudgetQuota | undefined {
  if (quota === undefined) return undefined
  const text = typeof quota === 'string' ? quota : ''
  const [, count, per] = /^([1-9]\d{0,11})\/(day|month)$/.exec(text) ?? []
  if (count !== undefined) return { count: Number(count), per: per as BudgetQuota['per'] }
  report(at, 'must be a count like 5000/day or 1000000/month')
  return undefined
}

const proxyOptions = {
  served: [
    ...['upstream', 'read', 'budget', 'priority', 'allow', 'vary', 'headers', 'ttl', 'stale'],
    ...['client', 'edge', 'types', 'private', 'timeout', 'bytesMax', 'limit'],
  ],
  notYet: [],
}

const ttlDefaultMs = 60_000
const staleDefaultMs = 3_600_000
const timeoutDefaultMs = 10_000

/** One that the cache does not keep would be asked for each time: its entries have 1 MiB at most. */
const bytesMaxMax = 1_000_000

/** No SVG: it is a document that can hold scripts. */
const typesDefault = [
  ...['application/json', 'text/plain', 'text/csv'],
  ...['image/png', 'image/jpeg', 'image/webp', 'image/gif', 'image/avif'],
]

/** Of whoever asks, or of the connection: never for somebody else's server. */
const notPassedOn: ReadonlySet<string> = new Set([
  ...['authorization', 'cookie', 'host', 'origin', 'referer', 'x-api-key', 'proxy-authorization'],
  ...['connection', 'keep-alive', 'te', 'trailer', 'transfer-encoding', 'upgrade', 'expect'],
  ...['content-length', 'content-type', 'range', 'if-none-match', 'if-modified-since', 'via'],
  ...['forwarded', 'x-forwarded-for', 'x-forwarded-host', 'x-forwarded-proto', 'x-real-ip'],
  ...['accept-encoding', 'user-agent', 'date', 'cache-control', 'pragma'],
])

interface Named {
  readonly budgets: readonly BudgetPlan[]
  readonly limits: NamedPolicies
  /** Paths of collections, under `/api/`. */
  readonly collections: readonly string[]
}

export function compileProxies(declared: unknown, named: Named, report: Report): ProxyPlan[] {
  if (declared === undefined) return []
  if (!isObject(declared)) {
    report('proxies', "must be an object like { '/api/prices': proxy({ … }) }")
    return []
  }
  return Object.entries(declared).flatMap(([path, declaration]) => {
    const at = `proxies.${path}`
    const { kind, options } = (declaration ?? {}) as Partial<ProxyDeclaration>
    if (kind !== 'proxy' || !isObject(options)) {
      report(at, 'must be proxy({ … })')
      return []
    }
    if (!/^(\/[a-z0-9][a-z0-9_.-]{0,63}){1,8}$/i.test(path)) {
      report(at, 'must be a path like /api/prices, of letters, digits, dashes, dots and _')
    }
    const taken = named.collections.find((one) => `${path}/`.startsWith(`/api/${one}/`))
    if (taken !== undefined) report(at, `is served by the collection ${taken} already`)
    return [compileProxy(path, options, named, at, report)]
  })
}

function compileProxy(
  path: string,
  options: ProxyOptions,
  { budgets, limits }: Named,
  at: string,
  report: Report,
): ProxyPlan {
  checkOptions(`${at}.`, options, proxyOptions, report)
  const { upstream, read, budget, priority = 'normal', vary = [], headers } = options
  const isPrivate = options.private === true
  if (typeof upstream !== 'function') {
    const problem = upstreamProblem(upstream)
    if (problem !== undefined) report(`${at}.upstream`, problem)
    else if (!isPrivate && isPrivateLiteral(upstream)) {
      report(`${at}.upstream`, 'is a private address: say private: true if that is meant')
    }
  }
  if (read === undefined) report(`${at}.read`, "is missing: 'public', 'signed-in' or a function")
  checkRule(`${at}.read`, read, report)
  if (budget !== undefined && !budgets.some(({ name }) => name === budget)) {
    report(`${at}.budget`, `no budget is declared as ${budget}`)
  }
  if (!priorities.includes(priority)) report(`${at}.priority`, `must be ${priorities.join(', ')}`)
  const optional = (name: 'client' | 'edge') =>
    options[name] === undefined ? undefined : durationOf(options[name], `${at}.${name}`, 0, report)
  return {
    ...{ path, upstream, read, budget, priority, headers, isPrivate },
    query: queryOf(options.allow?.query, `${at}.allow.query`, report),
    paths: pathsOf(options.allow?.path, `${at}.allow.path`, report),
    vary: varyOf(vary, `${at}.vary`, report),
    isByUser: Array.isArray(vary) && vary.includes('user'),
    ttlMs: durationOf(options.ttl, `${at}.ttl`, ttlDefaultMs, report),
    staleMs: durationOf(options.stale, `${at}.stale`, staleDefaultMs, report),
    clientMs: optional('client'),
    edgeMs: optional('edge'),
    types: new Set(typesOf(options.types, `${at}.types`, report)),
    timeoutMs: durationOf(options.timeout, `${at}.timeout`, timeoutDefaultMs, report),
    bytesMax: wholeOf(options.bytesMax, `${at}.bytesMax`, 1, bytesMaxMax, bytesMaxMax, report),
    limit: limitOf(options.limit, limits, path, at, report),
  }
}

function limitOf(
  limit: ProxyOptions['limit'],
  named: NamedPolicies,
  path: string,
  at: string,
  report: Report,
): readonly LimitPolicy[] | undefined {
  if (limit === undefined) return undefined
  const policies = policiesOf(named, limit, `GET:${path}`)
  if (typeof policies !== 'string') return policies
  report(`${at}.limit`, policies)
  return undefined
}

function queryOf(query: unknown, at: string, report: Report): Map<string, RegExp | undefined> {
  if (query === undefined) return new Map()
  if (isNames(query)) return new Map(query.map((name) => [name, undefined]))
  if (!isObject(query) || !Object.values(query).every((one) => one instanceof RegExp)) {
    report(at, "must be names, ['ids'], or names with patterns, { ids: /[a-z,]+/ }")
    return new Map()
  }
  return new Map(
    Object.entries(query as Record<string, RegExp>).map(([name, { source, flags }]) => [
      name,
      // As a whole, and without a memory of the last match.
      new RegExp(`^(?:${source})$`, flags.replaceAll(/[gym]/g, '')),
    ]),
  )
}

function pathsOf(path: unknown, at: string, report: Report): string[][] | undefined {
  if (path === undefined) return undefined
  const paths: unknown = [path].flat()
  if (isNames(paths) && paths.length > 0 && paths.every((one) => pathPattern.test(one))) {
    return paths.map((one) => one.split('/'))
  }
  report(at, "must be like 'price/v3' or 'tokens/{mint}', or several of these")
  return undefined
}

const pathPattern = /^(?!.*(^|\/)\.+(\/|$))([\w~.:@,+-]+|\{\w+\})(\/([\w~.:@,+-]+|\{\w+\}))*$/

function varyOf(vary: unknown, at: string, report: Report): string[] {
  if (!isNames(vary)) {
    report(at, "must be request headers, and 'user': ['accept-language', 'user']")
    return []
  }
  const names = vary.filter((name) => name !== 'user').map((name) => name.toLowerCase())
  for (const name of names) {
    if (!isHeaderName(name)) report(at, `${name} is no header's name`)
    else if (notPassedOn.has(name)) report(at, `${name} is never passed on`)
  }
  return names
}

function typesOf(types: unknown, at: string, report: Report): readonly string[] {
  if (types === undefined) return typesDefault
  if (isNames(types) && types.every((type) => /^[\w.+-]+\/[\w.+-]+$/.test(type))) {
    return types.map((type) => type.toLowerCase())
  }
  report(at, "must be content types like ['application/json']")
  return typesDefault
}

function wholeOf(
  value: unknown,
  at: string,
  least: number,
  most: number,
  absent: number,
  report: Report,
): number {
  if (value === undefined) return absent
  if (Number.isInteger(value) && Number(value) >= least && Number(value) <= most) {
    return Number(value)
  }
  report(at, `must be an integer from ${least} to ${most}`)
  return absent
}

/** As far as it can be told without asking DNS: the guard looks again, at each call. */
function isPrivateLiteral(upstream: string): boolean {
  const host = new URL(upstream).hostname.replace(/^\[|\]$/g, '')
  if (isIP(host) !== 0) return !isPublicAddress(host)
  return /(^|\.)localhost\.?$/i.test(host)
}

function isHeaderName(name: unknown): boolean {
  return typeof name === 'string' && /^[\w!#$%&'*+.^`|~-]{1,64}$/.test(name)
}

function isNames(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((one) => typeof one === 'string' && one !== '')
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
