/** What operators do to accounts: make, list, give and take roles, disable. */
import { Fault } from '../fault.ts'
import { onlyIf, writeIfMet, type Write } from '../store/store.ts'
import { checkedEmail, checkedRole, entryOf, takenOr, type AccountEntry } from './account-values.ts'
import type { AccountParts } from './accounts.ts'
import type { Revocation } from './revocations.ts'
import { randomText } from './sessions.ts'
import { freshAccount, insertUser } from './users.ts'

export interface AccountChange {
  /** Null: none. */
  readonly role?: string | null | undefined
  readonly isDisabled?: boolean | undefined
}

export interface AccountOperators {
  /** The password is told this once. Faults: `invalid`, `conflict`, `unavailable`. */
  create(wanted: {
    readonly email: string
    readonly role?: string | undefined
  }): Promise<AccountEntry & { readonly password: string }>
  list(after: string, limit: number): Promise<readonly AccountEntry[]>
  /** Faults: `not_found`, `invalid`; `conflict` if somebody else changes it. */
  change(id: string, change: AccountChange): Promise<AccountEntry>
  /** What is written with a revocation: refresh tokens end as well. */
  endedBy(revocation: Revocation): Write
}

/** Of a generated password: 144 bits. */
const passwordBytes = 18

export function createOperators(parts: AccountParts): AccountOperators {
  const { clock, store, users, passwords, sessions } = parts
  return {
    async create({ email: given, role }) {
      const email = checkedEmail(given)
      const now = clock.now()
      const account = freshAccount(email, now, { role: checkedRole(role), verifiedMs: now })
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
      const { role: before, disabledMs: since } = account
      const next = role === undefined ? before : checkedRole(role ?? undefined)
      const isOff = isDisabled ?? since !== undefined
      const disabledMs = isOff ? (since ?? clock.now()) : undefined
      const isDone = await writeIfMet(store, [
        // Both: or who gives a role would enable whom another disables at the same time.
        onlyIf('exists (select 1 from belfry_users where id = ? and role is ? and disabled is ?)', [
          id,
          before ?? null,
          since ?? null,
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
  }
}
