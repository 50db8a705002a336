/** What owners do to their accounts: another address, and none any more. Passwords are in accounts.test.ts. */
import { describe, expect, test } from 'bun:test'
import { createAccountMail } from '../../src/auth/account-mail.ts'
import { accountLimits, type Grant } from '../../src/auth/auth.ts'
import { createMailer } from '../../src/auth/mailer.ts'
import { createTestClock, shiftedClock } from '../clock.ts'
import { createTestLog, tempFolder, until } from '../harness.ts'
import { testApiKey } from '../server.ts'
import { password, refusal, runAccounts, type AccountsServer } from './accounts-setup.ts'
import { openSocket, openStream } from './live.ts'

const ann = 'ann@example.com'
const next = 'ann.lee@example.org'
const hourMs = 60 * 60_000

/** Signed up, and the mail of that taken. */
async function signedUp(server: AccountsServer, email = ann): Promise<Grant> {
  const grant = await server.signUp(email)
  await server.mail('verify', email)
  return grant
}

const change = (server: AccountsServer, { accessToken }: Grant, email = next, given = password) =>
  server.ask('change-email', { password: given, email }, { token: accessToken })

const remove = (server: AccountsServer, { accessToken }: Grant, given = password) =>
  server.ask('delete-account', { password: given }, { token: accessToken })

const enters = async (server: AccountsServer, email: string, given = password) =>
  (await server.ask('sign-in', { email, password: given })).status

describe('another address', () => {
  test('counts when it has answered, once and for an hour; the old one is told', async () => {
    using folder = tempFolder()
    const clock = shiftedClock()
    await using server = await runAccounts(folder, { clock })
    const grant = await signedUp(server)
    const asked = await change(server, grant, ' Ann.Lee@Example.ORG ')
    expect([asked.status, asked.body]).toEqual([202, {}])
    const late = await server.mail('change-email', next)
    expect(late.user).toEqual({ id: grant.user.id, email: ann })
    clock.by += hourMs + 1
    expect(refusal(await server.ask('confirm-email', { token: late.token }))).toEqual([
      400,
      'the token is not valid any more',
    ])
    const { accessToken } = (await server.refresh(grant)).body as unknown as Grant
    await change(server, { ...grant, accessToken })
    const { token } = await server.mail('change-email', next)
    expect([await enters(server, ann), await enters(server, next)]).toEqual([200, 401])
    expect((await server.ask('confirm-email', { token })).status).toBe(204)
    expect((await server.mail('email-changed', ann)).user).toEqual({
      id: grant.user.id,
      email: next,
    })
    expect([await enters(server, ann), await enters(server, next)]).toEqual([401, 200])
    expect((await server.ask('confirm-email', { token })).status).toBe(400)
    expect((await server.me(accessToken)).body).toMatchObject({ email: next, isVerified: true })
    expect(server.mails).toEqual([])
  })

  test('is what the next refresh says, of sessions that are known by heart', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder)
    const grant = await server.signUp(ann)
    await server.ask('verify', { token: (await server.mail('verify', ann)).token })
    const first = (await server.refresh(grant)).body as unknown as Grant
    await change(server, first)
    const { token } = await server.mail('change-email', next)
    await server.ask('confirm-email', { token })
    const { status, body } = await server.refresh(first)
    expect([status, body['user']]).toMatchObject([200, { email: next, isVerified: true }])
  })

  test('needs the password, and a wrong one counts as at a sign-in', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder)
    const grant = await signedUp(server)
    expect((await server.ask('change-email', { password, email: next })).status).toBe(401)
    expect((await change(server, grant, 'no address')).body['errors']).toMatchObject([
      { field: 'email' },
    ])
    expect((await change(server, grant, ann)).body['errors']).toEqual([
      { field: 'email', message: 'is the address already' },
    ])
    const guesses = [
      await change(server, grant, next, 'guess number 1'),
      await remove(server, grant, 'guess number 2'),
      await server.ask(
        'change-password',
        { password: 'guess number 3', newPassword: 'another horse' },
        { token: grant.accessToken },
      ),
      await change(server, grant, next, ''),
      await remove(server, grant, 'guess number 5'),
    ]
    expect(guesses.map(({ status }) => status)).toEqual([400, 400, 400, 400, 400])
    expect(guesses[0]?.body['errors']).toEqual([{ field: 'password', message: 'is wrong' }])
    expect([(await change(server, grant)).status, (await remove(server, grant)).status]).toEqual([
      429, 429,
    ])
    expect(server.mails).toEqual([])
  })

  test('that has an account: the answer is the same, and only its owner is told', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder)
    const grant = await signedUp(server)
    await signedUp(server, next)
    const asked = await change(server, grant)
    expect([asked.status, asked.body]).toEqual([202, {}])
    expect(await server.mail('exists', next)).toMatchObject({ token: undefined })
    expect([await enters(server, ann), await enters(server, next)]).toEqual([200, 200])
  })

  test('that somebody signed up with meanwhile is theirs', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder)
    const grant = await signedUp(server)
    await change(server, grant)
    const { token } = await server.mail('change-email', next)
    const other = await signedUp(server, next)
    const late = await server.ask('confirm-email', { token })
    expect([late.status, late.body['errors']]).toEqual([
      409,
      [{ field: 'email', message: 'is taken' }],
    ])
    expect((await server.me(other.accessToken)).body).toMatchObject({ email: next })
    expect((await server.me(grant.accessToken)).body).toMatchObject({ email: ann })
  })

  test('is no way back in: what was mailed is good no more when anything else is another', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder, { limits: { mail: '50/h' } })
    const grant = await signedUp(server)
    const confirm = async (token: string | undefined) =>
      (await server.ask('confirm-email', { token })).status
    const reset = async (token: string | undefined) =>
      (await server.ask('reset', { token, password })).status
    const pending = async (one: Grant) => {
      await change(server, one)
      return (await server.mail('change-email', next)).token
    }
    // Whoever had the password, until its owner changes it.
    const first = await pending(grant)
    const changed = { password, newPassword: password }
    await server.ask('change-password', changed, { token: grant.accessToken })
    expect(await confirm(first)).toBe(400)
    // Until its owner resets it.
    const second = await pending(grant)
    await server.ask('request-reset', { email: ann })
    expect(await reset((await server.mail('reset', ann)).token)).toBe(200)
    expect(await confirm(second)).toBe(400)
    // Who reads the old mailbox.
    const again = await server.signIn(ann)
    await server.ask('request-reset', { email: ann })
    const old = await server.mail('reset', ann)
    expect(await confirm(await pending(again))).toBe(204)
    expect(await reset(old.token)).toBe(400)
  })

  test('of a disabled account is not confirmed', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder)
    const grant = await signedUp(server)
    await change(server, grant)
    const { token } = await server.mail('change-email', next)
    await server.ask(`/api/admin/users/${grant.user.id}`, { disabled: true }, { key: testApiKey })
    expect((await server.ask('confirm-email', { token })).status).toBe(400)
  })

  test('cannot be had without send', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder, { accounts: true })
    expect((await change(server, await server.signUp(ann))).status).toBe(404)
  })
})

describe('a deleted account', () => {
  test('is out at once and everywhere, and nothing is kept of it', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder)
    const grant = await signedUp(server)
    const other = await signedUp(server, next)
    const there = await server.signIn(ann)
    const authorization = `Bearer ${there.accessToken}`
    using socket = openSocket(server, { headers: { authorization } })
    await socket.connect()
    const topic = `/api/stream?topics=user:${grant.user.id}`
    const stream = await openStream(server, topic, { headers: { authorization } })
    await server.ask('request-reset', { email: ann })
    const { token } = await server.mail('reset', ann)
    const done = await remove(server, grant)
    expect([done.status, done.body]).toEqual([204, {}])
    expect(await socket.closed).toBe(3500)
    await stream.ended
    expect([await server.reads(grant.accessToken), await server.reads(there.accessToken)]).toEqual([
      401, 401,
    ])
    expect([(await server.refresh(grant)).status, (await server.refresh(there)).status]).toEqual([
      401, 401,
    ])
    expect(await enters(server, ann)).toBe(401)
    expect((await server.ask('reset', { token, password })).status).toBe(400)
    expect(await server.mail('deleted', ann)).toMatchObject({
      token: undefined,
      user: { id: grant.user.id },
    })
    for (const table of ['users', 'sessions', 'mail_tokens']) {
      const rows = await server.rooms.store.read({
        sql: `select * from belfry_${table}`,
        params: [],
      })
      expect(JSON.stringify(rows)).not.toContain(grant.user.id)
    }
    expect(await server.reads(other.accessToken)).toBe(200)
    // The address is free, and whoever has it next is somebody else.
    expect((await signedUp(server)).user.id).not.toBe(grant.user.id)
  })

  test('race: of a deletion and sign-ins at once no session is left', async () => {
    using folder = tempFolder()
    await using server = await runAccounts(folder, { limits: { login: '100/min' } })
    const grant = await signedUp(server)
    const deleting = remove(server, grant)
    const tries = await Promise.all(
      Array.from({ length: 8 }, (_, n) =>
        server.ask('sign-in', { email: ann, password }, { from: `192.0.2.${n}` }),
      ),
    )
    expect((await deleting).status).toBe(204)
    for (const { status, body } of tries) {
      if (status !== 200) continue
      expect(await server.reads(String(body['accessToken']))).toBe(401)
      expect((await server.ask('refresh', { refreshToken: body['refreshToken'] })).status).toBe(401)
    }
    const left = { sql: 'select count(*) from belfry_sessions', params: [] }
    expect(await server.rooms.store.read(left)).toEqual([[0]])
  })
})

test('mail is counted by mailbox, however it is written', async () => {
  using folder = tempFolder()
  await using server = await runAccounts(folder, { limits: { mail: '2/h' } })
  const signUp = async (email: string) => (await server.ask('sign-up', { email, password })).status
  expect([
    await signUp('ann.lee@example.com'),
    await signUp('annlee+one@example.com'),
    await signUp('a.n.n.lee+two@example.com'),
    await signUp('annlee@example.org'),
  ]).toEqual([201, 201, 429, 201])
})

test('race: who is given a role while being disabled stays disabled', async () => {
  using folder = tempFolder()
  await using server = await runAccounts(folder)
  const { id } = (await signedUp(server)).user
  const to = (body: object) => server.ask(`/api/admin/users/${id}`, body, { key: testApiKey })
  for (let n = 0; n < 10; n++) {
    const [off] = await Promise.all([to({ disabled: true }), to({ role: `role-${n}` })])
    const { isDisabled } = (await to({ role: 'none' })).body
    if (off.status === 200) expect(isDisabled).toBe(true)
    await to({ disabled: false })
  }
})

test('what is done is not undone by a mail that finds no room', async () => {
  const log = createTestLog()
  const clock = createTestClock()
  const mailer = createMailer({ clock, log, env: {} }, () => {})
  const mail = createAccountMail({
    log,
    mailer,
    users: { byEmail: async () => undefined },
    limit: accountLimits.mail,
  })
  await mail.stop()
  expect(() => mail.later(async () => undefined)).toThrow('too many messages')
  mail.tell(async () => undefined)
  await until(() => log.lines.length > 0, 'a line')
  expect(log.lines.map(({ event }) => event)).toEqual(['accounts.not_sent'])
})
