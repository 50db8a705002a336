/** Accounts through the doors: in, out, with a role and without, disabled. */
import { describe, expect, test } from 'bun:test'
import { shiftedClock } from '../clock.ts'
import { exportSPKI, generateKeyPair, jwtVerify, SignJWT } from 'jose'
import { signToken } from '../../src/auth/auth.ts'
import { tempFolder } from '../harness.ts'
import { runServer, testApiKey, testSecret } from '../server.ts'
import { app, claimsOf, password, refusal, runAccounts } from './accounts-setup.ts'

describe('an account', () => {
  test('signs up, in and out; what it is, is in the token and at /me', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder)
    const made = await server.ask('sign-up', { email: ' Ann@Example.COM ', password })
    expect(made.status).toBe(201)
    expect(made.headers.get('cache-control')).toBe('no-store')
    expect(made.body).toEqual({
      accessToken: expect.stringMatching(/^eyJ/),
      expiresInMs: 900_000,
      refreshToken: expect.stringMatching(/^bfr_[\w-]{22}_[\w-]{43}$/),
      user: {
        id: expect.stringMatching(/^[0-9a-f]{8}-[0-9a-f]{4}-7/),
        ...{ email: 'ann@example.com', role: null, isVerified: false },
        createdAt: expect.stringMatching(/^\d{4}-.*Z$/),
      },
    })
    const { accessToken, user } = await server.signIn('ANN@example.com')
    const claims = claimsOf(accessToken)
    expect(claims).toEqual({
      ...{ sub: user.id, iss: 'belfry', sid: expect.any(String), email_verified: false },
      ...{ iat: expect.any(Number), exp: Number(claims['iat']) + 900 },
    })
    expect((await server.me(accessToken)).body).toEqual({ ...user })
    // Whose it is, in rules.
    const note = await server.ask('/api/notes', { text: 'a' }, { token: accessToken })
    expect([note.status, note.body['userId']]).toEqual([201, user.id])
    expect((await server.ask('sign-out', {}, { token: accessToken })).status).toBe(204)
    expect(await server.reads(accessToken)).toBe(401)
    // The other session goes on, until it ends with its refresh token alone.
    const first = made.body as { accessToken: string; refreshToken: string }
    expect(await server.reads(first.accessToken)).toBe(200)
    const { refreshToken } = first
    expect((await server.ask('sign-out', { refreshToken })).status).toBe(204)
    expect(await server.reads(first.accessToken)).toBe(401)
    expect(refusal(await server.refresh(first))).toEqual([401, 'the refresh token is not valid'])
    expect((await server.ask('sign-out', {})).status).toBe(401)
  })

  test('what is wrong with an address or a password is told at once; nothing else of it is', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder, {
      limits: { login: '100/min', mail: '100/min' },
    })
    const wrong = await server.ask('sign-up', { email: 'ann', password: 'short' })
    expect([wrong.status, wrong.body['errors']]).toEqual([
      400,
      [
        { field: 'email', message: 'must be an e-mail address' },
        { field: 'password', message: 'must have 8 to 128 characters' },
      ],
    ])
    expect((await server.ask('sign-up', { email: 1, more: 2 })).body['errors']).toHaveLength(3)
    const { hashes } = server.rooms.auth.accounts ?? { hashes: -1 }
    expect(hashes).toBe(0)
    await server.signUp('ann@example.com')
    expect(refusal(await server.ask('sign-up', { email: 'Ann@example.com', password }))).toEqual([
      409,
      'there is an account of this address',
    ])
    const tries = [
      { email: 'ann@example.com', password: 'wrong horse battery' },
      { email: 'ann@example.com', password: '' },
      { email: 'ann@example.com', password: 'x'.repeat(1_000) },
      { email: 'bob@example.com', password },
    ]
    const answers = []
    for (const one of tries) answers.push(refusal(await server.ask('sign-in', one)))
    expect(answers).toEqual(tries.map(() => [401, 'the e-mail address or the password is wrong']))
    expect((await server.ask('sign-up', 'x'.repeat(20_000))).status).toBe(413)
  })

  test('a password is the same however a keyboard composes it', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder)
    const composed = { email: 'zoé@example.com', password: 'zoé zoé zoé' }
    expect((await server.ask('sign-up', composed)).status).toBe(201)
    const apart = {
      email: 'zoé@example.com'.normalize('NFD'),
      password: composed.password.normalize('NFD'),
    }
    expect((await server.ask('sign-in', apart)).status).toBe(200)
  })

  test('no password and no token of it is in the database or in the log', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder)
    const grant = await server.signUp('ann@example.com')
    const { token } = await server.mail('verify', 'ann@example.com')
    const next = (await server.refresh(grant)).body['refreshToken'] as string
    await server.ask('request-reset', { email: 'ann@example.com' })
    const reset = await server.mail('reset', 'ann@example.com')
    const stored: unknown[] = []
    for (const table of ['belfry_users', 'belfry_sessions', 'belfry_mail_tokens', 'log', 'meta']) {
      stored.push(await server.rooms.store.read({ sql: `select * from ${table}`, params: [] }))
    }
    const all = JSON.stringify(stored) + JSON.stringify(server.log.lines)
    expect(all).toContain('$argon2id$v=19$m=19456,t=2,p=1$')
    for (const secret of [password, grant.refreshToken, next, token, reset.token]) {
      expect(all).not.toContain(String(secret))
    }
    // Nor the family, which is what a used token is known by. By place: it may have a `_` of its own.
    const families = [grant.refreshToken, next].map((one) => one.slice('bfr_'.length, -44))
    for (const family of families) {
      expect(family).toHaveLength(22)
      expect(all).not.toContain(family)
    }
    expect(all).not.toContain('192.0.2.1')
  })

  test('changes its password: other sessions end, this one goes on', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder)
    const here = await server.signUp('ann@example.com')
    const there = await server.signIn('ann@example.com')
    const change = (given: string, newPassword: string) =>
      server.ask('change-password', { password: given, newPassword }, { token: here.accessToken })
    expect((await change('wrong horse battery', 'another horse')).body['errors']).toEqual([
      { field: 'password', message: 'is wrong' },
    ])
    expect((await change(password, 'short')).status).toBe(400)
    expect((await change(password, 'another horse')).status).toBe(204)
    expect([await server.reads(here.accessToken), await server.reads(there.accessToken)]).toEqual([
      200, 401,
    ])
    expect([(await server.refresh(here)).status, (await server.refresh(there)).status]).toEqual([
      200, 401,
    ])
    const old = await server.ask('sign-in', { email: 'ann@example.com', password })
    const email = 'ann@example.com'
    const next = await server.ask('sign-in', { email, password: 'another horse' })
    expect([old.status, next.status]).toEqual([401, 200])
    expect((await server.ask('change-password', { password, newPassword: password })).status).toBe(
      401,
    )
  })

  test('has at most fifty sessions: the one that was not used for longest ends', async () => {
    using folder = tempFolder()
    const clock = shiftedClock()
    await using server = await runAccounts(folder, { clock })
    const first = await server.signUp('ann@example.com')
    clock.by += 1_000
    const second = await server.signIn('ann@example.com')
    clock.by += 1_000
    const used = (await server.refresh(first)).body as { accessToken: string }
    for (let n = 0; n < 49; n++) {
      clock.by += 1_000
      await server.signIn('ann@example.com')
    }
    expect([await server.reads(used.accessToken), await server.reads(second.accessToken)]).toEqual([
      200, 401,
    ])
    const [row] = await server.rooms.store.read({
      sql: 'select count(*) from belfry_sessions',
      params: [],
    })
    expect(row).toEqual([50])
  })
})

describe('operators', () => {
  test('a role comes with the next refresh, and goes at once', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder)
    let grant = await server.signUp('ann@example.com')
    const { id } = grant.user
    const role = async (value: string | null, key = testApiKey) =>
      await server.ask(`/api/admin/users/${id}`, { role: value }, { key })
    const removes = async () => {
      const { headers } = { headers: { authorization: `Bearer ${grant.accessToken}` } }
      return (await server.get('/api/notes/1', { method: 'DELETE', headers })).status
    }
    await server.ask('/api/notes', { text: 'a' }, { token: grant.accessToken })
    expect(await removes()).toBe(403)
    expect((await role('admin')).body).toMatchObject({ id, role: 'admin', isDisabled: false })
    expect([await removes(), await server.reads(grant.accessToken)]).toEqual([403, 200])
    const refresh = async () => (grant = (await server.refresh(grant)).body as never)
    await refresh()
    expect(grant.user.role).toBe('admin')
    expect((await role(null)).status).toBe(200)
    // Not even to read: the token says what is not so.
    expect([await removes(), await server.reads(grant.accessToken)]).toEqual([401, 401])
    await refresh()
    expect([grant.user.role, await removes(), await server.reads(grant.accessToken)]).toEqual([
      null,
      403,
      200,
    ])
    expect((await role('a role')).status).toBe(400)
    expect((await role('admin', 'wrong')).status).toBe(401)
    expect(
      (await server.ask(`/api/admin/users/${id}`, { role: 'admin' }, { token: grant.accessToken }))
        .status,
    ).toBe(403)
    expect(
      (await server.ask('/api/admin/users/nobody', { role: 'a' }, { key: testApiKey })).status,
    ).toBe(404)
    expect((await server.ask(`/api/admin/users/${id}`, {}, { key: testApiKey })).status).toBe(400)
  })

  test('a disabled account is out at once and stays so, until it is enabled', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder)
    const grant = await server.signUp('ann@example.com')
    await server.mail('verify', 'ann@example.com')
    const change = (disabled: boolean) =>
      server.ask(`/api/admin/users/${grant.user.id}`, { disabled }, { key: testApiKey })
    await server.ask('request-reset', { email: 'ann@example.com' })
    const { token } = await server.mail('reset', 'ann@example.com')
    expect((await change(true)).body).toMatchObject({ isDisabled: true })
    expect(await server.reads(grant.accessToken)).toBe(401)
    expect((await server.refresh(grant)).status).toBe(401)
    expect((await server.ask('sign-in', { email: 'ann@example.com', password })).status).toBe(401)
    expect((await server.ask('reset', { token, password })).status).toBe(400)
    expect((await change(false)).status).toBe(200)
    await server.signIn('ann@example.com')
    expect((await server.refresh(grant)).status).toBe(401)
  })

  test('a revocation by user or session ends refresh tokens, too', async () => {
    using folder = tempFolder()
    const clock = shiftedClock()
    await using server = await runAccounts(folder, { clock })
    const one = await server.signUp('ann@example.com')
    const other = await server.signIn('ann@example.com')
    const sid = String(claimsOf(one.accessToken)['sid'])
    await server.rooms.auth.revoke({ kind: 'session', id: sid, atMs: clock.now() })
    expect([(await server.refresh(one)).status, (await server.refresh(other)).status]).toEqual([
      401, 200,
    ])
    clock.by += 2_000
    await server.rooms.auth.revoke({ kind: 'user', id: one.user.id, atMs: clock.now() })
    expect((await server.refresh(other)).status).toBe(401)
    clock.by += 1_000
    const { accessToken } = await server.signIn('ann@example.com')
    expect(await server.reads(accessToken)).toBe(200)
  })
})

describe('tokens', () => {
  test('are signed with JWT_SECRET where there is one, for its issuer and audience', async () => {
    using folder = tempFolder()
    const env = {
      JWT_SECRET: testSecret,
      JWT_ISSUER: 'https://me.example',
      JWT_AUDIENCE: 'app',
      JWT_TYP: 'at+jwt',
    }
    await using server = await runAccounts(folder, { env })
    const { accessToken } = await server.signUp('ann@example.com')
    expect(await server.reads(accessToken)).toBe(200)
    const verified = await jwtVerify(accessToken, new TextEncoder().encode(testSecret), {
      ...{ issuer: 'https://me.example', audience: 'app', typ: 'at+jwt' },
    })
    expect(verified.payload.sub).toBeString()
  })

  test('of another issuer are good beside them, and neither key is good for the other', async () => {
    using folder = tempFolder()
    const { publicKey, privateKey } = await generateKeyPair('EdDSA', { extractable: true })
    const env = { JWT_PUBLIC_KEY: await exportSPKI(publicKey) }
    await using server = await runAccounts(folder, { env })
    const { accessToken, user } = await server.signUp('ann@example.com')
    const theirs = async (claims: Record<string, string>) =>
      await new SignJWT(claims)
        .setProtectedHeader({ alg: 'EdDSA' })
        .setExpirationTime('5m')
        .sign(privateKey)
    expect(await server.reads(accessToken)).toBe(200)
    const other = await theirs({ sub: 'bob', iss: 'https://issuer.example' })
    expect([await server.reads(other), (await server.me(other)).status]).toEqual([200, 404])
    expect(await server.reads(await theirs({ sub: user.id, iss: 'belfry' }))).toBe(401)
    const byText = { sub: user.id, iss: 'belfry' }
    const times = { nowMs: Date.now(), ttlMs: 60_000 }
    expect(await server.reads(await signToken(env.JWT_PUBLIC_KEY, byText, times))).toBe(401)
  })

  test('outlive a restart; those of another database are nothing here', async () => {
    using folder = tempFolder()
    using elsewhere = tempFolder()
    let grant
    {
      await using server = await runAccounts(folder)
      grant = await server.signUp('ann@example.com')
    }
    await using server = await runAccounts(folder)
    expect(await server.reads(grant.accessToken)).toBe(200)
    expect((await server.refresh(grant)).status).toBe(200)
    await using other = await runAccounts(elsewhere)
    expect([await other.reads(grant.accessToken), (await other.refresh(grant)).status]).toEqual([
      401, 401,
    ])
  })

  test('without accounts there are no doors to them', async () => {
    using folder = tempFolder()
    await using server = await runServer({ folder, app })
    const answer = await server.get('/api/auth/sign-in', { method: 'POST' })
    expect([answer.status, server.rooms.auth.accounts]).toEqual([404, undefined])
  })

  test('signUp: false', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder, { accounts: { signUp: false } })
    expect((await server.ask('sign-up', { email: 'ann@example.com', password })).status).toBe(403)
    const made = await server.rooms.auth.accounts?.create({
      email: 'ann@example.com',
      role: 'admin',
    })
    const answer = await server.ask('sign-in', {
      email: 'ann@example.com',
      password: made?.password,
    })
    expect(answer.body['user']).toMatchObject({ role: 'admin', isVerified: true })
  })
})
