/**
 * `/api/auth/*`: accounts over HTTP, in JSON. Answers hold tokens and are kept by nobody; what is said and what it costs
 * does not tell whether an address has an account (`src/auth/declare.ts` says where it must).
 */
import type { Accounts, Grant, Holder } from '../auth/auth.ts'
import { Fault } from '../fault.ts'
import type { Credentials } from '../limits/limits.ts'
import { requireAdmin } from './admin.ts'
import { readJson } from './body.ts'
import { readFields, type Fields } from './fields.ts'
import { tooMany } from './gates.ts'
import { visitHeaders, type Door, type Visit } from './visit.ts'

export interface AccountDoorDeps {
  readonly accounts: Accounts
  /** Refresh tokens that are refused count as any others. */
  readonly credentials: Pick<Credentials, 'blocked' | 'refused'>
  readonly addressOf: (request: Request) => string
  /** `clock.tick()`. */
  readonly tick: () => number
}

/** Two texts and a token. */
const bodyBytesMax = 16 * 1024

/** Longer than anything that is looked at; it is looked at for being too long. */
const textLengthMax = 8 * 1024

const usersPerPage = 500

export interface AccountDoor {
  readonly method: 'GET' | 'POST'
  readonly path: string
  readonly door: Door
}

export function createAccountDoors({
  accounts,
  credentials,
  addressOf,
  tick,
}: AccountDoorDeps): readonly AccountDoor[] {
  const answer = (visit: Visit, status: number, value?: unknown): Response => {
    const headers = { ...visitHeaders(visit, tick()), 'cache-control': 'no-store' }
    if (value === undefined) return new Response(null, { status, headers })
    const type = { 'content-type': 'application/json', 'x-content-type-options': 'nosniff' }
    return new Response(JSON.stringify(value), { status, headers: { ...headers, ...type } })
  }

  const post = (
    name: string,
    fields: readonly string[],
    run: (fields: Fields, request: Request, visit: Visit) => Promise<Response>,
  ): AccountDoor => ({
    method: 'POST',
    path: `/api/auth/${name}`,
    door: async (request, visit) =>
      await run(readFields(await readJson(request, bodyBytesMax), fields), request, visit),
  })

  const granted = (visit: Visit, status: number, grant: Grant): Response =>
    answer(visit, status, grant)

  const entering = (fields: Fields, request: Request) =>
    fields.done({
      email: textOf(fields, 'email'),
      password: textOf(fields, 'password'),
      address: addressOf(request),
    })

  const refresh = async (refreshToken: string, address: string): Promise<Grant> => {
    const blocked = credentials.blocked(address)
    if (blocked) throw tooMany(blocked)
    try {
      return await accounts.refresh(refreshToken)
    } catch (thrown) {
      if (!(thrown instanceof Fault) || thrown.code !== 'unauthenticated') throw thrown
      const decision = await credentials.refused(address)
      throw decision.ok ? thrown : tooMany(decision)
    }
  }

  return [
    post('sign-up', ['email', 'password'], async (fields, asked, visit) => {
      const grant = await accounts.signUp(entering(fields, asked))
      return grant ? granted(visit, 201, grant) : answer(visit, 202, { verify: true })
    }),
    post('sign-in', ['email', 'password'], async (fields, asked, visit) =>
      granted(visit, 200, await accounts.signIn(entering(fields, asked))),
    ),
    post('refresh', ['refreshToken'], async (fields, asked, visit) => {
      const refreshToken = fields.done(textOf(fields, 'refreshToken'))
      return granted(visit, 200, await refresh(refreshToken, addressOf(asked)))
    }),
    post('sign-out', ['refreshToken', 'everywhere'], async (fields, _, visit) => {
      const refreshToken = fields.text('refreshToken', textLengthMax)
      const everywhere = fields.done(fields.flag('everywhere'))
      if (visit.identity.kind === 'user') await accounts.signOut(holderOf(visit), everywhere)
      else if (refreshToken === undefined) holderOf(visit)
      if (refreshToken !== undefined) await accounts.signOutWith(refreshToken)
      return answer(visit, 204)
    }),
    post('change-password', ['password', 'newPassword'], async (fields, asked, visit) => {
      const holder = holderOf(visit)
      const change = fields.done({
        password: textOf(fields, 'password'),
        next: textOf(fields, 'newPassword'),
        address: addressOf(asked),
      })
      await accounts.changePassword(holder, change)
      return answer(visit, 204)
    }),
    post('verify', ['token'], async (fields, _, visit) => {
      await accounts.verify(fields.done(textOf(fields, 'token')))
      return answer(visit, 204)
    }),
    post('request-verification', [], async (_, asked, visit) => {
      await accounts.requestVerification(holderOf(visit), addressOf(asked))
      return answer(visit, 202, {})
    }),
    post('request-reset', ['email'], async (fields, asked, visit) => {
      await accounts.requestReset(fields.done(textOf(fields, 'email')), addressOf(asked))
      return answer(visit, 202, {})
    }),
    post('reset', ['token', 'password'], async (fields, asked, visit) => {
      const reset = fields.done({
        token: textOf(fields, 'token'),
        password: textOf(fields, 'password'),
        address: addressOf(asked),
      })
      return granted(visit, 200, await accounts.reset(reset))
    }),
    post('change-email', ['password', 'email'], async (fields, asked, visit) => {
      const holder = holderOf(visit)
      await accounts.changeEmail(holder, entering(fields, asked))
      return answer(visit, 202, {})
    }),
    post('confirm-email', ['token'], async (fields, _, visit) => {
      await accounts.confirmEmail(fields.done(textOf(fields, 'token')))
      return answer(visit, 204)
    }),
    post('delete-account', ['password'], async (fields, asked, visit) => {
      const holder = holderOf(visit)
      const password = fields.done(textOf(fields, 'password'))
      await accounts.remove(holder, { password, address: addressOf(asked) })
      return answer(visit, 204)
    }),
    {
      method: 'GET',
      path: '/api/auth/me',
      door: async (_, visit) => {
        const me = await accounts.me(holderOf(visit).user)
        if (me) return answer(visit, 200, me)
        throw new Fault('not_found', 'this user has no account here')
      },
    },
    {
      method: 'POST',
      path: '/api/admin/users/:id',
      door: async (asked, visit) => {
        requireAdmin(visit)
        const id = new URL(asked.url).pathname.split('/')[4] ?? ''
        const change = changeOf(await readJson(asked, bodyBytesMax))
        return answer(visit, 200, await accounts.change(id, change))
      },
    },
  ]
}

/** For the command line, over the admin socket. */
export async function answerUsers(
  accounts: Accounts | undefined,
  path: string,
  body: unknown,
): Promise<unknown> {
  if (!accounts) throw new Fault('not_found', 'the app has no accounts: auth: { accounts: true }')
  if (path === '/users') {
    const fields = readFields(body, ['email', 'role'])
    const wanted = { email: textOf(fields, 'email'), role: fields.text('role') }
    return await accounts.create(fields.done(wanted))
  }
  if (path !== '/users/list') {
    return await accounts.change(path.slice('/users/'.length), changeOf(body))
  }
  const fields = readFields(body, ['after'])
  return await accounts.list(fields.done(fields.text('after') ?? ''), usersPerPage)
}

/** `{"role": "editor"}`, `{"role": null}`, `{"disabled": true}`. Faults: `invalid`. */
function changeOf(body: unknown) {
  const fields = readFields(body, ['role', 'disabled'])
  const role = fields.any('role') === null ? null : fields.text('role', textLengthMax)
  const isDisabled = fields.any('disabled') === undefined ? undefined : fields.flag('disabled')
  if (role === undefined && isDisabled === undefined) {
    fields.problem('role', 'say a role, null for none, or whether the account is disabled')
  }
  return fields.done({ role, isDisabled })
}

function textOf(fields: Fields, field: string): string {
  if (fields.any(field) === undefined) fields.problem(field, 'is required')
  return fields.text(field, textLengthMax) ?? ''
}

/** Faults: `unauthenticated`. */
function holderOf({ identity }: Visit): Holder {
  if (identity.kind !== 'user') throw new Fault('unauthenticated', 'sign in first')
  const { id, sid } = identity.user
  return { user: id, session: typeof sid === 'string' ? sid : undefined }
}
