import { expect, test } from 'bun:test'
import { t } from 'elysia'
import { app } from '../../src/kit.ts'
import { compilePlan, type Plan } from '../../src/plan/plan.ts'
import { faultOf } from '../harness.ts'

const planOf = (options: Record<string, unknown>): Plan =>
  compilePlan(app({ name: 'test', ...options } as never))

async function problemsOf(options: Record<string, unknown>): Promise<string[]> {
  const { fields = [] } = await faultOf(() => planOf(options))
  return fields.map(({ field, message }) => `${field}: ${message}`)
}

test('accounts are declared, or there are none', () => {
  expect(planOf({}).accounts).toBeUndefined()
  expect(planOf({ auth: {} }).accounts).toBeUndefined()
  expect(planOf({ auth: { accounts: false } }).accounts).toBeUndefined()
  expect(planOf({ auth: { accounts: true } }).accounts).toMatchObject({
    ...{ send: undefined, mustVerify: false, isOpen: true },
    limits: { login: { name: 'login', quota: 5, windowMs: 900_000 } },
  })
  const send = () => {}
  const auth = { accounts: { send, verify: true, signUp: false } }
  expect(planOf({ auth, limits: { login: '3/min', 'sign-up': '1/day' } }).accounts).toMatchObject({
    ...{ send, mustVerify: true, isOpen: false },
    limits: {
      login: { name: 'login', quota: 3, windowMs: 60_000 },
      signUp: { name: 'sign-up', quota: 1, windowMs: 86_400_000 },
      mail: { name: 'mail', quota: 5, windowMs: 3_600_000 },
    },
  })
})

test('what is wrong with them is named, all at once', async () => {
  expect(await problemsOf({ auth: true })).toEqual([
    'auth: must be { claims, accounts }, each of them optional',
  ])
  expect(await problemsOf({ auth: { accounts: 'yes', sso: true } })).toEqual([
    'auth.sso: is not an option (claims, accounts)',
    'auth.accounts: must be true or { send, verify, signUp }, each of them optional',
  ])
  const accounts = { send: 'mail', signUp: 1, role: 'x' }
  expect(await problemsOf({ auth: { accounts } })).toEqual([
    'auth.accounts.role: is not an option (send, verify, signUp)',
    'auth.accounts.send: must be a function of a message',
    'auth.accounts.signUp: must be true or false',
  ])
  expect(await problemsOf({ auth: { accounts: { verify: true } } })).toEqual([
    'auth.accounts.verify: needs send: nobody could verify an address',
  ])
  const claims = t.Object({ tenant: t.String() })
  expect(await problemsOf({ auth: { accounts: true, claims } })).toEqual([
    "auth.claims: accounts say sid, email_verified and perhaps role: the token's claim tenant does not fit: expected required property",
  ])
  const fitting = t.Object({ role: t.Optional(t.String()), email_verified: t.Boolean() })
  expect(planOf({ auth: { accounts: true, claims: fitting } }).accounts).toBeDefined()
})
