import { describe, expect, test } from 'bun:test'
import { createTokenCache } from '../../src/auth/token-cache.ts'
import type { Marks } from '../../src/auth/revocations.ts'
import { neither, type Verified } from '../../src/auth/token.ts'
import { createTestClock } from '../clock.ts'
import { faultOf } from '../harness.ts'

const token = (n: number): string => `aaaa.${String(n).padStart(8, '0')}.aaaa`

const good = (id: string): Verified => ({
  ...neither(''),
  verdict: { ok: true, identity: { kind: 'user', user: { id }, expiresAtMs: undefined } },
  marks: { user: id, token: `of ${id}`, session: undefined, issuedAtMs: undefined },
})

/** Verification waits until it is let go. */
function setUp() {
  const clock = createTestClock()
  const waiting: {
    token: string
    settle: (verified: Verified) => void
    fail: (error: Error) => void
  }[] = []
  const verifier = {
    version: 'one.',
    verify: (given: string) =>
      new Promise<Verified>((settle, fail) => waiting.push({ token: given, settle, fail })),
  }
  const malformed = neither('malformed')
  const revocations = { revision: 0, has: ({ token: id }: Marks) => revoked.has(id ?? '') }
  const revoked = new Set<string>()
  const revoke = (id: string): void => {
    revoked.add(id)
    revocations.revision++
  }
  const cache = createTokenCache({ clock, malformed, revocations }, verifier)
  return { clock, cache, verifier, waiting, malformed, revoke }
}

describe('the token cache', () => {
  test('what was verified under another configuration, or with other keys, is verified again', async () => {
    const { cache, verifier, waiting } = setUp()
    const first = cache.verify(token(1))
    waiting[0]?.settle(good('ann'))
    await first
    expect(cache.verify(token(1))).toBe(await first)
    verifier.version = 'two.'
    const second = cache.verify(token(1))
    expect(second).toBeInstanceOf(Promise)
    waiting[1]?.settle(neither('another audience'))
    expect((await second).verdict.ok).toBe(false)
    verifier.version = 'one.'
    expect(cache.verify(token(1))).toBe(await first)
  })

  test('one verification for all who ask meanwhile; a failure is not kept', async () => {
    const { cache, waiting } = setUp()
    const asked = [cache.verify(token(1)), cache.verify(token(1)), cache.verify(token(1))]
    expect(waiting).toHaveLength(1)
    waiting[0]?.fail(new Error('down'))
    for (const one of asked) await expect(one).rejects.toThrow('down')
    const again = cache.verify(token(1))
    waiting[1]?.settle(good('ann'))
    expect((await again).verdict.ok).toBe(true)
  })

  test('kept for five minutes at most, a refusal for ten seconds', async () => {
    const { cache, clock, waiting } = setUp()
    for (const [n, verified] of [good('ann'), neither('no')].entries()) {
      const asked = cache.verify(token(n))
      waiting[n]?.settle(verified)
      await asked
    }
    clock.advance(9_999)
    expect(cache.verify(token(1))).not.toBeInstanceOf(Promise)
    clock.advance(1)
    expect(cache.verify(token(1))).toBeInstanceOf(Promise)
    clock.advance(5 * 60_000 - 10_001)
    expect(cache.verify(token(0))).not.toBeInstanceOf(Promise)
    clock.advance(1)
    expect(cache.verify(token(0))).toBeInstanceOf(Promise)
  })

  test('misspelled and too long ones are refused at once, and are not kept', () => {
    const { cache, malformed, waiting } = setUp()
    for (const wrong of ['', 'a', 'a.b', `${token(1)}=`, `${token(1)}.`, 'a.'.repeat(1_000_000)]) {
      expect(cache.verify(wrong)).toBe(malformed)
    }
    expect([waiting.length, cache.verifications]).toEqual([0, 0])
  })

  test('so many at a time', async () => {
    const { cache } = setUp()
    for (let n = 0; n < 10_000; n++) void cache.verify(token(n))
    const fault = await faultOf(() => cache.verify(token(10_000)))
    expect([fault.code, fault.retryAfterMs]).toEqual(['overloaded', 1_000])
    expect(cache.verifications).toBe(10_000)
    // Whoever asks for one of them waits with the others.
    void cache.verify(token(5))
    expect(cache.verifications).toBe(10_000)
  })

  test('revoked during verification: whoever waits for it is refused, and whoever comes later', async () => {
    const { cache, waiting, revoke } = setUp()
    const asked = [cache.verify(token(1)), cache.verify(token(1))]
    revoke('of ann')
    asked.push(cache.verify(token(1)))
    waiting[0]?.settle(good('ann'))
    for (const one of asked) expect((await one).verdict).toMatchObject({ ok: false })
    expect(await cache.verify(token(1))).toMatchObject({ verdict: { ok: false } })
  })

  test('revoked while cached: refused at once, and still when it is verified again', async () => {
    const { cache, clock, waiting, revoke } = setUp()
    for (const [n, id] of ['ann', 'bob'].entries()) {
      const asked = cache.verify(token(n))
      waiting[n]?.settle(good(id))
      await asked
    }
    revoke('of ann')
    expect(cache.verify(token(0))).toMatchObject({ verdict: { ok: false, reason: 'invalid' } })
    expect(cache.verify(token(1))).toMatchObject({ verdict: { ok: true } })
    clock.advance(10_000)
    const again = cache.verify(token(0))
    waiting[2]?.settle(good('ann'))
    expect((await again).verdict.ok).toBe(false)
  })
})
