/**
 * The command line: one verb, its options, one answer. stdout has what was asked for, stderr what
 * went wrong and how to mend it; the exit code is 0, 1 (it failed) or 2 (it was called wrongly).
 */
import { Fault, toFault } from '../fault.ts'
import { version } from '../version.ts'
import { backup } from './backup.ts'
import { exportVerb } from './export.ts'
import { health } from './health.ts'
import { importVerb } from './import.ts'
import { key } from './key.ts'
import { migrate } from './migrate.ts'
import { mode } from './mode.ts'
import { plan } from './plan.ts'
import { replay } from './replay.ts'
import { restore } from './restore.ts'
import { serve } from './serve.ts'
import { token } from './token.ts'
import { user } from './user.ts'

export interface Verb {
  readonly usage: string
  readonly about: string
  /** Resolves with the exit code. Throws `Fault`. */
  run(args: readonly string[]): Promise<number>
}

const verbs: Readonly<Record<string, Verb>> = {
  ...{ serve, plan, migrate, token, key, user, mode, health, backup, restore, replay },
  export: exportVerb,
  import: importVerb,
}

export async function run([name = 'help', ...args]: readonly string[]): Promise<number> {
  if (name === 'help' || name === '--help' || name === '-h') return help()
  if (name === 'version' || name === '--version') {
    console.log(`belfry ${version}`)
    return 0
  }
  const verb = Object.hasOwn(verbs, name) ? verbs[name] : undefined
  if (!verb) {
    console.error(`belfry: no verb ${name}\n`)
    help()
    return 2
  }
  if (args.includes('--help') || args.includes('-h')) {
    console.log(`belfry ${verb.usage}\n    ${verb.about}`)
    return 0
  }
  try {
    return await verb.run(args)
  } catch (thrown) {
    return fail(name, thrown)
  }
}

function help(): number {
  const lines = Object.values(verbs).map(({ usage, about }) => `  belfry ${usage}\n      ${about}`)
  console.log(`belfry ${version}\n\n${lines.join('\n')}\n  belfry version\n  belfry help`)
  return 0
}

function fail(name: string, thrown: unknown): number {
  const fault = toFault(thrown)
  console.error(`belfry ${name}: ${fault.message}`)
  for (const { field, message } of fault.fields ?? []) console.error(`  ${field}: ${message}`)
  if (fault.hint !== undefined) console.error(`  hint: ${fault.hint}`)
  // A bug shows where it is; a user's mistake needs no stack.
  if (fault.code === 'internal') console.error(fault.cause ?? fault)
  return thrown instanceof Fault && thrown.code === 'invalid' ? 2 : 1
}
