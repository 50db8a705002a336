/** Who has an account, as the table says. Read from the primary each time: what is decided by it must be so. */
import type { Clock } from '../lib/clock.ts'
import type { Query, RawRow, Store } from '../store/store.ts'

export interface Account {
  readonly id: string
  readonly email: string
  readonly role: string | undefined
  readonly createdMs: number
  /** Since then the address is known to be the user's own. */
  readonly verifiedMs: number | undefined
  readonly disabledMs: number | undefined
}

/** For a decision about a sign-in. */
export interface Credentials {
  readonly account: Account
  /** A hash. */
  readonly password: string
  /** A session was opened from there, and goes on. */
  readonly isKnownPlace: boolean
}

export interface Users {
  byId(id: string): Promise<Account | undefined>
  /** `email`: canonical. */
  byEmail(email: string): Promise<Account | undefined>
  credentials(by: 'id' | 'email', value: string, place: string): Promise<Credentials | undefined>
  /** After `after`, by id: that is by age. */
  list(after: string, limit: number): Promise<readonly Account[]>
}

/** In the order that `accountOf` reads. */
export const accountColumns = ['id', 'email', 'role', 'created', 'verified', 'disabled'] as const

const columns = accountColumns.join(', ')

export function createUsers({
  clock,
  store,
}: {
  readonly clock: Clock
  readonly store: Pick<Store, 'read'>
}): Users {
  const select = async (where: string, params: readonly unknown[]): Promise<readonly Account[]> => {
    const sql = `select ${columns} from belfry_users where ${where}`
    const rows = await store.read({ sql, params }, { from: 'primary' })
    return rows.map(accountOf)
  }

  return {
    byId: async (id) => (await select('id = ?', [id]))[0],
    byEmail: async (email) => (await select('email = ?', [email]))[0],
    async credentials(by, value, place) {
      const known = `exists (select 1 from belfry_sessions s where s.user = u.id and s.place = ? and s.expires > ?)`
      const sql = `select ${columns}, password, ${known} from belfry_users u where ${by} = ?`
      const params = [place, clock.now(), value]
      const [row] = await store.read({ sql, params }, { from: 'primary' })
      if (!row) return undefined
      const [password, isKnownPlace] = row.slice(accountColumns.length)
      return {
        account: accountOf(row),
        password: String(password),
        isKnownPlace: Number(isKnownPlace) === 1,
      }
    },
    list: (after, limit) => select('id > ? order by id limit ?', [after, limit]),
  }
}

export function freshAccount(email: string, now: number, more: Partial<Account> = {}): Account {
  return {
    id: Bun.randomUUIDv7('hex', now),
    email,
    role: undefined,
    createdMs: now,
    verifiedMs: undefined,
    disabledMs: undefined,
    ...more,
  }
}

export function insertUser(
  { id, email, role, createdMs, verifiedMs }: Account,
  password: string,
  onTaken: '' | 'on conflict (email) do nothing' = '',
): Query {
  const sql = `insert into belfry_users (id, email, password, role, created, verified)
    values (?, ?, ?, ?, ?, ?) ${onTaken}`
  return { sql, params: [id, email, password, role ?? null, createdMs, verifiedMs ?? null] }
}

export function accountOf([id, email, role, created, verified, disabled]: RawRow): Account {
  const timeOf = (value: unknown): number | undefined =>
    value === null ? undefined : Number(value)
  return {
    id: String(id),
    email: String(email),
    role: typeof role === 'string' ? role : undefined,
    createdMs: Number(created),
    verifiedMs: timeOf(verified),
    disabledMs: timeOf(disabled),
  }
}
