/**
 * Accounts of the app (`auth: { accounts: true }`) at the client: signs in and out, and has an access token for whoever
 * asks for one, fetched anew before it ends.
 *
 * Invariants: one refresh at a time, which all wait for; the refresh token is read from where it is kept each time and
 * written back, so tabs that share a place share a session; without a network a session is not lost.
 */
import { Problem } from './problem.ts'
import type { Request } from './rest.ts'

export interface AccountUser {
  readonly id: string
  readonly email: string
  readonly role: string | null
  readonly isVerified: boolean
  readonly createdAt: string
}

export interface EmailAndPassword {
  readonly email: string
  readonly password: string
}

/** Where the refresh token is between pages. Whoever reads it is the user: a page's `localStorage` is read by its scripts. */
export interface SessionPlace {
  load(): string | null | undefined | Promise<string | null | undefined>
  /** Undefined: nobody is signed in any more. */
  save(refreshToken: string | undefined): unknown
}

export interface ClientAuth {
  /** Undefined: the address has to be verified first. */
  signUp(given: EmailAndPassword): Promise<AccountUser | undefined>
  signIn(given: EmailAndPassword): Promise<AccountUser>
  /** With the token of a mail. */
  reset(given: { readonly token: string; readonly password: string }): Promise<AccountUser>
  signOut(options?: { readonly everywhere?: boolean }): Promise<void>
  /** New tokens now. Undefined: nobody is signed in. */
  refresh(): Promise<AccountUser | undefined>
  /** Known since the first token of this page: `await refresh()` to know it at once. */
  readonly user: AccountUser | undefined
}

export interface Tokens extends ClientAuth {
  /** A good one, or undefined for a visitor. */
  token(): Promise<string | undefined>
  /** `used` was refused: another one, or undefined. */
  renew(used: string): Promise<string | undefined>
}

export interface TokensDeps {
  /** Without a token. */
  readonly request: Request
  readonly place: SessionPlace
  readonly now: () => number
  /** Somebody else is signed in, or nobody. */
  readonly changed: (user: AccountUser | undefined) => void
}

interface Grant {
  readonly accessToken: string
  readonly expiresInMs: number
  readonly refreshToken: string
  readonly user: AccountUser
}

/** Before its end: a request takes its time, and clocks run apart. */
const marginMs = 30_000

export function createTokens({ request, place, now, changed }: TokensDeps): Tokens {
  let user: AccountUser | undefined
  let access: { readonly token: string; readonly untilMs: number } | undefined
  let refreshing: Promise<void> | undefined
  /** Of who is signed in: what was asked for somebody else comes too late. */
  let turn = 0

  const become = (next: AccountUser | undefined): void => {
    const isOther = next?.id !== user?.id
    user = next
    if (isOther) changed(next)
  }

  const accept = async (grant: Grant): Promise<AccountUser> => {
    turn++
    access = { token: grant.accessToken, untilMs: now() + grant.expiresInMs - marginMs }
    await place.save(grant.refreshToken)
    become(grant.user)
    return grant.user
  }

  const leave = async (): Promise<void> => {
    turn++
    access = undefined
    await place.save(undefined)
    become(undefined)
  }

  const exchange = async (): Promise<void> => {
    const asked = turn
    const refreshToken = await place.load()
    if (!refreshToken) {
      access = undefined
      become(undefined)
      return
    }
    try {
      const grant = (await request('POST', '/api/auth/refresh', { refreshToken })) as Grant
      if (turn === asked) await accept(grant)
    } catch (thrown) {
      if (!(thrown instanceof Problem) || thrown.status !== 401) throw thrown
      if (turn === asked) await leave()
    }
  }

  const refresh = async (): Promise<void> => {
    refreshing ??= exchange().finally(() => (refreshing = undefined))
    await refreshing
  }

  const enter = async (verb: string, given: object): Promise<AccountUser | undefined> => {
    const answer = (await request('POST', `/api/auth/${verb}`, given)) as Partial<Grant>
    return answer.accessToken === undefined ? undefined : await accept(answer as Grant)
  }

  const token = async (): Promise<string | undefined> => {
    if (!access || now() >= access.untilMs) await refresh()
    return access?.token
  }

  return {
    get user() {
      return user
    },
    signUp: (given) => enter('sign-up', given),
    signIn: (given) => enter('sign-in', given) as Promise<AccountUser>,
    reset: (given) => enter('reset', given) as Promise<AccountUser>,
    async signOut({ everywhere = false } = {}) {
      const bearer = everywhere ? await token() : undefined
      const refreshToken = await place.load()
      await leave()
      if (bearer !== undefined) {
        const headers = { authorization: `Bearer ${bearer}` }
        await request('POST', '/api/auth/sign-out', { everywhere }, { headers })
      } else if (refreshToken) await request('POST', '/api/auth/sign-out', { refreshToken })
    },
    async refresh() {
      await refresh()
      return user
    },
    token,
    async renew(used) {
      if (access?.token === used || !access) await refresh()
      return access?.token
    },
  }
}
