/**
 * `belfry serve` that admits few: a child of restart.test.ts, where three hundred clients are to be a storm.
 * `bun restart-node.ts <connects per second> <at once> serve <app.ts>`.
 */
import { readConfig } from '../../src/config.ts'
import { parseAppArgs } from '../../src/cli/args.ts'
import { loadApp } from '../../src/cli/load.ts'
import { compilePlan } from '../../src/plan/plan.ts'
import { startServer } from '../../src/server.ts'

const [, , perSecond = '', burst = '', , file = ''] = process.argv
const plan = compilePlan(await loadApp(parseAppArgs('serve', [file])))
const config = readConfig(plan.name)
const limits = { connectsPerSecond: Number(perSecond), connectsBurst: Number(burst) }
const server = await startServer({
  plan,
  config: { ...config, connections: { ...config.connections, ...limits } },
})
console.log(`${plan.name} is live at ${server.url}`)
process.once('SIGTERM', () => void server.stop().then(() => process.exit(0)))
