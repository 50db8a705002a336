/** `belfry token`: a JWT signed with JWT_SECRET, for development and scripts; or one that counts no more. */
import { signToken, type Revocation } from '../auth/auth.ts'
import { readConfig } from '../config.ts'
import { Fault } from '../fault.ts'
import { systemClock } from '../lib/clock.ts'
import { parseDurationMs } from '../lib/duration.ts'
import { appSource, parseOptions } from './args.ts'
import type { Verb } from './cli.ts'
import { findServer, requireServer } from './local.ts'
import { targetOf } from './target.ts'

export const token: Verb = {
  usage:
    'token --sub <id> [--role <role>] [--topics a,b] | --topic <name> [--sub <id>]; [--ttl 1h] [--claims <json>]\n' +
    '  belfry token revoke <app.ts>|--app <name> --jti <id> | --sid <id> | --user <id> [--before <time>]',
  about:
    'sign a token with JWT_SECRET; --topic: to subscribe to that topic only. revoke: tokens count no more on\n' +
    '      any node of the running server, by id, by session, or all of a user issued up to a time (now)',
  async run(args) {
    if (args[0] === 'revoke') return await revoke(args.slice(1))
    const { values } = parseOptions('token', {
      args: [...args],
      options: {
        sub: { type: 'string' },
        role: { type: 'string' },
        topic: { type: 'string' },
        topics: { type: 'string' },
        ttl: { type: 'string', default: '1h' },
        claims: { type: 'string', default: '{}' },
      },
    })
    const { secret, issuers, audiences } = readConfig('belfry').auth
    const [[issuer], [audience]] = [issuers ?? [], audiences ?? []]
    if (secret === undefined) throw new Fault('invalid', 'JWT_SECRET is not set')
    const { sub, role, topic, topics } = values
    if (!sub && topic === undefined) throw new Fault('invalid', 'say whose token: --sub <id>')
    const ttlMs = parseDurationMs(values.ttl)
    if (ttlMs === undefined)
      throw new Fault('invalid', `--ttl ${values.ttl} is no duration like 1h`)
    const claims = {
      ...claimsIn(values.claims),
      ...(sub === undefined ? {} : { sub }),
      ...(role === undefined ? {} : { role }),
      ...(topic === undefined ? {} : { channel: topic }),
      ...(topics === undefined ? {} : { channels: topics.split(',') }),
      ...(issuer === undefined ? {} : { iss: issuer }),
      ...(audience === undefined ? {} : { aud: audience }),
    }
    console.log(await signToken(secret, claims, { nowMs: systemClock.now(), ttlMs }))
    return 0
  },
}

/** `--claims '{"tenant":"acme"}'`: what the app declares besides. */
function claimsIn(text: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return { ...value }
  } catch {}
  throw new Fault('invalid', `--claims must be a JSON object like {"tenant":"acme"}`)
}

async function revoke(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseOptions('token revoke', {
    args: [...args],
    options: {
      app: { type: 'string' },
      jti: { type: 'string' },
      sid: { type: 'string' },
      user: { type: 'string' },
      before: { type: 'string' },
      'expires-at': { type: 'string' },
    },
    allowPositionals: true,
  })
  const { app, 'expires-at': expiresAt, ...rest } = values
  const { plan, config } = await targetOf(appSource(positionals, app))
  const server = requireServer(await findServer(config, plan.name))
  const answer = await server.post('/revoke', JSON.stringify({ ...rest, expiresAt }))
  const { revoked } = answer as { readonly revoked: Revocation }
  const upTo =
    revoked.kind === 'user' ? `, issued up to ${new Date(revoked.atMs).toISOString()}` : ''
  console.log(`revoked: ${revoked.kind} ${revoked.id}${upTo}`)
  return 0
}
