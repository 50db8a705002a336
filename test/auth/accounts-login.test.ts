/** Guessing: at one account from everywhere, at all accounts from one place, and what becomes of their owners. */
import { describe, expect, test } from 'bun:test'
import { must } from '../../src/lib/assert.ts'
import { faultOf, tempFolder, until } from '../harness.ts'
import { requireService, startRedis } from '../services.ts'
import { startIsOver } from '../server.ts'
import { password, refusal, runAccounts, type AccountsServer } from './accounts-setup.ts'

/** What each of these came to, counted. */
async function outcomes(asked: readonly Promise<{ readonly status: number }>[]) {
  const counts: Record<number, number> = {}
  for (const { status } of await Promise.all(asked)) counts[status] = (counts[status] ?? 0) + 1
  return counts
}

const guess = (server: AccountsServer, n: number, email: string, from: string) =>
  server.ask('sign-in', { email, password: `guess number ${n}` }, { from })

const hashesOf = (server: AccountsServer) => server.rooms.auth.accounts?.hashes ?? 0

const tries = 1_000
const addressOf = (n: number) => `198.51.${100 + (n >> 8)}.${n & 255}`

/** Some at a time, as sockets allow. */
async function waves(count: number, ask: (n: number) => Promise<{ readonly status: number }>) {
  const all: Record<number, number> = {}
  for (let from = 0; from < count; from += 100) {
    const wave = await outcomes(Array.from({ length: 100 }, (_, at) => ask(from + at)))
    for (const [status, one] of Object.entries(wave)) {
      all[Number(status)] = (all[Number(status)] ?? 0) + one
    }
  }
  return all
}

describe('brute force', () => {
  test('from 1,000 addresses against one account: five guesses are looked at, and the owner gets in', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder)
    const owner = await server.signUp('ann@example.com')
    const before = hashesOf(server)
    const all = await waves(tries, (n) => guess(server, n, 'ann@example.com', addressOf(n)))
    expect(all).toEqual({ 401: 5, 429: tries - 5 })
    expect(hashesOf(server) - before).toBe(5)
    // A right password is refused as well: else the limit would not stop the guess that is right.
    const right = await server.ask(
      'sign-in',
      { email: 'ann@example.com', password },
      { from: '203.0.113.1' },
    )
    expect(refusal(right)).toEqual([429, 'more attempts than 5 (login)'])
    expect(Number(right.headers.get('retry-after'))).toBeGreaterThan(800)
    // The owner: a session goes on, one's own place is one's own, and mail opens the door.
    expect((await server.refresh(owner)).status).toBe(200)
    await server.signIn('ann@example.com', { from: '192.0.2.1' })
    await server.ask('request-reset', { email: 'ann@example.com' }, { from: '203.0.113.1' })
    const { token } = await server.mail('reset', 'ann@example.com')
    const reset = await server.ask('reset', { token, password }, { from: '203.0.113.1' })
    expect(reset.status).toBe(200)
    await server.signIn('ann@example.com', { from: '203.0.113.1' })
  }, 60_000)

  test('of any number at once keeps the owner out of no line', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder)
    const email = 'ann@example.com'
    await server.signUp(email)
    const accounts = must(server.rooms.auth.accounts, () => 'there are accounts')
    const codes: Record<string, number> = {}
    const guesses = Array.from({ length: 200 }, async (_, n) => {
      const wrong = { email, password: `guess number ${n}`, address: addressOf(n) }
      const { code } = await faultOf(() => accounts.signIn(wrong))
      codes[code] = (codes[code] ?? 0) + 1
    })
    const { user } = await accounts.signIn({ email, password, address: '192.0.2.1' })
    expect(user.email).toBe(email)
    await Promise.all(guesses)
    expect(codes).toEqual({ unauthenticated: 5, too_many: 195 })
  })

  test('from one address against 1,000 accounts: five guesses are looked at; others are not disturbed', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder)
    await server.signUp('ann@example.com')
    const before = hashesOf(server)
    const all = await waves(tries, (n) => guess(server, n, `user${n}@example.com`, '198.51.100.1'))
    expect(all).toEqual({ 401: 5, 429: tries - 5 })
    expect(hashesOf(server) - before).toBe(5)
    await server.signIn('ann@example.com', { from: '198.51.100.2' })
  }, 60_000)

  test('from where the owner is, at most five more', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder)
    await server.signUp('ann@example.com')
    const asked = Array.from({ length: 20 }, (_, n) =>
      guess(server, n, 'ann@example.com', '192.0.2.1'),
    )
    expect(await outcomes(asked)).toEqual({ 401: 5, 429: 15 })
  })

  test('at an unknown account looks the same as at a known one, and costs the same', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder)
    await server.signUp('ann@example.com')
    const walk = async (email: string, net: number) => {
      const before = hashesOf(server)
      const answers: unknown[] = []
      for (let n = 0; n < 7; n++) {
        const answer = await guess(server, n, email, `203.0.${net}.${n}`)
        const { requestId: _, ...problem } = answer.body
        answers.push([answer.status, problem, [...answer.headers.keys()].toSorted()])
      }
      return [answers, hashesOf(server) - before]
    }
    expect(await walk('ann@example.com', 1)).toEqual(await walk('bob@example.com', 2))
  })

  test('who is right is not counted, however often', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder)
    await server.signUp('ann@example.com')
    for (let n = 0; n < 8; n++) await server.signIn('ann@example.com')
    const [row] = await server.rooms.store.read({
      sql: 'select count(*) from belfry_sessions',
      params: [],
    })
    expect(row).toEqual([9])
  })

  test('of the present password, with a stolen access token, is stopped as well', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder)
    const { accessToken } = await server.signUp('ann@example.com')
    const asked = Array.from({ length: 20 }, (_, n) =>
      server.ask(
        'change-password',
        { password: `guess number ${n}`, newPassword: 'mine from now on' },
        { token: accessToken, from: addressOf(n) },
      ),
    )
    expect(await outcomes(asked)).toEqual({ 400: 5, 429: 15 })
  })

  test('of refresh tokens is counted as that of any tokens, and then costs nothing', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder, { limits: { credentials: '3/min' } })
    const { refreshToken } = await server.signUp('ann@example.com')
    const refresh = async (token: string, from: string) =>
      (await server.ask('refresh', { refreshToken: token }, { from })).status
    const forged = (n: number) => `bfr_${'A'.repeat(21)}${n}_${'A'.repeat(43)}`
    const statuses: number[] = []
    for (let n = 0; n < 5; n++) statuses.push(await refresh(forged(n), '198.51.100.1'))
    expect(statuses).toEqual([401, 401, 401, 429, 429])
    await startIsOver(server)
    const { reads } = server.rooms.store.stats()
    expect(await refresh(forged(5), '198.51.100.1')).toBe(429)
    expect(server.rooms.store.stats().reads).toBe(reads)
    expect(await refresh(refreshToken, '198.51.100.2')).toBe(200)
  })

  test('sign-ups and mails are counted, by the policies that the app names', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder, {
      limits: { 'sign-up': '3/h', mail: '2/h', login: '1/15min' },
    })
    const signUps = Array.from({ length: 5 }, (_, n) =>
      server.ask('sign-up', { email: `user${n}@example.com`, password }),
    )
    expect(await outcomes(signUps)).toEqual({ 201: 3, 429: 2 })
    expect(hashesOf(server)).toBe(3)
    const request = (email: string, from: string) =>
      server.ask('request-reset', { email }, { from })
    const toOne = [1, 2, 3, 4].map((n) => request('bob@example.com', addressOf(n)))
    expect(await outcomes(toOne)).toEqual({ 202: 2, 429: 2 })
    const fromOne = [1, 2, 3, 4].map((n) => request(`bob${n}@example.com`, '203.0.113.1'))
    expect(await outcomes(fromOne)).toEqual({ 202: 2, 429: 2 })
    const guesses = [1, 2, 3].map((n) => guess(server, n, 'bob@example.com', addressOf(n)))
    expect(await outcomes(guesses)).toEqual({ 401: 1, 429: 2 })
  })
})

describe.skipIf(!requireService('redis-server'))('several nodes', () => {
  test('look at five guesses together, and at one more each, by whose refusal it learns', async () => {
    await using redis = await startRedis()
    using folder = tempFolder()
    using elsewhere = tempFolder()
    const env = { REDIS_URL: redis.url }
    await using here = await runAccounts(folder, { env })
    await using there = await runAccounts(elsewhere, { env })
    for (const { rooms } of [here, there]) {
      await until(() => rooms.cache.stats().shared?.isUp === true, 'Redis is found')
    }
    const looked = () => hashesOf(here) + hashesOf(there)
    for (let n = 0; n < 3; n++) await guess(here, n, 'ann@example.com', addressOf(n))
    for (let n = 3; n < 12; n++) await guess(there, n, 'ann@example.com', addressOf(n))
    for (let n = 12; n < 24; n++) await guess(here, n, 'ann@example.com', addressOf(n))
    expect(looked()).toBeLessThanOrEqual(7)
    expect(looked()).toBeGreaterThanOrEqual(5)
  })
})
