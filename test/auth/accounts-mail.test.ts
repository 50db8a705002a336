/** What is mailed: resets and verifications, each good once; and what `verify: true` keeps from whom. */
import { describe, expect, test } from 'bun:test'
import { createMailer } from '../../src/auth/mailer.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { createTestClock, shiftedClock } from '../clock.ts'
import { createTestLog, faultOf, tempFolder, until } from '../harness.ts'
import { claimsOf, password, refusal, runAccounts } from './accounts-setup.ts'

const hourMs = 60 * 60_000

describe('mail', () => {
  test('a reset signs in, ends all sessions, and is good once and for an hour', async () => {
    using folder = tempFolder()
    const clock = shiftedClock()
    await using server = await runAccounts(folder, { clock })
    const before = await server.signUp('ann@example.com')
    const request = (email: string) => server.ask('request-reset', { email })
    expect([
      (await request('ann@example.com')).status,
      (await request('bob@example.com')).status,
    ]).toEqual([202, 202])
    const { token } = await server.mail('reset', 'ann@example.com')
    const next = 'another horse battery'
    const short = await server.ask('reset', { token, password: 'short' })
    expect(short.body['errors']).toEqual([
      { field: 'password', message: 'must have 8 to 128 characters' },
    ])
    const done = await server.ask('reset', { token, password: next })
    expect([done.status, (done.body['user'] as { isVerified: boolean }).isVerified]).toEqual([
      200,
      true,
    ])
    expect(await server.reads(done.body['accessToken'] as string)).toBe(200)
    expect(await server.reads(before.accessToken)).toBe(401)
    expect((await server.refresh(before)).status).toBe(401)
    expect(refusal(await server.ask('reset', { token, password: next }))).toEqual([
      400,
      'the token is not valid any more',
    ])
    await request('ann@example.com')
    const late = await server.mail('reset', 'ann@example.com')
    clock.by += hourMs + 1
    expect((await server.ask('reset', { token: late.token, password: next })).status).toBe(400)
    expect(server.mails).toMatchObject([{ kind: 'verify' }])
  })

  test('race: of two who use one reset at once, one does', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder)
    await server.signUp('ann@example.com')
    await server.ask('request-reset', { email: 'ann@example.com' })
    const { token } = await server.mail('reset', 'ann@example.com')
    const passwords = ['one horse battery', 'two horse battery', 'three horse battery']
    const answers = await Promise.all(
      passwords.map((one) => server.ask('reset', { token, password: one })),
    )
    expect(answers.map(({ status }) => status).filter((one) => one === 200)).toEqual([200])
    const winner = passwords[answers.findIndex(({ status }) => status === 200)]
    const signIn = { email: 'ann@example.com', password: winner }
    expect((await server.ask('sign-in', signIn)).status).toBe(200)
  })

  test('race: a sign-in with the old password during a reset gets no session that stays', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder, { limits: { login: '100/min' } })
    await server.signUp('ann@example.com')
    await server.ask('request-reset', { email: 'ann@example.com' })
    const { token } = await server.mail('reset', 'ann@example.com')
    const reset = server.ask('reset', { token, password: 'another horse battery' })
    const tries = await Promise.all(
      Array.from({ length: 12 }, (_, n) =>
        server.ask('sign-in', { email: 'ann@example.com', password }, { from: `192.0.2.${n}` }),
      ),
    )
    const done = await reset
    expect(done.status).toBe(200)
    for (const { status, body } of tries) {
      if (status !== 200) continue
      expect(await server.reads(body['accessToken'] as string)).toBe(401)
      expect((await server.ask('refresh', { refreshToken: body['refreshToken'] })).status).toBe(401)
    }
    expect(await server.reads(done.body['accessToken'] as string)).toBe(200)
  })

  test('is sent behind the answer, tried again, and its token never logged', async () => {
    using folder = tempFolder()
    const clock = shiftedClock()
    const waits: number[] = []
    const sent: string[] = []
    const opened = Promise.withResolvers<void>()
    const send = async ({ token = '' }: { token: string | undefined }) => {
      sent.push(token)
      await opened.promise
      if (sent.length < 3) throw new Error(`POST https://mail.example/?token=${token} failed`)
    }
    const after: typeof clock.after = (ms, run) => {
      if (ms !== 1_000 && ms !== 5_000) return clock.after(ms, run)
      waits.push(ms)
      return clock.after(0, run)
    }
    await using server = await runAccounts(folder, {
      accounts: { send },
      clock: { ...clock, after },
    })
    await server.signUp('ann@example.com')
    await until(() => sent.length === 1, 'the first try')
    opened.resolve()
    await until(() => sent.length === 3, 'the third try')
    expect(waits).toEqual([1_000, 5_000])
    expect(new Set(sent).size).toBe(1)
    const lines = server.log.lines.filter(({ event }) => event.startsWith('accounts.'))
    expect(lines.map(({ event, fields }) => [event, fields['reason']])).toEqual([
      ['accounts.send_failed', 'POST https://mail.example/?token=… failed'],
      ['accounts.send_failed', 'POST https://mail.example/?token=… failed'],
    ])
  })

  test('cannot be asked for without send', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder, { accounts: true })
    expect((await server.ask('request-reset', { email: 'ann@example.com' })).status).toBe(404)
    expect((await server.ask('sign-up', { email: 'ann@example.com', password })).status).toBe(201)
  })

  test('a stop waits for what is being sent, and tries nothing again', async () => {
    const begun = Promise.withResolvers<void>()
    const go = Promise.withResolvers<void>()
    let sent = 0
    const log = createTestLog()
    const mailer = createMailer({ clock: systemClock, log, env: {} }, async () => {
      sent++
      begun.resolve()
      await go.promise
      throw new Error('no')
    })
    const user = { id: 'u1', email: 'ann@example.com' }
    mailer.later(async () => ({ kind: 'exists', email: user.email, token: undefined, user }))
    await begun.promise
    let isStopped = false
    const stopping = mailer.stop().then(() => (isStopped = true))
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve))
    expect(isStopped).toBe(false)
    go.resolve()
    await stopping
    expect([sent, log.lines.map(({ event }) => event)]).toEqual([1, ['accounts.not_sent']])
    expect(await faultOf(() => mailer.later(async () => undefined))).toMatchObject({
      code: 'unavailable',
    })
  })

  test('that hangs is given up after ten seconds, and its fetch is ended', async () => {
    const clock = createTestClock()
    const log = createTestLog()
    let [asked, ended] = [0, 0]
    await using service = Bun.serve({
      port: 0,
      fetch({ signal }) {
        asked++
        signal.addEventListener('abort', () => void ended++)
        return new Promise<Response>(() => {})
      },
    })
    const mailer = createMailer({ clock, log, env: {} }, (_, { fetch: send }) => send(service.url))
    const user = { id: 'u1', email: 'ann@example.com' }
    mailer.later(async () => ({ kind: 'exists', email: user.email, token: undefined, user }))
    for (let n = 1; n <= 3; n++) {
      await until(() => asked === n, `try ${n}`)
      clock.advance(10_000)
      await until(() => ended === n && log.lines.length === n, `try ${n} is ended`)
      clock.advance(5_000)
    }
    await mailer.stop()
    expect(log.lines.map(({ event, fields }) => [event, fields['reason']])).toEqual([
      ['accounts.send_failed', 'sending took over 10000 ms'],
      ['accounts.send_failed', 'sending took over 10000 ms'],
      ['accounts.not_sent', 'sending took over 10000 ms'],
    ])
  })
})

describe('verify: true', () => {
  test('nobody enters before; a sign-up of a taken address answers as any other', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder, { verify: true })
    const { mails } = server
    const signUp = (given = password) =>
      server.ask('sign-up', { email: 'ann@example.com', password: given })
    const first = await signUp()
    expect([first.status, first.body]).toEqual([202, { verify: true }])
    expect(refusal(await server.ask('sign-in', { email: 'ann@example.com', password }))).toEqual([
      403,
      'the e-mail address is not verified yet',
    ])
    await until(() => mails.length === 1, 'the mail')
    expect((await server.ask('verify', { token: mails[0]?.token })).status).toBe(204)
    expect((await server.ask('verify', { token: mails[0]?.token })).status).toBe(400)
    const { user, accessToken } = await server.signIn('ann@example.com')
    expect(user.isVerified).toBe(true)
    const again = await signUp('a password of somebody else')
    expect([again.status, again.body]).toEqual([202, { verify: true }])
    await until(() => mails.length === 2, 'the other mail')
    expect(mails[1]).toMatchObject({ kind: 'exists', email: 'ann@example.com' })
    expect(mails[1]?.token).toBeUndefined()
    // Nothing has changed for the owner.
    expect(await server.reads(accessToken)).toBe(200)
    await server.signIn('ann@example.com')
    const { rooms } = server
    expect(
      await rooms.store.read({ sql: 'select count(*) from belfry_users', params: [] }),
    ).toEqual([[1]])
  })

  test('who signs up with the address of another does not choose the password of the account', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder, { verify: true })
    const { mails } = server
    const email = 'ann@example.com'
    await server.ask('sign-up', { email, password: 'the password of a thief' })
    await until(() => mails.length === 1, 'the mail that the thief caused')
    await server.ask('sign-up', { email, password })
    await until(() => mails.length === 2, 'the mail that the owner wanted')
    expect((await server.ask('verify', { token: mails[1]?.token })).status).toBe(204)
    // The other one is good no more: it would bring the other password.
    expect((await server.ask('verify', { token: mails[0]?.token })).status).toBe(400)
    await server.signIn(email)
    const thief = await server.ask('sign-in', { email, password: 'the password of a thief' })
    expect(thief.status).toBe(401)
  })

  test('who did not get the mail signs up again, or resets', async () => {
    using folder = tempFolder()
    const clock = shiftedClock()
    await using server = await runAccounts(folder, { verify: true, clock })
    const email = 'ann@example.com'
    await server.ask('sign-up', { email, password: 'the first password' })
    const first = await server.mail('verify', email)
    // Nobody can have a mail sent that verifies what another has typed.
    expect((await server.ask('request-verification', {})).status).toBe(401)
    clock.by += 24 * hourMs + 1
    expect((await server.ask('verify', { token: first.token })).status).toBe(400)
    await server.ask('sign-up', { email, password })
    const second = await server.mail('verify', email)
    await server.ask('request-reset', { email })
    const { token } = await server.mail('reset', email)
    expect((await server.ask('verify', { token: second.token })).status).toBe(204)
    await server.signIn(email)
    expect((await server.ask('reset', { token, password: 'another password' })).status).toBe(200)
    await server.ask('sign-up', { email: 'bob@example.com', password })
    await server.mail('verify', 'bob@example.com')
    await server.ask('request-reset', { email: 'bob@example.com' })
    const bob = await server.mail('reset', 'bob@example.com')
    const done = await server.ask('reset', { token: bob.token, password })
    expect(done.body['user']).toMatchObject({ isVerified: true })
  })
})

test('an address is verified whenever its user likes, where nobody must', async () => {
  using folder = tempFolder()
  await using server = await runAccounts(folder)
  const grant = await server.signUp('ann@example.com')
  await server.mail('verify', 'ann@example.com')
  const request = async () =>
    (await server.ask('request-verification', {}, { token: grant.accessToken })).status
  expect(await request()).toBe(202)
  const { token } = await server.mail('verify', 'ann@example.com')
  expect((await server.ask('verify', { token })).status).toBe(204)
  expect(await server.reads(grant.accessToken)).toBe(200)
  const { accessToken } = (await server.refresh(grant)).body as { accessToken: string }
  expect(claimsOf(accessToken)['email_verified']).toBe(true)
  // There is nothing to verify any more.
  expect(await request()).toBe(202)
  await server.ask('request-reset', { email: 'ann@example.com' })
  await server.mail('reset', 'ann@example.com')
  expect(server.mails).toEqual([])
})
