/** A server with accounts, whose mail is kept, and who may be asked from any address. */
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import type { Grant } from '../../src/auth/auth.ts'
import { collection, topic, type AccountMessage, type AccountsOptions } from '../../src/kit.ts'
import { must } from '../../src/lib/assert.ts'
import { until, type TempFolder } from '../harness.ts'
import { runServer, type TestServer, type TestServerOptions } from '../server.ts'

const notes = sqliteTable('notes', {
  id: integer().primaryKey({ autoIncrement: true }),
  userId: text().notNull(),
  text: text({ length: 100 }).notNull(),
})

export const app = {
  collections: {
    notes: collection(notes, {
      read: 'signed-in',
      create: ({ user }) => user && { userId: user.id },
      remove: ({ user }) => user?.role === 'admin',
    }),
  },
  topics: { 'user:{id}': topic({ subscribe: ({ user, params }) => user?.id === params['id'] }) },
}

export const password = 'correct horse battery staple'

export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly body: Record<string, unknown>
}

export interface AccountsServer extends TestServer {
  readonly mails: AccountMessage[]
  /** `POST /api/auth/<verb>`. */
  ask(verb: string, body: unknown, more?: AskOptions): Promise<Answer>
  me(accessToken: string): Promise<Answer>
  /** Status of a read that only users may make. */
  reads(accessToken: string): Promise<number>
  signUp(email: string): Promise<Grant>
  signIn(email: string, more?: AskOptions): Promise<Grant>
  refresh(grant: Pick<Grant, 'refreshToken'>): Promise<Answer>
  /** The first mail of this kind to this address that was not taken yet. */
  mail(kind: AccountMessage['kind'], email: string): Promise<AccountMessage>
}

interface AskOptions {
  readonly token?: string | undefined
  readonly from?: string
  readonly key?: string
}

export interface AccountsServerOptions extends Partial<Omit<TestServerOptions, 'folder' | 'app'>> {
  /** Instead of a `send` that keeps what it is given. */
  readonly accounts?: boolean | AccountsOptions
  readonly verify?: boolean
  readonly limits?: Record<string, `${number}/${'min' | 'h' | '15min'}`>
}

/** Without a secret in the environment, unless `env` says so: tokens are signed by the database's own key. */
export async function runAccounts(
  folder: TempFolder,
  { accounts, verify = false, limits = {}, env, ...rest }: AccountsServerOptions = {},
): Promise<AccountsServer> {
  const mails: AccountMessage[] = []
  const keep = { verify, send: (message: AccountMessage) => void mails.push(message) }
  const server = await runServer({
    folder,
    app: { ...app, auth: { accounts: accounts ?? keep }, limits },
    env: { JWT_SECRET: '', TRUSTED_PROXIES: 'loopback', ...env },
    ...rest,
  })
  const bearer = (token: string | undefined) =>
    token === undefined ? {} : { authorization: `Bearer ${token}` }
  const answerOf = async (response: Response): Promise<Answer> => {
    const text_ = await response.text()
    const body = (text_ === '' ? {} : JSON.parse(text_)) as Answer['body']
    return { status: response.status, headers: response.headers, body }
  }
  const ask = async (verb: string, body: unknown, more: AskOptions = {}): Promise<Answer> => {
    const path = verb.startsWith('/') ? verb : `/api/auth/${verb}`
    return await answerOf(
      await server.get(path, {
        method: 'POST',
        headers: {
          'content-type': 'application/json',
          'x-forwarded-for': more.from ?? '192.0.2.1',
          ...bearer(more.token),
          ...(more.key === undefined ? {} : { 'x-api-key': more.key }),
        },
        body: JSON.stringify(body),
      }),
    )
  }
  const grantOf = ({ status, body }: Answer): Grant => {
    if (status > 201) throw new Error(`${status}: ${JSON.stringify(body)}`)
    return body as unknown as Grant
  }
  return {
    ...server,
    mails,
    ask,
    me: async (token) =>
      await answerOf(await server.get('/api/auth/me', { headers: bearer(token) })),
    reads: async (token) => (await server.get('/api/notes', { headers: bearer(token) })).status,
    signUp: async (email) => grantOf(await ask('sign-up', { email, password })),
    signIn: async (email, more) => grantOf(await ask('sign-in', { email, password }, more)),
    refresh: ({ refreshToken }) => ask('refresh', { refreshToken }),
    async mail(kind, email) {
      const isIt = (one: AccountMessage) => one.kind === kind && one.email === email
      await until(() => mails.some(isIt), `a mail to ${kind}`)
      const [found] = mails.splice(mails.findIndex(isIt), 1)
      return must(found, () => 'it was there')
    },
  }
}

/** A status, and what it was refused for. */
export function refusal({ status, body }: Answer) {
  return [status, body['detail']]
}

export function claimsOf(accessToken: string): Record<string, unknown> {
  const [, part = ''] = accessToken.split('.')
  return JSON.parse(Buffer.from(part, 'base64url').toString()) as Record<string, unknown>
}
