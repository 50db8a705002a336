/**
 * Built-in accounts: e-mail and password in, tokens out. What each verb promises to users is in `declare.ts`.
 *
 *   sign-in ─► attempts (in turn, limits) ─► users ─► passwords ─► sessions: one write ─► signer: access token
 *   refresh ─► sessions: rotated under a condition ─► signer
 *   sign-up, reset ─► mail-tokens ─► mailer, behind the answer
 *
 * Invariants: each change is one write with its conditions in it, so two at once cannot both find what one of them
 * undoes; whatever ends a session revokes its `sid` in the same write, so access tokens end with it, everywhere; the
 * time that a token says it was issued at is never after what it says was found to be so.
 */
import { Fault } from '../fault.ts'
import type { Cancel, Clock } from '../lib/clock.ts'
import { detach } from '../lib/service.ts'
import type { Limiter, LimitPolicy } from '../limits/limits.ts'
import type { Log } from '../observe/log.ts'
import { isUnmet, onlyIf, type Query, type Store, type Write } from '../store/store.ts'
import {
  checked,
  checkedEmail,
  checkedPassword,
  checkedRole,
  entryOf,
  invalid,
  overFault,
  takenOr,
  viewOf,
  type AccountEntry,
  type AccountView,
} from './account-values.ts'
import { askOf, createAttempts } from './attempts.ts'
import type { AccountMessage, AccountsOptions, SendContext } from './declare.ts'
import { createMailTokens, type MailTokenKind } from './mail-tokens.ts'
import { createMailer } from './mailer.ts'
import { canonicalPassword, createPasswords } from './passwords.ts'
import type { Revocation } from './revocations.ts'
import { createSessions, randomText, type Session } from './sessions.ts'
import { accessMs, derivedKey, type Signer } from './signer.ts'
import { createUsers, insertUser, type Account } from './users.ts'

export interface AccountsPlan {
  readonly send: AccountsOptions['send']
  /** Nobody signs in before. */
  readonly mustVerify: boolean
  /** Visitors may sign up. */
  readonly isOpen: boolean
  readonly limits: {
    /** Failures, by address and by account. */
    readonly login: LimitPolicy
    /** By address. */
    readonly signUp: LimitPolicy
    /** By address and by account. */
    readonly mail: LimitPolicy
  }
}

const minuteMs = 60_000

export const accountLimits: AccountsPlan['limits'] = {
  login: { name: 'login', quota: 5, windowMs: 15 * minuteMs },
  signUp: { name: 'sign-up', quota: 20, windowMs: 60 * minuteMs },
  mail: { name: 'mail', quota: 5, windowMs: 60 * minuteMs },
}

export interface Grant {
  readonly accessToken: string
  readonly expiresInMs: number
  readonly refreshToken: string
  readonly user: AccountView
}

/** What a visitor gives, and the address that is counted. */
export interface Entering {
  readonly email: string
  readonly password: string
  readonly address: string
}

/** Of an access token. `session`: its `sid`. */
export interface Holder {
  readonly user: string
  readonly session: string | undefined
}

export interface AccountChange {
  /** Null: none. */
  readonly role?: string | null | undefined
  readonly isDisabled?: boolean | undefined
}

/** Faults: `invalid` (fields), `unauthenticated`, `denied`, `too_many`, `unavailable`. */
export interface Accounts {
  /** Undefined: the address has to be verified first. Faults: also `conflict`. */
  signUp(entering: Entering): Promise<Grant | undefined>
  signIn(entering: Entering): Promise<Grant>
  refresh(refreshToken: string): Promise<Grant>
  signOut(holder: Holder, everywhere: boolean): Promise<void>
  /** With a refresh token, used or not. */
  signOutWith(refreshToken: string): Promise<void>
  changePassword(
    holder: Holder,
    change: { readonly password: string; readonly next: string; readonly address: string },
  ): Promise<void>
  verify(token: string): Promise<void>
  /** Of who is signed in. Who must verify first signs up again: that mail has the password that was typed for it. */
  requestVerification(holder: Holder, address: string): Promise<void>
  /** Resolves before anything is looked for. */
  requestReset(email: string, address: string): Promise<void>
  reset(reset: {
    readonly token: string
    readonly password: string
    readonly address: string
  }): Promise<Grant>
  /** Undefined: the token is of another issuer. */
  me(id: string): Promise<AccountView | undefined>
  /** For operators. The password is told this once. */
  create(wanted: {
    readonly email: string
    readonly role?: string | undefined
  }): Promise<AccountEntry & { readonly password: string }>
  list(after: string, limit: number): Promise<readonly AccountEntry[]>
  /** Faults: `not_found`. */
  change(id: string, change: AccountChange): Promise<AccountEntry>
  /** What is written with a revocation: refresh tokens end as well. */
  endedBy(revocation: Revocation): Write
  /** Passwords hashed so far. */
  readonly hashes: number
  start(): void
  stop(): Promise<void>
}

export interface AccountsDeps {
  readonly clock: Clock
  readonly log: Log
  readonly store: Pick<Store, 'read' | 'write' | 'secret'>
  readonly limiter: Pick<Limiter, 'look' | 'take'>
  readonly env: SendContext['env']
  readonly signer: Pick<Signer, 'sign'>
}

const forgetEveryMs = 60 * minuteMs

/** Of a generated password: 144 bits. */
const passwordBytes = 18

export function createAccounts(deps: AccountsDeps, plan: AccountsPlan): Accounts {
  const { clock, log, store, limiter, env, signer } = deps
  const { send, mustVerify, isOpen, limits } = plan
  const attempts = createAttempts(limiter)
  const passwords = createPasswords()
  const users = createUsers(deps)
  const sessions = createSessions(deps)
  const mailTokens = createMailTokens(deps)
  const mailer = send && createMailer({ clock, log, env }, send)
  let cancel: Cancel = () => {}
  let placeKey: Uint8Array | undefined

  /** What is stored of an address tells it to nobody without the database's secret. */
  const placeOf = (address: string): string => {
    placeKey ??= derivedKey(store.secret(), 'places')
    return new Bun.CryptoHasher('sha256', placeKey).update(address).digest('base64url')
  }

  const grant = async (
    account: Account,
    { session, refreshToken }: { readonly session: Session; readonly refreshToken: string },
    atMs: number,
  ): Promise<Grant> => {
    const { id, role, verifiedMs } = account
    const claims = {
      sub: id,
      sid: session.id,
      email_verified: verifiedMs !== undefined,
      ...(role === undefined ? {} : { role }),
    }
    const accessToken = await signer.sign(claims, atMs)
    return { accessToken, expiresInMs: accessMs, refreshToken, user: viewOf(account) }
  }

  /** False: a condition in it does not hold. */
  const writeIfMet = async (ops: Write): Promise<boolean> => {
    try {
      await store.write(ops)
      return true
    } catch (thrown) {
      if (isUnmet(thrown)) return false
      throw thrown
    }
  }

  const freshAccount = (email: string, more: Partial<Account> = {}): Account => ({
    id: Bun.randomUUIDv7('hex', clock.now()),
    email,
    role: undefined,
    createdMs: clock.now(),
    verifiedMs: undefined,
    disabledMs: undefined,
    ...more,
  })

  const needMailer = (): NonNullable<typeof mailer> => {
    if (mailer) return mailer
    throw new Fault('not_found', 'this server sends no mail: the app declares no send')
  }

  /** Behind the answer. */
  const tell = (email: string, choose: (account: Account) => Promise<Told> | Told): void =>
    mailer?.later(async () => {
      const account = await users.byEmail(email)
      if (!account || account.disabledMs !== undefined) return undefined
      const told = await choose(account)
      const { id } = account
      return told && { ...told, email: account.email, user: { id, email: account.email } }
    })

  const signUpToVerify = async (email: string, password: string): Promise<void> => {
    const { token, ops } = mailTokens.make('verify', idOf(email), password)
    // The same is written whether there is such an account or not.
    const insert = insertUser(freshAccount(email), password, 'on conflict (email) do nothing')
    await store.write([insert, ...ops])
    tell(email, ({ verifiedMs }) =>
      verifiedMs === undefined ? { kind: 'verify', token } : { kind: 'exists', token: undefined },
    )
  }

  const made = async (kind: MailTokenKind, user: string): Promise<Told> => {
    const { token, ops } = mailTokens.make(kind, { sql: 'select ? as id', params: [user] })
    await store.write(ops)
    return { kind, token }
  }

  const mailAsks = (email: string, address: string) => [
    askOf(limits.mail, 'address', address),
    askOf(limits.mail, 'account', email),
  ]

  const wrong = (): Fault =>
    new Fault('unauthenticated', 'the e-mail address or the password is wrong')

  const check = async (
    entering: Entering,
    email: string,
  ): Promise<{ readonly account: Account; readonly password: string }> => {
    const { address } = entering
    const byAddress = askOf(limits.login, 'address', address)
    attempts.check([byAddress])
    const found = await users.credentials('email', email, placeOf(address))
    // Who knows the account from there is not kept out by others who do not.
    const id = found?.isKnownPlace ? `${email} ${address}` : email
    const asks = [byAddress, askOf(limits.login, 'account', id)]
    attempts.check(asks)
    const password = canonicalPassword(entering.password) ?? ''
    const isRight = await passwords.matches(password, found?.password)
    if (isRight && found && found.account.disabledMs === undefined) return found
    await attempts.failed(asks)
    throw wrong()
  }

  const forget = async (): Promise<void> => {
    await sessions.forget()
    await mailTokens.forget()
  }

  return {
    async signUp({ email: given, password: typed, address }) {
      if (!isOpen) throw new Fault('denied', 'this server takes no sign-ups')
      const { email, password } = checked(given, typed)
      await attempts.take([
        askOf(limits.signUp, 'address', address),
        ...(send ? [askOf(limits.mail, 'account', email)] : []),
      ])
      const hash = await passwords.hash(password)
      if (mustVerify) {
        await signUpToVerify(email, hash)
        return undefined
      }
      const atMs = clock.now()
      const account = freshAccount(email)
      const opened = sessions.open(account.id, placeOf(address))
      const { token, ops } = mailTokens.make('verify', idOf(email))
      try {
        await store.write([insertUser(account, hash), ...opened.ops, ...(send ? ops : [])])
      } catch (thrown) {
        throw takenOr(thrown)
      }
      tell(email, () => ({ kind: 'verify', token }))
      return await grant(account, opened, atMs)
    },

    async signIn(entering) {
      const email = checkedEmail(entering.email)
      const { address } = entering
      return await attempts.inTurn([`address:${address}`, `account:${email}`], async () => {
        const atMs = clock.now()
        const { account, password } = await check(entering, email)
        if (mustVerify && account.verifiedMs === undefined) {
          throw new Fault('denied', 'the e-mail address is not verified yet')
        }
        const opened = sessions.open(account.id, placeOf(address))
        const asFound = onlyIf(
          'exists (select 1 from belfry_users where id = ? and password = ? and role is ? and disabled is null)',
          [account.id, password, account.role ?? null],
        )
        if (!(await writeIfMet([asFound, ...opened.ops]))) throw wrong()
        return await grant(account, opened, atMs)
      })
    },

    async refresh(refreshToken) {
      const atMs = clock.now()
      const refreshed = await sessions.refresh(refreshToken)
      if (refreshed.ok) return await grant(refreshed.account, refreshed, atMs)
      throw new Fault('unauthenticated', 'the refresh token is not valid')
    },

    async signOut({ user, session }, everywhere) {
      if (everywhere) await store.write(sessions.endAll(user))
      else if (session !== undefined) await store.write(sessions.end(session))
    },

    async signOutWith(refreshToken) {
      await sessions.endOf(refreshToken)
    },

    async changePassword({ user, session }, { password, next, address }) {
      const typed = checkedPassword('newPassword', next)
      await attempts.inTurn([`address:${address}`, `user:${user}`], async () => {
        const asks = [
          askOf(limits.login, 'address', address),
          askOf(limits.login, 'password', user),
        ]
        attempts.check(asks)
        const found = await users.credentials('id', user, '')
        if (!found) throw new Fault('not_found', 'this user has no account here')
        if (!(await passwords.matches(canonicalPassword(password) ?? '', found.password))) {
          await attempts.failed(asks)
          throw invalid('password', 'is wrong')
        }
        const hash = await passwords.hash(typed)
        const isDone = await writeIfMet([
          onlyIf('exists (select 1 from belfry_users where id = ? and password = ?)', [
            user,
            found.password,
          ]),
          { sql: 'update belfry_users set password = ? where id = ?', params: [hash, user] },
          {
            sql: `delete from belfry_mail_tokens where user = ? and kind = 'reset'`,
            params: [user],
          },
          ...sessions.endAll(user, session),
        ])
        if (!isDone) throw invalid('password', 'was changed meanwhile')
      })
    },

    async verify(token) {
      const found = await mailTokens.find('verify', token)
      if (!found) throw overFault()
      const { user, password = null } = found
      // Whoever signs up with another's address does not choose the password of what the owner then verifies.
      const sql = `update belfry_users set verified = coalesce(verified, ?),
        password = iif(verified is null, coalesce(?, password), password) where id = ?`
      const isDone = await writeIfMet([
        ...mailTokens.use('verify', token, user),
        ...(password === null ? [] : sessions.endAll(user)),
        { sql, params: [clock.now(), password, user] },
      ])
      if (!isDone) throw overFault()
    },

    async requestVerification({ user }, address) {
      needMailer()
      const account = await users.byId(user)
      if (!account) throw new Fault('not_found', 'this user has no account here')
      await attempts.take(mailAsks(account.email, address))
      tell(account.email, ({ verifiedMs }) =>
        verifiedMs === undefined ? made('verify', user) : undefined,
      )
    },

    async requestReset(given, address) {
      needMailer()
      const email = checkedEmail(given)
      await attempts.take(mailAsks(email, address))
      tell(email, ({ id }) => made('reset', id))
    },

    async reset({ token, password, address }) {
      const typed = checkedPassword('password', password)
      const found = await mailTokens.find('reset', token)
      const account = found && (await users.byId(found.user))
      if (!account) throw overFault()
      const hash = await passwords.hash(typed)
      const atMs = clock.now()
      const { id, role = null } = account
      const opened = sessions.open(id, placeOf(address))
      const isDone = await writeIfMet([
        onlyIf(
          'exists (select 1 from belfry_users where id = ? and role is ? and disabled is null)',
          [id, role],
        ),
        ...mailTokens.use('reset', token, id),
        {
          sql: 'update belfry_users set password = ?, verified = coalesce(verified, ?) where id = ?',
          params: [hash, atMs, id],
        },
        ...sessions.endAll(id),
        ...opened.ops,
      ])
      if (!isDone) throw overFault()
      return await grant({ ...account, verifiedMs: account.verifiedMs ?? atMs }, opened, atMs)
    },

    async me(id) {
      const account = await users.byId(id)
      return account && viewOf(account)
    },

    async create({ email: given, role }) {
      const email = checkedEmail(given)
      const account = freshAccount(email, { role: checkedRole(role), verifiedMs: clock.now() })
      const password = randomText(passwordBytes)
      try {
        await store.write([insertUser(account, await passwords.hash(password))])
      } catch (thrown) {
        throw takenOr(thrown)
      }
      return { ...entryOf(account), password }
    },

    list: async (after, limit) => (await users.list(after, limit)).map(entryOf),

    async change(id, { role, isDisabled }) {
      const account = await users.byId(id)
      if (!account) throw new Fault('not_found', `there is no user ${id}`)
      const before = account.role
      const next = role === undefined ? before : checkedRole(role ?? undefined)
      const wasDisabled = account.disabledMs !== undefined
      const isOff = isDisabled ?? wasDisabled
      const disabledMs = isOff ? (account.disabledMs ?? clock.now()) : undefined
      const isDone = await writeIfMet([
        onlyIf('exists (select 1 from belfry_users where id = ? and role is ?)', [
          id,
          before ?? null,
        ]),
        {
          sql: 'update belfry_users set role = ?, disabled = ? where id = ?',
          params: [next ?? null, disabledMs ?? null, id],
        },
        ...(isOff ? sessions.endAll(id) : []),
        // What a token says beyond that counts no more. A first role is there with the next refresh.
        ...(!isOff && before !== undefined && next !== before ? sessions.renewAll(id) : []),
      ])
      if (!isDone) throw new Fault('conflict', 'the user was changed meanwhile: try again')
      return entryOf({ ...account, role: next, disabledMs })
    },

    endedBy({ kind, id, atMs }) {
      if (kind === 'token') return []
      const [where, params] =
        kind === 'session' ? ['id = ?', [id]] : ['user = ? and rotated <= ?', [id, atMs]]
      return [{ sql: `delete from belfry_sessions where ${where}`, params }]
    },

    get hashes() {
      return passwords.count
    },
    start() {
      cancel()
      cancel = clock.every(forgetEveryMs, () => {
        detach(forget(), (error) => log.warn('accounts.not_forgotten', { error }))
      })
    },
    async stop() {
      cancel()
      await mailer?.stop()
    },
  }
}

type Told = Pick<AccountMessage, 'kind' | 'token'> | undefined

function idOf(email: string): Query {
  return { sql: 'select id from belfry_users where email = ?', params: [email] }
}
