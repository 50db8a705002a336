import { describe, expect, test } from 'bun:test'
import { blob, integer, primaryKey, real, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { t } from 'elysia'
import { Fault } from '../../src/fault.ts'
import { app, budget, collection, desc, feed, topic } from '../../src/kit.ts'
import { compilePlan, schemaOf } from '../../src/plan/plan.ts'

const spot = sqliteTable(
  'spot',
  {
    region: text().notNull(),
    at: integer({ mode: 'timestamp_ms' }).notNull(),
    price: real().notNull(),
    note: text(),
  },
  (t) => [primaryKey({ columns: [t.region, t.at] })],
)

/** All of an app's problems as `key: message`. */
function problemsOf(options: unknown): string[] {
  try {
    compilePlan(app(options as never))
  } catch (thrown) {
    if (thrown instanceof Fault && thrown.fields) {
      return thrown.fields.map(({ field, message }) => `${field}: ${message}`)
    }
    throw thrown
  }
  return []
}

describe('compilePlan', () => {
  test('the smallest app', () => {
    const notes = sqliteTable('notes', { id: integer().primaryKey(), text: text().notNull() })
    const plan = compilePlan(
      app({ name: 'notes', collections: { notes: collection(notes, { read: 'public' }) } }),
    )
    expect(plan).toMatchObject({ name: 'notes', topics: [], feeds: [] })
    expect(plan.collections[0]).toMatchObject({ path: 'notes', ttlMs: 60_000, orderDefault: 'key' })
    expect(Object.isFrozen(plan)).toBe(true)
  })

  test('a priority is one of three, and normal if it is not said', () => {
    const of = (priority?: unknown) =>
      app({
        name: 'a',
        collections: { spot: collection(spot, { priority: priority as 'low' }) },
      })
    expect(compilePlan(of()).collections[0]?.priority).toBe('normal')
    expect(compilePlan(of('low')).collections[0]?.priority).toBe('low')
    expect(problemsOf(of('urgent').options)).toEqual([
      'collections.spot.priority: must be one of high, normal, low',
    ])
  })

  test('all five mistakes of a file are reported at once, each naming its key', () => {
    const problems = problemsOf({
      name: 'energy',
      collections: {
        'prices/live': collection(spot, {
          ttl: '60 seconds' as never,
          filters: ['regoin' as never],
        }),
        publish: collection(spot, {}),
      },
      topics: { 'prices:{region': topic({}) },
      feeds: { dispatch: feed({ every: '5m', load: () => [], into: 'prices/dead' }) },
    })
    expect(problems).toEqual([
      expect.stringContaining('topics.prices:{region: '),
      'collections.prices/live.ttl: "60 seconds" is no duration like 500ms, 60s, 5m, 1h',
      'collections.prices/live.filters: regoin is not a column of the table',
      'collections.publish: the name publish is reserved',
      'feeds.dispatch.into: no collection is declared at prices/dead',
    ])
  })

  test('a topic says what may be published, how often, and how often it is heard', () => {
    const message = t.Object({ text: t.String() })
    const key = (data: { text: string }) => data.text
    const plan = compilePlan(
      app({
        name: 'a',
        topics: {
          chat: topic({ message, limit: '5/10s', conflate: { every: '1s', key } }),
          level: topic({ limit: { connection: '100/min' }, conflate: '250ms' }),
          plain: topic({}),
        },
      }),
    )
    const [chat, level, plain] = plan.topics
    expect(chat).toMatchObject({
      limit: { user: { name: 'chat', quota: 5, windowMs: 10_000 } },
      conflate: { everyMs: 1_000, key },
    })
    expect(chat?.message?.({ text: 'a' })).toEqual({ ok: true, data: { text: 'a' } })
    expect(message).toEqual(t.Object({ text: t.String() }))
    expect(level?.limit).toEqual({
      user: undefined,
      connection: { name: 'level', quota: 100, windowMs: 60_000 },
    })
    expect(level?.conflate).toEqual({ everyMs: 250, key: undefined })
    for (const part of ['message', 'limit', 'conflate'] as const) {
      expect(plain?.[part]).toBeUndefined()
    }
  })

  test('a durable topic keeps on disk what it keeps in memory, or more', () => {
    const history = { size: 100, ttl: '7d' } as const
    const day = 86_400_000
    const { topics } = compilePlan(
      app({
        name: 'a',
        topics: {
          same: topic({ history, persist: true }),
          longer: topic({ history, persist: { ttl: '90d' } }),
          more: topic({ history, persist: { size: 500 } }),
          not: topic({ history, persist: false }),
        },
      }),
    )
    expect(topics.map(({ persist }) => persist)).toEqual([
      { size: 100, ttlMs: 7 * day },
      { size: 100_000, ttlMs: 90 * day },
      { size: 500, ttlMs: 7 * day },
      undefined,
    ])
    const wrong = {
      a: topic({ persist: true }),
      b: topic({ history, persist: { size: 50, ttl: '1d' } }),
      c: topic({ history, persist: { size: 2_000_000, tll: '1d' } as never }),
      d: topic({ history, persist: 'yes' as never }),
    }
    const sizes = 'must be an integer from 100 (its history) to 1000000'
    expect(problemsOf({ name: 'a', topics: wrong })).toEqual([
      'topics.a.persist: needs history: what subscribers recover from',
      `topics.b.persist.size: ${sizes}`,
      'topics.b.persist.ttl: is shorter than that of its history',
      'topics.c.persist.tll: is not an option (size, ttl)',
      `topics.c.persist.size: ${sizes}`,
      'topics.d.persist: must be true, false or { size, ttl }',
    ])
  })

  test('a topic whose message, limit or conflate is none', () => {
    const topics = {
      a: topic({ message: { text: 'string' } as never, limit: '5 per s' as never }),
      b: topic({ limit: {}, conflate: '1ms' }),
      c: topic({ limit: { users: '5/s', connection: 5 } as never }),
      d: topic({ conflate: { every: '2h', key: 'token' as never } }),
      e: topic({ conflate: { evry: '1s' } as never }),
    }
    const interval = 'must be a duration from 10ms to 1h, like 1s'
    expect(problemsOf({ name: 'a', topics })).toEqual([
      'topics.a.message: must be a schema: t.Object({ … }) of elysia',
      'topics.a.limit: "5 per s" is no rate like 5/10s, 100/min',
      'topics.b.limit: limits nothing: give it user, connection or both',
      `topics.b.conflate: ${interval}`,
      'topics.c.limit.users: is not an option (user, connection)',
      'topics.c.limit.connection: 5 is no rate like 5/10s, 100/min',
      'topics.d.conflate.key: must be a function of the data',
      `topics.d.conflate.every: ${interval}`,
      'topics.e.conflate.evry: is not an option (every, key)',
      `topics.e.conflate.every: ${interval}`,
    ])
  })

  test('a topic may name a limit of the app, of users and connections', () => {
    const plan = compilePlan(
      app({
        name: 'a',
        limits: { chat: '5/10s' },
        topics: { t: topic({ limit: 'chat' }), u: topic({ limit: { connection: 'chat' } }) },
      }),
    )
    const policy = { name: 'chat', quota: 5, windowMs: 10_000 }
    expect(plan.topics.map(({ limit }) => limit)).toEqual([
      { user: policy },
      { user: undefined, connection: policy },
    ])
    const limits = { login: { rate: '5/15min', by: 'address' } } as const
    expect(problemsOf({ name: 'a', limits, topics: { t: topic({ limit: 'login' }) } })).toEqual([
      'topics.t.limit: counts by address: a topic counts users and connections',
    ])
  })

  test('a topic that goes through no call, or through one with parameters it has not', () => {
    const topics = {
      'a:{room}': topic({ publish: 'public', through: 'POST /api/chat/{room}/{place}' }),
      b: topic({ publish: 'public', through: '/api/chat' }),
      c: topic({ through: 'POST /api/chat' }),
    }
    expect(problemsOf({ name: 'a', topics })).toEqual([
      'topics.a:{room}.through: {place} is no parameter of a:{room}',
      "topics.b.through: must be a call like 'POST /api/chat/{room}'",
      'topics.c.through: needs publish: who may',
    ])
  })

  test('what later versions will serve is refused by name, not ignored', () => {
    expect(problemsOf({ name: 'a', jobs: {} })).toEqual([
      'jobs: is not served yet by this version: remove it',
    ])
  })

  test('misspelt options, paths that clash, tables that cannot be served', () => {
    const keyless = sqliteTable('keyless', { a: text() })
    const binary = sqliteTable('binary', {
      id: integer().primaryKey(),
      data: blob({ mode: 'buffer' }),
    })
    const other = sqliteTable('spot', { id: integer().primaryKey() })
    const reserved = sqliteTable('log', { id: integer().primaryKey() })
    const problems = problemsOf({
      name: 'Bad Name',
      colections: {},
      collections: {
        'prices/live': collection(spot, { raed: 'public' } as never),
        '/prices/live/': collection(spot, {}),
        keyless: collection(keyless, {}),
        binary: collection(binary, {}),
        other: collection(other, {}),
        reserved: collection(reserved, {}),
        plain: spot as never,
        orders: collection(spot, { orders: { a: desc(keyless.a), b: desc(spot.note) } }),
        rule: collection(spot, { read: 'everybody' as never }),
      },
    })
    for (const start of [
      'colections: is not an option',
      'name: must be',
      'collections.prices/live.raed: is not an option',
      'collections./prices/live/: has the same path as prices/live',
      'collections.keyless: table keyless needs a primary key',
      'collections.binary.data: blob columns are not served yet',
      'collections.other: another table is named spot too',
      'collections.reserved: the table name log is reserved',
      'collections.plain: must be collection(',
      'collections.orders.orders.a: orders by a column of another table',
      'collections.orders.orders.b: note may be null',
      "collections.rule.read: must be 'public'",
    ]) {
      expect(problems.filter((one) => one.startsWith(start)).length, start).toBe(1)
    }
  })

  test.each([undefined, null, {}, 'app', () => {}])('%p is no app', (value) => {
    expect(() => compilePlan(value)).toThrow('the app file has one problem')
  })

  test('the topic a collection is live on must be declared', () => {
    const topics = { 'prices:{region}': topic({}) }
    const live = (
      topicOf: (row: { region: string; note: string | null }) => string | readonly string[] | null,
    ) =>
      problemsOf({
        name: 'a',
        topics,
        collections: { spot: collection(spot, { read: 'public', live: topicOf }) },
      })
    expect(live((row) => `prices:${row.region}`)).toEqual([])
    expect(live(() => null)).toEqual([])
    expect(live((row) => `price:${row.region}`)).toEqual([
      'collections.spot.live: no declared topic matches "price:x"',
    ])
    expect(live((row) => [`prices:${row.region}`, 'prices:all'])).toEqual([])
    expect(live((row) => [`prices:${row.region}`, 'all'])).toEqual([
      'collections.spot.live: no declared topic matches "all"',
    ])
    expect(
      live((row) => {
        throw new Error(row.region)
      }),
    ).toEqual([])
  })

  test('a feed names its topic, has a target and a sane pace', () => {
    expect(
      problemsOf({
        name: 'a',
        topics: { stats: topic({ subscribe: 'public' }) },
        feeds: {
          a: feed({ every: '1s', load: () => 1, publish: 'stat' }),
          b: feed({ every: '1s', load: () => 1 }),
          c: feed({ every: '10ms', load: () => 1, publish: 'stats' }),
          d: feed({ load: () => 1, publish: 'stats' } as never),
        },
      }),
    ).toEqual([
      'feeds.a.publish: no declared topic matches stat',
      'feeds.b: needs into (collections), publish (a topic) or keyed (a topic for each key)',
      'feeds.c.every: must be at least 100ms',
      'feeds.d.every: null is no duration like 500ms, 60s, 5m, 1h',
    ])
  })

  test('a feed on fixed times, and a keyed one, are what they can be', () => {
    const load = () => 1
    const every = '1s'
    expect(
      problemsOf({
        name: 'a',
        topics: {
          stats: topic({ subscribe: 'public' }),
          'price:{mint}': topic({ subscribe: 'public' }),
          'pair:{a}:{b}': topic({ subscribe: 'public' }),
        },
        budgets: { known: budget({ rate: '45/s' }) },
        feeds: {
          good: feed({
            every: { cron: '0 7 * * MON-FRI' },
            load,
            publish: 'stats',
            budget: 'known',
          }),
          keyed: feed({ every, load, keyed: 'price:{mint}', batch: 50, idle: '5m' }),
          twin: feed({ every, load, keyed: 'price:{mint}' }),
          cron: feed({ every: { cron: '0 0 30 2 *' }, aligned: true, load, publish: 'stats' }),
          jitter: feed({ every, jitter: '2s', load, publish: 'stats' }),
          adaptive: feed({
            every: { cron: '@hourly' },
            adaptive: { min: '10ms', max: '1ms' },
            load,
            publish: 'stats',
          }),
          budget: feed({ every, budget: 'jupiter', batch: 3, load, publish: 'stats' }),
          pair: feed({ every, load, keyed: 'pair:{a}:{b}' }),
          none: feed({ every, load, keyed: 'coin:{mint}', batch: 0 }),
          mixed: feed({
            ...{ every: { cron: '@daily' }, aligned: true, jitter: '1s', load },
            ...{ keyed: 'pair:{a}:{b}', publish: 'stats', into: [] },
          }),
        },
      }),
    ).toEqual([
      'feeds.twin.keyed: is what feed keyed publishes on',
      'feeds.cron.every: {"cron":"0 0 30 2 *"} is no { cron } of minute, hour, day of the month, month and weekday that ever comes',
      'feeds.cron.aligned: is what cron is anyway: remove it',
      'feeds.jitter.jitter: is longer than every',
      'feeds.adaptive.adaptive.min: must be at least 100ms',
      'feeds.adaptive.adaptive: has a min above its max',
      'feeds.adaptive.adaptive: is for an interval, not for fixed times',
      'feeds.budget.budget: no budget is declared under jupiter',
      'feeds.budget.batch: is for a keyed feed',
      'feeds.pair.keyed: must have one {parameter}: the key',
      'feeds.none.batch: must be an integer from 1 to 1000',
      'feeds.none.keyed: no topic is declared as coin:{mint}',
      'feeds.mixed.aligned: is what cron is anyway: remove it',
      'feeds.mixed.publish: a keyed feed publishes on its own topics',
      'feeds.mixed.every: a keyed feed asks at intervals: no cron',
      'feeds.mixed.aligned: is not for a keyed feed: its calls are spread',
      'feeds.mixed.jitter: is not for a keyed feed: its calls are spread',
      'feeds.mixed.into: a keyed feed has rows for one collection',
      'feeds.mixed.keyed: must have one {parameter}: the key',
    ])
  })
})

test('schemaOf: two versions of an app share encoded answers only if columns and orders are the same', () => {
  const table = sqliteTable('notes', { id: integer().primaryKey(), score: real().notNull() })
  const of = (orders: Parameters<typeof collection<typeof table>>[1]['orders']) =>
    schemaOf(
      compilePlan(
        app({
          name: 'a',
          collections: { notes: collection(table, { ...(orders && { orders }) }) },
        }),
      ),
    )
  const top = { top: desc(table.score) }
  expect(of(top)).toBe(of(top))
  expect(of({ top: desc(table.id) })).not.toBe(of(top))
  expect(of(undefined)).not.toBe(of(top))
})
