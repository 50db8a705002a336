/** `belfry serve`: an app file from disk, or one that ships inside, served until a signal. */
import { readConfig, type Config } from '../config.ts'
import { systemClock } from '../lib/clock.ts'
import { createLog } from '../observe/log.ts'
import { compilePlan } from '../plan/plan.ts'
import { startServer } from '../server.ts'
import type { Verb } from './cli.ts'
import { loadApp } from './load.ts'
import { parseAppArgs } from './args.ts'

export const serve: Verb = {
  usage: 'serve <app.ts> | serve --app <name>',
  about: 'serve an app file, or an app that ships inside (community, energy, exams, radio, tokens)',
  async run(args) {
    const plan = compilePlan(await loadApp(parseAppArgs('serve', args)))
    const config = readConfig(plan.name)
    const log = createLog({ level: config.logLevel, now: systemClock.now })
    // A promise that an app's own code dropped must not take everybody's connections down.
    process.on('unhandledRejection', (error) => log.error('app.unhandled_rejection', { error }))
    const server = await startServer({ plan, config, log })
    const first = plan.collections[0]
    console.log(`${plan.name} is live at ${server.url}
  data      ${whereIs(config.database)}
  health    curl ${server.url}/api/health${first ? `\n  read      curl -i ${server.url}/api/${first.path}` : ''}
  stop      ctrl-c`)
    await signalled()
    await server.stop()
    return 0
  },
}

function whereIs(database: Config['database']): string {
  if (database.kind === 'file') return database.file
  const { host } = new URL(database.primary.url)
  return database.replicaFile === undefined ? host : `${host}, replica ${database.replicaFile}`
}

function signalled(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve())
  })
}
