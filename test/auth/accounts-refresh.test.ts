/** Refresh tokens: good once, repeated where an answer may be lost, and what a copied one comes to. */
import { describe, expect, test } from 'bun:test'
import type { Grant } from '../../src/auth/auth.ts'
import { shiftedClock } from '../clock.ts'
import { tempFolder } from '../harness.ts'
import { startIsOver } from '../server.ts'
import { requireService, startSqld } from '../services.ts'
import { claimsOf, runAccounts, type AccountsServer, type Answer } from './accounts-setup.ts'

const [secondMs, dayMs] = [1_000, 24 * 60 * 60_000]

type Held = Pick<Grant, 'accessToken' | 'refreshToken'>

async function setUp() {
  const folder = tempFolder()
  const clock = shiftedClock()
  const server = await runAccounts(folder, { clock })
  const first = await server.signUp('ann@example.com')
  const next = async (held: Held): Promise<Held> => grantOf(await server.refresh(held))
  const status = async (held: Held) => (await server.refresh(held)).status
  return {
    server,
    clock,
    first,
    next,
    status,
    async [Symbol.asyncDispose]() {
      await server.stop()
      folder[Symbol.dispose]()
    },
  }
}

function grantOf({ status, body }: Answer): Held {
  expect(status).toBe(200)
  return body as unknown as Held
}

/** A socket as who has this token; `code`: of its close. */
async function connected(server: AccountsServer, token: string) {
  const socket = new WebSocket(`${server.url.replace('http', 'ws')}/connection/websocket`)
  const code = new Promise<number>((resolve) => {
    socket.addEventListener('close', (event) => resolve(event.code))
  })
  await new Promise((resolve) => socket.addEventListener('open', resolve))
  const reply = new Promise((resolve) =>
    socket.addEventListener('message', resolve, { once: true }),
  )
  socket.send(JSON.stringify({ id: 1, connect: { token } }))
  await reply
  return { code }
}

const reuses = (server: AccountsServer) =>
  server.log.lines.filter(({ event }) => event === 'auth.refresh_token_reused').length

describe('a refresh token', () => {
  test('is exchanged for the next one, again and again, until 30 days nobody came', async () => {
    await using it = await setUp()
    let held: Held = it.first
    const seen = new Set([held.refreshToken])
    let before = held
    for (let n = 0; n < 5; n++) {
      it.clock.by += 20 * dayMs
      before = held
      held = await it.next(held)
      seen.add(held.refreshToken)
      expect(await it.server.reads(held.accessToken)).toBe(200)
    }
    expect(seen.size).toBe(6)
    it.clock.by += 30 * dayMs + secondMs
    expect([await it.status(held), await it.status(before)]).toEqual([401, 401])
    expect(reuses(it.server)).toBe(0)
  })

  test('race: many refreshes of one at once are given one and the same next one, which is good', async () => {
    await using it = await setUp()
    const answers = await Promise.all(Array.from({ length: 20 }, () => it.server.refresh(it.first)))
    const held = answers.map(grantOf)
    expect(new Set(held.map(({ refreshToken }) => refreshToken)).size).toBe(1)
    for (const { accessToken } of held) expect(await it.server.reads(accessToken)).toBe(200)
    const [one] = held as [Held]
    // It was exchanged once: the first one is still the one before.
    expect((await it.next(it.first)).refreshToken).toBe(one.refreshToken)
    const next = await it.next(one)
    expect(next.refreshToken).not.toBe(one.refreshToken)
    expect(reuses(it.server)).toBe(0)
  })

  test('is answered the same again for ten seconds: tabs, and clients that ask again', async () => {
    await using it = await setUp()
    const held = await it.next(it.first)
    it.clock.by += 9 * secondMs
    for (let n = 0; n < 3; n++) {
      expect((await it.next(it.first)).refreshToken).toBe(held.refreshToken)
    }
    // Once the next one was used it is two before, and not the one before.
    await it.next(held)
    expect(await it.status(it.first)).toBe(401)
    expect(reuses(it.server)).toBe(1)
  })

  test('whose answer was lost is answered the same again hours later, once a day', async () => {
    await using it = await setUp()
    const held = await it.next(it.first)
    it.clock.by += 5 * 60 * 60 * secondMs
    expect((await it.next(it.first)).refreshToken).toBe(held.refreshToken)
    const again = await it.next(held)
    it.clock.by += dayMs
    expect((await it.next(held)).refreshToken).toBe(again.refreshToken)
    it.clock.by += secondMs
    // A second time on that day is no accident.
    expect(await it.status(held)).toBe(401)
    expect([reuses(it.server), await it.status(again)]).toEqual([1, 401])
  })

  test('that was used and comes again ends its session, sockets and all, and no other', async () => {
    await using it = await setUp()
    const other = await it.server.signIn('ann@example.com')
    const second = await it.next(it.first)
    const third = await it.next(second)
    expect(await it.server.reads(third.accessToken)).toBe(200)
    const closed = await connected(it.server, third.accessToken)
    // Whoever copied it, and whoever had it: which is which cannot be known.
    expect(await it.status(it.first)).toBe(401)
    expect(await it.server.reads(third.accessToken)).toBe(401)
    expect(await closed.code).toBe(3500)
    expect([await it.status(third), await it.status(second)]).toEqual([401, 401])
    expect(await it.status(other)).toBe(200)
    expect(it.server.log.lines.find(({ event }) => event.includes('reused'))?.fields).toEqual({
      ...{ user: it.first.user.id, session: expect.any(String) },
    })
  })

  test('that a thief copied, who comes later than its owner each time, is found within two refreshes', async () => {
    await using it = await setUp()
    const quarterMs = 15 * 60 * secondMs
    const owner = await it.next(it.first)
    it.clock.by += quarterMs / 2
    const thief = await it.next(it.first)
    it.clock.by += quarterMs / 2
    const later = await it.next(owner)
    it.clock.by += quarterMs / 2
    expect(await it.status(thief)).toBe(401)
    expect(await it.server.reads(later.accessToken)).toBe(401)
    expect(reuses(it.server)).toBe(1)
  })

  test('with a wrong secret ends the session: who knows its family held one of its tokens', async () => {
    await using it = await setUp()
    const { refreshToken } = it.first
    const others = [
      '',
      refreshToken.slice(0, -1),
      `${refreshToken}A`,
      `bfr_${'A'.repeat(22)}_${refreshToken.slice(-43)}`,
    ]
    for (const one of others) expect(await it.status({ ...it.first, refreshToken: one })).toBe(401)
    expect(reuses(it.server)).toBe(0)
    const turned = refreshToken.slice(0, -2) + (refreshToken.endsWith('AA') ? 'BB' : 'AA')
    expect(await it.status({ ...it.first, refreshToken: turned })).toBe(401)
    expect([reuses(it.server), await it.status(it.first)]).toEqual([1, 401])
  })

  test('race: of a sign-out and a refresh at once nothing is left', async () => {
    await using it = await setUp()
    let held: Held = it.first
    for (let n = 0; n < 5; n++) {
      const [refreshed] = await Promise.all([
        it.server.refresh(held),
        it.server.ask('sign-out', {}, { token: held.accessToken }),
      ])
      if (refreshed.status === 200) {
        const { accessToken, refreshToken } = refreshed.body as unknown as Held
        expect(await it.server.reads(accessToken)).toBe(401)
        expect(await it.status({ accessToken, refreshToken })).toBe(401)
      }
      held = await it.server.signIn('ann@example.com')
    }
  })

  test('race: a role that is taken away while a refresh runs is in no token that counts', async () => {
    await using it = await setUp()
    const { accounts } = it.server.rooms.auth
    const { id } = it.first.user
    let held: Held = it.first
    for (let n = 0; n < 5; n++) {
      await accounts?.change(id, { role: 'admin' })
      held = await it.next(held)
      const [refreshed] = await Promise.all([
        it.server.refresh(held),
        accounts?.change(id, { role: null }),
      ])
      held = grantOf(refreshed)
      const { body } = await it.server.ask('/api/notes', { text: 'a' }, { token: held.accessToken })
      if (claimsOf(held.accessToken)['role'] === 'admin') expect(body['status']).toBe(401)
      held = await it.next(held)
    }
  })

  test('a session that is known is not read again: a refresh is one write', async () => {
    await using it = await setUp()
    let held = await it.next(it.first)
    await startIsOver(it.server)
    const { reads } = it.server.rooms.store.stats()
    for (let n = 0; n < 3; n++) held = await it.next(held)
    expect(it.server.rooms.store.stats().reads).toBe(reads)
    expect(await it.server.reads(held.accessToken)).toBe(200)
  })

  test('of sessions that are over nothing is kept', async () => {
    await using it = await setUp()
    const count = async () =>
      await it.server.rooms.store.read({ sql: 'select count(*) from belfry_sessions', params: [] })
    expect(await count()).toEqual([[1]])
    it.clock.by += 31 * dayMs
    const { createSessions } = await import('../../src/auth/sessions.ts')
    const { store } = it.server.rooms
    await createSessions({ clock: it.clock, log: it.server.log, store }).forget()
    expect(await count()).toEqual([[0]])
  })
})

describe.skipIf(!requireService('sqld'))('several nodes', () => {
  test('sign and verify alike, refresh each other’s sessions, and end them everywhere', async () => {
    await using primary = await startSqld()
    using folder = tempFolder()
    const env = { DATABASE_URL: primary.url }
    await using here = await runAccounts(folder, { env })
    await using there = await runAccounts(folder, { env })
    const first = await here.signUp('ann@example.com')
    expect(await there.reads(first.accessToken)).toBe(200)
    const second = grantOf(await there.refresh(first))
    // Which this node remembers otherwise.
    const third = grantOf(await here.refresh(second))
    const [one, other] = await Promise.all([here.refresh(third), there.refresh(third)])
    expect(grantOf(one).refreshToken).toBe(grantOf(other).refreshToken)
    const heard = Promise.withResolvers<void>()
    there.rooms.store.onChange(({ notice }) => notice?.kind === 'revoked' && heard.resolve())
    expect((await here.refresh(first)).status).toBe(401)
    await heard.promise
    expect(await there.reads(grantOf(other).accessToken)).toBe(401)
    expect((await there.refresh(grantOf(other))).status).toBe(401)
  })
})
