import { describe, expect, test } from 'bun:test'
import { generateKeyPairSync } from 'node:crypto'
import { exportJWK, SignJWT } from 'jose'
import { createAuth, signToken } from '../../src/auth/auth.ts'
import { createTestClock } from '../clock.ts'
import { createTestLog } from '../harness.ts'

const secret = 'a secret of at least thirty-two bytes'

async function setUp(config: Parameters<typeof createAuth>[1] = { secret }) {
  const clock = createTestClock()
  const auth = await createAuth({ clock, log: createTestLog() }, config)
  const sign = (claims: Record<string, unknown> & { sub: string }, ttlMs = 3_600_000) =>
    signToken(secret, claims, { nowMs: clock.now(), ttlMs })
  return { clock, auth, sign }
}

describe('auth.identify', () => {
  test('a token is verified once and then recognised, synchronously', async () => {
    const { auth, sign } = await setUp()
    const token = await sign({ sub: 'u1', role: 'scraper', team: 'red' })
    const verdicts = await Promise.all([auth.identify(token), auth.identify(token)])
    expect(verdicts[0]).toMatchObject({
      ok: true,
      identity: { kind: 'user', user: { id: 'u1', role: 'scraper', team: 'red' } },
    })
    expect(auth.identify(token)).toBe(verdicts[0])
    expect(auth.stats().verifications).toBe(1)
  })

  test('an expired token is refused although it is cached', async () => {
    const { auth, sign, clock } = await setUp()
    const token = await sign({ sub: 'u1' }, 60_000)
    expect(await auth.identify(token)).toMatchObject({ ok: true })
    clock.advance(66_000)
    expect(await auth.identify(token)).toMatchObject({ ok: false, reason: 'expired' })
  })

  test('another spelling of a good token is no token', async () => {
    const { auth, sign } = await setUp()
    const token = await sign({ sub: 'u1' })
    const last = token.at(-1) ?? ''
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
    const twin = token.slice(0, -1) + alphabet[alphabet.indexOf(last) + 1]
    for (const spelling of [
      `${token}=`,
      ` ${token}`,
      `${token}\n`,
      twin,
      token.replace('.', '..'),
    ]) {
      expect(await auth.identify(spelling)).toMatchObject({ ok: false, reason: 'invalid' })
    }
  })

  test('a forged token, alg none, another algorithm and a token for nobody are refused', async () => {
    const { auth, clock } = await setUp()
    const times = { nowMs: clock.now(), ttlMs: 60_000 }
    const forged = await signToken(`${secret}!`, { sub: 'u1' }, times)
    const none = `${btoa('{"alg":"none"}')}.${btoa('{"sub":"u1"}')}.`.replaceAll('=', '')
    const hs512 = await new SignJWT({ sub: 'u1' })
      .setProtectedHeader({ alg: 'HS512' })
      .sign(new TextEncoder().encode(secret))
    const nobody = await signToken(secret, { sub: '' }, times)
    for (const token of [forged, none, hs512, nobody, 'x', '', 'a'.repeat(10_000)]) {
      expect(await auth.identify(token)).toMatchObject({ ok: false, reason: 'invalid' })
    }
  })

  test('garbage does not push good tokens out', async () => {
    const { auth, sign } = await setUp()
    const token = await sign({ sub: 'u1' })
    await auth.identify(token)
    for (let n = 0; n < 5000; n++) await auth.identify(`garbage.${n}.AA`)
    const before = auth.stats().verifications
    expect(await auth.identify(token)).toMatchObject({ ok: true })
    expect(auth.stats().verifications).toBe(before)
  })

  test.each([
    ['rsa', 'RS256', { modulusLength: 2048 }],
    ['ec', 'ES256', { namedCurve: 'P-256' }],
    ['ed25519', 'EdDSA', {}],
  ] as const)('public keys: %s verifies %s and nothing else', async (type, algorithm, options) => {
    const pair = generateKeyPairSync(type as 'rsa', options as { modulusLength: number })
    const publicKey = pair.publicKey.export({ type: 'spki', format: 'pem' }).toString()
    const { auth } = await setUp({ publicKey })
    const token = await new SignJWT({ sub: 'u1' })
      .setProtectedHeader({ alg: algorithm })
      .sign(pair.privateKey)
    expect(await auth.identify(token)).toMatchObject({ ok: true })
    // The classic confusion: the public key used as an HMAC secret.
    const confused = await new SignJWT({ sub: 'u1' })
      .setProtectedHeader({ alg: 'HS256' })
      .sign(new TextEncoder().encode(publicKey))
    expect(await auth.identify(confused)).toMatchObject({ ok: false })
    expect(await exportJWK(pair.publicKey)).toBeDefined()
  })

  test('issuer and audience are checked when configured', async () => {
    const { auth, sign } = await setUp({ secret, issuers: ['me'], audiences: ['belfry'] })
    expect(await auth.identify(await sign({ sub: 'u', iss: 'me', aud: 'belfry' }))).toMatchObject({
      ok: true,
    })
    expect(await auth.identify(await sign({ sub: 'u', iss: 'me', aud: 'other' }))).toMatchObject({
      ok: false,
    })
    expect(await auth.identify(await sign({ sub: 'u', aud: 'belfry' }))).toMatchObject({
      ok: false,
    })
  })

  test('keys that cannot be used stop the start, naming their variable', async () => {
    for (const [config, name] of [
      [{ secret: 'short' }, 'JWT_SECRET'],
      [{ publicKey: 'no key' }, 'JWT_PUBLIC_KEY'],
      [{ secret, publicKey: 'x' }, 'JWT_SECRET'],
    ] as const) {
      await expect(setUp(config)).rejects.toThrow(name)
    }
  })

  test('the API key opens, anything else does not, and no key opens nothing', async () => {
    const { auth } = await setUp({ apiKey: 'right' })
    expect(auth.identifyKey('right')).toMatchObject({ ok: true, identity: { kind: 'key' } })
    expect(auth.identifyKey('wrong')).toMatchObject({ ok: false })
    const { auth: closed } = await setUp({})
    expect(closed.identifyKey('')).toMatchObject({ ok: false })
    expect(await closed.identify('a.b.c')).toMatchObject({ ok: false })
  })
})

describe('auth.identifyTopic', () => {
  test('a token with a channel lets into that topic, and is no identity', async () => {
    const { auth, sign, clock } = await setUp()
    const token = await sign({ sub: 'u1', channel: 'chat:a', info: { seat: 1 } }, 60_000)
    const pass = {
      topic: 'chat:a',
      user: 'u1',
      expiresAtMs: clock.now() + 60_000,
      info: { seat: 1 },
    }
    expect(await auth.identifyTopic(token)).toEqual({ ok: true, pass })
    expect(await auth.identify(token)).toMatchObject({ ok: false, reason: 'invalid' })
    expect(auth.stats().verifications).toBe(1)
    clock.advance(66_000)
    expect(await auth.identifyTopic(token)).toMatchObject({ ok: false, reason: 'expired' })
  })

  test('one without is for no topic; one without a sub is for visitors', async () => {
    const { auth, sign, clock } = await setUp()
    const identity = await sign({ sub: 'u1' })
    expect(await auth.identifyTopic(identity)).toMatchObject({ ok: false, reason: 'invalid' })
    const times = { nowMs: clock.now(), ttlMs: 60_000 }
    const visitors = await signToken(secret, { channel: 'chat:a' }, times)
    expect(await auth.identifyTopic(visitors)).toMatchObject({ ok: true, pass: { user: '' } })
    const forged = await signToken(`${secret}!`, { channel: 'chat:a' }, times)
    expect(await auth.identifyTopic(forged)).toMatchObject({ ok: false, reason: 'invalid' })
    expect(await auth.identifyTopic('x'.repeat(9_000))).toMatchObject({ ok: false })
  })
})
