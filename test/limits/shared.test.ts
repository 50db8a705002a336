import { describe, expect, test } from 'bun:test'
import { createLimiter, type Limiter, type LimitPolicy } from '../../src/limits/limits.ts'
import type { SharedPort } from '../../src/limits/shared.ts'
import { openRedis, type TestRedis } from '../cache/redis.ts'
import { createTestClock } from '../clock.ts'
import { createRandom } from '../lib/random.ts'
import { requireService, startRedis } from '../services.ts'
import { mostInAnyWindow } from './log.ts'

const windowMs = 10_000

const policyOf = (quota: number, more: Partial<LimitPolicy> = {}): LimitPolicy => ({
  name: `p${quota}`,
  quota,
  windowMs,
  ...more,
})

/** What may become of a question. */
type Fate = 'answered' | 'lost before' | 'lost after'

/** Nodes on one Redis, all on one time that moves by hand; their wall clocks are wrong, each its own way. */
function openNodes({ redis }: TestRedis, count: number, namespace: string) {
  const master = createTestClock()
  const fate = { next: (): Fate => 'answered', isUp: true, sent: 0 }
  const port: SharedPort = {
    get isUp() {
      return fate.isUp && redis.isUp
    },
    async script(...question) {
      fate.sent++
      const kind = fate.next()
      if (kind === 'lost before') throw new Error('away')
      const told = await redis.script(...question)
      if (kind === 'lost after') throw new Error('away')
      return told
    },
  }
  const nodes = Array.from({ length: count }, (_, n) => {
    const skewMs = n * 300_000 - 300_000
    const clock = {
      ...master,
      now: () => master.now() + skewMs,
      tick: () => master.tick() + n * 1_000_000,
    }
    const limiter = createLimiter(
      { clock, shared: port },
      { namespace, nowUs: () => Math.floor(master.now() * 1000) },
    )
    return limiter
  })
  return { clock: master, nodes, fate }
}

describe.skipIf(!requireService('redis-server'))('limits in Redis', () => {
  test('a slot that one node took, no other has', async () => {
    await using server = await startRedis()
    await using opened = await openRedis(server.port)
    const { clock, nodes, fate } = openNodes(opened, 2, 'a')
    const [one, two] = nodes as [Limiter, Limiter]
    const asks = [{ policy: policyOf(2), key: 'k' }]
    expect(await one.take(asks)).toMatchObject({
      ok: true,
      verdicts: [{ left: 1, resetMs: 10_000 }],
    })
    clock.advance(4000)
    expect(await two.take(asks)).toMatchObject({ ok: true, verdicts: [{ left: 0, resetMs: 6000 }] })
    expect(await one.take(asks)).toMatchObject({
      ok: false,
      verdicts: [{ left: 0, resetMs: 6000 }],
    })
    // Refused again without asking Redis.
    const { sent } = fate
    expect(one.take(asks)).toMatchObject({ ok: false })
    expect(one.blocked(asks)).toMatchObject({ ok: false })
    expect(fate.sent).toBe(sent)
    clock.advance(6000)
    expect(await one.take(asks)).toMatchObject({ ok: true, verdicts: [{ left: 0, resetMs: 4000 }] })
  })

  test('of all policies of a request one each is taken, or none', async () => {
    await using server = await startRedis()
    await using opened = await openRedis(server.port)
    const { clock, nodes } = openNodes(opened, 2, 'a')
    const [one, two] = nodes as [Limiter, Limiter]
    const asks = (key: string) => [
      { policy: policyOf(2), key },
      { policy: policyOf(3), key: 'all' },
      { policy: policyOf(1, { isShadow: true }), key: 'all' },
    ]
    expect(await one.take(asks('a'))).toMatchObject({ ok: true, verdicts: [{}, {}, { ok: true }] })
    expect(await one.take(asks('a'))).toMatchObject({ ok: true, verdicts: [{}, {}, { ok: false }] })
    expect(await two.take(asks('a'))).toMatchObject({
      ok: false,
      verdicts: [{ ok: false }, { left: 1 }, {}],
    })
    expect(await two.take(asks('b'))).toMatchObject({
      ok: true,
      verdicts: [{ left: 1 }, { left: 0 }, {}],
    })
    expect(await two.take(asks('b'))).toMatchObject({
      ok: false,
      verdicts: [{ left: 1 }, { ok: false }, {}],
    })
    clock.advance(9_999)
    expect(await one.take([{ policy: policyOf(2), key: 'b' }])).toMatchObject({
      verdicts: [{ left: 0 }],
    })
  })

  test.each([1, 5, 37, 600])(
    'property: of %i, no window of any place ever holds more through four nodes',
    async (quota) => {
      await using server = await startRedis()
      await using opened = await openRedis(server.port)
      const random = createRandom(quota)
      const { clock, nodes } = openNodes(opened, 4, 'a')
      const asks = [{ policy: policyOf(quota), key: 'k' }]
      const taken: number[] = []
      for (let step = 0; step < 1500; step++) {
        if (random.below(3) === 0) clock.advance(random.below(Math.ceil((4 * windowMs) / quota)))
        if (random.below(100) === 0) clock.advance(random.below(windowMs))
        const asked = Array.from({ length: 1 + random.below(4) }, () => {
          const node = nodes[random.below(4)] as Limiter
          return node.take(asks)
        })
        for (const { ok } of await Promise.all(asked)) if (ok) taken.push(clock.tick())
      }
      const most = mostInAnyWindow(taken, windowMs)
      expect(most).toBeLessThanOrEqual(quota)
      expect(most).toBeGreaterThanOrEqual(quota * 0.97)
    },
  )

  test.each([1, 2])(
    'property: through one node never more than the quota, whatever becomes of Redis and its answers (seed %i)',
    async (seed) => {
      await using server = await startRedis()
      await using opened = await openRedis(server.port)
      const random = createRandom(seed)
      for (const quota of [1, 7, 30, 600]) {
        const { clock, nodes, fate } = openNodes(opened, 2, `q${quota}`)
        fate.next = () =>
          random.below(10) > 0 ? 'answered' : random.below(2) === 0 ? 'lost before' : 'lost after'
        const asks = [{ policy: policyOf(quota), key: 'k' }]
        const taken = nodes.map((): number[] => [])
        for (let step = 0; step < 700; step++) {
          if (random.below(3) === 0) clock.advance(random.below(Math.ceil((6 * windowMs) / quota)))
          if (random.below(40) === 0) fate.isUp = !fate.isUp
          if (random.below(40) === 0) await opened.redis.script(flush, [], [])
          const burst = 1 + random.below(4 + quota / 10)
          const asked = Array.from({ length: burst }, async () => {
            const node = random.below(2)
            if ((await (nodes[node] as Limiter).take(asks)).ok) taken[node]?.push(clock.tick())
          })
          await Promise.all(asked)
        }
        for (const times of taken)
          expect(mostInAnyWindow(times, windowMs)).toBeLessThanOrEqual(quota)
        expect(mostInAnyWindow(taken.flat(), windowMs)).toBeLessThanOrEqual(2 * quota)
        expect(taken.flat().length).toBeGreaterThan(quota / 2)
      }
    },
  )

  test('Redis goes: the node goes on with what it knows of all, and tells it when it is back', async () => {
    await using server = await startRedis()
    await using opened = await openRedis(server.port)
    const { clock, nodes, fate } = openNodes(opened, 2, 'a')
    const [one, two] = nodes as [Limiter, Limiter]
    const asks = [{ policy: policyOf(10), key: 'k' }]
    const left = async (node: Limiter) => (await node.take(asks)).verdicts[0]?.left
    for (let n = 0; n < 4; n++) await two.take(asks)
    expect(await left(one)).toBe(5)
    fate.isUp = false
    clock.advance(1000)
    expect([await left(one), await left(one)]).toEqual([4, 3])
    expect(one.stats().alone).toBe(2)
    fate.isUp = true
    expect(await left(two)).toBe(4)
    // Its own two of the outage, and the one of the other.
    expect(await left(one)).toBe(1)
    expect(await left(two)).toBe(0)
    expect((await two.take(asks)).ok).toBe(false)
    clock.advance(9000)
    // The five of the beginning have left, what came later has not.
    expect(await left(one)).toBe(4)
  })

  test('Redis forgets: the first who asks tells it what is known, once', async () => {
    await using server = await startRedis()
    await using opened = await openRedis(server.port)
    const { clock, nodes } = openNodes(opened, 2, 'a')
    const [one, two] = nodes as [Limiter, Limiter]
    const asks = [{ policy: policyOf(20), key: 'k' }]
    for (let n = 0; n < 4; n++) await two.take(asks)
    for (let n = 0; n < 5; n++) await one.take(asks)
    clock.advance(1000)
    await opened.redis.script(flush, [], [])
    const decisions = await Promise.all([one.take(asks), one.take(asks), one.take(asks)])
    expect(decisions.map(({ verdicts }) => verdicts[0]?.left)).toEqual([10, 9, 8])
    // What the other took is told twice then: by who knew of it, and by itself.
    expect(await two.take(asks)).toMatchObject({ verdicts: [{ left: 3 }] })
    // And counts as taken when the newest was, because it was told later.
    clock.advance(9000)
    expect(await two.take(asks)).toMatchObject({ verdicts: [{ left: 11 }] })
    clock.advance(1000)
    expect(await two.take(asks)).toMatchObject({ verdicts: [{ left: 18 }] })
  })

  test('a log that has merely ended is not mourned: nothing is told again', async () => {
    await using server = await startRedis()
    await using opened = await openRedis(server.port)
    const { clock, nodes, fate } = openNodes(opened, 2, 'a')
    const [one, two] = nodes as [Limiter, Limiter]
    const asks = [{ policy: policyOf(3), key: 'k' }]
    for (let n = 0; n < 3; n++) await two.take(asks)
    clock.advance(9_900)
    expect(await one.take(asks)).toMatchObject({ ok: false, verdicts: [{ resetMs: 100 }] })
    await opened.redis.script(flush, [], [])
    clock.advance(100)
    const { sent } = fate
    expect(await one.take(asks)).toMatchObject({ ok: true, verdicts: [{ left: 2 }] })
    expect(fate.sent - sent).toBe(1)
  })

  test('the clock of Redis jumps back: nothing stays longer than its window, and nothing leaves sooner', async () => {
    await using server = await startRedis()
    await using opened = await openRedis(server.port)
    const clock = createTestClock()
    let jumpMs = 0
    const open = () =>
      createLimiter(
        { clock, shared: opened.redis },
        { namespace: 'a', nowUs: () => (clock.now() - jumpMs) * 1000 },
      )
    const asks = [{ policy: policyOf(3), key: 'k' }]
    const one = open()
    await one.take(asks)
    clock.advance(2000)
    await one.take(asks)
    jumpMs = 3_600_000
    expect(await open().take(asks)).toMatchObject({
      ok: true,
      verdicts: [{ left: 0, resetMs: 8000 }],
    })
    clock.advance(7999)
    expect((await open().take(asks)).ok).toBe(false)
    clock.advance(1)
    expect(await open().take(asks)).toMatchObject({ ok: true })
  })

  test('what is left in Redis has an end', async () => {
    await using server = await startRedis()
    await using opened = await openRedis(server.port)
    const limiter = createLimiter({ clock: createTestClock(), shared: opened.redis })
    await limiter.take([
      { policy: policyOf(3), key: 'k' },
      { policy: policyOf(700), key: 'k' },
    ])
    const ttls = await opened.redis.script(
      ofText(
        "local r = {} for i, k in ipairs(redis.call('KEYS', '*')) do r[i] = redis.call('PTTL', k) end return r",
      ),
      [],
      [],
    )
    expect(ttls).toBeArrayOfSize(2)
    for (const ttl of ttls as number[]) expect(ttl).toBeWithin(1, windowMs + 1001)
  })
})

function ofText(text: string) {
  return { text, sha: new Bun.CryptoHasher('sha1').update(text).digest('hex') }
}

const flush = ofText("return redis.call('FLUSHALL')")
