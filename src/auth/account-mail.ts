/**
 * What accounts have mailed: counted by address and by mailbox before anything is looked for, and sent behind the answer
 * (`mailer.ts`), which so says nothing of whether there is anybody to write to.
 */
import { Fault } from '../fault.ts'
import type { LimitPolicy, Ask } from '../limits/limits.ts'
import type { Log } from '../observe/log.ts'
import { askOf } from './attempts.ts'
import type { AccountMessage } from './declare.ts'
import { mailboxOf } from './email.ts'
import type { Mailer } from './mailer.ts'
import type { Account, Users } from './users.ts'

export type Told = Pick<AccountMessage, 'kind' | 'token'> | undefined

export interface AccountMail {
  readonly isSent: boolean
  /** Faults: `not_found`, if the app declares no `send`. */
  need(): void
  /** To be taken before anything is sent to `email`. */
  asks(email: string, address: string): readonly Ask[]
  mailboxAsk(email: string): Ask
  /** For the two below: to whoever has the account of this address, unless it is disabled. */
  to(email: string, choose: (account: Account) => Promise<Told> | Told): Prepare
  /** Faults: `unavailable`, if too many wait. */
  later(prepare: Prepare): void
  /** What it is about is done already: a message that finds no room is logged, and undoes nothing. */
  tell(prepare: Prepare): void
  stop(): Promise<void>
}

type Prepare = Parameters<Mailer['later']>[0]

export interface AccountMailDeps {
  readonly log: Pick<Log, 'warn'>
  readonly users: Pick<Users, 'byEmail'>
  readonly mailer: Mailer | undefined
  readonly limit: LimitPolicy
}

export function createAccountMail({ log, users, mailer, limit }: AccountMailDeps): AccountMail {
  const mailboxAsk = (email: string): Ask => askOf(limit, 'account', mailboxOf(email))

  return {
    isSent: mailer !== undefined,
    need() {
      if (mailer) return
      throw new Fault('not_found', 'this server sends no mail: the app declares no send')
    },
    asks: (email, address) => [askOf(limit, 'address', address), mailboxAsk(email)],
    mailboxAsk,
    to: (address, choose) => async () => {
      const account = await users.byEmail(address)
      if (!account || account.disabledMs !== undefined) return undefined
      const told = await choose(account)
      const { id, email } = account
      return told && { ...told, email, user: { id, email } }
    },
    later: (prepare) => mailer?.later(prepare),
    tell(prepare) {
      try {
        mailer?.later(prepare)
      } catch (error) {
        log.warn('accounts.not_sent', { error })
      }
    },
    async stop() {
      await mailer?.stop()
    },
  }
}
