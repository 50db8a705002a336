import { expect, test } from 'bun:test'
import { integer, sqliteTable } from 'drizzle-orm/sqlite-core'
import { Fault } from '../../src/fault.ts'
import { app, budget, collection, proxy, type AppOptions } from '../../src/kit.ts'
import { compilePlan } from '../../src/plan/plan.ts'

function problemsOf(options: Partial<Record<keyof AppOptions, unknown>>): string[] {
  try {
    compilePlan(app({ name: 'a', ...options } as AppOptions))
    return []
  } catch (error) {
    if (!(error instanceof Fault)) throw error
    return (error.fields ?? []).map(({ field, message }) => `${field}: ${message}`)
  }
}

test('budgets and proxies as they are meant', () => {
  const plan = compilePlan(
    app({
      name: 'a',
      limits: { api: '100/min' },
      budgets: {
        jupiter: budget({ rate: '45/s', burst: 5, keys: (env) => env['KEYS'], quota: '5000/day' }),
      },
      proxies: {
        '/api/jupiter': proxy({
          upstream: 'https://api.jup.ag',
          read: 'public',
          budget: 'jupiter',
          allow: { query: { ids: /[\w,]+/gi }, path: 'price/v3' },
          vary: ['Accept-Language', 'user'],
          edge: '60s',
          limit: 'api',
        }),
      },
    }),
  )
  expect(plan.budgets[0]).toMatchObject({
    name: 'jupiter',
    rate: { quota: 45, windowMs: 1_000 },
    burst: 5,
    queueMax: 500,
    quota: { count: 5_000, per: 'day' },
    timeoutMs: 5_000,
  })
  const [one] = plan.proxies
  expect(one).toMatchObject({
    path: '/api/jupiter',
    vary: ['accept-language'],
    isByUser: true,
    paths: [['price', 'v3']],
    ttlMs: 60_000,
    clientMs: undefined,
    edgeMs: 60_000,
    isPrivate: false,
  })
  const pattern = one?.query.get('ids')
  expect(['a,B', 'a,B', 'a,B ', ''].map((text) => pattern?.test(text))).toEqual([
    ...[true, true, false, false],
  ])
})

test('budgets that are none', () => {
  expect(problemsOf({ budgets: [] })).toEqual([
    "budgets: must be an object like { jupiter: budget({ rate: '45/s', burst: 5 }) }",
  ])
  const budgets = {
    plain: { rate: '1/s' },
    'No Name': budget({ rate: '1/s' }),
    rates: budget({ rate: 'often' as never, burst: -1, queue: 1.5, keys: 'a,b' as never }),
    more: budget({ rate: '1/s', quota: '5/week' as never, timeout: '2m', header: 'a b' }),
    other: budget({ rate: '1/s', brust: 5 } as never),
  }
  expect(problemsOf({ budgets })).toEqual([
    'budgets.plain: must be budget({ … })',
    'budgets.No Name: a name is 1 to 30 lower-case letters, digits and dashes',
    'budgets.rates.rate: must be a rate like 45/s, 100/min',
    'budgets.rates.keys: must be a function of the environment: (env) => env.API_KEYS',
    'budgets.rates.burst: must be an integer from 0 to 10000',
    'budgets.rates.queue: must be an integer from 0 to 100000',
    "budgets.more.header: must be a header's name, or a function of the key and the request",
    'budgets.more.quota: must be a count like 5000/day or 1000000/month',
    'budgets.more.timeout: must be at most 60s',
    'budgets.other.brust: is not an option (rate, burst, keys, header, queue, quota, timeout)',
  ])
})

const upstream = 'https://api.example.com'

test('proxies that are none', () => {
  expect(problemsOf({ proxies: 'x' })).toEqual([
    "proxies: must be an object like { '/api/prices': proxy({ … }) }",
  ])
  const notes = sqliteTable('notes', { id: integer().primaryKey() })
  const proxies = {
    '/api/plain': { upstream },
    'api/x/': proxy({ upstream, read: 'public' }),
    '/api/notes/x': proxy({ upstream, read: 'public' }),
    '/a': proxy({ upstream } as never),
    '/b': proxy({ upstream, read: 'all' as never, budget: 'b', priority: 'urgent' as never }),
    '/c': proxy({
      upstream,
      read: 'public',
      allow: { query: { a: 'x' } as never, path: '../x' },
      vary: ['Cookie', 'a b'],
      types: ['html'],
      ttl: 'soon' as never,
      bytesMax: 1e9,
      limit: 'api',
    }),
  }
  expect(
    problemsOf({ collections: { notes: collection(notes, { read: 'public' }) }, proxies }),
  ).toEqual([
    'proxies./api/plain: must be proxy({ … })',
    'proxies.api/x/: must be a path like /api/prices, of letters, digits, dashes, dots and _',
    'proxies./api/notes/x: is served by the collection notes already',
    "proxies./a.read: is missing: 'public', 'signed-in' or a function",
    "proxies./b.read: must be 'public', 'signed-in' or a function",
    'proxies./b.budget: no budget is declared as b',
    'proxies./b.priority: must be high, normal, low',
    "proxies./c.allow.query: must be names, ['ids'], or names with patterns, { ids: /[a-z,]+/ }",
    "proxies./c.allow.path: must be like 'price/v3' or 'tokens/{mint}', or several of these",
    'proxies./c.vary: cookie is never passed on',
    "proxies./c.vary: a b is no header's name",
    'proxies./c.ttl: "soon" is no duration like 500ms, 60s, 5m, 1h',
    "proxies./c.types: must be content types like ['application/json']",
    'proxies./c.bytesMax: must be an integer from 1 to 1000000',
    expect.stringContaining('proxies./c.limit: '),
  ])
})

test.each([
  ...['http://127.0.0.1:3000', 'http://[::1]/', 'http://localhost', 'http://2130706433/'],
  ...['http://169.254.169.254/', 'http://a.localhost./', 'http://10.0.0.1'],
])('%s is private, and that has to be said', (where) => {
  const problem = 'is a private address: say private: true if that is meant'
  const proxies = (options: object) => ({
    '/a': proxy({ upstream: where, read: 'public', ...options }),
  })
  expect(problemsOf({ proxies: proxies({}) })).toEqual([`proxies./a.upstream: ${problem}`])
  expect(problemsOf({ proxies: proxies({ private: true }) })).toEqual([])
})

test.each([
  ['ftp://x.test', 'must be an http: or https: URL'],
  ['x.test', 'must be an http: or https: URL'],
  ['https://ann:pw@x.test', 'may have no name or password in it'],
  ['https://x.test/#a', 'may have no #'],
])('%s is no upstream', (where, problem) => {
  const proxies = { '/a': proxy({ upstream: where, read: 'public' }) }
  expect(problemsOf({ proxies })).toEqual([`proxies./a.upstream: ${problem}`])
})
