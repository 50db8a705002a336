/** `belfry user`: the accounts of a running server, through its admin socket. */
import type { AccountEntry } from '../auth/auth.ts'
import { Fault } from '../fault.ts'
import { appSource, parseOptions } from './args.ts'
import type { Verb } from './cli.ts'
import { findServer, requireServer, type LocalServer } from './local.ts'
import { targetOf } from './target.ts'

export const user: Verb = {
  usage: 'user create|list|role|disable|enable <app.ts>|--app <name>',
  about:
    'accounts of the app (auth: { accounts: true }). create: --email <address> [--role <role>]; the password is made\n' +
    '      and shown once. role: --id <id> --role <role>, without --role none. disable: --id <id>, sessions end. list',
  async run([action = '', ...args]) {
    const act = actions[action]
    if (!Object.hasOwn(actions, action) || !act) {
      throw new Fault('invalid', 'say what to do: user create, list, role, disable or enable')
    }
    const { values, positionals } = parseOptions(`user ${action}`, {
      args,
      options: {
        app: { type: 'string' },
        email: { type: 'string' },
        role: { type: 'string' },
        id: { type: 'string' },
      },
      allowPositionals: true,
    })
    const { app, ...wanted } = values
    const { plan, config } = await targetOf(appSource(positionals, app))
    return await act(requireServer(await findServer(config, plan.name)), wanted)
  },
}

interface Wanted {
  readonly email?: string | undefined
  readonly role?: string | undefined
  readonly id?: string | undefined
}

type Act = (server: LocalServer, wanted: Wanted) => Promise<number>

const actions: Readonly<Record<string, Act>> = {
  async create(server, { email = '', role }) {
    const answer = await server.post('/users', JSON.stringify({ email, role }))
    const made = answer as AccountEntry & { readonly password: string }
    console.log(made.password)
    console.error(`${lineOf(made)}\nthe password is not shown again; its owner can change it`)
    return 0
  },
  async list(server) {
    for (let after = ''; ;) {
      const page = (await server.post('/users/list', JSON.stringify({ after }))) as AccountEntry[]
      for (const one of page) console.log(lineOf(one))
      const last = page.at(-1)
      if (!last) return 0
      after = last.id
    }
  },
  role: (server, { id, role = null }) => change(server, id, { role }),
  disable: (server, { id }) => change(server, id, { disabled: true }),
  enable: (server, { id }) => change(server, id, { disabled: false }),
}

async function change(server: LocalServer, id = '', body: object): Promise<number> {
  if (!/^[\w-]+$/.test(id)) throw new Fault('invalid', 'say which: --id <id>, as list shows it')
  const changed = (await server.post(`/users/${id}`, JSON.stringify(body))) as AccountEntry
  console.log(lineOf(changed))
  return 0
}

/** `0193…  ann@example.com  admin  since 2026-11-21, verified` */
function lineOf({ id, email, role, createdAt, isVerified, isDisabled }: AccountEntry): string {
  const state = [isVerified ? 'verified' : 'not verified', ...(isDisabled ? ['disabled'] : [])]
  return `${id}  ${email}  ${role ?? '-'}  since ${createdAt.slice(0, 10)}, ${state.join(', ')}`
}
