/** `belfry backup`: by the server if one has the folder, else by this process while it holds the folder. */
import { resolve } from 'node:path'
import {
  backupFolder,
  createBackups,
  listBackups,
  type BackupFile,
  type BackupMade,
  type RunOptions,
} from '../backup/backup.ts'
import { systemClock } from '../lib/clock.ts'
import { createLog } from '../observe/log.ts'
import { snapshotFile, takeFolder } from '../store/store.ts'
import { appSource, countOf, parseOptions } from './args.ts'
import type { Verb } from './cli.ts'
import { findServer } from './local.ts'
import { requireFile, sizeOf, targetOf, type Target } from './target.ts'

export const backup: Verb = {
  usage: 'backup <app.ts>|--app <name> [--to <folder>] [--keep <n>] [--list]',
  about:
    'write a verified, compressed copy of the database, served or not; --list: those there are',
  async run(args) {
    const { values, positionals } = parseOptions('backup', {
      args: [...args],
      options: {
        app: { type: 'string' },
        to: { type: 'string' },
        keep: { type: 'string' },
        list: { type: 'boolean', default: false },
      },
      allowPositionals: true,
    })
    const keep = countOf('keep', values.keep)
    const target = await targetOf(appSource(positionals, values.app))
    const folder = values.to === undefined ? undefined : resolve(values.to)
    if (values.list) return await list(target, folder)
    const made = await make(target, { folder, keep })
    const seconds = (made.tookMs / 1000).toFixed(1)
    console.log(made.path)
    console.error(
      `${sizeOf(made.databaseBytes)} as ${sizeOf(made.bytes)}, up to log entry ${made.seq}, in ${seconds} s`,
    )
    return 0
  },
}

async function list({ plan, config }: Target, to: string | undefined): Promise<number> {
  const folder = to ?? backupFolder(requireFile('backup', config), plan.backup)
  const line = ({ path, atMs, bytes, seq }: BackupFile) =>
    `${new Date(atMs).toISOString()}  ${sizeOf(bytes).padStart(9)}  log ${seq}  ${path}`
  for (const one of await listBackups(folder, plan.name)) console.log(line(one))
  return 0
}

async function make({ plan, config }: Target, options: RunOptions): Promise<BackupMade> {
  const databaseFile = requireFile('backup', config)
  const server = await findServer(config, plan.name)
  if (server) return (await server.post('/backup', JSON.stringify(options))) as BackupMade
  const clock = systemClock
  const log = createLog({ level: 'warn', now: clock.now })
  const snapshot = (to: string) => snapshotFile({ clock }, { file: databaseFile, to })
  // As it is stored: a backup before an upgrade must not be upgraded first, so no store is started.
  const release = takeFolder(config.database)
  try {
    return await createBackups(
      { snapshot, clock, log },
      { app: plan.name, databaseFile, plan: plan.backup },
    ).run(options)
  } finally {
    release()
  }
}
