/**
 * Built-in accounts: e-mail and password in, tokens out. What each verb promises to users is in `declare.ts`.
 *
 *   sign-in ─► attempts (in turn, limits) ─► users ─► passwords ─► sessions: one write ─► signer: access token
 *   refresh ─► sessions: rotated under a condition ─► signer
 *   sign-up, reset ─► mail-tokens ─► account-mail ─► mailer, behind the answer
 *   another password or address, deletion ─► account-owner · operators ─► account-operators
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
import { onlyIf, writeIfMet, type Query, type Store } from '../store/store.ts'
import { createAccountMail, type AccountMail, type Told } from './account-mail.ts'
import { createOperators, type AccountOperators } from './account-operators.ts'
import { createOwner, type AccountOwner } from './account-owner.ts'
import {
  checked,
  checkedEmail,
  checkedPassword,
  overFault,
  takenOr,
  viewOf,
  type AccountView,
} from './account-values.ts'
import { askOf, createAttempts, type Attempts } from './attempts.ts'
import type { AccountsOptions, SendContext } from './declare.ts'
import { createMailTokens, type MailTokens } from './mail-tokens.ts'
import { createMailer } from './mailer.ts'
import { canonicalPassword, createPasswords, type Passwords } from './passwords.ts'
import { createSessions, type Session, type Sessions } from './sessions.ts'
import { accessMs, derivedKey, type Signer } from './signer.ts'
import {
  createUsers,
  freshAccount,
  insertUser,
  type Account,
  type Credentials,
  type Users,
} from './users.ts'

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
    /** By address and by mailbox. */
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

/** Faults: `invalid` (fields), `unauthenticated`, `denied`, `too_many`, `unavailable`. */
export interface Accounts extends AccountOwner, AccountOperators {
  /** Undefined: the address has to be verified first. Faults: also `conflict`. */
  signUp(entering: Entering): Promise<Grant | undefined>
  signIn(entering: Entering): Promise<Grant>
  refresh(refreshToken: string): Promise<Grant>
  signOut(holder: Holder, everywhere: boolean): Promise<void>
  /** With a refresh token, used or not. */
  signOutWith(refreshToken: string): Promise<void>
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

/** What all of it is made of. */
export interface AccountParts {
  readonly clock: Clock
  readonly store: Pick<Store, 'read' | 'write'>
  readonly users: Users
  readonly passwords: Passwords
  readonly sessions: Sessions
  readonly attempts: Attempts
  readonly mailTokens: MailTokens
  readonly mail: AccountMail
  readonly limits: AccountsPlan['limits']
}

const forgetEveryMs = 60 * minuteMs

export function createAccounts(deps: AccountsDeps, plan: AccountsPlan): Accounts {
  const { clock, log, store, limiter, env, signer } = deps
  const { send, mustVerify, isOpen, limits } = plan
  const attempts = createAttempts(limiter)
  const passwords = createPasswords()
  const users = createUsers(deps)
  const sessions = createSessions(deps)
  const mailTokens = createMailTokens(deps)
  const mailer = send && createMailer({ clock, log, env }, send)
  const mail = createAccountMail({ log, users, mailer, limit: limits.mail })
  const parts = { clock, store, users, passwords, sessions, attempts, mailTokens, mail, limits }
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

  const signUpToVerify = async (email: string, password: string): Promise<void> => {
    const { token, ops } = mailTokens.make('verify', idOf(email), { password })
    // The same is written whether there is such an account or not.
    const insert = insertUser(
      freshAccount(email, clock.now()),
      password,
      'on conflict (email) do nothing',
    )
    await store.write([insert, ...ops])
    const told = mail.to(email, ({ verifiedMs }) =>
      verifiedMs === undefined ? { kind: 'verify', token } : { kind: 'exists', token: undefined },
    )
    mail.later(told)
  }

  /** None is made if the account has another address by now. */
  const made = async (kind: 'verify' | 'reset', email: string): Promise<Told> => {
    const { token, ops } = mailTokens.make(kind, idOf(email))
    await store.write(ops)
    return { kind, token }
  }

  const wrong = (): Fault =>
    new Fault('unauthenticated', 'the e-mail address or the password is wrong')

  const find = (email: string, address: string) =>
    users.credentials('email', email, placeOf(address))

  /** Who count together, and wait for each other: who has a session from there is not kept out by others who have none. */
  const guesserOf = (found: Credentials | undefined, email: string, address: string): string =>
    found?.isKnownPlace === true ? `${email} ${address}` : email

  const check = async (
    { password: typed, address }: Entering,
    email: string,
    guesser: string,
  ): Promise<Credentials> => {
    const asks = [askOf(limits.login, 'address', address), askOf(limits.login, 'account', guesser)]
    attempts.check(asks)
    // As it is now, after the wait.
    const found = await find(email, address)
    const password = canonicalPassword(typed) ?? ''
    const isRight = await passwords.matches(password, found?.password, found?.isKnownPlace)
    if (isRight && found && found.account.disabledMs === undefined) return found
    await attempts.failed(asks)
    throw wrong()
  }

  const forget = async (): Promise<void> => {
    await sessions.forget()
    await mailTokens.forget()
  }

  return {
    ...createOwner(parts),
    ...createOperators(parts),

    async signUp({ email: given, password: typed, address }) {
      if (!isOpen) throw new Fault('denied', 'this server takes no sign-ups')
      const { email, password } = checked(given, typed)
      await attempts.take([
        askOf(limits.signUp, 'address', address),
        ...(send ? [mail.mailboxAsk(email)] : []),
      ])
      const hash = await passwords.hash(password)
      if (mustVerify) {
        await signUpToVerify(email, hash)
        return undefined
      }
      const atMs = clock.now()
      const account = freshAccount(email, atMs)
      const opened = sessions.open(account.id, placeOf(address))
      const { token, ops } = mailTokens.make('verify', idOf(email))
      try {
        await store.write([insertUser(account, hash), ...opened.ops, ...(send ? ops : [])])
      } catch (thrown) {
        throw takenOr(thrown)
      }
      mail.tell(mail.to(email, () => ({ kind: 'verify', token })))
      return await grant(account, opened, atMs)
    },

    async signIn(entering) {
      const email = checkedEmail(entering.email)
      const { address } = entering
      attempts.check([askOf(limits.login, 'address', address)])
      const guesser = guesserOf(await find(email, address), email, address)
      return await attempts.inTurn([`address:${address}`, `account:${guesser}`], async () => {
        const atMs = clock.now()
        const { account, password } = await check(entering, email, guesser)
        if (mustVerify && account.verifiedMs === undefined) {
          throw new Fault('denied', 'the e-mail address is not verified yet')
        }
        const opened = sessions.open(account.id, placeOf(address))
        const asFound = onlyIf(
          'exists (select 1 from belfry_users where id = ? and password = ? and role is ? and disabled is null)',
          [account.id, password, account.role ?? null],
        )
        if (!(await writeIfMet(store, [asFound, ...opened.ops]))) throw wrong()
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

    async verify(token) {
      const found = await mailTokens.find('verify', token)
      if (!found) throw overFault()
      const { user, password = null } = found
      // Whoever signs up with another's address does not choose the password of what the owner then verifies.
      const sql = `update belfry_users set verified = coalesce(verified, ?),
        password = iif(verified is null, coalesce(?, password), password) where id = ?`
      const isDone = await writeIfMet(store, [
        ...mailTokens.use('verify', token, user),
        ...(password === null ? [] : sessions.endAll(user)),
        { sql, params: [clock.now(), password, user] },
      ])
      if (!isDone) throw overFault()
    },

    async requestVerification({ user }, address) {
      mail.need()
      const account = await users.byId(user)
      if (!account) throw new Fault('not_found', 'this user has no account here')
      const { email } = account
      await attempts.take(mail.asks(email, address))
      const told = mail.to(email, ({ verifiedMs }) =>
        verifiedMs === undefined ? made('verify', email) : undefined,
      )
      mail.later(told)
    },

    async requestReset(given, address) {
      mail.need()
      const email = checkedEmail(given)
      await attempts.take(mail.asks(email, address))
      mail.later(mail.to(email, () => made('reset', email)))
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
      const isDone = await writeIfMet(store, [
        onlyIf(
          'exists (select 1 from belfry_users where id = ? and role is ? and disabled is null)',
          [id, role],
        ),
        ...mailTokens.use('reset', token, id),
        ...mailTokens.drop(id, ['email']),
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
      await mail.stop()
    },
  }
}

function idOf(email: string): Query {
  return { sql: 'select id from belfry_users where email = ?', params: [email] }
}
