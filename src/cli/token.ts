/** `belfry token`: a JWT signed with JWT_SECRET, for development and scripts. */
import { signToken } from '../auth/auth.ts'
import { readConfig } from '../config.ts'
import { Fault } from '../fault.ts'
import { systemClock } from '../lib/clock.ts'
import { parseDurationMs } from '../lib/duration.ts'
import { parseOptions } from './args.ts'
import type { Verb } from './cli.ts'

export const token: Verb = {
  usage: 'token --sub <id> [--role <role>] [--ttl 1h]',
  about: 'sign a token with JWT_SECRET',
  async run(args) {
    const { values } = parseOptions('token', {
      args: [...args],
      options: {
        sub: { type: 'string' },
        role: { type: 'string' },
        ttl: { type: 'string', default: '1h' },
      },
    })
    const { secret, issuer, audience } = readConfig('belfry').auth
    if (secret === undefined) throw new Fault('invalid', 'JWT_SECRET is not set')
    if (!values.sub) throw new Fault('invalid', 'say whose token: --sub <id>')
    const ttlMs = parseDurationMs(values.ttl)
    if (ttlMs === undefined)
      throw new Fault('invalid', `--ttl ${values.ttl} is no duration like 1h`)
    const claims = {
      sub: values.sub,
      ...(values.role === undefined ? {} : { role: values.role }),
      ...(issuer === undefined ? {} : { iss: issuer }),
      ...(audience === undefined ? {} : { aud: audience }),
    }
    console.log(await signToken(secret, claims, { nowMs: systemClock.now(), ttlMs }))
    return 0
  },
}
