/** What is tried on a verifier, one test for each; and what a token may be. */
import { describe, expect, test } from 'bun:test'
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { exportJWK, SignJWT, type JWTHeaderParameters } from 'jose'
import { createAuth, signToken, type AuthConfig } from '../../src/auth/auth.ts'
import { createTestClock } from '../clock.ts'
import { createTestLog, tempFolder } from '../harness.ts'

const secret = 'a secret of at least sixty-four bytes, so that it is good for HS512, too'
const refused = { ok: false, reason: 'invalid' }

async function setUp(config: AuthConfig = { secret }) {
  const clock = createTestClock()
  const auth = await createAuth({ clock, log: createTestLog() }, config)
  const nowS = clock.now() / 1000
  return { clock, auth, nowS }
}

const encode = (text: string): string => Buffer.from(text).toString('base64url')

/** Signed as it is written: jose would not write it so. */
function signRaw(header: string, payload: string, key = secret): string {
  const input = `${encode(header)}.${encode(payload)}`
  const hmac = new Bun.CryptoHasher('sha256', key).update(input)
  return `${input}.${hmac.digest('base64url')}`
}

const hs256 = '{"alg":"HS256"}'

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
const pem = (key: KeyObject): string => key.export({ type: 'spki', format: 'pem' }).toString()

function signWith(key: KeyObject | Uint8Array, header: JWTHeaderParameters, sub = 'ann') {
  return new SignJWT({ sub }).setProtectedHeader(header).sign(key)
}

describe('algorithms', () => {
  const kinds = [
    ['rsa', { modulusLength: 2048 }, ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512']],
    ['ec', { namedCurve: 'P-256' }, ['ES256']],
    ['ec', { namedCurve: 'P-384' }, ['ES384']],
    ['ec', { namedCurve: 'P-521' }, ['ES512']],
    ['ed25519', {}, ['EdDSA', 'Ed25519']],
  ] as const

  test.each(kinds)('a PEM of %s %j verifies %j', async (type, options, algorithms) => {
    const pair = generateKeyPairSync(type as 'rsa', options as { modulusLength: number })
    const { auth } = await setUp({ publicKey: pem(pair.publicKey) })
    for (const alg of algorithms) {
      expect(await auth.identify(await signWith(pair.privateKey, { alg }))).toMatchObject({
        ok: true,
      })
    }
  })

  test('a secret verifies those that it is long enough for', async () => {
    const key = new TextEncoder().encode(secret)
    const { auth } = await setUp()
    for (const alg of ['HS256', 'HS384', 'HS512']) {
      expect(await auth.identify(await signWith(key, { alg }))).toMatchObject({ ok: true })
    }
    const short = 'a secret of thirty-two bytes and'
    const { auth: other } = await setUp({ secret: short })
    const bytes = new TextEncoder().encode(short)
    expect(await other.identify(await signWith(bytes, { alg: 'HS256' }))).toMatchObject({
      ok: true,
    })
    expect(await other.identify(await signWith(bytes, { alg: 'HS384' }))).toMatchObject(refused)
  })

  test('an RSA key below 2,048 bits stops the start', async () => {
    const weak = generateKeyPairSync('rsa', { modulusLength: 1024 })
    await expect(setUp({ publicKey: pem(weak.publicKey) })).rejects.toThrow('JWT_PUBLIC_KEY')
  })
})

describe('refused', () => {
  test('alg none, in any case, with and without a signature', async () => {
    const { auth } = await setUp()
    for (const alg of ['none', 'None', 'NONE', 'nOnE']) {
      const input = `${encode(`{"alg":"${alg}"}`)}.${encode('{"sub":"ann"}')}`
      expect(await auth.identify(`${input}.`)).toMatchObject(refused)
      expect(await auth.identify(signRaw(`{"alg":"${alg}"}`, '{"sub":"ann"}'))).toMatchObject(
        refused,
      )
    }
    expect(await auth.identify(signRaw(hs256, '{"sub":"ann"}'))).toMatchObject({ ok: true })
  })

  test('RFC 7515 A.5, A.6 and RFC 7520 4.5 to 4.8: unsecured, detached and in JSON, a signature is no token', async () => {
    const { auth } = await setUp()
    const good = signRaw(hs256, '{"sub":"ann"}')
    const [head = '', payload = '', signature = ''] = good.split('.')
    const one = { protected: head, signature }
    for (const other of [
      // A.5, as it is printed.
      'eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.',
      `${head}.${payload}.`,
      `${head}..${signature}`,
      `.${payload}.${signature}`,
      JSON.stringify({ payload, signatures: [one] }),
      JSON.stringify({ payload, ...one }),
      JSON.stringify({ payload, header: { alg: 'HS256' }, signature }),
      JSON.stringify({ payload, signatures: [one, { header: { alg: 'none' }, signature: '' }] }),
    ]) {
      expect(await auth.identify(other)).toMatchObject(refused)
    }
    expect(auth.stats().verifications).toBe(0)
    expect(await auth.identify(good)).toMatchObject({ ok: true })
  })

  test('HS/RS confusion: the public key as a secret, in every spelling of it', async () => {
    const spki = pem(rsa.publicKey)
    const { auth } = await setUp({ publicKey: spki })
    const der = rsa.publicKey.export({ type: 'spki', format: 'der' })
    for (const key of [spki, spki.trim(), spki.replaceAll('\n', ''), der]) {
      const bytes = typeof key === 'string' ? new TextEncoder().encode(key) : key
      for (const alg of ['HS256', 'HS384', 'HS512']) {
        const token = await new SignJWT({ sub: 'ann' }).setProtectedHeader({ alg }).sign(bytes)
        expect(await auth.identify(token)).toMatchObject(refused)
      }
    }
  })

  test('kid traversal and injection: a name is compared, and nothing else', async () => {
    using folder = tempFolder()
    const keys = [{ ...(await exportJWK(rsa.publicKey)), kid: 'one' }]
    await Bun.write(folder.file('keys.json'), JSON.stringify({ keys }))
    const { auth } = await setUp({ jwks: [`file://${folder.file('keys.json')}`] })
    const good = await signWith(rsa.privateKey, { alg: 'RS256', kid: 'one' })
    expect(await auth.identify(good)).toMatchObject({ ok: true })
    const kids = [
      ...['../../../../dev/null', '/dev/null', 'file:///dev/null', folder.file('keys.json')],
      ...[
        "one' or '1'='1",
        "x' union select 'key",
        'one; cat /etc/passwd',
        '$(id)',
        'one\0',
        'ONE',
      ],
      ...['__proto__', 'constructor', 'toString', '0', '', ' one', 'https://evil.example/keys'],
    ]
    for (const kid of kids) {
      const token = await signWith(rsa.privateKey, { alg: 'RS256', kid })
      expect(await auth.identify(token)).toMatchObject(refused)
      // What such a path would give: the empty key.
      const empty = signRaw(`{"alg":"HS256","kid":${JSON.stringify(kid)}}`, '{"sub":"ann"}', '\0')
      expect(await auth.identify(empty)).toMatchObject(refused)
    }
    for (const kid of ['1', 'null', '["one"]', '{"one":1}', 'true']) {
      const token = signRaw(`{"alg":"HS256","kid":${kid}}`, '{"sub":"ann"}')
      expect(await auth.identify(token)).toMatchObject(refused)
    }
  })

  test('embedded jwk, jku, x5u and x5c: nothing is fetched, and no key comes from the token', async () => {
    const evil = generateKeyPairSync('rsa', { modulusLength: 2048 })
    const jwk = await exportJWK(evil.publicKey)
    let requests = 0
    using server = Bun.serve({
      port: 0,
      fetch: () => (requests++, Response.json({ keys: [{ ...jwk, kid: 'evil' }] })),
    })
    const { auth } = await setUp({ publicKey: pem(rsa.publicKey) })
    for (const extra of [
      { jwk },
      { jku: server.url.href },
      { x5u: server.url.href },
      { x5c: ['AA=='] },
    ]) {
      const header = { alg: 'RS256', kid: 'evil', ...extra } as JWTHeaderParameters
      const forged = await signWith(evil.privateKey, header)
      expect(await auth.identify(forged)).toMatchObject(refused)
      // Of one that the right key has signed they are not looked at.
      expect(await auth.identify(await signWith(rsa.privateKey, header))).toMatchObject({
        ok: true,
      })
    }
    expect(requests).toBe(0)
  })

  test('crit: whatever has to be understood is not', async () => {
    const { auth } = await setUp()
    for (const header of [
      '{"alg":"HS256","crit":["b64"],"b64":false}',
      '{"alg":"HS256","crit":["exp"],"exp":1}',
      '{"alg":"HS256","crit":[]}',
    ]) {
      expect(await auth.identify(signRaw(header, '{"sub":"ann"}'))).toMatchObject(refused)
    }
  })

  test('duplicate claims and headers, also behind escapes and further down', async () => {
    const { auth } = await setUp()
    for (const payload of [
      '{"sub":"ann","sub":"root"}',
      '{"sub":"ann","role":"user","role":"admin"}',
      String.raw`{"sub":"ann","s\u0075b":"root"}`,
      '{"sub":"ann","exp":1,"exp":99999999999}',
      '{"sub":"ann","realm":{"roles":["a"],"roles":["admin"]}}',
    ]) {
      expect(await auth.identify(signRaw(hs256, payload))).toMatchObject(refused)
    }
    const twice = '{"alg":"HS256","alg":"HS256"}'
    expect(await auth.identify(signRaw(twice, '{"sub":"ann"}'))).toMatchObject(refused)
    const fine = '{"sub":"ann","a":{"x":1,"y":["x",{"x":"a:\\"x"}]},"b":{"x":":"}}'
    expect(await auth.identify(signRaw(hs256, fine))).toMatchObject({ ok: true })
  })

  test('huge tokens, before they are hashed or kept', async () => {
    const { auth } = await setUp()
    const huge = signRaw(hs256, JSON.stringify({ sub: 'ann', text: 'x'.repeat(7_000) }))
    expect(huge.length).toBeGreaterThan(8_192)
    expect(await auth.identify(huge)).toMatchObject(refused)
    expect(await auth.identify('a.'.repeat(4_000_000))).toMatchObject(refused)
    expect(auth.stats().verifications).toBe(0)
    const large = signRaw(hs256, JSON.stringify({ sub: 'ann', text: 'x'.repeat(5_000) }))
    expect(await auth.identify(large)).toMatchObject({ ok: true })
  })

  test('nested tokens: one within another, and one that is deep', async () => {
    const { auth } = await setUp()
    const inner = signRaw(hs256, '{"sub":"ann"}')
    const nested = '{"alg":"HS256","cty":"JWT"}'
    for (const payload of [
      inner,
      JSON.stringify(inner),
      `["${inner}"]`,
      'null',
      '"ann"',
      '1',
      '',
    ]) {
      expect(await auth.identify(signRaw(nested, payload))).toMatchObject(refused)
    }
    const deep = `{"sub":"ann","a":${'['.repeat(2_000)}${']'.repeat(2_000)}}`
    expect(await auth.identify(signRaw(hs256, deep))).toMatchObject(refused)
    // Encrypted ones have five parts.
    expect(await auth.identify(`${inner}.a.a`)).toMatchObject(refused)
  })

  test('a token of another type, as for a logout or an event', async () => {
    const { auth } = await setUp()
    for (const typ of ['logout+jwt', 'secevent+jwt', 'dpop+jwt', 'JWE', 1, null]) {
      const header = JSON.stringify({ alg: 'HS256', typ })
      expect(await auth.identify(signRaw(header, '{"sub":"ann"}'))).toMatchObject(refused)
    }
    for (const typ of ['JWT', 'jwt', 'at+jwt', 'application/at+jwt']) {
      const header = JSON.stringify({ alg: 'HS256', typ })
      expect(await auth.identify(signRaw(header, '{"sub":"ann"}'))).toMatchObject({ ok: true })
    }
    const { auth: strict } = await setUp({ secret, typ: 'at+jwt' })
    const access = signRaw('{"alg":"HS256","typ":"AT+JWT"}', '{"sub":"ann"}')
    expect(await strict.identify(access)).toMatchObject({ ok: true })
    for (const header of [hs256, '{"alg":"HS256","typ":"JWT"}']) {
      expect(await strict.identify(signRaw(header, '{"sub":"ann"}'))).toMatchObject(refused)
    }
  })

  test('claims of the wrong kind, and broken text', async () => {
    const { auth } = await setUp()
    for (const payload of [
      ...['{"sub":1}', '{"sub":null}', '{"sub":["ann"]}', '{"sub":""}', '{}'],
      ...[
        '{"sub":"ann","exp":"9999999999"}',
        '{"sub":"ann","nbf":"1"}',
        '{"sub":"ann","iat":null}',
      ],
      ...['{"sub":"ann"} ', '\u{feff}{"sub":"ann"}', '{"sub":"ann",}'].slice(1),
    ]) {
      expect(await auth.identify(signRaw(hs256, payload))).toMatchObject(refused)
    }
  })

  test('a claim named __proto__ gives nobody a role', async () => {
    const { auth } = await setUp()
    const token = signRaw(hs256, '{"sub":"ann","__proto__":{"role":"admin"},"id":"root"}')
    const verdict = await auth.identify(token)
    if (!verdict.ok) throw new Error(verdict.message)
    expect(verdict.identity.user?.id).toBe('ann')
    expect(verdict.identity.user?.role).toBeUndefined()
  })
})

describe('time', () => {
  test('expired while cached', async () => {
    const { auth, clock } = await setUp()
    const times = { nowMs: clock.now(), ttlMs: 60_000 }
    const token = await signToken(secret, { sub: 'ann', iat: 0 }, times)
    expect(await auth.identify(token)).toMatchObject({ ok: true })
    clock.advance(59_999)
    expect(auth.identify(token)).toMatchObject({ ok: true })
    clock.advance(1)
    // Beyond `exp` it is not recognised any more, and verified for as long as clocks may differ.
    const again = auth.identify(token)
    expect(again).toBeInstanceOf(Promise)
    expect(await again).toMatchObject({ ok: true })
    clock.advance(5_000)
    expect(await auth.identify(token)).toMatchObject({ ok: false, reason: 'expired' })
  })

  test('not yet valid: refused until then, and good from then on', async () => {
    const { auth, clock, nowS } = await setUp()
    const token = signRaw(hs256, JSON.stringify({ sub: 'ann', nbf: nowS + 8 }))
    expect(await auth.identify(token)).toMatchObject(refused)
    clock.advance(2_999)
    expect(await auth.identify(token)).toMatchObject(refused)
    clock.advance(1)
    expect(await auth.identify(token)).toMatchObject({ ok: true })
  })

  test('a clock that is set back does not make a token good before its nbf', async () => {
    const { auth, nowS } = await setUp()
    const token = signRaw(hs256, JSON.stringify({ sub: 'ann', nbf: nowS }))
    expect(await auth.identify(token)).toMatchObject({ ok: true })
    let now = nowS * 1000
    const clock = { ...createTestClock(), now: () => now }
    const other = await createAuth({ clock, log: createTestLog() }, { secret })
    expect(await other.identify(token)).toMatchObject({ ok: true })
    now -= 60_000
    expect(await other.identify(token)).toMatchObject(refused)
  })

  test('the tolerance is what was configured', async () => {
    const { auth, nowS } = await setUp({ secret, toleranceMs: 60_000 })
    for (const [claims, ok] of [
      [{ exp: nowS - 59 }, true],
      [{ exp: nowS - 60 }, false],
      [{ nbf: nowS + 60 }, true],
      [{ nbf: nowS + 61 }, false],
    ] as const) {
      const token = signRaw(hs256, JSON.stringify({ sub: 'ann', ...claims }))
      expect(await auth.identify(token)).toMatchObject({ ok })
    }
  })
})

describe('whose token, and for whom', () => {
  test('wrong audience after a configuration change', async () => {
    const token = signRaw(hs256, '{"sub":"ann","aud":["belfry","other"]}')
    const { auth } = await setUp({ secret, audiences: ['belfry'] })
    expect(await auth.identify(token)).toMatchObject({ ok: true })
    const { auth: changed } = await setUp({ secret, audiences: ['elsewhere'] })
    expect(await changed.identify(token)).toMatchObject(refused)
    const { auth: both } = await setUp({ secret, audiences: ['elsewhere', 'other'] })
    expect(await both.identify(token)).toMatchObject({ ok: true })
    for (const aud of ['"belfryx"', '["belf","ry"]', 'null', '{"belfry":1}', '[["belfry"]]']) {
      const other = signRaw(hs256, `{"sub":"ann","aud":${aud}}`)
      expect(await auth.identify(other)).toMatchObject(refused)
    }
  })

  test('two tokens with an equal prefix, or an equal suffix, are two', async () => {
    const { auth } = await setUp()
    const ann = signRaw(hs256, '{"sub":"ann"}')
    const bob = signRaw(hs256, '{"sub":"bob"}')
    expect(ann.slice(0, 24)).toBe(bob.slice(0, 24))
    expect(await auth.identify(ann)).toMatchObject({ identity: { user: { id: 'ann' } } })
    expect(await auth.identify(bob)).toMatchObject({ identity: { user: { id: 'bob' } } })
    // The head and claims of one with the signature of the other, both in the cache.
    const [head = '', body = '', own = ''] = ann.split('.')
    const other = bob.split('.')[2] ?? ''
    expect(await auth.identify(`${head}.${body}.${other}`)).toMatchObject(refused)
    const tail = ann.slice(0, -own.length) + (own.startsWith('A') ? 'B' : 'A') + own.slice(1)
    expect(tail.slice(-16)).toBe(ann.slice(-16))
    expect(await auth.identify(tail)).toMatchObject(refused)
  })

  test('several issuers: the key of one does not sign for the other', async () => {
    using folder = tempFolder()
    const keys = [{ ...(await exportJWK(rsa.publicKey)), kid: 'one' }]
    await Bun.write(folder.file('keys.json'), JSON.stringify({ keys }))
    const jwks = [`file://${folder.file('keys.json')}`]
    const { auth } = await setUp({ secret, jwks, issuers: ['own', 'https://far.example/'] })
    const far = (iss: string) =>
      new SignJWT({ sub: 'ann', iss })
        .setProtectedHeader({ alg: 'RS256', kid: 'one' })
        .sign(rsa.privateKey)
    const own = (iss: string) => signRaw(hs256, JSON.stringify({ sub: 'ann', iss }))
    expect(await auth.identify(own('own'))).toMatchObject({ ok: true })
    expect(await auth.identify(await far('https://far.example/'))).toMatchObject({ ok: true })
    expect(await auth.identify(own('https://far.example/'))).toMatchObject(refused)
    expect(await auth.identify(await far('own'))).toMatchObject(refused)
    expect(await auth.identify(signRaw(hs256, '{"sub":"ann"}'))).toMatchObject(refused)
    await expect(setUp({ secret, jwks })).rejects.toThrow('JWT_ISSUER must name 2 issuers')
    await expect(setUp({ secret, jwks, issuers: ['a', 'a'] })).rejects.toThrow('names one twice')
  })
})
