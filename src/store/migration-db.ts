/** The small port that migrations work over, so that they know neither threads nor networks. */
import { existsSync } from 'node:fs'
import type { Clock } from '../lib/clock.ts'
import type { RawRow, ThreadOptions } from './messages.ts'
import { openThread, takeFolder, type DatabaseOptions } from './places.ts'
import type { ThreadClient } from './thread-client.ts'

export interface MigrationTx {
  rows(sql: string): Promise<readonly RawRow[]>
  run(sql: string): Promise<void>
}

export interface MigrationDb {
  /**
   * BEGIN IMMEDIATE … COMMIT on the writer, rolled back if `run` throws. `foreignKeys: 'off'` is set
   * before BEGIN and restored after: inside a transaction the pragma does nothing, and a table rebuild
   * would then delete every child row that cascades.
   */
  exclusively<T>(
    run: (tx: MigrationTx) => Promise<T>,
    options?: { readonly foreignKeys: 'off' },
  ): Promise<T>
}

export interface OpenMigrationDb {
  readonly db: MigrationDb
  stop(): Promise<void>
}

/**
 * For the command line. To write takes a file's folder for this process; to look does not, changes and
 * makes nothing, and is no transaction.
 * Faults: `unavailable` if another process holds the folder, or the database cannot be opened.
 */
export async function openMigrationDb(
  deps: { readonly clock: Clock },
  database: DatabaseOptions,
  access: 'look' | 'write',
): Promise<OpenMigrationDb> {
  const isWrite = access === 'write'
  const release = isWrite && database.kind === 'file' ? takeFolder(database) : () => {}
  try {
    const options = threadOptions(database, isWrite)
    const thread = await openThread(options, {
      clock: deps.clock,
      onDeath: () => {},
      isPatient: isWrite,
    })
    return {
      db: isWrite ? migrationDbOn(thread) : lookingDbOn(thread),
      async stop() {
        await thread.stop()
        release()
      },
    }
  } catch (thrown) {
    release()
    throw thrown
  }
}

function threadOptions(database: DatabaseOptions, isWrite: boolean): ThreadOptions {
  if (database.kind === 'remote') return { role: 'remote', ...database.primary }
  const { file } = database
  if (isWrite) return { role: 'writer', file }
  // Opening a file that is not there would make it.
  return { role: 'reader', file: existsSync(file) ? file : ':memory:' }
}

function migrationDbOn(thread: ThreadClient): MigrationDb {
  const rows = async (sql: string): Promise<readonly RawRow[]> => {
    const answer = await thread.ask({ kind: 'run', query: { sql, params: [] } })
    return 'rows' in answer ? answer.rows : []
  }
  const end = (how: 'commit' | 'rollback') =>
    thread.ask({ kind: 'end', how, after: Number.MAX_SAFE_INTEGER })
  return {
    async exclusively(run, options) {
      const foreignKeys = options?.foreignKeys ?? 'on'
      await thread.ask({ kind: 'begin', foreignKeys, isUnbounded: true })
      try {
        const result = await run({ rows, run: async (sql) => void (await rows(sql)) })
        await end('commit')
        return result
      } catch (thrown) {
        // The reason to tell is the first one.
        await end('rollback').catch(() => undefined)
        throw thrown
      }
    },
  }
}

function lookingDbOn(thread: ThreadClient): MigrationDb {
  const rows = async (sql: string): Promise<readonly RawRow[]> => {
    const answer = await thread.ask({ kind: 'read', query: { sql, params: [] } })
    return 'rows' in answer ? answer.rows : []
  }
  return { exclusively: (run) => run({ rows, run: async (sql) => void (await rows(sql)) }) }
}
