/** What tests share: folders that vanish, logs that can be read, stores, awaited conditions. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { SQLiteTable } from 'drizzle-orm/sqlite-core'
import { Fault, unwrapped } from '../src/fault.ts'
import { systemClock, type Clock } from '../src/lib/clock.ts'
import type { Log, LogFields, LogLevel } from '../src/observe/log.ts'
import {
  createStore,
  type DatabaseOptions,
  type Store,
  type StoreOptions,
} from '../src/store/store.ts'

/**
 * How long tests wait for a command of Redis: on a busy machine it is late by the usual 100 ms without being away.
 * Tests of what is late say otherwise.
 */
export const patientMs = 10_000

/** On a machine that is busy with other tests no server is to refuse anything for that; tests of overload say otherwise. */
export const calm = { OVERLOAD_MODE: 'normal' }

export interface TempFolder extends Disposable {
  readonly path: string
  file(name: string): string
}

export function tempFolder(): TempFolder {
  const path = mkdtempSync(join(tmpdir(), 'belfry-test-'))
  return {
    path,
    file: (name) => join(path, name),
    [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }),
  }
}

export interface LogLine {
  readonly level: LogLevel
  readonly event: string
  readonly fields: LogFields
}

/** Keeps lines instead of printing them. */
export function createTestLog(): Log & { readonly lines: LogLine[] } {
  const lines: LogLine[] = []
  const at =
    (level: LogLevel) =>
    (event: string, fields: LogFields = {}) =>
      void lines.push({ level, event, fields })
  return { lines, debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}

export interface TestStore extends Store, AsyncDisposable {}

export interface OpenOptions extends Pick<StoreOptions, 'readers' | 'retention'> {
  readonly clock?: Clock
  readonly log?: Log
}

export async function openStore(
  file: string | DatabaseOptions,
  tables: readonly SQLiteTable[],
  options: OpenOptions = {},
): Promise<TestStore> {
  const { clock = systemClock, log = createTestLog(), ...rest } = options
  const store = createStore(
    { clock, log },
    {
      database: typeof file === 'string' ? { kind: 'file', file, replicas: [] } : file,
      tables,
      ...rest,
    },
  )
  try {
    await store.start()
  } catch (cause) {
    await store.stop()
    throw cause
  }
  return { ...store, [Symbol.asyncDispose]: async () => await store.stop() }
}

/** Awaits a condition instead of a time; throws after `timeoutMs`. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what: string,
  timeoutMs = 20_000,
): Promise<void> {
  const deadline = Date.now() + timeoutMs
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`never came true: ${what}`)
    await Bun.sleep(5)
  }
}

/** The fault that `run` ends in, now or later. Anything else that is thrown goes on. */
export async function faultOf(run: () => unknown): Promise<Fault> {
  try {
    await run()
  } catch (thrown) {
    const fault = unwrapped(thrown)
    if (fault instanceof Fault) return fault
    throw thrown
  }
  throw new Error('nothing was thrown')
}
