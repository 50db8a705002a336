/** Claims that an app declares: typed in its rules, asked of every token, once. */
import { describe, expect, expectTypeOf, test } from 'bun:test'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { t } from 'elysia'
import { createAuth, signToken } from '../../src/auth/auth.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { app as plainApp, eq, withClaims } from '../../src/kit.ts'
import { compilePlan } from '../../src/plan/plan.ts'
import { createTestLog, faultOf, tempFolder } from '../harness.ts'
import { runServer, testSecret } from '../server.ts'

const claims = t.Object({
  tenant: t.String({ minLength: 1 }),
  plan: t.Optional(t.Union([t.Literal('free'), t.Literal('pro')])),
  info: t.Optional(t.Object({ name: t.String() })),
})
const { app, collection, topic } = withClaims(claims)

const tickets = sqliteTable('tickets', {
  id: integer().primaryKey(),
  tenant: text().notNull(),
  text: text({ length: 40 }).notNull(),
})

const desk = app({
  name: 'desk',
  collections: {
    tickets: collection(tickets, {
      read: ({ user }) => {
        expectTypeOf(user?.tenant).toEqualTypeOf<string | undefined>()
        expectTypeOf(user?.plan).toEqualTypeOf<'free' | 'pro' | undefined>()
        return eq(tickets.tenant, user?.tenant)
      },
      // @ts-expect-error: no such claim
      update: ({ user }) => user?.tennant === 'a',
      create: ({ user }) => user?.plan === 'pro' && { tenant: user.tenant },
    }),
  },
  topics: {
    'tickets:{tenant}': topic({
      subscribe: ({ user, params }) => user?.tenant === params['tenant'],
    }),
  },
  routes: (server) =>
    server.get('/api/tenant', ({ user }) => {
      expectTypeOf(user?.tenant).toEqualTypeOf<string | undefined>()
      return { tenant: user?.tenant ?? null, other: (user as { other?: unknown } | null)?.other }
    }),
})

const sign = (given: Readonly<Record<string, unknown>>, ttlMs = 60_000): Promise<string> =>
  signToken(testSecret, given, { nowMs: Date.now(), ttlMs })

async function openAuth() {
  return await createAuth(
    { clock: systemClock, log: createTestLog() },
    { secret: testSecret, claims: compilePlan(desk).claims },
  )
}

describe('declared claims', () => {
  test.each([
    [{}, 'claim tenant '],
    [{ tenant: 5 }, 'claim tenant '],
    [{ tenant: '' }, 'claim tenant '],
    [{ tenant: 'acme', plan: 'gold' }, 'claim plan '],
    [{ tenant: 'acme', info: { name: 7 } }, 'claim info.name '],
  ])('a token with %j is refused, naming the claim', async (given, named) => {
    const auth = await openAuth()
    const verdict = await auth.identify(await sign({ sub: 'ann', ...given }))
    expect(verdict).toMatchObject({ ok: false, reason: 'invalid' })
    const { message } = verdict as { readonly message: string }
    expect(message).toContain(named)
    // What a token says is nobody else's.
    expect(message).not.toContain('gold')
    await auth.stop()
  })

  test('one that fits is taken with all it says, and judged once', async () => {
    const auth = await openAuth()
    const given = { sub: 'ann', tenant: 'acme', plan: 'pro', other: [1], info: { name: 'A', x: 1 } }
    const token = await sign(given)
    const verdict = await auth.identify(token)
    const user = { id: 'ann', tenant: 'acme', plan: 'pro', other: [1], info: { name: 'A', x: 1 } }
    expect(verdict).toMatchObject({ ok: true, identity: { user } })
    const bad = await sign({ sub: 'ann' })
    await auth.identify(bad)
    expect(auth.stats().verifications).toBe(2)
    expect(auth.identify(token)).toBe(verdict)
    expect(auth.identify(bad)).toMatchObject({ ok: false })
    expect(auth.stats().verifications).toBe(2)
    await auth.stop()
  })

  test('one that has expired is told that; one for a topic makes no user, and is not asked', async () => {
    const auth = await openAuth()
    expect(await auth.identify(await sign({ sub: 'ann' }, -60_000))).toMatchObject({
      ok: false,
      reason: 'expired',
    })
    const pass = await auth.identifyTopic(await sign({ sub: 'ann', channel: 'tickets:acme' }))
    expect(pass).toMatchObject({ ok: true })
    await auth.stop()
  })

  test('at the door: 401 with the name; rules and routes have the claims', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app: desk.options, folder })
    const headers = async (given: Readonly<Record<string, unknown>>) => ({
      authorization: `Bearer ${await sign({ sub: 'ann', ...given })}`,
    })
    const refused = await server.get('/api/tickets', { headers: await headers({ plan: 'pro' }) })
    expect(refused.status).toBe(401)
    expect(await refused.json()).toMatchObject({ detail: expect.stringContaining('claim tenant') })
    const acme = await headers({ tenant: 'acme', plan: 'pro', other: 1 })
    const made = await server.get('/api/tickets', {
      method: 'POST',
      headers: { ...acme, 'content-type': 'application/json' },
      body: JSON.stringify({ text: 'help' }),
    })
    expect(made.status).toBe(201)
    const list = async (given: Readonly<Record<string, unknown>>) =>
      (await (await server.get('/api/tickets', { headers: await headers(given) })).json()) as {
        readonly items: unknown[]
      }
    expect((await list({ tenant: 'acme' })).items).toMatchObject([{ tenant: 'acme' }])
    expect((await list({ tenant: 'other' })).items).toEqual([])
    const own = await server.get('/api/tenant', { headers: acme })
    expect(await own.json()).toEqual({ tenant: 'acme', other: 1 })
  })

  test('what cannot be asked of a token is refused at start, all at once', async () => {
    const converting = t.Object({ id: t.String(), at: t.Date() }, { additionalProperties: false })
    const fault = await faultOf(() =>
      compilePlan(plainApp({ name: 'a', auth: { claims: converting } })),
    )
    expect(fault.fields?.map(({ field }) => field)).toEqual([
      ...['auth.claims.id', 'auth.claims', 'auth.claims'],
    ])
    const none = await faultOf(() =>
      compilePlan(plainApp({ name: 'a', auth: { claims: {} as never } })),
    )
    expect(none.fields?.map(({ field }) => field)).toEqual(['auth.claims'])
    const text = await faultOf(() =>
      compilePlan(plainApp({ name: 'a', auth: { claims: t.String() } })),
    )
    expect(text.fields?.map(({ field }) => field)).toEqual(['auth.claims'])
  })
})
