/** What verbs read from their arguments. */
import { parseArgs, type ParseArgsConfig } from 'node:util'
import { Fault } from '../fault.ts'

/** Faults: `invalid` in place of node's `TypeError`, naming the verb. */
export function parseOptions<T extends ParseArgsConfig>(verb: string, config: T) {
  try {
    return parseArgs<T>(config)
  } catch (cause) {
    const detail = cause instanceof Error ? cause.message : String(cause)
    throw new Fault('invalid', detail, { hint: `see: belfry help (${verb})`, cause })
  }
}

/** Which app: a file on disk, or the name of one inside. */
export type AppSource =
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'inside'; readonly name: string }

export function parseAppArgs(verb: string, args: readonly string[]): AppSource {
  const { values, positionals } = parseOptions(verb, {
    args: [...args],
    options: { app: { type: 'string' } },
    allowPositionals: true,
  })
  return appSource(positionals, values.app)
}

/** `name`: of `--app`. */
export function appSource(positionals: readonly string[], name: string | undefined): AppSource {
  const [path, ...rest] = positionals
  if (rest.length > 0)
    throw new Fault('invalid', `one app file, please: ${rest.join(' ')} is too much`)
  if (name !== undefined && path === undefined) return { kind: 'inside', name }
  if (name === undefined && path !== undefined) return { kind: 'file', path }
  throw new Fault('invalid', 'say which app: a file, or --app <name>')
}

/** Of `--keep 7`. Faults: `invalid`. */
export function countOf(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const count = Number(text)
  if (/^\d{1,6}$/.test(text) && count > 0) return count
  throw new Fault('invalid', `--${option} ${text} is no number from 1 on`)
}
