/** `belfry token`: a JWT signed with JWT_SECRET, for development and scripts. */
import { signToken } from '../auth/auth.ts'
import { readConfig } from '../config.ts'
import { Fault } from '../fault.ts'
import { systemClock } from '../lib/clock.ts'
import { parseDurationMs } from '../lib/duration.ts'
import { parseOptions } from './args.ts'
import type { Verb } from './cli.ts'

export const token: Verb = {
  usage:
    'token --sub <id> [--role <role>] [--topics a,b] | --topic <name> [--sub <id>]; [--ttl 1h]',
  about: 'sign a token with JWT_SECRET; --topic: to subscribe to that topic only',
  async run(args) {
    const { values } = parseOptions('token', {
      args: [...args],
      options: {
        sub: { type: 'string' },
        role: { type: 'string' },
        topic: { type: 'string' },
        topics: { type: 'string' },
        ttl: { type: 'string', default: '1h' },
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
