/** Forged tokens from everywhere: what they may cost in all, whom they hold up, and whom they do not. */
import { describe, expect, test } from 'bun:test'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { createAuth, signToken, type Auth } from '../../src/auth/auth.ts'
import { createTurns } from '../../src/auth/turns.ts'
import { collection } from '../../src/kit.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { createTestClock } from '../clock.ts'
import { createTestLog, faultOf, tempFolder, until } from '../harness.ts'
import { runServer, testSecret } from '../server.ts'
import { openSocket } from './live.ts'

const small = {
  badPerSecond: 10,
  badAtOnce: 4,
  runningMax: 2,
  waitingMax: 100,
  heldUpMax: 6,
  heldUpOfAddressMax: 3,
}

/** Checks that end when they are told how. */
function setUp(limits = small) {
  const clock = createTestClock()
  const turns = createTurns({ clock }, limits)
  const begun: string[] = []
  const ends = new Map<string, (isGood: boolean) => void>()
  const run = (address: string, name = address) =>
    turns.run(
      () => address,
      () => {
        begun.push(name)
        return new Promise<boolean>((resolve) => void ends.set(name, resolve))
      },
    )
  const settled = () => new Promise<void>((resolve) => void setImmediate(resolve))
  /** All that run, and those whose turn comes by it. */
  const endAll = async (isGood: boolean) => {
    await settled()
    while (ends.size > 0) {
      const [name, end] = [...ends][0] ?? ['', () => {}]
      ends.delete(name)
      end(isGood)
      await settled()
    }
  }
  return { clock, turns, begun, run, endAll, settled }
}

describe('turns', () => {
  test('good ones go on as fast as they are checked, however many', async () => {
    const { turns, begun, run, endAll } = setUp()
    const asked = Array.from({ length: 50 }, (_, n) => run('a', `a${n}`))
    expect([begun.length, turns.waiting]).toEqual([2, 48])
    await endAll(true)
    expect(await Promise.all(asked)).toEqual(Array(50).fill(true))
    expect([begun.length, turns.waiting, turns.refused]).toEqual([50, 0, 0])
  })

  test('bad ones are so many a second, and no more', async () => {
    const { clock, begun, run, endAll, settled } = setUp()
    const asked = Array.from({ length: 7 }, (_, n) => run(`a${n}`))
    await endAll(false)
    expect(begun.length).toBe(4)
    clock.advance(99)
    await settled()
    expect(begun.length).toBe(4)
    clock.advance(121)
    await endAll(false)
    expect(begun.length).toBe(6)
    clock.advance(100)
    await endAll(false)
    expect(await Promise.all(asked)).toEqual(Array(7).fill(false))
    // After a rest as many at once as in the beginning.
    clock.advance(60_000)
    for (let n = 0; n < 5; n++) void run(`b${n}`).catch(() => {})
    await endAll(false)
    expect(begun.length).toBe(11)
  })

  test('each address has its turn, however many another one has in line', async () => {
    const { clock, begun, run, endAll } = setUp()
    for (let n = 0; n < 4; n++) void run('a', `before ${n}`)
    await endAll(false)
    begun.length = 0
    void run('a', 'a1')
    void run('a', 'a2')
    void run('a', 'a3')
    void run('b', 'b1')
    void run('b', 'b2')
    void run('c', 'c1')
    for (let n = 0; n < 6; n++) {
      clock.advance(110)
      await endAll(false)
    }
    expect(begun).toEqual(['a1', 'b1', 'c1', 'a2', 'b2', 'a3'])
  })

  test('a line that bad ones hold up is short, of one address and in all; who finds it full is told', async () => {
    const { clock, turns, run, endAll } = setUp()
    for (let n = 0; n < 4; n++) void run('a', `before ${n}`)
    await endAll(false)
    const late = () => {}
    for (const one of ['a', 'a', 'a', 'b', 'b']) void run(one, `${one} in line`).catch(late)
    const fault = await faultOf(() => run('a', 'too many of a'))
    expect([fault.code, fault.retryAfterMs]).toEqual(['overloaded', 1_000])
    void run('c').catch(late)
    expect((await faultOf(() => run('d'))).code).toBe('overloaded')
    expect([turns.waiting, turns.refused]).toEqual([6, 2])
    clock.advance(1_000)
    await endAll(true)
    expect(turns.waiting).toBe(0)
  })

  test('at a stop whoever waits is sent away, and no timer is left', async () => {
    const { turns, run } = setUp()
    const asked = ['a', 'b', 'c'].map((one) => run(one).catch((fault: unknown) => fault))
    turns.stop()
    expect(await asked[2]).toMatchObject({ code: 'unavailable' })
  })
})

const times = { nowMs: Date.now(), ttlMs: 3_600_000 }
const forge = async (count: number) =>
  await Promise.all(
    Array.from({ length: count }, (_, n) =>
      signToken('another secret of at least thirty-two bytes', { sub: `u${n}` }, times),
    ),
  )
const addressOf = (n: number) => `198.51.${n >> 8}.${n & 255}`

/** One from each address, all at once: what becomes of them. */
function flood(auth: Pick<Auth, 'identify'>, forged: readonly string[]) {
  const counts = { refused: 0, away: 0 }
  for (const [n, token] of forged.entries()) {
    void Promise.resolve(auth.identify(token, () => addressOf(n))).then(
      () => counts.refused++,
      () => counts.away++,
    )
  }
  return counts
}

describe('forged tokens from everywhere', () => {
  test('of 3,000 a thousand are looked at; what is known is known in the same turn', async () => {
    const clock = createTestClock(times.nowMs)
    const auth = await createAuth({ clock, log: createTestLog() }, { secret: testSecret })
    const known = await signToken(testSecret, { sub: 'ann' }, times)
    await auth.identify(known)
    const [late = '', ...forged] = await forge(3_001)
    const counts = flood(auth, forged)
    expect(auth.identify(known)).toMatchObject({ ok: true })
    await until(() => counts.refused >= 1_000, 'a thousand verdicts')
    const fault = await faultOf(() => auth.identify(late, () => '192.0.2.1'))
    expect([fault.code, auth.stats().turnedAway]).toEqual(['overloaded', 1])
    expect(auth.identify(known)).toMatchObject({ ok: true })
    expect(counts).toEqual({ refused: 1_000, away: 0 })
    await auth.stop()
    await until(() => counts.away === 2_000, 'the rest is sent away')
    expect(counts.refused).toBe(1_000)
  })

  test('who brings a new one meanwhile is told to come again, at doors and on sockets', async () => {
    using folder = tempFolder()
    const notes = sqliteTable('notes', { id: integer().primaryKey(), text: text().notNull() })
    // On which no second goes by.
    const clock = { ...systemClock, tick: () => systemClock.tick() / 1_000_000 }
    await using server = await runServer({
      folder,
      clock,
      app: { collections: { notes: collection(notes, { read: 'signed-in' }) } },
    })
    const read = async (sub: string) => {
      const token = await signToken(testSecret, { sub }, times)
      return await server.get('/api/notes', { headers: { authorization: `Bearer ${token}` } })
    }
    expect((await read('known')).status).toBe(200)
    const counts = flood(server.rooms.auth, await forge(3_000))
    await until(() => counts.refused >= 1_000, 'a thousand verdicts')
    const fresh = await read('new')
    expect([fresh.status, fresh.headers.get('retry-after')]).toEqual([503, '1'])
    expect(await fresh.json()).toMatchObject({ code: 'overloaded' })
    expect((await read('known')).status).toBe(200)
    expect((await server.get('/api/health')).status).toBe(200)
    using socket = openSocket(server, { headers: {} })
    await socket.opened
    const token = await signToken(testSecret, { sub: 'new' }, times)
    socket.send(JSON.stringify({ id: 1, connect: { token } }))
    await until(() => socket.messages.length > 0, 'the answer to connect')
    expect(JSON.parse(socket.messages[0] ?? '')).toMatchObject({
      id: 1,
      error: { code: 100, temporary: true },
    })
    const metrics = await (await server.get('/api/metrics')).text()
    expect(metrics).toContain('belfry_tokens_turned_away_total 2')
  })
})
