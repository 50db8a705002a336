/**
 * What owners do to their accounts: another password, another address, none any more. An access token is not enough,
 * the password is asked, and a wrong one counts as one at a sign-in.
 *
 *   change-email ─► password ─► mail to the NEW address, whatever that is ─► confirm-email ─► the old one is told
 *
 * Invariants: nobody learns whether a new address has an account but who reads its mail; mail that was sent to an
 * address is good for nothing once the address, the password or the account is another.
 */
import { Fault } from '../fault.ts'
import { onlyIf, writeIfMet, type Write } from '../store/store.ts'
import { checkedEmail, checkedPassword, invalid, overFault, takenOr } from './account-values.ts'
import type { AccountParts, Holder } from './accounts.ts'
import { askOf } from './attempts.ts'
import type { AccountMessage } from './declare.ts'
import { canonicalPassword } from './passwords.ts'
import type { Account, Credentials } from './users.ts'

/** The password of who is signed in, and the address that is counted. */
export interface Proof {
  readonly password: string
  readonly address: string
}

/** Faults: `invalid` (fields), `too_many`, `unavailable`; `not_found` for a user of another issuer. */
export interface AccountOwner {
  /** The other sessions end. */
  changePassword(holder: Holder, change: Proof & { readonly next: string }): Promise<void>
  /** Resolves before the new address is looked for. Faults: also `not_found` without `send`. */
  changeEmail(holder: Holder, change: Proof & { readonly email: string }): Promise<void>
  /** Faults: `invalid`; `conflict` if somebody has the address by now. */
  confirmEmail(token: string): Promise<void>
  /** Sessions end, and the account is gone. */
  remove(holder: Holder, proof: Proof): Promise<void>
}

export function createOwner(parts: AccountParts): AccountOwner {
  const { clock, store, users, passwords, sessions, attempts, mailTokens, mail, limits } = parts

  /** `run`, with what was found to be so. */
  const proven = async (
    { user }: Holder,
    { password, address }: Proof,
    run: (found: Credentials) => Promise<void>,
  ): Promise<void> => {
    await attempts.inTurn([`address:${address}`, `user:${user}`], async () => {
      const asks = [askOf(limits.login, 'address', address), askOf(limits.login, 'password', user)]
      attempts.check(asks)
      const found = await users.credentials('id', user, '')
      if (!found) throw new Fault('not_found', 'this user has no account here')
      if (!(await passwords.matches(canonicalPassword(password) ?? '', found.password))) {
        await attempts.failed(asks)
        throw invalid('password', 'is wrong')
      }
      await run(found)
    })
  }

  /** Faults: `invalid`, if the password was changed meanwhile. */
  const writeIfStill = async ({ account, password }: Credentials, ops: Write): Promise<void> => {
    const still = 'exists (select 1 from belfry_users where id = ? and password = ?)'
    const isDone = await writeIfMet(store, [onlyIf(still, [account.id, password]), ...ops])
    if (!isDone) throw invalid('password', 'was changed meanwhile')
  }

  /** To the new address: the token that makes it the account's, or that it has an account. */
  const askNew = async (
    { account, password }: Credentials,
    email: string,
  ): Promise<AccountMessage | undefined> => {
    const owner = await users.byEmail(email)
    if (owner) return owner.disabledMs === undefined ? existsFor(owner) : undefined
    const still = 'select id from belfry_users where id = ? and password = ? and disabled is null'
    const user = { sql: still, params: [account.id, password] }
    const { token, ops } = mailTokens.make('email', user, { email })
    await store.write(ops)
    const { id } = account
    return { kind: 'change-email', email, token, user: { id, email: account.email } }
  }

  return {
    async changePassword(holder, { next, ...proof }) {
      const typed = checkedPassword('newPassword', next)
      const { user, session } = holder
      await proven(holder, proof, async (found) => {
        const hash = await passwords.hash(typed)
        await writeIfStill(found, [
          { sql: 'update belfry_users set password = ? where id = ?', params: [hash, user] },
          ...mailTokens.drop(user, ['reset', 'email']),
          ...sessions.endAll(user, session),
        ])
      })
    },

    async changeEmail(holder, { email: given, ...proof }) {
      mail.need()
      const email = checkedEmail(given)
      await proven(holder, proof, async (found) => {
        if (email === found.account.email) throw invalid('email', 'is the address already')
        await attempts.take(mail.asks(email, proof.address))
        mail.later(() => askNew(found, email))
      })
    },

    async confirmEmail(token) {
      const found = await mailTokens.find('email', token)
      const account = found && (await users.byId(found.user))
      if (!account || found.email === undefined) throw overFault()
      const { id, email } = account
      const still =
        'exists (select 1 from belfry_users where id = ? and email = ? and disabled is null)'
      const isDone = await writeIfMet(store, [
        onlyIf(still, [id, email]),
        ...mailTokens.use('email', token, id),
        ...mailTokens.drop(id),
        // Another time, by which sessions that are known by heart find that they are not up to date.
        {
          sql: 'update belfry_users set email = ?, verified = ? where id = ?',
          params: [found.email, clock.now(), id],
        },
      ]).catch((thrown: unknown) => {
        throw takenOr(thrown)
      })
      if (!isDone) throw overFault()
      const user = { id, email: found.email }
      mail.tell(async () => ({ kind: 'email-changed', email, token: undefined, user }))
    },

    async remove(holder, proof) {
      await proven(holder, proof, async (found) => {
        const { id, email } = found.account
        await writeIfStill(found, [
          ...sessions.endAll(id),
          ...mailTokens.drop(id),
          { sql: 'delete from belfry_users where id = ?', params: [id] },
        ])
        const user = { id, email }
        mail.tell(async () => ({ kind: 'deleted', email, token: undefined, user }))
      })
    },
  }
}

function existsFor({ id, email }: Account): AccountMessage {
  return { kind: 'exists', email, token: undefined, user: { id, email } }
}
