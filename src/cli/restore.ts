/** `belfry restore`: a backup in the place of the database, while no server has the folder. */
import { resolve } from 'node:path'
import { restore as putBack } from '../backup/backup.ts'
import { Fault } from '../fault.ts'
import { systemClock } from '../lib/clock.ts'
import { createLog } from '../observe/log.ts'
import { appSource, parseOptions } from './args.ts'
import type { Verb } from './cli.ts'
import { requireFile, sizeOf, targetOf } from './target.ts'

export const restore: Verb = {
  usage: 'restore <file> <app.ts> | restore <file> --app <name>',
  about: 'check a backup and put it in the place of the database, which is kept beside',
  async run(args) {
    const { values, positionals } = parseOptions('restore', {
      args: [...args],
      options: { app: { type: 'string' } },
      allowPositionals: true,
    })
    const [file, ...rest] = positionals
    if (file === undefined) throw new Fault('invalid', 'say which backup: a file')
    const { plan, config } = await targetOf(appSource(rest, values.app))
    const databaseFile = requireFile('restore', config)
    const log = createLog({ level: 'warn', now: systemClock.now })
    const restored = await putBack(
      { clock: systemClock, log },
      { from: resolve(file), databaseFile, tables: plan.tables },
    )
    console.log(databaseFile)
    console.error(`${sizeOf(restored.bytes)}, up to log entry ${restored.seq}`)
    if (restored.keptAs !== undefined) console.error(`what was there is kept as ${restored.keptAs}`)
    if (restored.orphans > 0) {
      console.error(`${restored.orphans} rows refer to rows that are not there, as they did before`)
    }
    return 0
  },
}
