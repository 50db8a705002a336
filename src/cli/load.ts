/**
 * Loading an app. A file outside the binary imports `belfry`, `drizzle-orm`,
 * `drizzle-orm/sqlite-core` and `elysia`: these resolve to this binary's own copies, so that a table
 * made there is a table here, and no node_modules is needed. Relative imports work as they are.
 */
import * as drizzle from 'drizzle-orm'
import * as sqliteCore from 'drizzle-orm/sqlite-core'
import * as elysia from 'elysia'
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import community from '../apps/community.ts'
import energy from '../apps/energy.ts'
import exams from '../apps/exams.ts'
import radio from '../apps/radio.ts'
import tokens from '../apps/tokens.ts'
import { Fault } from '../fault.ts'
import * as kit from '../kit.ts'
import type { AppSource } from './args.ts'

/** Apps that ship inside the binary. */
const inside: Readonly<Record<string, unknown>> = { community, energy, exams, radio, tokens }

/** Exact names only: Bun's `onResolve` does not see bare specifiers of files loaded at run time (bun#40397). */
const virtual: Readonly<Record<string, object>> = {
  belfry: kit,
  'drizzle-orm': drizzle,
  'drizzle-orm/sqlite-core': sqliteCore,
  elysia,
}

/** The app file's default export, unchecked. Faults: `invalid`, `not_found`. */
export async function loadApp(source: AppSource): Promise<unknown> {
  if (source.kind === 'inside') {
    if (Object.hasOwn(inside, source.name)) return inside[source.name]
    const names = Object.keys(inside).join(', ')
    throw new Fault('not_found', `no app ${source.name} is inside (there is: ${names})`)
  }
  const path = resolve(source.path)
  if (!existsSync(path)) throw new Fault('not_found', `there is no app file at ${path}`)
  serveVirtualModules()
  let module: { readonly default?: unknown }
  try {
    module = (await import(path)) as typeof module
  } catch (cause) {
    const detail = cause instanceof Error ? cause.message : String(cause)
    throw new Fault('invalid', `the app file cannot be loaded: ${detail}`, {
      hint: `an app file may import ${Object.keys(virtual).join(', ')} and relative files`,
      cause,
    })
  }
  return module.default
}

let isServing = false

function serveVirtualModules(): void {
  if (isServing) return
  isServing = true
  Bun.plugin({
    name: 'belfry',
    setup(build) {
      for (const [name, exports] of Object.entries(virtual)) {
        build.module(name, () => ({ exports: { ...exports }, loader: 'object' }))
      }
    },
  })
}
