/** An issuer that is slow, down, rotating and attacked, over HTTP; its clock is moved by hand. */
import { describe, expect, test } from 'bun:test'
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { exportJWK, SignJWT } from 'jose'
import { createAuth } from '../../src/auth/auth.ts'
import { createTestClock } from '../clock.ts'
import { createTestLog, faultOf, tempFolder, until } from '../harness.ts'

const pairs = new Map<string, { publicKey: KeyObject; privateKey: KeyObject }>()
function pairOf(kid: string) {
  const known = pairs.get(kid)
  if (known) return known
  const made = generateKeyPairSync('ed25519')
  pairs.set(kid, made)
  return made
}

const jwkOf = async (kid: string) => ({
  ...(await exportJWK(pairOf(kid).publicKey)),
  kid,
  use: 'sig',
})

const tokenOf = (kid: string, claims: Record<string, unknown> = {}, signer = kid) =>
  new SignJWT({ sub: 'ann', ...claims })
    .setProtectedHeader({ alg: 'EdDSA', kid })
    .sign(pairOf(signer).privateKey)

/** Serves the keys named in `kids`, or what `answer` says. */
function openIssuer(first: readonly string[]) {
  const issuer = {
    kids: first,
    requests: 0,
    answer: undefined as (() => Response | Promise<Response>) | undefined,
  }
  const server = Bun.serve({
    port: 0,
    async fetch() {
      issuer.requests++
      if (issuer.answer) return await issuer.answer()
      return Response.json({ keys: await Promise.all(issuer.kids.map(jwkOf)) })
    },
  })
  return Object.assign(issuer, {
    url: new URL('/keys?token=hidden', server.url).href,
    [Symbol.asyncDispose]: () => server.stop(true),
  })
}

async function setUp(...jwks: readonly string[]) {
  const clock = createTestClock()
  const log = createTestLog()
  const auth = await createAuth({ clock, log }, { jwks })
  const count = (event: string) => log.lines.filter((line) => line.event === event).length
  return { clock, log, auth, count, [Symbol.dispose]: () => auth.stop() }
}

const ok = { ok: true, identity: { user: { id: 'ann' } } }
const refused = { ok: false, reason: 'invalid' }
const down = () => new Response('no', { status: 503 })
const minute = 60_000

describe('JWKS', () => {
  test('are loaded once at start, and again each ten minutes', async () => {
    await using issuer = openIssuer(['one', 'two'])
    using it = await setUp(issuer.url)
    expect(await it.auth.identify(await tokenOf('one'))).toMatchObject(ok)
    expect(await it.auth.identify(await tokenOf('two'))).toMatchObject(ok)
    expect(issuer.requests).toBe(1)
    it.clock.advance(9 * minute)
    expect(issuer.requests).toBe(1)
    it.clock.advance(2 * minute)
    await until(() => issuer.requests === 2, 'a second load')
    // The same keys: what was verified stays so.
    const before = it.auth.stats().verifications
    expect(await it.auth.identify(await tokenOf('one'))).toMatchObject(ok)
    expect(it.auth.stats().verifications).toBe(before + 1)
  })

  test('a key that is new is looked for once, whoever waits for it', async () => {
    await using issuer = openIssuer(['one'])
    using it = await setUp(issuer.url)
    it.clock.advance(minute)
    issuer.kids = ['one', 'new']
    const tokens = await Promise.all([1, 2, 3, 4].map((n) => tokenOf('new', { n })))
    const verdicts = await Promise.all(tokens.map((token) => it.auth.identify(token)))
    for (const verdict of verdicts) expect(verdict).toMatchObject(ok)
    expect(issuer.requests).toBe(2)
  })

  test('made-up names of keys are no flood for the issuer', async () => {
    await using issuer = openIssuer(['one'])
    using it = await setUp(issuer.url)
    for (let n = 0; n < 200; n++) {
      expect(await it.auth.identify(await tokenOf(`made-up-${n}`, {}, 'one'))).toMatchObject(
        refused,
      )
      it.clock.advance(300)
    }
    // A minute of it: two, thirty seconds apart.
    expect(issuer.requests).toBeLessThanOrEqual(3)
  })

  test('cooled down after failures, too', async () => {
    await using issuer = openIssuer(['one'])
    using it = await setUp(issuer.url)
    issuer.answer = down
    it.clock.advance(minute)
    for (let n = 0; n < 50; n++) await it.auth.identify(await tokenOf(`x${n}`, {}, 'one'))
    expect(issuer.requests).toBe(2)
    it.clock.advance(30_000)
    for (let n = 0; n < 50; n++) await it.auth.identify(await tokenOf(`y${n}`, {}, 'one'))
    expect(issuer.requests).toBe(3)
  })

  test('stale if the issuer is down, for 24 h', async () => {
    await using issuer = openIssuer(['one'])
    using it = await setUp(issuer.url)
    issuer.answer = down
    it.clock.advance(23 * 60 * minute)
    await until(() => it.count('auth.jwks_failed') > 0, 'a failure')
    expect(await it.auth.identify(await tokenOf('one', { n: 1 }))).toMatchObject(ok)
    it.clock.advance(61 * minute)
    await until(() => it.count('auth.jwks_failed') > 1, 'another failure')
    const token = await tokenOf('one', { n: 2 })
    const fault = await faultOf(() => it.auth.identify(token))
    expect([fault.code, fault.retryAfterMs]).toEqual(['unavailable', 5_000])
    // Not kept: nobody is refused for what the issuer did.
    issuer.answer = undefined
    it.clock.advance(30_000)
    expect(await it.auth.identify(token)).toMatchObject(ok)
  })

  test('an issuer that is down stops nobody from starting: its tokens get 503 until it is back', async () => {
    await using issuer = openIssuer(['one'])
    issuer.answer = down
    using it = await setUp(issuer.url)
    const token = await tokenOf('one')
    expect((await faultOf(() => it.auth.identify(token))).code).toBe('unavailable')
    expect(issuer.requests).toBe(1)
    expect(JSON.stringify(it.log.lines)).not.toContain('hidden')
    issuer.answer = undefined
    it.clock.advance(30_000)
    expect(await it.auth.identify(token)).toMatchObject(ok)
  })

  test('a key that was taken back: its tokens are refused although they were cached', async () => {
    await using issuer = openIssuer(['one', 'two'])
    using it = await setUp(issuer.url)
    const [one, two] = [await tokenOf('one'), await tokenOf('two')]
    expect(await it.auth.identify(one)).toMatchObject(ok)
    expect(await it.auth.identify(two)).toMatchObject(ok)
    it.clock.advance(9 * minute)
    expect(await it.auth.identify(one)).toMatchObject(ok)
    expect(await it.auth.identify(two)).toMatchObject(ok)
    issuer.kids = ['two']
    it.clock.advance(minute)
    await until(() => it.count('auth.jwks_loaded') === 2, 'the other keys')
    expect(await it.auth.identify(one)).toMatchObject(refused)
    expect(await it.auth.identify(two)).toMatchObject(ok)
  })

  test.each([
    ['no JSON', () => new Response('<html>')],
    ['no set', () => Response.json({ key: [] })],
    [
      'a list that is too long',
      () => Response.json({ keys: Array.from({ length: 101 }, () => ({})) }),
    ],
    ['too many bytes', () => new Response(' '.repeat(600_000))],
    ['404', () => new Response(null, { status: 404 })],
  ])('%s is a failure: the keys from before stay', async (_, answer) => {
    await using issuer = openIssuer(['one'])
    using it = await setUp(issuer.url)
    issuer.answer = answer
    it.clock.advance(11 * minute)
    await until(() => it.count('auth.jwks_failed') === 1, 'the failure')
    expect(await it.auth.identify(await tokenOf('one'))).toMatchObject(ok)
  })

  test('an issuer that redirects elsewhere is not followed', async () => {
    await using other = openIssuer(['one'])
    await using issuer = openIssuer([])
    issuer.answer = () => Response.redirect(other.url)
    using it = await setUp(issuer.url)
    const token = await tokenOf('one')
    expect((await faultOf(() => it.auth.identify(token))).code).toBe('unavailable')
    expect(other.requests).toBe(0)
  })

  test('keys that are for something else, or broken, are left out; of private ones the public half counts', async () => {
    await using issuer = openIssuer([])
    const one = await jwkOf('one')
    const keys = [
      { ...one, kid: 'enc', use: 'enc' },
      { ...one, kid: 'ops', use: undefined, key_ops: ['sign'] },
      { ...one, kid: 'alg', alg: 'RS256' },
      { ...one, kid: 1 },
      { kty: 'oct', k: 'c'.repeat(64), kid: 'oct' },
      { kty: 'RSA', n: 'AQAB', e: 'AQAB', kid: 'weak' },
      { kty: 'EC', crv: 'P-256', x: 'AA', y: 'AA', kid: 'broken' },
      { kty: 'OKP', crv: 'X25519', x: one.x, kid: 'x' },
      ...[null, 'one', [], {}],
      { ...(await exportJWK(pairOf('one').privateKey)), kid: 'one' },
    ]
    issuer.answer = () => Response.json({ keys })
    using it = await setUp(issuer.url)
    for (const kid of ['enc', 'ops', 'alg', '1', 'oct', 'weak', 'broken', 'x']) {
      expect(await it.auth.identify(await tokenOf(kid, {}, 'one'))).toMatchObject(refused)
    }
    expect(await it.auth.identify(await tokenOf('one'))).toMatchObject(ok)
    const shared = await new SignJWT({ sub: 'ann' })
      .setProtectedHeader({ alg: 'HS256', kid: 'oct' })
      .sign(Buffer.from('c'.repeat(64), 'base64url'))
    expect(await it.auth.identify(shared)).toMatchObject(refused)
  })

  test('a token without a name is for the only key there is, and for none of several', async () => {
    await using issuer = openIssuer(['one'])
    using it = await setUp(issuer.url)
    const nameless = (sub: string) =>
      new SignJWT({ sub }).setProtectedHeader({ alg: 'EdDSA' }).sign(pairOf('one').privateKey)
    expect(await it.auth.identify(await nameless('ann'))).toMatchObject(ok)
    issuer.kids = ['one', 'two']
    it.clock.advance(11 * minute)
    await until(() => it.count('auth.jwks_loaded') === 2, 'both keys')
    expect(await it.auth.identify(await nameless('bob'))).toMatchObject(refused)
  })

  test('a file, read again as a URL is; it may hold secrets', async () => {
    using folder = tempFolder()
    const path = folder.file('keys.json')
    await Bun.write(path, JSON.stringify({ keys: [await jwkOf('one')] }))
    using it = await setUp(`file://${path}`)
    expect(await it.auth.identify(await tokenOf('one'))).toMatchObject(ok)
    const k = Buffer.from('a secret of at least thirty-two bytes')
    const keys = [{ kty: 'oct', k: k.toString('base64url'), kid: 'oct' }]
    await Bun.write(path, JSON.stringify({ keys }))
    it.clock.advance(11 * minute)
    await until(() => it.count('auth.jwks_loaded') === 2, 'the other keys')
    const token = await new SignJWT({ sub: 'ann' })
      .setProtectedHeader({ alg: 'HS256', kid: 'oct' })
      .sign(k)
    expect(await it.auth.identify(token)).toMatchObject(ok)
    expect(await it.auth.identify(await tokenOf('one'))).toMatchObject(refused)
  })
})
