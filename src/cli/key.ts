/** `belfry key`: the API keys of a running server, through its admin socket. */
import type { ApiKey } from '../auth/auth.ts'
import { Fault } from '../fault.ts'
import { parseDurationMs } from '../lib/duration.ts'
import { systemClock } from '../lib/clock.ts'
import { appSource, parseOptions } from './args.ts'
import type { Verb } from './cli.ts'
import { findServer, requireServer, type LocalServer } from './local.ts'
import { targetOf } from './target.ts'

export const key: Verb = {
  usage: 'key create|list|revoke <app.ts>|--app <name>',
  about:
    'API keys for other servers. create: --name <text> --scope admin|publish:<topics>|read:<topics>|write:<collections>…\n' +
    '      [--expires 90d], as --scope publish:chat:*; the key is shown once. revoke: --id <id>, as list shows it',
  async run([action = '', ...args]) {
    const act = actions[action]
    if (!Object.hasOwn(actions, action) || !act) {
      throw new Fault('invalid', 'say what to do: key create, key list or key revoke')
    }
    const { values, positionals } = parseOptions(`key ${action}`, {
      args,
      options: {
        app: { type: 'string' },
        name: { type: 'string' },
        scope: { type: 'string', multiple: true, default: [] },
        expires: { type: 'string' },
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
  readonly name?: string | undefined
  readonly scope: readonly string[]
  readonly expires?: string | undefined
  readonly id?: string | undefined
}

type Act = (server: LocalServer, wanted: Wanted) => Promise<number>

const actions: Readonly<Record<string, Act>> = {
  async create(server, { name = '', scope, expires }) {
    const ttlMs = expires === undefined ? undefined : parseDurationMs(expires)
    if (expires !== undefined && ttlMs === undefined) {
      throw new Fault('invalid', `--expires ${expires} is no duration like 90d (at most 366d)`)
    }
    const answer = await server.post('/keys', JSON.stringify({ name, scopes: scope, ttlMs }))
    const made = answer as ApiKey & { readonly key: string }
    console.log(made.key)
    console.error(`${lineOf(made)}\nit is not shown again; send it as X-API-Key`)
    return 0
  },
  async list(server) {
    for (const one of (await server.post('/keys/list', '{}')) as ApiKey[]) console.log(lineOf(one))
    return 0
  },
  async revoke(server, { id = '' }) {
    await server.post('/keys/revoke', JSON.stringify({ id }))
    console.log(`revoked: ${id}`)
    return 0
  },
}

/** `0123456789abcdef  ci  publish:chat:*  made 2026-11-21, used never, ends 2027-02-19` */
function lineOf({ id, name, scopes, createdMs, usedMs, expiresMs, revokedMs }: ApiKey): string {
  const ends = expiresMs === undefined ? 'does not end' : endOf(expiresMs)
  const state = revokedMs === undefined ? ends : `revoked ${timeOf(revokedMs)}`
  const use = usedMs === undefined ? 'never used' : `used ${timeOf(usedMs)}`
  return `${id}  ${name}  ${scopes.join(' ')}  made ${timeOf(createdMs)}, ${use}, ${state}`
}

function endOf(ms: number): string {
  return `${ms <= systemClock.now() ? 'ended' : 'ends'} ${timeOf(ms)}`
}

function timeOf(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 16)}Z`
}
