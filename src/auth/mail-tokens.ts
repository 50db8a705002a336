/**
 * What is mailed to prove that an address is somebody's own: 256 random bits, stored as a hash, good once and not for
 * long. Made and used within larger writes, so that of two who use one at once one finds it.
 */
import type { Clock } from '../lib/clock.ts'
import { onlyIf, type Query, type Store, type Write } from '../store/store.ts'
import { forgetOver } from './forget.ts'
import { hashOf, randomText } from './sessions.ts'

/** `email`: sent to the address that is to be the account's. */
export type MailTokenKind = 'verify' | 'reset' | 'email'

/** A day, because mail may be slow and people asleep; an hour, because it opens an account, or moves one. */
const keptMs = { verify: 24 * 60 * 60_000, reset: 60 * 60_000, email: 60 * 60_000 } as const

/** Of a user and a kind: those before them are good no more. */
const tokensOfUserMax = 5

export interface MailTokens {
  /** `user`: selects one id, or none, and then none is made. */
  make(
    kind: MailTokenKind,
    user: Query,
    brings?: Partial<Brought>,
  ): { readonly token: string; readonly ops: Write }
  /** Whose it is, if it is good. */
  find(kind: MailTokenKind, token: string): Promise<Found | undefined>
  /** It was found good, and is no more, nor are others of this user and kind; the write fails if somebody was faster. */
  use(kind: MailTokenKind, token: string, user: string): Write
  /** Those of this user are good no more; without `kinds` all. */
  drop(user: string, kinds?: readonly MailTokenKind[]): Write
  forget(): Promise<void>
}

/** What the account gets when it comes back. */
interface Brought {
  /** A hash, with a verification. */
  readonly password: string | undefined
  /** Canonical. */
  readonly email: string | undefined
}

interface Found extends Brought {
  readonly user: string
}

const pattern = /^bfm_[\w-]{43}$/

export function createMailTokens({
  clock,
  store,
}: {
  readonly clock: Clock
  readonly store: Pick<Store, 'read' | 'write'>
}): MailTokens {
  const drop: MailTokens['drop'] = (user, kinds = ['verify', 'reset', 'email']) => [
    {
      sql: 'delete from belfry_mail_tokens where user = ? and kind in (select value from json_each(?))',
      params: [user, JSON.stringify(kinds)],
    },
  ]

  return {
    make(kind, user, { password, email } = {}) {
      const token = `bfm_${randomText(32)}`
      const insert = `insert into belfry_mail_tokens (hash, kind, user, password, email, expires)
        select ?, ?, id, ?, ?, ? from (${user.sql})`
      const older = `delete from belfry_mail_tokens where kind = ? and user in (${user.sql}) and hash not in (
        select hash from belfry_mail_tokens where kind = ? and user in (${user.sql}) order by expires desc limit ?)`
      const expires = clock.now() + keptMs[kind]
      return {
        token,
        ops: [
          {
            sql: insert,
            params: [hashOf(token), kind, password ?? null, email ?? null, expires, ...user.params],
          },
          { sql: older, params: [kind, ...user.params, kind, ...user.params, tokensOfUserMax] },
        ],
      }
    },
    async find(kind, token) {
      if (!pattern.test(token)) return undefined
      const sql =
        'select user, password, email from belfry_mail_tokens where hash = ? and kind = ? and expires > ?'
      const params = [hashOf(token), kind, clock.now()]
      const [row] = await store.read({ sql, params }, { from: 'primary' })
      if (!row) return undefined
      const [user, password, email] = row
      return { user: String(user), password: textOf(password), email: textOf(email) }
    },
    use(kind, token, user) {
      const condition =
        'exists (select 1 from belfry_mail_tokens where hash = ? and kind = ? and user = ?)'
      return [onlyIf(condition, [hashOf(token), kind, user]), ...drop(user, [kind])]
    },
    drop,
    async forget() {
      const over = { table: 'belfry_mail_tokens', id: 'hash', over: 'expires' }
      await forgetOver(store, over, clock.now())
    },
  }
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}
